"""Commands that show pages in a browser on this computer."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console, out_console

if TYPE_CHECKING:
    from crossfer.app import Page

command = partial(app.command, rich_help_panel="Use")

Port = Annotated[int, typer.Option(help="On this computer; 0: any free one.")]
Browser = Annotated[bool, typer.Option("--open", help="Open the address in the browser.")]


@command("app")
def show_app(
    what: Annotated[
        list[Path],
        typer.Argument(
            help="Classifiers, the old one first: a run, a bundle, an exported classifier, an ONNX file, or "
            "YAML as under model:. Or a finished experiment. Or what `crossfer compare --json` wrote."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Prepared dataset on whose test images two classifiers are compared, or a comparison was "
            "made; repeat at will."
        ),
    ] = None,
    smallest: Annotated[
        float,
        typer.Option(help="Side of the smallest face to look for, as a share of the picture's."),
    ] = 0.1,
    port: Port = 8765,
    browser: Browser = False,
) -> None:
    """Look at classifiers in the browser: try them on a photo or the webcam, see the faces that changed.

    Only this computer can open the pages; pictures stay here, and none is stored.

    Example:  crossfer app deployed exported --data data/mine

    Example:  crossfer app runs/fer2013-ck48
    """
    from crossfer.app.opening import pages_of
    from crossfer.cli.bars import Bars

    with Bars(error_console) as bars:
        pages = pages_of(what, data or (), smallest, partial(bars.count, "compare"))
    show(pages, port, browser)


def show(pages: Sequence[Page], port: int, browser: bool) -> None:
    """Show pages until Ctrl-C, and say where; open them in a browser if that is asked for."""
    from crossfer.app import serve

    def ready(address: str) -> None:
        out_console.print(f"open {address}\nonly this computer can; Ctrl-C stops", soft_wrap=True)
        if browser:
            webbrowser.open(address)

    try:
        serve(pages, port, ready)
    except KeyboardInterrupt:
        out_console.print("stopped")

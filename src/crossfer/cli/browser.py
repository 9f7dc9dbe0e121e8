"""Commands that show pages in a browser on this computer."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console
from crossfer.cli.options import SmallestOption, TrustOption
from crossfer.cli.output import say
from crossfer.framing import SMALLEST

if TYPE_CHECKING:
    from crossfer.app import Page

command = partial(app.command, rich_help_panel="Use")

Port = Annotated[int, typer.Option(help="Port on this computer; 0 picks a free one.")]
PORT = 8765
Browser = Annotated[bool, typer.Option("--open", help="Open the address in the browser.")]


@command("app")
def show_app(
    what: Annotated[
        list[Path],
        typer.Argument(
            help=(
                "Classifiers, the old one first: runs, bundles, exported classifiers, ONNX files, "
                "or YAML files with the keys of model:. Or a finished experiment, or the output "
                "of `crossfer compare --json`."
            )
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Prepared dataset on whose test images the classifiers are compared. Repeatable."
        ),
    ] = None,
    smallest: SmallestOption = SMALLEST,
    port: Port = PORT,
    browser: Browser = False,
    trust: TrustOption = False,
) -> None:
    """Try classifiers in the browser, on a photo or the webcam, and see the faces whose prediction changed.

    Only this computer can open the pages. Pictures are not stored or sent anywhere.

    Example:  crossfer app deployed exported --data data/mine

    Example:  crossfer app runs/fer2013-ck48
    """
    from crossfer.app.opening import pages_of
    from crossfer.cli.bars import Bars

    with Bars(error_console) as bars:
        pages = pages_of(what, data or (), smallest, partial(bars.count, "compare"), trust)
    show(pages, port, browser)


def show(pages: Sequence[Page], port: int, browser: bool) -> None:
    """Show pages until Ctrl-C, and say where; open them in a browser if that is asked for."""
    from crossfer.app import serve

    def ready(address: str) -> None:
        say(f"open {address}\n(this computer only; stop with Ctrl-C)")
        if browser:
            webbrowser.open(address)

    try:
        serve(pages, port, ready)
    except KeyboardInterrupt:
        say("stopped")

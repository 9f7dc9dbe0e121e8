"""Commands that show pages in a browser on this computer."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossfer.cli.application import out_console

if TYPE_CHECKING:
    from crossfer.app import Page


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

"""The application that all commands belong to, and how errors end it."""

from __future__ import annotations

import errno
import inspect
import os
import re
import signal
import sys
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from crossfer.errors import CrossferError
from crossfer.extras import needed
from crossfer.processor import spin_briefly


class _Output(Console):
    """A terminal, or a program to which the output is piped and which may end early, such as ``head``."""

    def on_broken_pipe(self) -> None:
        """Go on in silence: a command does more than print."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


out_console = _Output(highlight=False, markup=False, emoji=False)
error_console = _Output(stderr=True, highlight=False, emoji=False)  # :two: is a name, too


class _Stoppable(TyperGroup):
    """All commands; stopped by Ctrl-C, each says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            error_console.print("stopped; run the same command again to resume")
            raise typer.Exit(130) from None


class _Command(TyperCommand):
    """A command; an option that is given twice is refused, since the first value would have no effect."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        rest = super().parse_args(ctx, args)
        for option in given:
            once = option.param_type_name == "option" and not getattr(option, "multiple", False)
            if once and given.count(option) > 1:
                names = " or ".join([*option.opts, *option.secondary_opts])
                raise CrossferError(f"{names}: given twice; leave one out")
        return rest


app = typer.Typer(
    name="crossfer",
    cls=_Stoppable,
    help=(
        "Update a facial-expression model on new faces without making it forget, with reliable "
        "measurements.\n\nStart with:  [bold]crossfer demo[/]"
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out_console.print(f"crossfer {version('crossfer')}")
        raise typer.Exit


@app.callback()
def _application(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Every command belongs to it."""


def set_up() -> None:
    """Set the class of every command, and its help: its docstring with one line per paragraph."""
    for command in app.registered_commands:
        command.cls = _Command
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command.callback) or "")


def _stop(number: int, frame: Any) -> None:
    """Stop cleanly, and the next time at once."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


ON_DISK = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is exceeded; free some space and run the same command again",
    errno.EROFS: "the disk is read-only; name another folder",
    errno.EACCES: "permission denied; name another folder, or change its permissions",
    errno.EPERM: "permission denied; name another folder, or change its permissions",
    errno.ENOTDIR: "expected a folder, found a file; name another folder",
    errno.EISDIR: "expected a file, found a folder; name another file",
    errno.ENOENT: (
        "no such file or folder; if it was removed, restore it and run the same command again"
    ),
}


def _in_words(error: CrossferError | OSError) -> str:
    """Return one line: what the system refused, and what to do."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in ON_DISK:
        named = f"{error.filename}: " if error.filename else ""
        text = f"{named}{ON_DISK[error.errno]} ({error.strerror})"
    return " ".join(text.split())


EXTRAS = {"export": ("deploy",), "label": ("app", "train")}
"""Extras that a command needs in any case: named together, not one after the other."""


def main() -> None:
    """Run the command line; what the user can mend is one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows may not know −, nor a file's name
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGINT, _stop)
    spin_briefly()
    try:
        app()
    except (CrossferError, OSError) as error:
        _end(_in_words(error))
    except ModuleNotFoundError as error:
        why = needed(error, EXTRAS.get(sys.argv[1], ()))
        if why is None:
            raise
        _end(why)


def _end(why: str) -> NoReturn:
    error_console.print("[red]error:[/] ", end="")
    error_console.print(why, markup=False, soft_wrap=True)
    sys.exit(2)

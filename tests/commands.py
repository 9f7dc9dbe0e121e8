"""The command line, called in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.errors import CrossferError


def crossfer(*arguments: object) -> Any:
    """Run a command."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Return the one line with which a command is refused."""
    error = crossfer(*arguments).exception
    assert isinstance(error, CrossferError), error
    assert "\n" not in str(error)
    return str(error)

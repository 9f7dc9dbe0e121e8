"""The command line: thin faces over the public API, a file for each kind of command."""

from crossfer.cli import experiments, faces, audit, decisions, comparison  # noqa: F401, I001  in the order of the help
from crossfer.cli import deployment, browser, labelling  # noqa: F401
from crossfer.cli.application import app, main

__all__ = ["app", "main"]

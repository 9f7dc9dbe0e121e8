"""The command line: a thin layer over the public API, a file for each kind of command."""

# ruff: noqa: F401, I001  imported in the order of the help
from crossfer.cli import experiments
from crossfer.cli import memory
from crossfer.cli import faces
from crossfer.cli import labelling
from crossfer.cli import audit
from crossfer.cli import assessment
from crossfer.cli import decisions
from crossfer.cli import comparison
from crossfer.cli import deployment
from crossfer.cli import browser
from crossfer.cli.application import app, main, set_up

__all__ = ["app", "main"]

set_up()

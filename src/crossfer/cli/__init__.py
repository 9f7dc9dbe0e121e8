"""The command line: thin faces over the public API, a file for each kind of command."""

from crossfer.cli import (
    assessment,
    audit,
    comparison,
    decisions,
    deployment,
    experiments,
    faces,
    memory,
)  # noqa: F401, I001  in the order of the help
from crossfer.cli.application import app, main

__all__ = ["app", "main"]

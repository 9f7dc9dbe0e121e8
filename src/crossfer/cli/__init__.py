"""The command line: thin faces over the public API, a file for each kind of command."""
# ruff: noqa: F401, I001  (in the order of the help)

from crossfer.cli import (
    experiments,
    memory,
    faces,
    audit,
    decisions,
    assessment,
    comparison,
    deployment,
)
from crossfer.cli.application import app, main

__all__ = ["app", "main"]

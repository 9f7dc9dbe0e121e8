"""Tests of what users are promised."""

IMPORTED = (
    "crossfer.experiment",
    "crossfer.report",
    "crossfer.cli",
    "crossfer.training.backends.loaded",
)
"""What a process imports once, from which processes are forked that users' would import anew."""

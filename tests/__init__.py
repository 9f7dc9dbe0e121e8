"""Tests of what users are promised."""

IMPORTED = (
    "crossfer.experiment",
    "crossfer.report",
    "crossfer.cli",
    "crossfer.training.backends.loaded",
    "torch.fx.experimental.symbolic_shapes",  # `torch.func` wants it
)
"""What a process imports once, from which processes are forked that users' would import anew."""

"""Load at once what backends load when they are first used, for a process from which workers are forked."""

from __future__ import annotations

from crossfer.training.backends.cpu import loaded

__all__ = ["loaded"]

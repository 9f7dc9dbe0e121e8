"""Progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

Told = Callable[[int, int], None]
"""Told how many of how many are done."""


def silent(done: int, total: int) -> None:
    """Say nothing."""

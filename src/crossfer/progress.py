"""Progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with the numbers of items done and in total."""


def silent(done: int, total: int) -> None:
    """Do nothing."""

"""Keyboard keys of the classes."""

from __future__ import annotations

from collections.abc import Sequence

from crossfer.errors import CrossferError

KEYS = "123456789abcdefghijklmnopqrstuvwyz"
"""Digits lie on every keyboard; ``0`` and ``x`` are others' (see `OTHERS`)."""
OTHERS = {"accept": "Enter", "skip": "Space", "not a face": "x", "undo": "Backspace"}
"""Keys of what is no class."""


def keys_of(classes: Sequence[str]) -> dict[str, str]:
    """Give each class a key, in order.

    Raises
    ------
    CrossferError
        If there are more classes than keys.
    """
    if len(classes) > len(KEYS):
        raise CrossferError(
            f"{len(classes)} classes: there are keys for at most {len(KEYS)}; use fewer classes"
        )
    return dict(zip(KEYS, classes, strict=False))

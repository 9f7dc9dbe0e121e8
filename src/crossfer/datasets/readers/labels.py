"""What a dataset's own labels mean."""

from __future__ import annotations

from collections.abc import Mapping

from crossfer.classes import FER7, NO_EXPRESSION, canonical, comparable, is_known
from crossfer.errors import CrossferError

FER2013_CODES = frozenset("0123456")
"""Digits mean FER2013's order, unless the user maps a digit: then every digit is the user's to map."""


def check_label_map(label_map: Mapping[str, str | None]) -> None:
    """Refuse a translation into what is no name.

    Raises
    ------
    CrossferError
        If a class to translate into has no letter in its name.
    """
    for theirs, ours in label_map.items():
        if ours is not None and not any(letter.isalpha() for letter in ours):
            raise CrossferError(f"labels: {theirs}={ours}: {ours!r} is not the name of a class")


def label_of(name: str, label_map: Mapping[str, str | None] | None = None) -> str | None:
    """Translate a dataset's own class name.

    Parameters
    ----------
    name
        The class as the dataset writes it, see `comparable`.
    label_map
        The user's own translation, asked first: from the dataset's name to the name it gets, or to
        ``None`` for a class to leave out.

    Returns
    -------
    str or None
        The name as `canonical` spells it; ``None`` for a class to leave out.

    Raises
    ------
    CrossferError
        If the name is unknown.
    """
    key = comparable(name)
    own = {comparable(theirs): ours for theirs, ours in (label_map or {}).items()}
    by_name = {canonical(theirs): ours for theirs, ours in own.items()}
    if key in own or canonical(name) in by_name:
        translated = own[key] if key in own else by_name[canonical(name)]
        label = None if translated is None else canonical(translated)
        return None if label in NO_EXPRESSION else label
    if is_known(name):
        label = canonical(name)
        return None if label in NO_EXPRESSION else label
    code = key.removesuffix(".0")
    if code in FER2013_CODES and not FER2013_CODES & own.keys():
        return FER7[int(code)]
    raise CrossferError(
        f"unknown class {str(name)!r}; known by name are {', '.join(FER7)}, contempt; "
        "name yours with --label THEIRS=NAME (or THEIRS= to leave a class out)"
    )

"""The seven classes of the study, and the names and codes other people use for them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from crossfer.errors import CrossferError

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven classes in FER2013's order: a label is an index into this tuple."""

SYNONYMS: Mapping[str, str] = {
    **{name: name for name in EMOTIONS},
    "anger": "angry",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
"""Class names seen in the field, in lower case, and the class each one means."""

NOT_OURS = frozenset({"contempt", "contemptuous", "none", "uncertain", "unknown", "nf", "no-face"})
"""Class names that are known and are none of the seven: left out, and counted."""


FER2013_CODES = frozenset("0123456")
"""Digits mean FER2013's order, unless the user maps a digit: then every digit is the user's to map."""


def comparable(name: object) -> str:
    """Return a class's name as it is compared: without case, outer spaces and ways to store an accent."""
    return unicodedata.normalize("NFC", str(name)).strip().lower()


def check_label_map(label_map: Mapping[str, str | None]) -> None:
    """Refuse a translation into something that is none of our classes.

    Raises
    ------
    CrossferError
        If a class to translate into is unknown.
    """
    for theirs, ours in label_map.items():
        if ours is not None and comparable(ours) not in SYNONYMS.keys() | NOT_OURS:
            raise CrossferError(
                f"labels: {theirs}={ours}: {ours!r} is none of {', '.join(EMOTIONS)}"
            )


def label_of(name: str, label_map: Mapping[str, str | None] | None = None) -> int | None:
    """Translate a dataset's own class name into a label.

    Parameters
    ----------
    name
        The class as the dataset writes it, see `comparable`.
    label_map
        The user's own translation, asked first: from the dataset's name to one of `EMOTIONS` (or a
        synonym of it), or to ``None`` for a class to leave out.

    Returns
    -------
    int or None
        0–6 in the order of `EMOTIONS`; ``None`` for a class that is known to be none of the seven.

    Raises
    ------
    CrossferError
        If the name is unknown.
    """
    key = comparable(name)
    own = {comparable(theirs): ours for theirs, ours in (label_map or {}).items()}
    if key in own:
        translated = own[key]
        if translated is None:
            return None
        key = comparable(translated)
    if key in NOT_OURS:
        return None
    if key in SYNONYMS:
        return EMOTIONS.index(SYNONYMS[key])
    code = key.removesuffix(".0")
    if code in FER2013_CODES and not FER2013_CODES & own.keys():
        return int(code)
    raise CrossferError(
        f"unknown class {str(name)!r}: the classes are {', '.join(EMOTIONS)}; "
        "map others with --label THEIRS=OURS (or THEIRS= to leave a class out)"
    )

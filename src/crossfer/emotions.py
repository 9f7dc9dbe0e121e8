"""The seven classes of the study, and the names and codes other people use for them."""

from __future__ import annotations

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


def label_of(name: str, label_map: Mapping[str, str | None] | None = None) -> int | None:
    """Translate a dataset's own class name into a label.

    Parameters
    ----------
    name
        The class as the dataset writes it; case and surrounding spaces do not matter.
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
    key = str(name).strip().lower()
    own = {str(k).strip().lower(): v for k, v in (label_map or {}).items()}
    if key in own:
        translated = own[key]
        if translated is None:
            return None
        key = translated.strip().lower()
    if key in NOT_OURS:
        return None
    if key in SYNONYMS:
        return EMOTIONS.index(SYNONYMS[key])
    if not own and key.isdigit() and int(key) < len(EMOTIONS):
        return int(key)
    raise CrossferError(
        f"unknown class {str(name)!r}: the classes are {', '.join(EMOTIONS)}; "
        "map others with --label THEIRS=OURS (or THEIRS= to leave a class out)"
    )

"""Names of facial expressions: spellings, class sets, and maps from labels to classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from crossfer.errors import CrossferError

FER7 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven classes of the study, in FER2013's order."""

FER8 = (*FER7, "contempt")
"""The eight classes of AffectNet and FER+."""

RAFDB11 = (
    "happily surprised",
    "happily disgusted",
    "sadly fearful",
    "sadly angry",
    "sadly surprised",
    "sadly disgusted",
    "fearfully angry",
    "fearfully surprised",
    "angrily surprised",
    "angrily disgusted",
    "disgustedly surprised",
)
"""RAF-DB's compound expressions, in the order of its numbers 1–11."""

NO_EXPRESSION = frozenset({"none", "uncertain", "unknown", "no-face"})
"""Labels of pictures without an expression; they are left out and counted."""

UNLABELLED = "unlabelled"
"""The label of unlabelled pictures, which are kept and have no class."""

SYNONYMS: Mapping[str, str] = {
    **{name: name for name in (*FER8, *RAFDB11, *NO_EXPRESSION, UNLABELLED)},
    "anger": "angry",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "digust": "disgust",
    "disguist": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "happyness": "happy",
    "happines": "happy",
    "joy": "happy",
    "sadness": "sad",
    "saddness": "sad",
    "surprised": "surprise",
    "suprise": "surprise",
    "suprised": "surprise",
    "surprize": "surprise",
    "neutrality": "neutral",
    "nuetral": "neutral",
    "netural": "neutral",
    "contemptuous": "contempt",
    "contemptous": "contempt",
    "contemp": "contempt",
    "no face": "no-face",
    "noface": "no-face",
    "non face": "no-face",
    "nf": "no-face",
    "unlabeled": UNLABELLED,
}
"""Known spellings, in lower case with single spaces, and the canonical name of each."""

SEPARATORS = re.compile(r"[\s_-]+")
NUMBER_BEFORE = re.compile(r"\d+[\s.):]*(?=\D)")


def comparable(name: object) -> str:
    """Return a name in lower case, stripped, with composed accents, for comparison."""
    return unicodedata.normalize("NFC", str(name)).strip().lower()


def canonical(name: object) -> str:
    """Return the canonical spelling of a class.

    Case, separators, a leading number, synonyms and frequent misspellings are normalised: ``0_Angry`` and
    ``Anger`` are ``angry``.  An unknown name is returned in lower case with single spaces: ``Very_bored`` is
    ``very bored``.
    """
    text = comparable(name)
    plain = SEPARATORS.sub(" ", text).strip()
    for spelling in (plain, NUMBER_BEFORE.sub("", plain, count=1)):
        if spelling in SYNONYMS:
            return SYNONYMS[spelling]
    return plain if any(map(str.isalpha, plain)) else text  # -1 is no 1


def is_known(name: object) -> bool:
    """Tell whether a name is known, in any spelling."""
    return canonical(name) in SYNONYMS


def in_order(names: Iterable[str]) -> list[str]:
    """Return distinct names: those of `FER8` and `RAFDB11` in this order, then others alphabetically."""
    known = [*FER8, *RAFDB11]
    place = {name: index for index, name in enumerate(known)}
    return sorted(set(names), key=lambda name: (place.get(name, len(known)), name))


@dataclass(frozen=True)
class ClassSet:
    """The classes of a classifier, and the labels of each.

    Parameters
    ----------
    names
        The classes in the order of their indices.
    members
        Maps a label to its class; a missing label belongs to no class.
    """

    names: tuple[str, ...]
    members: Mapping[str, str]

    @classmethod
    def of(cls, value: str | Sequence[str] | Mapping[str, Any] | ClassSet) -> ClassSet:
        """Read a class set from a configuration.

        Parameters
        ----------
        value
            The name of a preset in `PRESETS`; a list of classes that are also their labels; or a mapping from
            each class to its label or labels.

        Raises
        ------
        CrossferError
            If a class has no name or is listed twice, there are fewer than two, a label belongs to two
            classes, or a class has no label.
        """
        if isinstance(value, ClassSet):
            return value
        if isinstance(value, str):
            if value not in PRESETS:
                raise CrossferError(
                    f"classes: {value!r} is unknown; choose {', '.join(PRESETS)}, or write a list "
                    "of names, or a mapping NAME: [LABELS]"
                )
            return PRESETS[value]
        if not isinstance(value, (Mapping, Sequence)):
            raise CrossferError("classes: write a preset, a list of names, or NAME: [LABELS]")
        written = value.items() if isinstance(value, Mapping) else [(name, name) for name in value]
        pairs = [(_name(name), _labels(labels)) for name, labels in written]
        names = tuple(name for name, _ in pairs)
        for name, labels in pairs:
            if not name:
                raise CrossferError("classes: one has no name; remove it, or a comma too many")
            if names.count(name) > 1:
                raise CrossferError(f"classes: {name} is listed twice; remove one")
            if not labels:
                raise CrossferError(
                    f"classes: {name} has no label; write {name}: [LABEL, …], or remove the class"
                )
        if len(names) < 2:
            raise CrossferError(f"classes: {', '.join(names) or 'none'}; at least two are needed")
        members: dict[str, str] = {}
        for name, labels in pairs:
            for label in labels:
                if (other := members.setdefault(label, name)) != name:
                    raise CrossferError(
                        f"classes: {label} is listed under {other} and {name}; remove one"
                    )
        return cls(names, members)

    @classmethod
    def each(cls, names: Iterable[str]) -> Self:
        """Return a class set in which every label is a class."""
        ordered = tuple(names)
        return cls(ordered, {name: name for name in ordered})

    def __len__(self) -> int:
        return len(self.names)

    def __hash__(self) -> int:
        return hash((self.names, frozenset(self.members.items())))

    def index_of(self, label: str) -> int | None:
        """Return the index of the class that a label belongs to, or ``None``."""
        name = self.members.get(label)
        return None if name is None else self.names.index(name)

    def labels_of(self, name: str) -> list[str]:
        """Return the labels that belong to a class."""
        return [label for label, own in self.members.items() if own == name]

    @property
    def meaning(self) -> list[list[str | list[str]]]:
        """Each class in order with its sorted labels, as values for JSON."""
        return [[name, sorted(self.labels_of(name))] for name in self.names]

    def as_config(self) -> str | list[str] | dict[str, list[str]]:
        """Return the set as written in a configuration; `of` reads it."""
        for preset, classes in PRESETS.items():
            if self == classes:
                return preset
        if self == ClassSet.each(self.names):
            return list(self.names)
        return {name: self.labels_of(name) for name in self.names}


PRESETS: dict[str, ClassSet] = {
    "fer7": ClassSet.each(FER7),
    "fer8": ClassSet.each(FER8),
    "valence3": ClassSet(
        ("negative", "neutral", "positive"),
        {
            **dict.fromkeys(("angry", "sad", "fear", "disgust", "contempt"), "negative"),
            "neutral": "neutral",
            "happy": "positive",
        },
    ),
    "rafdb11": ClassSet.each(RAFDB11),
}
"""The usual class sets, by name.  ``valence3`` leaves surprise out, which may be either."""


def _name(value: object) -> str:
    name = canonical(value)
    if not isinstance(value, str) or not name or name in (*NO_EXPRESSION, UNLABELLED):
        raise CrossferError(
            f"classes: {value!r} is not a valid class name; write a word, in quotes where YAML "
            "reads something else (1, yes, no, on, off)"
        )
    return name


def _labels(value: object) -> list[str]:
    listed = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return list(dict.fromkeys(_name(label) for label in listed))

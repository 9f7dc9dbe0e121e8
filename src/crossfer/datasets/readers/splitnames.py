"""Recognise names of splits in folders, tables and columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossfer.datasets.record import ReadOptions, Split, spelled
from crossfer.errors import CrossferError

SPLIT_NAMES: dict[str, Split] = {
    "train": "training",
    "training": "training",
    "trainset": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "valset": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "publictest": "validation",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
    "privatetest": "test",
}
"""Names of the three splits, in lower case; “eval” is the validation set where there is another test set."""

EVAL = frozenset({"eval", "evaluation"})
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _spelling(name: str) -> str:
    return spelled(name).strip().lower()


def exact(name: str) -> Split | None:
    """Return the split that a name is, whole."""
    return SPLIT_NAMES.get(re.sub(r"[\s_-]", "", name).lower())


def affixed(name: str) -> Split | None:
    """Return the split that a name begins or ends with: ``Train_Aligned_Faces``, ``FER2013Test``.

    A name that speaks of two splits says nothing.
    """
    words = [word.lower() for word in WORDS.findall(name)]
    joined = ["".join(words[start : start + 2]) for start in range(len(words) - 1)]
    known = {word for word in (*words, *joined) if word in SPLIT_NAMES}
    if {"publictest", "privatetest"} & known:
        known.discard("test")
    if len({SPLIT_NAMES[word] for word in known}) != 1:
        return None
    ends = {*words[:1], *words[-1:], *joined[:1], *joined[-1:]}
    return next((SPLIT_NAMES[word] for word in sorted(known) if word in ends), None)


def unclear(name: str) -> bool:
    """Tell whether a name begins like that of a split, but is none that is known: ``testdaten``."""
    known = exact(name) or affixed(name) or len({exact(word) for word in WORDS.findall(name)}) > 1
    return not known and bool(re.match(r"(train|test|valid)", _spelling(name)))


def of_table(table: Path, top: Path) -> str:
    """Return the name that may say which split a table is: its own, or its folder's."""
    own = table.stem
    return own if exact(own) or affixed(own) or table.parent == top else table.parent.name


def mapped(names: Iterable[str], options: ReadOptions) -> set[str]:
    """Return those of some names that the user maps to a split, or to none."""
    own = {_spelling(name) for name in options.splits}
    return {name for name in names if _spelling(name) in own}


def splits_of(names: Iterable[str], options: ReadOptions) -> dict[str, Split | None]:
    """Map names to splits, considering all names together: “eval” depends on whether there is a “test”.

    Parameters
    ----------
    names
        Names of folders, or values of a column.
    options
        With the user's own mapping, which has priority.

    Returns
    -------
    dict
        From each name to its split, ``None`` for a name of no split.
    """
    own = {_spelling(name): split for name, split in options.splits.items()}
    found: dict[str, Split | None] = {}
    for name in sorted(set(names)):
        key = _spelling(name)
        found[name] = own[key] if key in own else exact(name) or affixed(name)
    others = {name for name, split in found.items() if split == "test" and not _is_eval(name)}
    if others and "validation" not in found.values():
        for name, split in found.items():
            if split == "test" and _is_eval(name) and _spelling(name) not in own:
                found[name] = "validation"
    return found


def split_by(
    names: Iterable[str], translation: Mapping[str, Split | None], where: object
) -> Split | None:
    """Return the split that some folders name, if any.

    Raises
    ------
    CrossferError
        If they name two; the message names `where`.
    """
    said_by = [name for name in names if translation.get(name)]
    chosen = {translation[name] for name in said_by}
    if len(chosen) > 1:
        raise CrossferError(
            f"{where}: names two splits ({', '.join(said_by)}); ignore one with --split {said_by[0]}="
        )
    return next(iter(chosen), None)


def check_mapped(options: ReadOptions, names: Iterable[str]) -> None:
    """Refuse a translation of a name that is not there."""
    there = {_spelling(name) for name in names}
    for name in options.splits:
        if _spelling(name) not in there:
            some = ", ".join(sorted(there)[:8]) or "none"
            raise CrossferError(f"--split {name}: no such folder or value; there are {some}")


def in_words(splits: Mapping[str, Split | None]) -> str:
    """Say which name is which split; nothing where all are called as we call them."""
    told = {name: split for name, split in splits.items() if split}
    if all(split == name.lower() for name, split in told.items()):
        return ""
    return ", ".join(f"{name} = {split}" for name, split in told.items())


def _is_eval(name: str) -> bool:
    return bool(EVAL & {word.lower() for word in WORDS.findall(name)})

"""Find which folder level above a picture is its class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfer.classes import NO_EXPRESSION, UNLABELLED, canonical, is_known
from crossfer.datasets.readers import splitnames
from crossfer.datasets.readers.labels import MOST_UNKNOWN, is_named, number_in
from crossfer.datasets.record import ReadOptions

Folders = tuple[str, ...]
GENERIC = frozenset(
    {
        *("all", "aligned", "annotations", "crop", "cropped", "crops", "data", "database"),
        *(
            "dataset",
            "datasets",
            "download",
            "downloads",
            "emotion",
            "emotions",
            "face",
            "faces",
            "files",
        ),
        *("frames", "image", "images", "img", "imgs", "input", "jpeg", "jpg", "labels", "misc"),
        *("new", "new folder", "original", "originals", "other", "others", "output", "photo"),
        *("photos", "pic", "pics", "picture", "pictures", "png", "raw"),
        *("unsorted", "untitled folder", "various", "videos"),
    }
)
"""Names of folders that hold pictures, and say nothing of them."""


def find_classes(
    kinds: Sequence[Folders], options: ReadOptions
) -> tuple[dict[Folders, int], set[str]]:
    """Find which folder above each picture is its class.

    A level on which all folders are named like classes is the class: in ``angry/Joy`` and ``angry/Anna`` it
    is the first. Otherwise it is a level of unknown names, if only it can be the classes; else, for each
    picture, the nearest folder named like a class; else the nearest number.

    Parameters
    ----------
    kinds
        The folders above the pictures, from the top; none is empty.
    options
        With the user's own names of classes.

    Returns
    -------
    places : dict
        The index of the class among these folders.
    names : set of str
        Class folders whose meaning is still to be resolved: numbers and unknown names.
    """
    named = {folders: [is_named(name, options) for name in folders] for folders in kinds}
    depth = min(map(len, kinds), default=0)
    sure = [level for level in range(depth) if all(named[folders][level] for folders in kinds)]
    if sure:
        level = max(sure, key=lambda at: (len({canonical(f[at]) for f in kinds}), -at))
        return dict.fromkeys(kinds, level), _at(kinds, level)
    if (kept := _unknown_level(kinds, named, depth)) is not None:
        return dict.fromkeys(kinds, kept), _at(kinds, kept)
    places = {}
    for folders in kinds:
        marks = (
            named[folders] if any(named[folders]) else [number_in(n) is not None for n in folders]
        )
        nearest = next((at for at in reversed(range(len(folders))) if marks[at]), len(folders) - 1)
        places[folders] = nearest
    numbers = {f[at] for f, at in places.items() if number_in(f[at]) is not None}
    return places, numbers


def classes_by_file(files: Mapping[Path, Folders], options: ReadOptions) -> dict[Path, str]:
    """Return each file's class where files are named like classes, and folders are not: else nothing.

    ``0/Anger.jpg … 5/Surprised.jpg``: a folder is a person.
    """
    inside = {file: folders for file, folders in files.items() if folders}
    stems = {file: re.sub(r"[\s_-]*\d+$", "", file.stem) for file in inside}
    if any(is_named(name, options) for folders in inside.values() for name in folders):
        return {}
    if not stems or not all(_is_expression(stem) for stem in stems.values()):
        return {}
    return stems if len(set(map(canonical, stems.values()))) > 1 else {}


def _is_expression(name: str) -> bool:
    return is_known(name) and canonical(name) not in (*NO_EXPRESSION, UNLABELLED)


def _unknown_level(
    kinds: Sequence[Folders], named: Mapping[Folders, Sequence[bool]], depth: int
) -> int | None:
    """Return the level whose names can only be classes, though some are not known."""
    known: dict[int, set[str]] = {}
    for folders in kinds:
        for at, is_class in enumerate(named[folders]):
            if is_class:
                known.setdefault(at, set()).add(canonical(folders[at]))
    if several := {at for at, names in known.items() if len(names) > 1}:
        known = {at: known[at] for at in several}  # a person may be called Joy
    fitting = [at for at in range(depth) if _could_be_classes(_at(kinds, at))]
    fitting = [at for at in fitting if known.keys() <= {at}]
    return fitting[0] if len(fitting) == 1 else None


def _could_be_classes(names: set[str]) -> bool:
    """Tell whether the names of one level can be classes."""
    odd = {name for name in names if not is_known(name)}
    return (
        len(names) > 1
        and len(odd) <= MOST_UNKNOWN
        and not any(any(map(str.isdigit, name)) for name in odd)
        and not any(name.strip().lower() in GENERIC for name in odd)
        and not any(splitnames.exact(name) or splitnames.affixed(name) for name in odd)
    )


def _at(kinds: Sequence[Folders], level: int) -> set[str]:
    return {folders[level] for folders in kinds}

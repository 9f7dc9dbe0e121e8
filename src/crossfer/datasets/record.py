"""The contract between readers and the rest: records, splits, reader metadata."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import Pattern
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")
LONGEST_GROUP = 200
"""In characters, of a group's value: what is longer (landmarks, say) is nothing to tell results apart by.

Readers give one character more at most, and `crossfer.datasets.raw` leaves these values out."""
NOBODY = frozenset({"", "-", "?", "nan", "<na>", "n/a", "#n/a", "none", "null", "unknown"})
"""What columns say, in lower case, where a subject is not known; NA is one of JAFFE's ten people."""
Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]
Picture = Path | Pixels | Callable[[], Any]
"""A file, pixels, or a function that returns pixels or a Pillow image."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled picture of a raw dataset.

    Parameters
    ----------
    picture
        Where the picture is: an image or video file, the pixels themselves as uint8 (H, W) or
        (H, W, 3) in RGB, or a function that returns them (or a Pillow image) when they are needed.
    label
        The name of the class, as `crossfer.classes.canonical` spells it.
    origin
        Where it came from, for people: a path relative to the dataset, or ``"file.csv row 17"``.
    subject
        Who is in the picture, where the dataset says so.
    split
        The official part, where the dataset has one.
    frame
        Which frame, from 0, where the picture is a video.
    box
        The face in the picture: left, top, width, height, in pixels.
    relative
        Whether the box is in shares of the picture's width and height instead.
    groups
        What else the dataset says of the picture, by column: results can be told apart by it.
    """

    picture: Picture
    label: str
    origin: str
    subject: str | None = None
    split: Split | None = None
    frame: int | None = None
    box: Box | None = None
    relative: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a raw dataset that is not used, and why; `picture` tells whether it may be one.

    `file` is the picture that a table's row names.
    """

    origin: str
    reason: str
    picture: bool = True
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person should know of how a dataset was read, in one line.

    Parameters
    ----------
    text
        The line; empty where there is nothing to say.
    used
        Files beside the pictures that were read, as tables are.
    """

    text: str
    used: tuple[Path, ...] = ()


Item = Record | Skipped | Remark


@dataclass(frozen=True)
class ReadOptions:
    """What a user may say about how to read.

    Parameters
    ----------
    labels
        From the dataset's class names to those that they get, or to ``None`` for a class to leave out.
    subject
        Finds the subject in an image's relative path: its first group, or the whole match.
    people
        Whether folders that look like people are taken for subjects where no expression is given.
    everything
        Also read what a reader leaves out unless asked: turned heads, takes that others set aside.
    columns
        From what a table's column holds (path, label, subject, split) to its name; an empty name: none does.
    root
        The folder from which the paths in a table start.
    order
        What numbers mean where the layout does not say it: one of `crossfer.datasets.readers.labels.ORDERS`.
    splits
        From a dataset's names of its parts to ours, or to ``None`` for a name that is no split.
    met
        The labels that were translated so far: what a user translates in vain can be said.
    """

    labels: Mapping[str, str | None] = field(default_factory=dict)
    subject: Pattern[str] | None = None
    people: bool = True
    everything: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    order: str | None = None
    splits: Mapping[str, Split | None] = field(default_factory=dict)
    met: set[str] = field(default_factory=set, compare=False, repr=False)

    def subject_of(self, origin: str) -> str | None:
        """Return what the `subject` expression finds in a relative path."""
        found = self.subject.search(spelled(origin)) if self.subject else None
        return (found.group(1 if found.re.groups else 0) or None) if found else None


def spelled(name: str) -> str:
    """Return a name with composed accents: some systems write ö as o and ¨, and one person were two."""
    return unicodedata.normalize("NFC", name)


def names_nobody(text: str) -> bool:
    """Tell whether a text stands for a missing value, as ``n/a``, ``?`` and ``unknown`` do."""
    return text.strip().lower() in NOBODY


def subject_of_text(value: object) -> str | None:
    """Return the subject that a column's value names, in one spelling; ``None`` for what names nobody.

    A column of whole numbers becomes one of fractions where a value is missing: ``4.0`` is 4.
    """
    name = " ".join(spelled(str(value)).split())
    return None if names_nobody(name) else re.sub(r"^(\d+)\.0+$", r"\1", name)


@dataclass(frozen=True)
class Reader:
    """How one dataset lies on disk, and what people need to know of it.

    Parameters
    ----------
    name, title
        For the command line and for people.
    size, licence, access, layout, citation
        One line each, as ``crossfer datasets`` shows them.
    recognise
        Says why a path looks like this dataset, or ``None``.
    read
        Yields a `Record` for each picture, and a `Skipped` for what is left out.
    cropped
        Whether its pictures are faces already; ``None`` where only the pictures can tell.
    crop
        Where no face is found: side of the centred square that holds it, as a share of a picture's
        shorter side.
    takes
        The options that it reads by, of subject, everything, columns, root, order and splits: any other is
        refused.
    own_files
        Names (as in a shell) of the files beside the pictures that it reads, as lists of labels.
    sizes
        Images in training, validation and test as the paper has them (Table I), or shares: what a
        subject-disjoint split aims at where there is no official one.
    """

    name: str
    title: str
    layout: str
    recognise: Callable[[Path], str | None]
    read: Callable[[Path, ReadOptions], Iterator[Item]]
    size: str = "any"
    licence: str = "yours"
    access: str = "yours"
    citation: str = ""
    cropped: bool | None = False
    crop: float = 1.0
    takes: frozenset[str] = frozenset()
    own_files: tuple[str, ...] = ()
    sizes: tuple[float, float, float] = (0.7, 0.1, 0.2)

"""The options of `prepare`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossfer.datasets.readers import READERS
from crossfer.datasets.readers.labels import ORDERS, check_label_map
from crossfer.datasets.record import SPLITS, ReadOptions, Split, spelled
from crossfer.errors import CrossferError
from crossfer.framing import Framing

ROLES = ("path", "label", "subject", "split")
"""What a column of a table can be."""
DRAW = ("sizes", "exact", "ignore_splits", "test_share", "splits", "seed")
VALIDATION_SHARE = 0.1
"""Of training, where the official splits have no validation set."""


@dataclass(frozen=True)
class Preparation:
    """Options for preparing a dataset; the defaults suit the dataset.

    Parameters
    ----------
    reader
        One of `crossfer.datasets.READERS`, instead of detecting the layout.
    labels
        Maps the dataset's label names to new ones, or to ``None`` to leave a label out.
    order
        Meaning of numeric labels in a folder, a table or a dataset in memory: one of
        `crossfer.datasets.readers.labels.ORDERS`.
    classes
        The labels of the dataset, to which training and measuring are limited. By default those that occur;
        list all if one is missing only by chance.
    subject
        Regular expression that finds the subject in an image's relative path (folders and tables); empty:
        subjects are not known, even if folders look like subjects.
    columns
        Columns of a table for path, label, subject and split, e.g. ``{"label": "emotion"}``; an empty name
        for a column not to use.
    root
        The folder that the paths in a table are relative to.
    splits
        Maps names of folders or values to training, validation or test, or to ``None`` for a name that is
        no split.
    everything
        Also read what the reader leaves out by default, such as turned heads.
    faces
        ``find`` detects the face and aligns it on the eyes; ``cropped`` uses pictures as cut-out faces;
        ``auto`` decides by the reader, or else by the size of the pictures.
    no_face
        For pictures without a face: ``keep`` the centre, ``drop`` the picture, or ``refuse`` to continue.
    side, channels
        Side of the prepared faces in pixels; 1 channel for gray, 3 for colour.
    eyes
        Distance of the eyes as a fraction of the width, and their height as a fraction from the top.
    crop
        Without a detected face: side of the centred square, as a fraction (0–1] of the picture's shorter
        side.
    sizes
        Sizes of training, validation and test set, as counts or ratios, if there is no official split.
    ignore_splits
        Ignore official splits and divide again.
    test_share
        Fraction (0–1) of training to use as a test set, if the official splits have none.
    exact
        Reach these sizes exactly, even if subjects are then in two splits.
    seed
        Of the split.
    """

    reader: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    order: str | None = None
    classes: Sequence[str] | None = None
    subject: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    splits: Mapping[str, Split | None] = field(default_factory=dict)
    everything: bool = False
    faces: Literal["auto", "find", "cropped"] = "auto"
    no_face: Literal["keep", "drop", "refuse"] = "keep"
    side: int = Framing.side
    channels: Literal[1, 3] = Framing.channels
    eyes: tuple[float, float] = (Framing.eye_distance, Framing.eye_height)
    crop: float | None = None
    sizes: tuple[float, float, float] | None = None
    exact: bool = False
    ignore_splits: bool = False
    test_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reader is not None and self.reader not in READERS:
            raise CrossferError(
                f"unknown dataset {self.reader!r}: choose one of {', '.join(READERS)}"
            )
        for key, value, choices in (
            ("order", self.order, [None, *ORDERS]),
            ("faces", self.faces, ["auto", "find", "cropped"]),
            ("no_face", self.no_face, ["keep", "drop", "refuse"]),
        ):
            if value not in choices:
                known = ", ".join(filter(None, choices))
                raise CrossferError(f"{key} is {value!r}: choose one of {known}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise CrossferError(f"crop is {self.crop}: must be above 0 and at most 1")
        if self.test_share is not None and not 0 < self.test_share < 1 - VALIDATION_SHARE:
            raise CrossferError(
                f"test_share is {self.test_share}: must be above 0 and below {1 - VALIDATION_SHARE}"
            )
        for role in self.columns:
            if role not in ROLES:
                raise CrossferError(
                    f"columns: {role!r} is unknown; choose among {', '.join(ROLES)}"
                )
        for name, split in self.splits.items():
            if split is not None and split not in SPLITS:
                raise CrossferError(f"splits: {name}={split}: choose one of {', '.join(SPLITS)}")
        self._check_faces()
        if self.sizes is not None and not (
            len(self.sizes) == len(SPLITS)
            and all(size >= 0 for size in self.sizes)
            and 0 < sum(self.sizes) < math.inf
        ):
            raise CrossferError(
                "sizes: must be three numbers, none negative and not all 0, with a finite sum"
            )
        if self.seed < 0:
            raise CrossferError(f"seed is {self.seed}: must not be negative")
        if self.seed and self.sizes is not None and sum(size > 0 for size in self.sizes) == 1:
            raise CrossferError(
                "seed has no effect, since sizes puts all images into one set; leave one of them out"
            )
        check_label_map(self.labels)
        names = list(self.classes or ())
        if not all(name.strip() for name in names):
            raise CrossferError("classes: one has no name; remove it, or a comma too many")
        if twice := [name for name in names if names.count(name) > 1]:
            raise CrossferError(f"classes: {twice[0]} is named twice; remove one")
        try:
            re.compile(self.subject or "")
        except re.error as error:
            raise CrossferError(
                f"subject {self.subject!r} is not a valid regular expression: {error}"
            ) from None
        Framing(self.side, self.channels, *self.eyes)  # refuses what lies outside its ranges

    def _check_faces(self) -> None:
        """Refuse what has no effect on pictures that are faces already, or on those that are left out."""
        if self.crop is not None and self.no_face != "keep":
            raise CrossferError(
                f"crop has no effect with no_face: {self.no_face}, since no picture without a face is used; "
                "leave one of them out"
            )
        if self.faces == "cropped":
            for key in ("eyes", "no_face"):
                if getattr(self, key) != getattr(Preparation, key):
                    raise CrossferError(
                        f"{key} has no effect with faces: cropped, since no face is detected; "
                        "leave one of them out"
                    )

    @property
    def draw(self) -> dict[str, Any]:
        """What decides which split an image falls into, as JSON holds it."""
        own = self.as_json()
        return {key: own[key] for key in DRAW}

    @property
    def framing(self) -> Framing:
        """What a face looks like."""
        return Framing(self.side, self.channels, *self.eyes)

    @property
    def read_options(self) -> ReadOptions:
        """What readers are told."""
        return ReadOptions(
            self.labels,
            re.compile(spelled(self.subject)) if self.subject else None,
            people=self.subject is None,
            everything=self.everything,
            columns=self.columns,
            root=Path(self.root) if self.root else None,
            order=self.order,
            splits=self.splits,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what a card records of it."""
        return asdict(self) | {
            "classes": list(self.classes) if self.classes else None,
            "root": str(self.root) if self.root else None,
            "eyes": list(self.eyes),
            "sizes": list(self.sizes) if self.sizes else None,
        }

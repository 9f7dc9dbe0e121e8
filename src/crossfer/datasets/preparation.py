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
from crossfer.datasets.record import SPLITS, ReadOptions, Split
from crossfer.errors import CrossferError
from crossfer.framing import Framing

ROLES = ("path", "label", "subject", "split")
"""What a column of a table can be."""
DRAW = ("sizes", "exact", "ignore_splits", "test_share", "splits", "seed")
VALIDATION_SHARE = 0.1
"""Of training, where the official splits have no validation set."""


@dataclass(frozen=True)
class Preparation:
    """What a user may say about how to prepare a dataset; the defaults suit the dataset.

    Parameters
    ----------
    reader
        One of `crossfer.datasets.READERS`, instead of recognising the layout.
    labels
        From the dataset's class names to those that they get, or to ``None`` for a class to leave out.
    order
        What numbers mean that are the labels of a folder, a table or a dataset in memory: one of
        `crossfer.datasets.readers.labels.ORDERS`.
    classes
        The labels that it tells apart: among them it is learnt from and measured.  By default those that
        occur; name them all if one is missing only by chance.
    subject
        Regular expression that finds the subject in an image's relative path (folders and manifests); empty:
        nobody is known, though folders look like people.
    columns
        Of a table: which column is the path, label, subject or split, as ``{"label": "emotion"}``; an empty
        name for one that it shall not have.
    root
        The folder that the paths in a table are relative to.
    splits
        From the names of a dataset's parts (folders, values) to training, validation or test, or to ``None``
        for a name that is no part.
    everything
        Also read what the reader leaves out by default, as turned heads.
    faces
        ``find`` looks for the face and aligns it on the eyes; ``cropped`` takes pictures as the faces that
        they are; ``auto`` asks the reader, or else the size of the pictures.
    no_face
        What becomes of a picture without a face: ``keep`` its centre, ``drop`` it, or ``refuse`` the lot.
    side, channels
        Of the prepared faces: side in pixels; 1 for gray, 3 for colour.
    eyes
        Distance of the eyes as a share of the width, and their height as a share from the top.
    crop
        Where no face is looked for or found: side of the centred square, as a share (0–1] of the picture's
        shorter side.
    sizes
        Training, validation and test, as counts or shares, where there is no official split.
    ignore_splits
        Divide anew what comes in splits.
    test_share
        Cut a test set from training where the official splits have none: this share (0–1) of it.
    exact
        Reach these sizes to the image, though subjects then stand on two sides.
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
        if self.order is not None and self.order not in ORDERS:
            raise CrossferError(f"order is {self.order!r}: choose one of {', '.join(ORDERS)}")
        for key, choices in (
            ("faces", ("auto", "find", "cropped")),
            ("no_face", ("keep", "drop", "refuse")),
        ):
            if getattr(self, key) not in choices:
                raise CrossferError(
                    f"{key} is {getattr(self, key)!r}: choose one of {', '.join(choices)}"
                )
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
            and all(math.isfinite(size) and size >= 0 for size in self.sizes)
            and sum(self.sizes) > 0
        ):
            raise CrossferError("sizes: must be three numbers, none negative and not all 0")
        if self.seed < 0:
            raise CrossferError(f"seed is {self.seed}: must not be negative")
        check_label_map(self.labels)
        try:
            re.compile(self.subject or "")
        except re.error as error:
            raise CrossferError(
                f"subject {self.subject!r} is not a valid regular expression: {error}"
            ) from None
        Framing(self.side, self.channels, *self.eyes)  # refuses what lies outside its ranges

    def _check_faces(self) -> None:
        """Refuse what has no effect on pictures that are faces already."""
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
            re.compile(self.subject) if self.subject else None,
            people=self.subject is None,
            everything=self.everything,
            columns=self.columns,
            root=self.root,
            order=self.order,
            splits=self.splits,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what a card records of it."""
        lists = {"eyes": list(self.eyes), "sizes": list(self.sizes) if self.sizes else None}
        texts = {"root": str(self.root) if self.root else None}
        classes = {"classes": list(self.classes) if self.classes else None}
        return asdict(self) | lists | texts | classes

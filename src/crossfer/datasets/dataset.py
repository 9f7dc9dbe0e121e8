"""A prepared dataset: a folder with memory-mapped images and a sample table.

``images.npy`` (uint8, N×side×side, or ×3; memory-mapped), ``samples.parquet`` (a row per image) and
``dataset.json`` (the card).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from crossfer.classes import PRESETS, UNLABELLED, ClassSet, in_order
from crossfer.datasets.record import SPLITS, Split
from crossfer.datasets.splits import shared_subjects
from crossfer.errors import CrossferError
from crossfer.evaluation.intervals import subject_codes
from crossfer.files import digest, parsed
from crossfer.validation import first_place

DATASET_CARD, IMAGES, SAMPLES = "dataset.json", "images.npy", "samples.parquet"
FORMAT = 4
BOX = ("left", "top", "width", "height", "roll")
GROUP = "group."
"""Begins the names of the columns that hold what else a dataset says of its images."""


class _Framing(BaseModel):
    eye_distance: float
    eye_height: float


class _Faces(BaseModel):
    mode: Literal["find", "cropped"]
    framing: _Framing
    found: dict[str, int]


class _Split(BaseModel):
    how: str
    asked: dict[str, int] | None
    reached: dict[str, int]
    subjects_in_several_splits: int


class _Card(BaseModel):
    """What every card says, as far as anything depends on it."""

    format: Literal[4]
    name: str
    title: str
    licence: str
    citation: str
    raw: str
    raw_state: str
    preparation: dict[str, Any]
    faces: _Faces
    classes: list[str]
    images: int
    subjects: int
    split: _Split
    skipped: dict[str, int]
    sha256: dict[str, str]
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared faces with a sample table.

    Parameters
    ----------
    folder
        Its folder.
    card
        The content of ``dataset.json``.
    images
        uint8 (N, side, side) gray or (N, side, side, 3) RGB, memory-mapped read-only; side is 48 by
        default.
    table
        The sample table, or its open file, which is read on first use. A row per image: label (a name),
        subject, split, origin, the SHA-256 of the face (sha256) and of its picture (picture); its position:
        left, top, width, height in pixels of the square rotated by roll degrees about its centre; how it
        was found and the detector's score (see `crossfer.datasets.faces.Face`); other columns of the raw
        dataset (group.…).
    class_set
        The classes to use, by default the study's seven. Images whose label belongs to none of them are in
        no split.
    """

    folder: Path
    card: dict[str, Any]
    images: NDArray[np.uint8]
    table: pa.Table | pa.NativeFile
    class_set: ClassSet = PRESETS["fer7"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the images, which are opened again by whoever unpickles it."""
        table = self.table if isinstance(self.table, pa.Table) else None
        return _reopened, (self.folder, self.card, table, self.class_set)

    @cached_property
    def samples(self) -> pa.Table:
        """The sample table.

        Raises
        ------
        CrossferError
            If its file is damaged.
        """
        if isinstance(self.table, pa.Table):
            return self.table
        try:
            return pa.parquet.read_table(self.table)
        except (OSError, ValueError, pa.ArrowException) as error:
            file = self.folder / SAMPLES
            raise CrossferError(f"{file}: damaged ({error}); prepare it again") from None

    @property
    def name(self) -> str:
        """The name it goes by in tables."""
        return str(self.card["name"])

    @property
    def stand_in(self) -> bool:
        """Whether its faces are drawn: a stand-in for the real dataset."""
        return bool(self.card.get("stand_in"))

    @property
    def title(self) -> str:
        """Its name, for people; a stand-in says so."""
        return f"{self.name} (stand-in)" if self.stand_in else self.name

    @property
    def fingerprint(self) -> str:
        """Identifies its images and sample table."""
        return str(self.card["fingerprint"])

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """int64 (N,): indices into `class_set`; −1 where a label belongs to none of its classes."""
        coded = self.samples.column("label").combine_chunks().dictionary_encode()
        found = [self.class_set.index_of(name) for name in coded.dictionary.to_pylist()]
        indices = np.array([-1 if index is None else index for index in found], np.int64)
        return np.asarray(indices[coded.indices.to_numpy()])

    @property
    def left_out(self) -> dict[str, int]:
        """How many images have a label that belongs to no class, by label; without those that have none."""
        names = np.asarray(self.samples.column("label").to_pylist(), object)[self.labels < 0]
        names = names[names != UNLABELLED]
        return {name: int((names == name).sum()) for name in in_order(names)}

    @cached_property
    def subjects(self) -> list[str | None]:
        """N subjects, ``None`` where not known."""
        return list(self.samples.column("subject").to_pylist())

    @property
    def columns(self) -> list[str]:
        """Names by which `column` knows the columns of the sample table, sorted."""
        return sorted({name.removeprefix(GROUP) for name in self.samples.column_names})

    def column(self, name: str, rows: NDArray[np.int64]) -> list[Any] | None:
        """Return a column of the sample table at some rows; a group may be called without its prefix.

        ``None`` where there is no such column.
        """
        for one in (name, GROUP + name):
            if one in self.samples.column_names:
                return list(self.samples.column(one).take(rows).to_pylist())
        return None

    @cached_property
    def classes(self) -> list[int]:
        """The classes of `class_set` that its labels tell apart: indices, ascending."""
        found = {self.class_set.index_of(name) for name in self.card["classes"]}
        return sorted(index for index in found if index is not None)

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that it is made of: itself."""
        return (self,)

    @property
    def has_official_splits(self) -> bool:
        """Whether its division was given, not made by `crossfer.prepare`."""
        return self.card["split"]["asked"] is None

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the rows of a split, ascending; without those whose label belongs to no class.

        Raises
        ------
        ValueError
            If there is no such split.
        """
        _check_split(split)
        splits = self.samples.column("split").to_numpy(zero_copy_only=False)
        return np.flatnonzero((splits == split) & (self.labels >= 0))

    def people(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the subject of each row as a number: int64 (N,); None if all are unknown.

        An image without a subject gets a number of its own.
        """
        return subject_codes([self.subjects[row] for row in rows])

    def check_shape(self, shape: tuple[int, ...], reader: str, more: str = "") -> None:
        """Refuse faces of another shape than a classifier, `reader`, reads.

        Raises
        ------
        CrossferError
            If theirs is another; `more` is appended to the advice.
        """
        if (given := self.images.shape[1:]) != shape:
            found, wanted = ("×".join(map(str, one)) for one in (given, shape))
            raise CrossferError(
                f"{self.name}: its faces are {found}, but {reader} reads {wanted}; prepare it again with "
                f"--side {shape[0]}{' --colour' if len(shape) == 3 else ''}{more}"
            )

    def unlabelled(self, split: Split) -> NDArray[np.int64]:
        """Return the rows of a split that nobody has labelled, ascending; `rows` has none of them.

        Raises
        ------
        ValueError
            If there is no such split.
        """
        _check_split(split)
        splits, labels = (
            self.samples.column(name).to_numpy(zero_copy_only=False) for name in ("split", "label")
        )
        return np.flatnonzero((splits == split) & (labels == UNLABELLED))

    def subjects_in_several_splits(self) -> dict[str, tuple[str, ...]]:
        """Return the subjects in more than one split, with these splits."""
        return shared_subjects(self.subjects, self.samples.column("split").to_pylist())

    def divided(self, rows: NDArray[np.int64]) -> list[tuple[Dataset, NDArray[np.int64]]]:
        """Return each part with those of its own rows that are among these: itself, with all."""
        return [(self, rows)]

    def called(self, name: str) -> Dataset:
        """Return the same dataset under another name."""
        return replace(self, card=self.card | {"name": name})

    def with_classes(self, classes: ClassSet | str | Sequence[str]) -> Dataset:
        """Return the same dataset used with other classes: a class set, or what `ClassSet.of` reads."""
        return replace(self, class_set=ClassSet.of(classes))

    def with_splits(self, splits: Sequence[str] | NDArray[np.object_]) -> Dataset:
        """Return the same dataset with its N images in other splits."""
        place = self.samples.schema.get_field_index("split")
        return replace(
            self, table=self.samples.set_column(place, "split", pa.array(splits, pa.string()))
        )

    def with_own_classes(self) -> Dataset:
        """Return the same dataset with every label as a class: nothing is left out."""
        return self.with_classes(ClassSet.each(self.card["classes"]))

    def check(self) -> Self:
        """Read all of its files, and compare them with what was written; once, before they are used.

        Returns
        -------
        Dataset
            This one.

        Raises
        ------
        CrossferError
            If the images or the sample table are not those that the card was written for.
        """
        for name in (IMAGES, SAMPLES):
            if digest(self.folder / name) != self.card["sha256"].get(name):
                raise CrossferError(
                    f"{self.folder / name}: changed or damaged since preparation (SHA-256 differs "
                    f"from {DATASET_CARD}); prepare the dataset again"
                )
        return self

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images per split and class."""
        names = self.class_set.names
        return {split: class_counts(self.labels[self.rows(split)], names) for split in SPLITS}


def class_counts(labels: NDArray[np.integer], names: Sequence[str]) -> dict[str, int]:
    """Count labels, which are indices into names: every class, those without an image too."""
    counts = np.bincount(labels, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def open_dataset(folder: str | Path) -> Dataset:
    """Open a prepared dataset.

    Parameters
    ----------
    folder
        A folder written by ``crossfer prepare``.

    Raises
    ------
    CrossferError
        If it is not a prepared dataset, or its files are inconsistent.
    """
    folder = Path(folder)
    if not is_prepared(folder):
        raise CrossferError(
            f"{folder}: not a prepared dataset (no {DATASET_CARD}); make one with "
            "`crossfer prepare RAW --out FOLDER`"
        )
    try:
        card = parsed((folder / DATASET_CARD).read_text(encoding="utf-8"))
        with np.errstate(over="raise"):
            images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
        table = pa.memory_map(str(folder / SAMPLES))
        rows = pa.parquet.read_metadata(table).num_rows
    except (OSError, ValueError, ArithmeticError, TokenError, pa.ArrowException) as error:
        raise CrossferError(f"{folder}: damaged ({error}); prepare it again") from None
    if isinstance(card, dict) and card.get("format") in range(FORMAT):
        raise CrossferError(
            f"{folder}: prepared by an older crossfer (format {card['format']}, now {FORMAT}); "
            "prepare it again from the raw files"
        )
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        where = first_place(error)
        raise CrossferError(
            f"{folder / DATASET_CARD}: damaged, or written by another version ({where}); prepare it again"
        ) from None
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != rows:
        raise CrossferError(f"{folder}: images and sample table differ in length; prepare it again")
    return Dataset(folder, card, images, table)


def _reopened(
    folder: Path, card: dict[str, Any], table: pa.Table | None, class_set: ClassSet
) -> Dataset:
    opened = open_dataset(folder)
    return replace(opened, card=card, table=table or opened.table, class_set=class_set)


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder holds a prepared dataset."""
    return (folder / DATASET_CARD).is_file()


def sample_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Build a sample table with the column types of the format."""
    groups = [name for name in columns if name.startswith(GROUP)]
    kinds = dict.fromkeys(("label", "subject", "split", "origin", "sha256", "picture"), pa.string())
    kinds |= dict.fromkeys(BOX, pa.float32()) | {"found": pa.string(), "score": pa.float32()}
    kinds |= dict.fromkeys(groups, pa.string())
    return pa.table({name: pa.array(columns[name], kind) for name, kind in kinds.items()})


def _check_split(split: Split) -> None:
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: choose among {', '.join(SPLITS)}")

"""References to the data of a run: plain values that can be printed, hashed and pickled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.splits import take_fraction
from crossfer.datasets.union import unite
from crossfer.files import digest


@dataclass(frozen=True)
class DatasetRef:
    """Reference to a dataset, or to a fraction of its training set.

    Parameters
    ----------
    name
        Its name; it does not identify the data.
    fingerprint
        Identifies its images and sample table.
    classes
        The classes that its labels distinguish: ascending indices into the experiment's classes.
    fraction
        Fraction of the training set, above 0 and at most 1.
    seed
        Seed of the sample.
    """

    NOT_IDENTITY: ClassVar = frozenset({"name"})

    name: str
    fingerprint: str
    classes: tuple[int, ...]
    fraction: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class MemoryRef:
    """Reference to a given memory file: see `crossfer.memory.file`.

    Parameters
    ----------
    file
        Its path.
    sha256
        SHA-256 of its content.
    """

    NOT_IDENTITY: ClassVar = frozenset({"file"})

    file: Path
    sha256: str

    @classmethod
    def of(cls, file: Path) -> MemoryRef:
        """Return the reference to a file."""
        return cls(file, digest(file))


@dataclass(frozen=True)
class DataRef:
    """Reference to a dataset, or to several as one."""

    parts: tuple[DatasetRef, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> DataRef:
        """Return the reference to an open dataset, or to a union of datasets."""
        return cls(
            tuple(
                DatasetRef(part.name, part.fingerprint, tuple(part.classes))
                for part in dataset.parts
            )
        )

    def __add__(self, other: DataRef) -> DataRef:
        return DataRef(self.parts + other.parts)

    def at_hand(self, fraction: float, seed: int) -> DataRef:
        """Return the same data with a fraction of each training set."""
        if fraction == 1:
            return self
        return DataRef(tuple(replace(p, fraction=fraction, seed=seed) for p in self.parts))

    @property
    def name(self) -> str:
        """The name of the data, for people."""
        return "+".join(part.name for part in self.parts)

    def open(self, datasets: Sequence[Dataset]) -> Dataset:
        """Return the dataset, from open ones.

        Raises
        ------
        KeyError
            If one is missing.
        """
        found = {dataset.fingerprint: dataset for dataset in datasets}
        return unite([_at_hand(found[part.fingerprint], part) for part in self.parts])


def fraction_rows(target: Dataset, fraction: float, seed: int) -> NDArray[np.int64]:
    """Return the rows of a fraction of a dataset's training set: whole subjects, stratified by class."""
    rows = target.rows("training")
    subjects = [target.subjects[row] for row in rows]
    return rows[take_fraction(target.labels[rows], subjects, fraction, seed)]


def rows_to_learn(
    target: Dataset, fraction: float | None, seed: int, labelled: bool
) -> NDArray[np.int64]:
    """Return the rows of a dataset's training set that a strategy trains on.

    A fraction of the labelled ones (None: all): see `fraction_rows`.  A strategy without labels also gets the
    same fraction of the unlabelled ones.
    """
    fraction = 1.0 if fraction is None else fraction
    rows = fraction_rows(target, fraction, seed)
    if labelled:
        return rows
    others = target.unlabelled("training")
    subjects = [target.subjects[row] for row in others]
    kept = take_fraction(np.zeros(len(others), np.int64), subjects, fraction, seed)
    return np.sort(np.concatenate([rows, others[kept]]))


def _at_hand(dataset: Dataset, part: DatasetRef) -> Dataset:
    """Return a dataset with a fraction of its training set."""
    if part.fraction == 1:
        return dataset
    kept = fraction_rows(dataset, part.fraction, part.seed)
    return with_split(dataset, np.setdiff1d(dataset.rows("training"), kept), "not used")


def with_split(dataset: Dataset, rows: NDArray[np.int64], split: str) -> Dataset:
    """Return a dataset with some rows moved to another split."""
    splits = dataset.samples.column("split").to_numpy(zero_copy_only=False).copy()
    splits[rows] = split
    return dataset.with_splits(splits)

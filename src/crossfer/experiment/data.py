"""The data of a run as plain values, which can be printed, hashed and pickled."""

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
    """One dataset, and how much of its training set is at hand.

    Parameters
    ----------
    name
        What it is called; another name is the same data.
    fingerprint
        Identifies its images and sample table.
    classes
        The classes that its labels tell apart: indices into the experiment's, ascending.
    fraction
        Share of the training set, above 0 and at most 1.
    seed
        Draws that share.
    """

    NOT_IDENTITY: ClassVar = frozenset({"name"})

    name: str
    fingerprint: str
    classes: tuple[int, ...]
    fraction: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class MemoryRef:
    """A memory file that is given: see `crossfer.memory.file`.

    Parameters
    ----------
    file
        Where it lies.
    sha256
        Of its content.
    """

    NOT_IDENTITY: ClassVar = frozenset({"file"})

    file: Path
    sha256: str

    @classmethod
    def of(cls, file: Path) -> MemoryRef:
        """Refer to a file."""
        return cls(file, digest(file))


@dataclass(frozen=True)
class DataRef:
    """One dataset, or several as one."""

    parts: tuple[DatasetRef, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> DataRef:
        """Refer to an open dataset, or to several that were united."""
        return cls(
            tuple(
                DatasetRef(part.name, part.fingerprint, tuple(part.classes))
                for part in dataset.parts
            )
        )

    def __add__(self, other: DataRef) -> DataRef:
        return DataRef(self.parts + other.parts)

    def at_hand(self, fraction: float, seed: int) -> DataRef:
        """Return the same data with only a share of each training set."""
        if fraction == 1:
            return self
        return DataRef(tuple(replace(p, fraction=fraction, seed=seed) for p in self.parts))

    @property
    def name(self) -> str:
        """What people call it."""
        return "+".join(part.name for part in self.parts)

    def open(self, datasets: Sequence[Dataset]) -> Dataset:
        """Find it among open datasets.

        Raises
        ------
        KeyError
            If one is not there.
        """
        found = {dataset.fingerprint: dataset for dataset in datasets}
        return unite([_at_hand(found[part.fingerprint], part) for part in self.parts])


def fraction_rows(target: Dataset, fraction: float, seed: int) -> NDArray[np.int64]:
    """Return the rows of a share of a dataset's training set: whole subjects, stratified by class."""
    rows = target.rows("training")
    subjects = [target.subjects[row] for row in rows]
    return rows[take_fraction(target.labels[rows], subjects, fraction, seed)]


def rows_to_learn(
    target: Dataset, fraction: float, seed: int, labelled: bool = True
) -> NDArray[np.int64]:
    """Return the rows of a dataset's training set that a strategy is shown.

    Those with a label, or a share of them: see `fraction_rows`.  A strategy that looks at no label is also
    shown the same share of those without one.
    """
    rows = fraction_rows(target, fraction, seed)
    if labelled:
        return rows
    others = target.unlabelled("training")
    subjects = [target.subjects[row] for row in others]
    kept = take_fraction(np.zeros(len(others), np.int64), subjects, fraction, seed)
    return np.sort(np.concatenate([rows, others[kept]]))


def _at_hand(dataset: Dataset, part: DatasetRef) -> Dataset:
    """Return a dataset of whose training set only a share is there."""
    if part.fraction == 1:
        return dataset
    kept = fraction_rows(dataset, part.fraction, part.seed)
    return with_split(dataset, np.setdiff1d(dataset.rows("training"), kept), "not used")


def with_split(dataset: Dataset, rows: NDArray[np.int64], split: str) -> Dataset:
    """Return a dataset of which some rows belong to another split."""
    splits = dataset.samples.column("split").to_numpy(zero_copy_only=False).copy()
    splits[rows] = split
    return dataset.with_splits(splits)

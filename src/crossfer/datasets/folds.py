"""A dataset divided several times, so that every image is tested once: cross-validation over people.

The images are dealt into parts, subjects whole and classes balanced.  Fold k tests on part k, chooses on the
next part, and learns from all the others: every image is tested once, and chooses once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import SPLITS
from crossfer.datasets.splits import divide
from crossfer.errors import CrossferError

ONE_SUBJECT: Literal["leave-one-subject-out"] = "leave-one-subject-out"
Folds = int | Literal["leave-one-subject-out"]
LEAST = 3
"""Folds: one part is tested, one chooses, and from one at least something is learnt."""


def folds_of(dataset: Dataset, folds: Folds) -> list[Dataset]:
    """Return a dataset as each of its folds divides it: the same images, in other splits.

    Each is a dataset with a fingerprint of its own.  Which fold it is stands in its card, under ``fold``.

    Parameters
    ----------
    dataset
        With the classes that it is used with: images of no class are in no fold.
    folds
        How many, from `LEAST` on; or a fold for each subject.

    Raises
    ------
    CrossferError
        If the division was given, there are more folds than people (or images, where nobody is known), or
        some fold could not learn a class.
    """
    if dataset.has_official_splits:
        raise CrossferError(
            f"folds: {dataset.name} has an official test set: to keep it, name only the other "
            f"targets (folds: {{NAME: {folds}}}); to test all of its images, prepare it with "
            "--ignore-splits"
        )
    rows = np.flatnonzero(dataset.labels >= 0)
    parts = _dealt(dataset, rows, folds)
    return [_fold(dataset, rows, parts, k, int(parts.max()) + 1) for k in range(parts.max() + 1)]


def all_tested(dataset: Dataset) -> Dataset:
    """Return a dataset with every image in its test set: what all of its folds are measured on together."""
    return dataset.with_splits(["test"] * len(dataset.samples))


def in_words(folds: Sequence[Dataset]) -> str:
    """Say what the folds of a dataset are made of."""
    people = _people(folds[0], np.flatnonzero(folds[0].labels >= 0))
    if not people:
        return (
            f"{len(folds)} folds of images; subjects are not known, so one person may be in two "
            "splits"
        )
    if len(folds) == people:
        return f"{people} folds, one per person"
    return f"{len(folds)} folds of {people} people"


def _dealt(dataset: Dataset, rows: NDArray[np.int64], folds: Folds) -> NDArray[np.int64]:
    """Return the part of each of these rows."""
    name, subjects = dataset.name, [dataset.subjects[row] for row in rows]
    known = [subject for subject in subjects if subject is not None]
    people = len(set(known))
    if folds == ONE_SUBJECT:
        if len(known) < len(rows):
            raise CrossferError(
                f"folds: {name} has no subject for {len(rows) - len(known):,} of its {len(rows):,} "
                "images, so no subject can be left out; give a number: folds: 5"
            )
        if people < LEAST:
            raise CrossferError(
                f"folds: {name} has {people} people, fewer than the {LEAST} needed; leave it out"
            )
        return np.unique(known, return_inverse=True)[1]
    dealt = people + len(rows) - len(known)
    if folds > dealt:
        what = f"{people} people" if people else f"{dealt} images"
        most = f"use at most {dealt}" if dealt >= LEAST else f"{LEAST} are needed, so leave it out"
        raise CrossferError(f"folds: {folds} are more than {name}'s {what}; {most}")
    return divide(dataset.labels[rows], subjects, [1] * folds, seed=0)


def _fold(
    dataset: Dataset, rows: NDArray[np.int64], parts: NDArray[np.int64], k: int, count: int
) -> Dataset:
    splits = np.full(len(dataset.samples), "not used", object)
    splits[rows] = "training"
    splits[rows[parts == k]] = "test"
    splits[rows[parts == (k + 1) % count]] = "validation"
    # What nobody has labelled may be adapted to, if it shows none of the people who are tested.
    others = np.concatenate([dataset.unlabelled(split) for split in SPLITS])
    asked = {dataset.subjects[row] for row in rows if splits[row] != "training"} - {None}
    splits[[row for row in others if dataset.subjects[row] not in asked]] = "training"
    learnt = set(dataset.labels[splits == "training"].tolist())
    for label in np.unique(dataset.labels[rows]):
        if label not in learnt:
            own = rows[dataset.labels[rows] == label]
            who = f", of {_people(dataset, own)} people" if _people(dataset, own) else ""
            raise CrossferError(
                f"folds: fold {k + 1} of {count} has no training image of "
                f"{dataset.class_set.names[label]}, of which {dataset.name} has {len(own)} "
                f"images{who}: leave this class out (classes:), or folds"
            )
    digest = hashlib.sha256("\n".join([dataset.fingerprint, *splits]).encode())
    own_card = {"fingerprint": digest.hexdigest(), "fold": f"fold {k + 1} of {count}"}
    return replace(dataset.with_splits(splits), card=dataset.card | own_card)


def _people(dataset: Dataset, rows: NDArray[np.int64]) -> int:
    return len({dataset.subjects[row] for row in rows} - {None})

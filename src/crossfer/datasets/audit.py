"""Audit a dataset: leakage across splits, split sizes, people and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset, class_counts
from crossfer.datasets.duplicates import (
    METHOD,
    Groups,
    copied,
    group_copies,
    numbered,
    overlaps,
    training_rows,
)
from crossfer.datasets.record import SPLITS, Split
from crossfer.errors import some_of
from crossfer.evaluation.rows import Overlap
from crossfer.files import write_bytes
from crossfer.progress import OnProgress, silent
from crossfer.templates import environment


@dataclass(frozen=True)
class SplitAudit:
    """The audit of one split.

    Parameters
    ----------
    split
        Its name.
    images, subjects
        Their numbers; `subjects` is ``None`` if subjects are not known.
    classes
        Number of images of each label.
    also_in_training
        Number of images with a copy in the training set of any audited dataset, `exact` of them with
        identical pixels; 0 for a training set itself.
    copies_within
        Number of images with a copy in the same split.
    """

    split: str
    images: int
    subjects: int | None
    classes: dict[str, int]
    also_in_training: int
    exact: int
    copies_within: int


@dataclass(frozen=True)
class DatasetAudit:
    """The audit of one dataset.

    Parameters
    ----------
    name, title, licence
        As in its card.
    divided
        How its splits were made.
    splits
        The audit of each split.
    subjects_in_several_splits
        Their names.
    conflicts
        Numbers of ``groups`` of copies with different labels, and of the ``images`` in them.
    findings
        What a reviewer would object to, a sentence each.
    """

    name: str
    title: str
    licence: str
    divided: str
    splits: tuple[SplitAudit, ...]
    subjects_in_several_splits: tuple[str, ...]
    conflicts: dict[str, int]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """The audit of several datasets.

    Parameters
    ----------
    datasets
        The audit of each dataset.
    overlaps
        Pairs of splits, also of different datasets, that share images.
    """

    datasets: tuple[DatasetAudit, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def leaks(self) -> bool:
        """Whether a copy of an image, or a subject, stands in more than one split."""
        subjects = any(one.subjects_in_several_splits for one in self.datasets)
        return subjects or any(overlap.leaks for overlap in self.overlaps)


Rows = NDArray[np.int64]

FEW_PEOPLE = 20
"""A test set with fewer subjects says little of other people: see docs/statistics.md."""


def audit(datasets: Sequence[Dataset], progress: OnProgress = silent) -> Audit:
    """Audit prepared datasets, alone and against one another.

    Every label counts, whatever classes an experiment uses.  Drawn stand-ins are so much alike that nearly
    all would pass for copies; they are audited without a search for copies.

    Parameters
    ----------
    datasets
        Prepared.
    progress
        Told how many of how many blocks of pairs are compared.
    """
    datasets = [dataset.with_own_classes() for dataset in datasets]
    total = sum(len(dataset.images) for dataset in datasets)
    if any(dataset.stand_in for dataset in datasets):
        groups = Groups(np.arange(total), np.arange(total))
    else:
        groups = group_copies([dataset.images for dataset in datasets], progress)
    training = training_rows(datasets)
    return Audit(
        tuple(_of_one(dataset, start, training, groups) for dataset, start in numbered(datasets)),
        overlaps(datasets, groups),
    )


def _of_one(dataset: Dataset, start: int, training: Rows, groups: Groups) -> DatasetAudit:
    splits = tuple(_of_split(dataset, split, start, training, groups) for split in SPLITS)
    several = tuple(sorted(dataset.subjects_in_several_splits()))
    own = groups.near[start : start + len(dataset.images)]
    known = dataset.labels >= 0
    pairs = np.unique(np.stack([own[known], dataset.labels[known]]), axis=1)
    names, kinds = np.unique(pairs[0], return_counts=True)
    torn = names[kinds > 1]
    conflicts = {"groups": len(torn), "images": int(np.isin(own[known], torn).sum())}
    return DatasetAudit(
        name=dataset.name,
        title=str(dataset.card["title"]),
        licence=str(dataset.card["licence"]),
        divided=str(dataset.card["split"]["how"]),
        splits=splits,
        subjects_in_several_splits=several,
        conflicts=conflicts,
        findings=tuple(_findings(splits, several, conflicts, dataset.has_official_splits)),
    )


def _of_split(
    dataset: Dataset, split: Split, start: int, training: Rows, groups: Groups
) -> SplitAudit:
    rows = dataset.rows(split)
    people = {dataset.subjects[row] for row in rows} - {None}
    elsewhere = np.zeros(len(rows), bool)
    exact = elsewhere
    if split != "training":
        elsewhere = copied(groups.near, training, rows + start)
        exact = copied(groups.exact, training, rows + start)
    return SplitAudit(
        split=split,
        images=len(rows),
        subjects=len(people) or None,
        classes=class_counts(dataset.labels[rows], dataset.class_set.names),
        also_in_training=int(elsewhere.sum()),
        exact=int(exact.sum()),
        copies_within=int(copied(groups.near, rows + start, rows + start).sum()),
    )


def _findings(
    splits: Sequence[SplitAudit], several: Sequence[str], conflicts: dict[str, int], official: bool
) -> list[str]:
    found = []
    for part in splits:
        if not part.images:
            found.append(f"The {part.split} set is empty.")
            continue
        if part.also_in_training:
            share = part.also_in_training / part.images
            found.append(
                f"{part.also_in_training:,} of {part.images:,} {part.split} images ({share:.1%}) "
                f"have a copy in a training set, {part.exact:,} of them with identical pixels."
            )
        if missing := [name for name, count in part.classes.items() if not count]:
            found.append(f"The {part.split} set has no image of {', '.join(missing)}.")
    test = splits[-1]
    if several:
        found.append(
            f"{len(several):,} subjects are in more than one split: {some_of(several, 5)}."
        )
    if test.images and test.subjects is None:
        found.append(
            "Subjects are not known: people may be in both training and test set, and intervals "
            "treat every image as another person."
        )
    elif test.subjects is not None and test.subjects < FEW_PEOPLE:
        how = "prepare it with --ignore-splits, and use" if official else "use"
        found.append(
            f"The test set has {test.subjects} people, so its accuracy says little about others; "
            f"as a target, {how} “folds: 5” to test everybody."
        )
    if conflicts["groups"]:
        found.append(
            f"{conflicts['groups']:,} groups of copies have contradicting labels "
            f"({conflicts['images']:,} images)."
        )
    return found


SELECTION = (
    "Epochs, mixtures, recipes and strategies are selected on validation sets only, never on test "
    "sets."
)
"""On which data selections are made, for every report."""


def as_json(found: Audit) -> dict[str, Any]:
    """Return an audit as what JSON can hold, with the method by which copies were found."""
    return {"copies": METHOD, "selection": SELECTION, **asdict(found)}


def write_page(found: Audit, file: Path) -> None:
    """Write an audit as one HTML page that shows no face: to attach to a paper."""
    template = environment("crossfer.datasets").get_template("audit.html.j2")
    page = template.render(audit=found, selection=SELECTION)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, page.encode())

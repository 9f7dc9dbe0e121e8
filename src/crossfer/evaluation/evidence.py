"""Intervals for every row, and all pairwise comparisons of an experiment.

Rows (see `crossfer.evaluation.rows`) contain numbers; `Evidence` contains the predictions behind them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.answers import Answers
from crossfer.evaluation.intervals import (
    Draws,
    Right,
    accuracy_interval,
    change_interval,
    interval,
    resample,
)
from crossfer.evaluation.paired import compare, corrected
from crossfer.evaluation.rows import (
    Average,
    Change,
    ClassChange,
    Interval,
    Mean,
    Measurements,
    Result,
    StrategyComparison,
)
from crossfer.evaluation.summary import behind_average
from crossfer.terms import BL, SIDES, Side

Key = tuple[str, float | None, str, int]
"""Target, fraction, strategy, seed."""


@dataclass(frozen=True)
class Evidence:
    """Predictions of every network on every image of the test sets, or of the validation sets.

    Parameters
    ----------
    answers
        For each result and side, the answers of one network, or of each fold's network on the same images.
    subjects
        For each target and side, the subject of each image: int64 (N,), or None if unknown.
    """

    answers: Mapping[tuple[Key, Side], Sequence[Answers]]
    subjects: Mapping[tuple[str, Side], NDArray[np.int64] | None]

    def right(self, row: Result, side: Side) -> Right:
        """Return whether the networks of a row are right on each image: bool (seeds × folds, N)."""
        return self._stack(row, row.fraction, row.strategy, side)

    def before(self, row: Result, side: Side) -> Right:
        """Return the same for the baselines of the same seeds."""
        return self._stack(row, None, BL, side)

    def labels(self, row: Result, side: Side) -> NDArray[np.int64]:
        """Return the true labels: int64 (N,)."""
        return self.answers[(row.target, row.fraction, row.strategy, row.seeds[0]), side][0].labels

    def _stack(self, row: Result, fraction: float | None, strategy: str, side: Side) -> Right:
        keys = [(row.target, fraction, strategy, seed) for seed in row.seeds]
        return np.stack([one.right for key in keys for one in self.answers[key, side]])


def as_many(seeds: int, *several: Right) -> tuple[list[Right], int]:
    """Repeat rows so that all arrays have the same number per seed: folds may share a baseline.

    Returns
    -------
    rights : list
        bool (seeds × folds, N).
    folds : int
    """
    counts = [len(right) // seeds for right in several]
    folds = math.lcm(*counts)
    both = zip(several, counts, strict=True)
    return [np.repeat(right, folds // count, axis=0) for right, count in both], folds


def with_intervals(
    rows: Sequence[Result], evidence: Evidence, classes: bool = False
) -> list[Result]:
    """Add 95 % intervals of both test accuracies and both changes and, with `classes`, of each class.

    Validation accuracies have none, since strategies and epochs were selected by them.
    """
    return [
        replace(
            row,
            on_source=_tested(row, "source", evidence),
            on_target=_tested(row, "target", evidence),
            memory_integrity=_changed(row, "source", evidence, classes),
            gain=_changed(row, "target", evidence, classes),
        )
        for row in rows
    ]


def with_class_intervals(
    change: Change,
    after: Right,
    before: Right,
    labels: NDArray[np.int64],
    subjects: NDArray[np.int64] | None,
    folds: int = 1,
) -> Change:
    """Add the 95 % interval of each class's change.

    Parameters
    ----------
    change
        An update's, on N images.
    after, before, subjects, folds
        As in `crossfer.evaluation.intervals.resample`.
    labels
        The truth: int64 (N,).
    """

    def of_class(label: int, one: ClassChange | None) -> ClassChange | None:
        own = labels == label
        whose = None if subjects is None else subjects[own]
        return one and replace(
            one, interval=change_interval(after[:, own], before[:, own], whose, folds)
        )

    return replace(change, classes=tuple(of_class(i, one) for i, one in enumerate(change.classes)))


def with_mean_intervals(
    averages: Sequence[Average], summary: Sequence[Result], evidence: Evidence
) -> list[Average]:
    """Add 95 % intervals to the means over targets: for these targets, not for a population of targets.

    On the source, the networks of all targets predict the same images, so their scores are added before
    resampling.  The images of each target are resampled independently.
    """

    def mean(row: Average, side: Side) -> Mean:
        members = behind_average(row.fraction, row.strategy, summary)
        points = row.change(side).points
        return Mean(points, _mean_interval(points, members, side, evidence))

    return [
        replace(row, memory_integrity=mean(row, "source"), gain=mean(row, "target"))
        for row in averages
    ]


def comparisons(summary: Sequence[Result], evidence: Evidence) -> list[StrategyComparison]:
    """Compare every two strategies that share target and fraction, the baseline included, on both test sets.

    p-values are corrected within two families: comparisons with the baseline, and comparisons of two updates.
    All have the same seeds (`crossfer.evaluation.summary.complete`).
    """
    found: list[StrategyComparison] = []
    for first, second in combinations(summary, 2):
        shares = {f for f in (first.fraction, second.fraction) if f is not None}
        if first.target != second.target or len(shares) > 1:
            continue
        fraction = max(shares, default=None)
        for side in SIDES:
            rights = evidence.right(second, side), evidence.right(first, side)
            (after, before), folds = as_many(len(first.seeds), *rights)
            paired = compare(after, before, evidence.subjects[second.target, side], folds)
            found.append(
                StrategyComparison(
                    second.target, fraction, side, second.strategy, first.strategy, paired
                )
            )
    return _corrected(found)


def _corrected(found: Sequence[StrategyComparison]) -> list[StrategyComparison]:
    """Add Holm's correction, within the comparisons with the baseline and within the others."""
    rows = list(found)
    for with_baseline in (True, False):
        family = [i for i, row in enumerate(rows) if (row.against == BL) == with_baseline]
        for i, row in zip(family, corrected([rows[i] for i in family]), strict=True):
            rows[i] = row
    return rows


def _tested(row: Result, side: Side, evidence: Evidence) -> Measurements:
    on = row.on(side)
    right, subjects = evidence.right(row, side), evidence.subjects[row.target, side]
    found = accuracy_interval(right, subjects, len(right) // len(row.seeds))
    return replace(on, test=replace(on.test, interval=found))


def _changed(row: Result, side: Side, evidence: Evidence, classes: bool) -> Change:
    change = row.change(side)
    if row.strategy == BL:
        known = [one and replace(one, interval=(0.0, 0.0)) for one in change.classes]
        return replace(
            change, interval=(0.0, 0.0), classes=tuple(known) if classes else change.classes
        )
    rights = evidence.right(row, side), evidence.before(row, side)
    (after, before), folds = as_many(len(row.seeds), *rights)
    subjects = evidence.subjects[row.target, side]
    change = replace(change, interval=change_interval(after, before, subjects, folds))
    if not classes:
        return change
    return with_class_intervals(change, after, before, evidence.labels(row, side), subjects, folds)


def _mean_interval(
    value: float, members: Sequence[Result], side: Side, evidence: Evidence
) -> Interval:
    test_sets: dict[str, list[Result]] = {}
    for row in members:
        test_sets.setdefault(row.target if side == "target" else "", []).append(row)
    draws = sum(
        _drawn_together(rows, side, evidence, number)
        for number, rows in enumerate(test_sets.values())
    )
    return interval(value, np.asarray(draws / len(members)))


def _drawn_together(rows: Sequence[Result], side: Side, evidence: Evidence, seed: int) -> Draws:
    """Resample the sum of the changes of several rows on the same images."""
    rights = [f(row, side) for row in rows for f in (evidence.right, evidence.before)]
    same, folds = as_many(len(rows[0].seeds), *rights)
    subjects = evidence.subjects[rows[0].target, side]
    return resample(np.sum(same[::2], 0), np.sum(same[1::2], 0), subjects, folds=folds, seed=seed)

"""Decide whether an update may be released: one-sided tests on paired test predictions.

A condition *passes* if the lower bound of the change (the upper bound of a fraction) keeps the limit.  It
*fails* if the measured value breaks the limit.  Otherwise it is *not proven*, and the number of test images
that would prove it is estimated.

Bounds come from the paired bootstrap over images, people and seeds (`crossfer.evaluation.intervals`); for a
latency, from the bootstrap over rounds (`crossfer.evaluation.latency`).  Holm's correction over all
conditions guarantees the confidence for all that pass together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.evidence import Evidence, as_many
from crossfer.evaluation.intervals import Draws, Right, change, count_people, resample
from crossfer.evaluation.latency import latency_ratio, ratio_draws
from crossfer.evaluation.paired import holm
from crossfer.evaluation.rows import Result
from crossfer.terms import SIDES, Side

Verdict = Literal["pass", "fail", "not proven"]
NORMAL = NormalDist()
MOST = 200_000
"""Maximum number of images that are imagined to find how many are needed."""
Codes = NDArray[np.integer] | None
Groups = Mapping[Side, Sequence[str] | None]
"""For each side, the group of each test image; None if the dataset has no such column."""


@dataclass(frozen=True)
class Limits:
    """Limits for an update; None: no limit.

    Parameters
    ----------
    max_source_drop
        Maximum loss of accuracy on the source's test set, in points.
    min_target_gain
        Minimum gain of accuracy on the target's test set, in points.
    max_class_drop
        Maximum loss of recall of any class on either side, in points.
    max_negative_flips
        Maximum fraction of test images that were right and are now wrong, on either side, in per cent.
    max_size_ratio
        Maximum size, relative to the old network.
    max_latency_ratio
        Maximum latency, relative to the old network.
    confidence
        Joint confidence of all conditions that pass, in (0, 1).
    """

    max_source_drop: float = 1.0
    min_target_gain: float = 0.0
    max_class_drop: float | None = None
    max_negative_flips: float | None = None
    max_size_ratio: float | None = None
    max_latency_ratio: float | None = None
    confidence: float = 0.95

    def least(self, side: Side) -> float:
        """Return the required change of accuracy on a side."""
        return -self.max_source_drop if side == "source" else self.min_target_gain


@dataclass(frozen=True)
class Criterion:
    """A condition and its verdict.

    Parameters
    ----------
    about
        The quantity: ``"accuracy"``, ``"recall of happy"``, ``"negative flips"``, ``"camera = A"``.
    side
        The test set: a side of an experiment, or a dataset's name; None if there is none.
    measured
        The change in points, the fraction in per cent, or the ratio.
    limit
        The limit.
    at_least
        Whether the limit is a lower limit.
    bound
        Confidence bound, corrected for all conditions: a lower bound if `at_least`, else an upper bound.
    p
        One-sided p-value, corrected (Holm); None if the quantity is not random.
    images, people
        Number of test images (of measurements for a latency) and of subjects; None if there are none, or if
        subjects are unknown.
    needed
        Estimated number of images or measurements that would prove the condition, if it is ``"not proven"``
        and can be proven.
    verdict
        Pass, fail or not proven.
    """

    about: str
    side: str | None
    measured: float
    limit: float
    at_least: bool
    bound: float
    p: float | None
    images: int | None
    people: int | None
    needed: int | None
    verdict: Verdict


@dataclass(frozen=True)
class PairedOutcomes:
    """Predictions of two networks, or of two strategies with several seeds, on one test set.

    Parameters
    ----------
    name
        A side of an experiment, or a dataset's name.
    after, before
        As in `crossfer.evaluation.intervals.resample`.
    labels
        True labels: int64 (N,).
    subjects
        Subject of each image: int64 (N,); None if unknown.
    least
        The required change of accuracy.
    groups
        For each column, the group of each image; empty if the dataset has no such column.
    folds
        As in `crossfer.evaluation.intervals.resample`.
    """

    name: str
    after: Right
    before: Right
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64] | None
    least: float
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folds: int = 1


def gate(
    row: Result,
    evidence: Evidence,
    limits: Limits,
    classes: Sequence[str],
    by: Mapping[str, Groups] | None = None,
    size_ratio: float | None = None,
) -> list[Criterion]:
    """Test the conditions for releasing a result; it may be released if all of them pass.

    Parameters
    ----------
    row
        One network, or a mean over seeds.
    evidence
        Contains its predictions and those of the baseline.
    limits
        The limits.
    classes
        C names.
    by
        Columns with the group of each test image: each group must keep the limits of the accuracy, too.
    size_ratio
        Parameters of the new network, relative to the old one.
    """
    sets = []
    for side in SIDES:
        rights = evidence.right(row, side), evidence.before(row, side)
        (after, before), folds = as_many(len(row.seeds), *rights)
        groups = {column: found[side] or () for column, found in (by or {}).items()}
        known = evidence.labels(row, side), evidence.subjects[row.target, side]
        sets.append(PairedOutcomes(side, after, before, *known, limits.least(side), groups, folds))
    return ask(sets, limits, classes, size_ratio)


def ask(
    sets: Iterable[PairedOutcomes],
    limits: Limits,
    classes: Sequence[str],
    size_ratio: float | None = None,
    latencies: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[Criterion]:
    """Test the conditions for replacing an old network; it may be replaced if all of them pass.

    Parameters
    ----------
    sets
        Predictions of both on each test set.
    limits, classes, size_ratio
        As for `gate`.
    latencies
        Latencies of the old and the new network, measured alternately.
    """
    tests = [test for one in sets for test in _tests(one, limits, classes)]
    if limits.max_latency_ratio is not None and latencies is not None:
        tests.append(_latency(*latencies, limits.max_latency_ratio))
    every = [test.p for test in tests]
    corrected, ranks = holm(every), np.searchsorted(np.sort(every), every)  # the same for equal p
    alpha = 1 - limits.confidence
    # Holm's procedure stops at the first hypothesis that it keeps, whose level is that of all others.
    proven = sum(p <= alpha for p in corrected)
    found = [
        test.answered(p, alpha, alpha / (len(tests) - min(int(rank), proven)))
        for test, p, rank in zip(tests, corrected, ranks, strict=True)
    ]
    if limits.max_size_ratio is not None and size_ratio is not None:
        kept = size_ratio <= limits.max_size_ratio
        verdict: Verdict = "pass" if kept else "fail"
        size = (size_ratio, limits.max_size_ratio, False, size_ratio)
        found.append(Criterion("size", None, *size, None, None, None, None, verdict))
    return found


def without_column(column: str) -> str:
    """Say that a test set has no groups by a column."""
    return f"has no column {column}, so nothing is said of its groups"


def p_of(draws: Draws, least: float) -> float:
    """Return the one-sided p-value of the hypothesis that a value is below a limit, from its draws."""
    return (int(np.count_nonzero(draws < least)) + 1) / (len(draws) + 1)


def bound_of(draws: Draws, level: float) -> float:
    """Return the largest limit of which `p_of` is at most a level; −∞ where there is none."""
    place = math.floor(level * (len(draws) + 1) + 1e-9) - 1
    return float(np.partition(draws, place)[place]) if place >= 0 else -math.inf


@dataclass(frozen=True)
class _Test:
    """A one-sided test that a value exceeds a limit, with bootstrap draws of the value."""

    about: str
    side: str | None
    value: float
    least: float
    draws: Draws
    at_least: bool
    images: int
    people: int | None
    larger: Callable[[int], Draws]
    """Returns the draws of a test set of so many images, in which these and their people are repeated."""
    trainings: int = 1
    """Number of seeds: what they differ by, no number of images makes smaller."""
    lowest: float = -100.0

    @property
    def p(self) -> float:
        """One-sided p-value of the hypothesis that the limit is broken; 1 if only one person is known."""
        return 1.0 if self.people == 1 else p_of(self.draws, self.least)

    def answered(self, p: float, alpha: float, own_alpha: float) -> Criterion:
        """Return the verdict; `own_alpha` is the level of this test after Holm's correction."""
        sign = 1 if self.at_least else -1
        bound = -math.inf if self.people == 1 else bound_of(self.draws, own_alpha)
        bound = max(self.lowest, min(self.value, bound))
        broken = self.value < self.least
        verdict: Verdict = "fail" if broken else "pass" if p <= alpha else "not proven"
        return Criterion(
            about=self.about,
            side=self.side,
            measured=sign * self.value,
            limit=sign * self.least,
            at_least=self.at_least,
            bound=sign * bound,
            p=p,
            images=self.images,
            people=self.people,
            needed=self._needed(own_alpha) if verdict == "not proven" else None,
            verdict=verdict,
        )

    def _needed(self, alpha: float) -> int | None:
        """Return the number of images with which these results would be proven, rounded up to two digits.

        Beyond `MOST` images by the normal approximation: n (z s / (value − least))², with the standard error
        s of n = `MOST`; with several seeds ``None``, since these differ too much, and with one person.
        """
        distance = self.value - self.least
        if distance <= 0 or self.people == 1:
            return None

        def is_proof(draws: Draws) -> bool:
            return bound_of(draws, alpha) >= self.least

        most = max(MOST, 2 * self.images)
        low, high = self.images, min(2 * self.images, most)
        while not (proven := is_proof(draws := self.larger(high))) and high < most:
            low, high = high, min(2 * high, most)
        if not proven:
            if self.trainings > 1:
                return None
            error = float(draws.std())
            high = math.ceil(high * (NORMAL.inv_cdf(1 - alpha) * error / distance) ** 2)
        else:
            while high - low > max(1, high // 100):
                middle = (low + high) // 2
                low, high = (low, middle) if is_proof(self.larger(middle)) else (middle, high)
        unit: int = 10 ** max(0, math.floor(math.log10(high)) - 1)
        return unit * math.ceil(high / unit)


def _repeated(scores: Sequence[Right], subjects: Codes, images: int) -> tuple[list[Right], Codes]:
    """Return as many images as asked for, these again and again, each time of other people."""
    rows, own = np.arange(images), scores[0].shape[1]
    if subjects is not None:
        codes = np.unique(subjects, return_inverse=True)[1]
        subjects = codes[rows % own] + (codes.max() + 1) * (rows // own)
    return [each[:, rows % own] for each in scores], subjects


def _tests(on: PairedOutcomes, limits: Limits, classes: Sequence[str]) -> Iterator[_Test]:
    def tested(
        about: str, least: float, lowered: Sequence[Right], subjects: Codes, sign: int
    ) -> _Test:
        """Test a change (after, before), or with one of them a fraction that is to be small (sign −1)."""

        def draws(images: int | None = None) -> Draws:
            scores, people = list(lowered), subjects
            if images:
                scores, people = _repeated(lowered, subjects, images)
            drawn = sign * resample(*scores, subjects=people, folds=on.folds)
            return drawn + (value - sign * _points(scores))  # the last repetition may be a part

        value = sign * _points(lowered)
        images = lowered[0].shape[1]
        people = count_people(subjects)
        trainings = len(lowered[0]) // on.folds
        return _Test(
            about, on.name, value, least, draws(), sign > 0, images, people, draws, trainings
        )

    def changed(about: str, least: float, where: NDArray[np.bool_]) -> _Test:
        whose = None if on.subjects is None else on.subjects[where]
        return tested(about, least, (on.after[:, where], on.before[:, where]), whose, 1)

    yield changed("accuracy", on.least, np.ones(on.after.shape[1], bool))
    if limits.max_class_drop is not None:
        for label, name in enumerate(classes):
            if (own := on.labels == label).any():
                yield changed(f"recall of {name}", -limits.max_class_drop, own)
    if limits.max_negative_flips is not None:
        lost = on.before & ~on.after
        yield tested("negative flips", -limits.max_negative_flips, [lost], on.subjects, -1)
    for column, groups in on.groups.items():
        of_image = np.asarray(groups, dtype=str)
        for group in sorted(set(of_image.tolist())):
            yield changed(f"{column} = {group}", on.least, of_image == group)


def _points(scores: Sequence[Right]) -> float:
    """Return a fraction in per cent, or the change of one in points: after, before."""
    return change(*scores) if len(scores) == 2 else 100 * int(scores[0].sum()) / scores[0].size


def _latency(old: Sequence[float], new: Sequence[float], most: float) -> _Test:
    def draws(rounds: int | None = None) -> Draws:
        rows = np.arange(rounds or len(old)) % len(old)
        return -ratio_draws(np.asarray(old)[rows].tolist(), np.asarray(new)[rows].tolist())

    ratio = latency_ratio(old, new)
    return _Test(
        "latency", None, -ratio, -most, draws(), False, len(old), None, draws, lowest=-math.inf
    )

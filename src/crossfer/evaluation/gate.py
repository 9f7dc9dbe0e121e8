"""May an update be shipped?  What is asked of it is tested on paired test answers, each condition one-sided.

A condition *passes* if the evidence excludes what is not allowed: the lower bound of the change (the upper
bound of a share) keeps the limit.  It *fails* if the measured value itself breaks the limit.  In between it
is *not proven*: then the number of test images that would prove such a value is given.

Bounds are those of the paired bootstrap over images, people and seeds (`crossfer.evaluation.intervals`), of a
latency those of the bootstrap over rounds of measurements (`crossfer.evaluation.latency`).
Conditions are tested together: with Holm's correction all that is said to pass is right with the
confidence asked for, however many conditions there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
Groups = Mapping[Side, Sequence[str] | None]
"""For each side, the group of each test image; None where the images have none."""


@dataclass(frozen=True)
class Limits:
    """What is asked of an update; None: not asked.

    Parameters
    ----------
    max_source_drop
        At most so many points of accuracy lost on the source's test set.
    min_target_gain
        At least so many points gained on the target's.
    max_class_drop
        At most so many points of recall lost in any class, on either side.
    max_negative_flips
        At most so many of 100 test images right before and wrong now, on either side.
    max_size_ratio
        At most so many times the old network's size.
    max_latency_ratio
        At most so many times the old network's latency.
    confidence
        With which all that passes holds, in (0, 1).
    """

    max_source_drop: float = 1.0
    min_target_gain: float = 0.0
    max_class_drop: float | None = None
    max_negative_flips: float | None = None
    max_size_ratio: float | None = None
    max_latency_ratio: float | None = None
    confidence: float = 0.95

    def least(self, side: Side) -> float:
        """Return the change of accuracy asked for on a side."""
        return -self.max_source_drop if side == "source" else self.min_target_gain


@dataclass(frozen=True)
class Criterion:
    """A condition, and the answer.

    Parameters
    ----------
    about
        What is asked about: ``"accuracy"``, ``"recall of happy"``, ``"negative flips"``, ``"camera = A"``.
    side
        On which test set: a side of an experiment, or a dataset's name; None where it is about none.
    measured
        The change in points, the share in per cent, or the ratio.
    limit
        What was asked for.
    at_least
        Whether the limit is a lower one.
    bound
        What holds with the confidence asked for, corrected for all conditions: a lower bound if `at_least`,
        else an upper one.
    p
        One-sided, corrected (Holm); None where nothing is left to chance.
    images, people
        In the test set, as far as it is asked about; of a latency, the measurements.  None where there are
        none, or nobody is known.
    needed
        About how many such images, or measurements, would prove it, if `verdict` is ``"not proven"`` and any
        number would.
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
class PairedAnswers:
    """What two networks, or strategies of several seeds, said about one test set.

    Parameters
    ----------
    name
        A side of an experiment, or a dataset's name.
    after, before
        As in `crossfer.evaluation.intervals.resample`.
    labels
        The truth: int64 (N,).
    subjects
        Who is in each image: int64 (N,); None where nobody is known.
    least
        The change of accuracy asked for.
    groups
        By column, the group of each image; empty where the images have none.
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
    """Ask whether a result may be shipped; it may if every criterion passes.

    Parameters
    ----------
    row
        One network, or a mean over seeds.
    evidence
        With its answers and the baseline's.
    limits
        What is asked.
    classes
        C names.
    by
        Columns with the group of each test image: in each group the accuracy is asked to change as on the
        whole.
    size_ratio
        The new network's parameters divided by the old one's, if that is asked about.
    """
    sets = []
    for side in SIDES:
        rights = evidence.right(row, side), evidence.before(row, side)
        (after, before), folds = as_many(len(row.seeds), *rights)
        groups = {column: found[side] or () for column, found in (by or {}).items()}
        known = evidence.labels(row, side), evidence.subjects[row.target, side]
        sets.append(PairedAnswers(side, after, before, *known, limits.least(side), groups, folds))
    return ask(sets, limits, classes, size_ratio)


def ask(
    sets: Iterable[PairedAnswers],
    limits: Limits,
    classes: Sequence[str],
    size_ratio: float | None = None,
    latencies: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[Criterion]:
    """Ask whether a new network may take an old one's place; it may if every criterion passes.

    Parameters
    ----------
    sets
        What both said about each test set.
    limits, classes, size_ratio
        As for `gate`.
    latencies
        Of the old and the new network, measured in turn, if that is asked about.
    """
    tests = [test for one in sets for test in _tests(one, limits, classes)]
    if limits.max_latency_ratio is not None and latencies is not None:
        tests.append(_latency(*latencies, limits.max_latency_ratio))
    corrected = holm([test.p for test in tests])
    ranks = np.argsort(np.argsort([test.p for test in tests], kind="stable"), kind="stable")
    alpha = 1 - limits.confidence
    found = [
        test.answered(p, alpha, alpha / (len(tests) - int(rank)))
        for test, p, rank in zip(tests, corrected, ranks, strict=True)
    ]
    if limits.max_size_ratio is not None and size_ratio is not None:
        kept = size_ratio <= limits.max_size_ratio
        verdict: Verdict = "pass" if kept else "fail"
        size = (size_ratio, limits.max_size_ratio, False, size_ratio)
        found.append(Criterion("size", None, *size, None, None, None, None, verdict))
    return found


@dataclass(frozen=True)
class _Test:
    """A value that has to be shown to exceed another: draws of it, as they might have come out."""

    about: str
    side: str | None
    value: float
    least: float
    draws: Draws
    at_least: bool
    images: int
    people: int | None
    lowest: float = -100.0

    @property
    def p(self) -> float:
        """How surprising so large a value would be if the truth were just what is not allowed."""
        return (int(np.count_nonzero(self.draws < self.least)) + 1) / (len(self.draws) + 1)

    def answered(self, p: float, alpha: float, own_alpha: float) -> Criterion:
        """Return the answer; `own_alpha` is what Holm's correction leaves to this test."""
        sign = 1 if self.at_least else -1
        bound = max(self.lowest, min(self.value, float(np.quantile(self.draws, own_alpha))))
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
        """Return how many images would do, as the normal approximation has it: n (z s / (value − least))².

        The standard error s is half the width of the middle 68.3 % of the draws with n images: of few people
        the draws have heavy tails, as Student's t, which more people would not have.  Rounded up to two
        digits.
        """
        distance = self.value - self.least
        if distance <= 0:
            return None
        low, high = np.quantile(self.draws, [NORMAL.cdf(-1), NORMAL.cdf(1)])
        error = float(high - low) / 2
        images = max(
            self.images + 1, self.images * (NORMAL.inv_cdf(1 - alpha) * error / distance) ** 2
        )
        unit: int = 10 ** max(0, math.floor(math.log10(images)) - 1)
        return unit * math.ceil(images / unit)


def _tests(on: PairedAnswers, limits: Limits, classes: Sequence[str]) -> Iterator[_Test]:
    def changed(about: str, least: float, where: NDArray[np.bool_]) -> _Test:
        new, old = on.after[:, where], on.before[:, where]
        whose = None if on.subjects is None else on.subjects[where]
        draws = resample(new, old, whose, folds=on.folds)
        images = int(where.sum())
        return _Test(
            about, on.name, change(new, old), least, draws, True, images, count_people(whose)
        )

    yield changed("accuracy", on.least, np.ones(on.after.shape[1], bool))
    if limits.max_class_drop is not None:
        for label, name in enumerate(classes):
            if (own := on.labels == label).any():
                yield changed(f"recall of {name}", -limits.max_class_drop, own)
    if limits.max_negative_flips is not None:
        lost = on.before & ~on.after
        yield _Test(
            "negative flips",
            on.name,
            -100 * float(lost.mean()),
            -limits.max_negative_flips,
            -resample(lost, subjects=on.subjects, folds=on.folds),
            False,
            lost.shape[1],
            count_people(on.subjects),
        )
    for column, groups in on.groups.items():
        of_image = np.asarray(groups, dtype=str)
        for group in sorted(set(of_image.tolist())):
            yield changed(f"{column} = {group}", on.least, of_image == group)


def _latency(old: Sequence[float], new: Sequence[float], most: float) -> _Test:
    ratio, draws = latency_ratio(old, new), ratio_draws(old, new)
    return _Test("latency", None, -ratio, -most, -draws, False, len(old), None, -math.inf)

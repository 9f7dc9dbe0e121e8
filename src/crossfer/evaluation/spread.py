"""Intervals for balanced accuracy, macro F1 and calibration error, which are not means over images.

They are functions of the confusion matrix and of the calibration error's bins.  Both are sums over images, so
the bootstrap weights images (or people, where they are known) and computes the metrics from weighted
sums.  As in `crossfer.evaluation.intervals`, both networks are measured on the same resamples, and deviations
are multiplied by √(n / χ²ₙ₋₁) to correct for small samples.

A calibration error is never negative, so it is biased upwards, its bootstrap draws even more, and near zero
no bootstrap works.  Its interval is the union of the percentile interval and the basic interval, 2 x − (the
draws' quantiles), which reverses the bias (Davison and Hinkley 1997, section 5.2).  It starts at 0 if
perfectly calibrated predictions would have as large an error in more than 1 of 40 cases (consistency
resampling: Bröcker and Smith 2007).  The interval of a change is computed from the two networks' intervals
(MOVER: Zou and Donner 2008) as if they were independent, which errs on the wide side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.answers import Answers
from crossfer.evaluation.intervals import LEVEL, clusters, for_few, interval, resampled
from crossfer.evaluation.metrics import BINS, bins_of
from crossfer.evaluation.rows import Interval

MEASURES = ("balanced_accuracy", "macro_f1", "calibration_error")
RESAMPLES = 2_000
MOST_AT_ONCE = 4_000_000
"""Maximum number of weights in memory."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """95 % intervals of a measure of two networks, and of the new one's minus the old one's."""

    old: Interval
    new: Interval
    change: Interval


def spreads(
    old: Answers, new: Answers, subjects: NDArray[np.integer] | None = None
) -> dict[str, Spread]:
    """Return intervals for each of `MEASURES`, of two networks on the same images.

    Parameters
    ----------
    old, new
        Answers of the networks.
    subjects
        Subject of each image: integer (N,); None: all different.
    """
    codes = clusters(len(old.labels), subjects)
    tables = [_sums(answers, codes) for answers in (old, new)]
    sizes = np.bincount(codes)
    whole = np.ones((1, len(sizes)))
    values = [_measures(whole @ table, whole @ sizes, old.classes)[0] for table in tables]
    rng = np.random.default_rng(0)
    drawn = []
    at_once = max(1, MOST_AT_ONCE // len(sizes))
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        weights = resampled(len(sizes), count, rng).astype(np.float64)
        drawn.append([_measures(weights @ table, weights @ sizes, old.classes) for table in tables])
    few = for_few(len(sizes), RESAMPLES, rng)[:, None]
    draws = [
        value + (np.concatenate([part[i] for part in drawn]) - value) * few
        for i, value in enumerate(values)
    ]
    found = {}
    for m, name in enumerate(MEASURES[:-1]):
        own, other = values[0][m], values[1][m]
        change = draws[1][:, m] - draws[0][:, m]
        found[name] = Spread(
            interval(own, draws[0][:, m], lowest=0.0),
            interval(other, draws[1][:, m], lowest=0.0),
            interval(other - own, change),
        )
    before, after = (
        _calibration(float(value[-1]), draw[:, -1], answers)
        for value, draw, answers in zip(values, draws, (old, new), strict=True)
    )
    change = _mover(float(values[0][-1]), before, float(values[1][-1]), after)
    return found | {MEASURES[-1]: Spread(before, after, change)}


def _sums(answers: Answers, codes: NDArray[np.int64]) -> Values:
    """Return for each cluster its C² confusions and, for each bin, the sum of right minus confidence."""
    size, groups = answers.classes**2, int(codes.max()) + 1
    cells = answers.labels * answers.classes + answers.decisions
    counts = np.bincount(codes * size + cells, minlength=groups * size)
    gaps = np.bincount(
        codes * BINS + bins_of(answers.confidences),
        answers.right - answers.confidences,
        minlength=groups * BINS,
    )
    return np.hstack([counts.reshape(groups, size), gaps.reshape(groups, BINS)])  # pyrefly: ignore[bad-return]  # weighted counts are float64


def _measures(sums: Values, images: Values, classes: int) -> Values:
    """Return the metrics of each of D resamples: float64 (D, 3); see `crossfer.evaluation.metrics`."""
    matrices = sums[:, : classes**2].reshape(-1, classes, classes)
    right, truth, said = np.einsum("dii->di", matrices), matrices.sum(2), matrices.sum(1)
    there = truth > 0
    count = there.sum(1)
    balanced = (right / np.maximum(truth, 1)).sum(1, where=there) / count
    f1 = (2 * right / np.maximum(truth + said, 1)).sum(1, where=there) / count
    gap = np.abs(sums[:, classes**2 :]).sum(1) / images
    return 100 * np.stack([balanced, f1, gap], 1)


def _calibration(value: float, draws: Values, answers: Answers) -> Interval:
    low, high = interval(value, draws, lowest=0.0)
    lowest = 0.0 if value <= _by_chance(answers) else max(0.0, min(low, 2 * value - high))
    return lowest, min(max(high, 2 * value - low), 100.0)


def _by_chance(answers: Answers) -> float:
    """Return the calibration error that perfectly calibrated predictions exceed in 1 of 40 cases."""
    rng, bins = np.random.default_rng(0), bins_of(answers.confidences)
    found = []
    for _ in range(RESAMPLES):
        right = rng.random(len(bins)) < answers.confidences
        found.append(np.abs(np.bincount(bins, right - answers.confidences)).sum() / len(bins))
    return 100 * float(np.quantile(found, (1 + LEVEL) / 2))


def _mover(old: float, of_old: Interval, new: float, of_new: Interval) -> Interval:
    change = new - old
    low = change - float(np.hypot(new - of_new[0], of_old[1] - old))
    high = change + float(np.hypot(of_new[1] - new, old - of_old[0]))
    return max(low, -100.0), min(high, 100.0)

"""Intervals for balanced accuracy, macro F1 and calibration error, which are no means over images.

They are functions of how often each class was taken for each, and of the calibration error's bins.  Both are
sums over images, so the bootstrap draws images (or people, where they are known) with weights, and computes
the measures from weighted sums.  As in `crossfer.evaluation.intervals`, both networks are measured on the
same drawn images, and deviations are multiplied by √(n / χ²ₙ₋₁) for being drawn from few.

Drawn again, a calibration error is larger than the one it was drawn from, as that one is larger than the
truth.  Its intervals are therefore basic ones, 2 x − (the draws' quantiles), which mirror this bias (Davison
and Hinkley 1997, section 5.2); the others are percentile intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.answers import Answers
from crossfer.evaluation.intervals import LEVEL, for_few
from crossfer.evaluation.metrics import BINS, bins_of
from crossfer.evaluation.rows import Interval

MEASURES = ("balanced_accuracy", "macro_f1", "calibration_error")
RESAMPLES = 2_000
MOST_AT_ONCE = 4_000_000
"""Weights that are held in memory at a time."""

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
        What they said.
    subjects
        Who is in each image: integer (N,); None: everybody another.
    """
    clusters = _clusters(len(old.labels), subjects)
    tables = [_sums(answers, clusters) for answers in (old, new)]
    sizes = np.bincount(clusters)
    whole = np.ones((1, len(sizes)))
    values = [_measures(whole @ table, whole @ sizes, old.classes)[0] for table in tables]
    rng = np.random.default_rng(0)
    share, drawn = np.full(len(sizes), 1 / len(sizes)), []
    at_once = max(1, MOST_AT_ONCE // len(sizes))
    for start in range(0, RESAMPLES, at_once):
        weights = rng.multinomial(len(sizes), share, min(at_once, RESAMPLES - start)).astype(float)
        drawn.append([_measures(weights @ table, weights @ sizes, old.classes) for table in tables])
    few = for_few(len(sizes), RESAMPLES, rng)
    draws = [np.concatenate([part[i] for part in drawn]) for i in (0, 1)]
    columns = {
        "old": (values[0], draws[0]),
        "new": (values[1], draws[1]),
        "change": (values[1] - values[0], draws[1] - draws[0]),
    }
    found = {}
    for m, name in enumerate(MEASURES):
        mirrored = name == "calibration_error"
        found[name] = Spread(
            **{
                key: _interval(
                    float(value[m]),
                    value[m] + (draw[:, m] - value[m]) * few,
                    mirrored,
                    -100.0 if key == "change" else 0.0,
                )
                for key, (value, draw) in columns.items()
            }
        )
    return found


def _clusters(images: int, subjects: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Return what is drawn together: people; of a single one, images."""
    if subjects is not None:
        people, codes = np.unique(subjects, return_inverse=True)
        if len(people) > 1:
            return np.asarray(codes, np.int64)
    return np.arange(images)


def _sums(answers: Answers, clusters: NDArray[np.int64]) -> Values:
    """Return for each cluster its confusions, C², and the sums of right minus confidence in each bin."""
    size, groups = answers.classes**2, int(clusters.max()) + 1
    cells = answers.labels * answers.classes + answers.decisions
    counts = np.bincount(clusters * size + cells, minlength=groups * size)
    gaps = np.bincount(
        clusters * BINS + bins_of(answers.confidences),
        answers.right - answers.confidences,
        minlength=groups * BINS,
    )
    return np.hstack([counts.reshape(groups, size), gaps.reshape(groups, BINS)])


def _measures(sums: Values, images: Values, classes: int) -> Values:
    """Return the measures of each of D drawn sets: float64 (D, 3); see `crossfer.evaluation.metrics`."""
    matrices = sums[:, : classes**2].reshape(-1, classes, classes)
    right, truth, said = (
        np.einsum("dii->di", matrices),
        matrices.sum(2),
        matrices.sum(1),
    )
    there = truth > 0
    count = there.sum(1)
    balanced = (right / np.maximum(truth, 1)).sum(1, where=there) / count
    f1 = (2 * right / np.maximum(truth + said, 1)).sum(1, where=there) / count
    gap = np.abs(sums[:, classes**2 :]).sum(1) / images
    return 100 * np.stack([balanced, f1, gap], 1)


def _interval(value: float, draws: Values, mirrored: bool, lowest: float) -> Interval:
    low, high = (float(q) for q in np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    if mirrored:
        low, high = 2 * value - high, 2 * value - low
    return max(min(low, value), lowest), min(max(high, value), 100.0)

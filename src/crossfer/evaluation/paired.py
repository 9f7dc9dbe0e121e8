"""Paired tests of two networks on the same images, and Holm's correction.

Two questions are distinguished.  McNemar's exact test asks whether two networks differ on *these
images*.  The bootstrap over subjects and seeds asks whether they differ for *other people and trainings*:
three people may agree by chance, however many images there are of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import (
    Right,
    change,
    count_people,
    independent,
    interval,
    p_value,
    resample,
)
from crossfer.evaluation.rows import Difference, Paired, StrategyComparison

Tested = TypeVar("Tested", Difference, StrategyComparison)
"""A row with a paired test and its p-values, corrected."""


def compare(
    after: Right, before: Right, subjects: NDArray[np.integer] | None = None, folds: int = 1
) -> Paired:
    """Compare two networks, or strategies of several seeds, on the same test images.

    McNemar's test assumes independent images and fixed networks.  If images share subjects, or a strategy has
    several seeds, `Paired.p` comes from the paired bootstrap over subjects and seeds, and agrees with the
    interval.  Images of one person say nothing about others: `Paired.p` is 1.

    Parameters
    ----------
    after, before, subjects, folds
        As in `crossfer.evaluation.intervals.resample`.
    """
    gained, lost = (int(np.count_nonzero(x & ~y)) for x, y in ((after, before), (before, after)))
    draws = resample(after, before, subjects, folds=folds)
    networks = len(after)
    p_images = mcnemar(gained, lost) if networks == 1 else None
    exact, people = p_images if independent(subjects) else None, count_people(subjects)
    p = p_value(draws) if exact is None else exact
    return Paired(
        difference=change(after, before),
        interval=interval(change(after, before), draws),
        gained=gained / networks,
        lost=lost / networks,
        people=people,
        p=1.0 if people == 1 else p,
        test="bootstrap" if exact is None else "McNemar",
        p_images=p_images,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Return the p-value of McNemar's test, exact and two-sided (McNemar 1947).

    Under the hypothesis, each network is right on half of the n = gained + lost images on which only one is
    right: min(1, 2 Σ_{k ≤ min(gained, lost)} C(n, k) / 2ⁿ).  Computed with integers, so exact for every n.
    """
    n, ways, total = gained + lost, 1, 0
    for k in range(min(gained, lost) + 1):
        total += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * total / (1 << n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple testing (Holm 1979).

    The k-th smallest of m becomes the maximum of (m − j + 1) p_(j) over j ≤ k, at most 1.  At level 0.05 the
    probability of any false rejection is at most 5 %, for any dependence of the tests.
    """
    found, highest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        found[i] = highest
    return found


def corrected(rows: Sequence[Tested]) -> list[Tested]:
    """Add Holm's correction of `Paired.p` and of `Paired.p_images`, for all tests of these rows."""
    exact = iter(holm([row.paired.p_images for row in rows if row.paired.p_images is not None]))
    every = zip(rows, holm([row.paired.p for row in rows]), strict=True)
    return [
        replace(row, p_holm=p, p_images_holm=None if row.paired.p_images is None else next(exact))
        for row, p in every
    ]

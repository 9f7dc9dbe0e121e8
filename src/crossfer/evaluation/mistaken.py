"""Detect a wrong class order: outputs that stand for other classes than declared."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.metrics import confusion
from crossfer.evaluation.rows import Metrics

MOST = 12
"""Maximum number of classes for which the best order is searched."""


def guesses(measured: Metrics) -> bool:
    """Tell whether the accuracy is not shown to exceed chance agreement.

    Parameters
    ----------
    measured
        On a test set: the lower end of the accuracy's interval is compared with the agreement expected by
        chance (Cohen, A coefficient of agreement for nominal scales, 1960).
    """
    table = np.asarray(measured.confusion, dtype=np.float64)
    if measured.interval is None or not table.sum():
        return False
    by_chance = float(table.sum(0) @ table.sum(1)) / float(table.sum()) ** 2
    return measured.interval[0] <= 100 * by_chance


def best_assignment(gains: NDArray[np.integer]) -> tuple[int, ...]:
    """Assign a different column to each row so that the sum of the entries is maximal.

    Parameters
    ----------
    gains
        Integer (C, C), C at most 12, by dynamic programming over sets of columns (Held and Karp, A dynamic
        programming approach to sequencing problems, 1962).

    Returns
    -------
    tuple of int
        The column of each row.
    """
    size = len(gains)

    @cache
    def best(row: int, used: int) -> tuple[int, tuple[int, ...]]:
        if row == size:
            return 0, ()
        found: tuple[int, tuple[int, ...]] = (-1, ())
        for column in range(size):
            if not used >> column & 1:
                more, rest = best(row + 1, used | 1 << column)
                found = max(found, (int(gains[row, column]) + more, (column, *rest)))
        return found

    return best(0, 0)[1]


def mistaken_order(
    labels: NDArray[np.integer], decisions: NDArray[np.integer], classes: int
) -> tuple[int, ...] | None:
    """Return the class order in which a network would be significantly more accurate.

    It is selected on every other image and tested on the rest, so that the test is unbiased.

    Parameters
    ----------
    labels, decisions
        Integer (N,), 0 … classes - 1.
    classes
        Number of classes.

    Returns
    -------
    tuple of int or None
        For each class, the class that the network predicts instead; None if no other order is better with
        disjoint 95 % Wilson intervals.
    """
    if classes > MOST:
        return None
    order = best_assignment(confusion(labels[::2], decisions[::2], classes))
    judged, said = labels[1::2], decisions[1::2]
    right = int((said == judged).sum())
    better = int((said == np.asarray(order)[judged]).sum())
    if wilson_interval(better, len(judged))[0] <= wilson_interval(right, len(judged))[1]:
        return None
    return best_assignment(confusion(labels, decisions, classes))

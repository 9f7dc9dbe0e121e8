"""Detect a network that is read wrongly: outputs that stand for other classes, accuracy near chance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.metrics import confusion
from crossfer.evaluation.rows import Metrics

MOST = 12
"""Maximum number of classes for which the best order is searched."""
ABOVE_CHANCE = 5.0
"""Points above the most frequent class that the interval of an accuracy must reach."""
FAR = 3.0
"""Tolerated difference from the expected accuracy, in points, outside the interval."""
CHECK = "check its classes, normalisation, colour order and framing"


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


def misread(
    labels: NDArray[np.integer],
    decisions: NDArray[np.integer],
    names: Sequence[str],
    where: str,
    outputs: Sequence[str] = (),
) -> str | None:
    """Say how a deployed network seems to be read wrongly.

    Parameters
    ----------
    labels, decisions
        Integer (N,), 0 … C - 1, on images of the dataset that it was trained on.
    names
        Names of the C classes.
    where
        Name of the images.
    outputs
        Names of the network's outputs in order; by default the classes.

    Returns
    -------
    str or None
        Another class order that is far more accurate, or an accuracy near chance; None if it is neither.
    """
    outputs = outputs or names
    if order := mistaken_order(labels, decisions, len(names)):
        pairs = [f"{names[said]} for {names[i]}" for i, said in enumerate(order) if said != i]
        better = f"; its outputs may be {', '.join(_renamed(names, outputs, order))}"
        return (
            f"the order of its classes seems wrong: on {where} the network predicts "
            f"{', '.join(pairs)}" + (better if set(names) & set(outputs) else "")
        )
    right, count = int((labels == decisions).sum()), len(labels)
    frequent = 100 * int(np.bincount(labels).max()) / count
    if wilson_interval(right, count)[1] >= frequent + ABOVE_CHANCE:
        return None
    return (
        f"the deployed network has {100 * right / count:.1f} % on {where}, near chance "
        f"({frequent:.1f} %); {CHECK}"
    )


def unexpected(right: NDArray[np.bool_], expect: float, where: str) -> str | None:
    """Say that an accuracy is not as expected; None if it is.

    Parameters
    ----------
    right
        bool (N,): whether each answer is right.
    expect
        The expected accuracy, a fraction.
    where
        Name of the images.
    """
    hits, count, wanted = int(right.sum()), len(right), 100 * expect
    low, high = wilson_interval(hits, count)
    if low <= wanted <= high or abs(100 * hits / count - wanted) <= FAR:
        return None
    return (
        f"the deployed network has {100 * hits / count:.1f} % ({low:.1f} to {high:.1f}) on {where}, "
        f"not {wanted:g} %; {CHECK}"
    )


def _renamed(names: Sequence[str], theirs: Sequence[str], order: Sequence[int]) -> list[str]:
    """Return the names of a network's outputs in another class order."""
    true = {names[said]: names[meant] for meant, said in enumerate(order)}
    return [true.get(name, name) for name in theirs]

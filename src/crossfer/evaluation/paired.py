"""Is a difference between two networks real?  Paired tests on the same images, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import (
    Right,
    change,
    independent,
    interval,
    p_value,
    resample,
)

MCNEMAR, BOOTSTRAP = "McNemar", "bootstrap"


def compare(
    after: Right, before: Right, subjects: NDArray[np.integer] | None = None
) -> dict[str, Any]:
    """Compare two networks, or strategies of several seeds, on the same test images.

    McNemar's test takes images for independent of one another and networks as given.  Where images share
    subjects, or a strategy was trained with several seeds, the p-value comes from the paired bootstrap, which
    draws whole subjects and seeds: it and the interval then say the same.

    Parameters
    ----------
    after, before, subjects
        As in `crossfer.evaluation.intervals.resample`.

    Returns
    -------
    dict
        ``difference`` and its 95 % ``interval``, in points; ``gained`` and ``lost``, how many images only
        the first or only the second is right about (means over seeds); ``p`` and the ``test`` that gave it.
    """
    gained, lost = (int(np.count_nonzero(x & ~y)) for x, y in ((after, before), (before, after)))
    draws = resample(after, before, subjects)
    plain = len(after) == 1 and independent(subjects)
    return {
        "difference": change(after, before),
        "interval": interval(change(after, before), draws),
        "gained": gained / len(after),
        "lost": lost / len(after),
        "p": mcnemar(gained, lost) if plain else p_value(draws),
        "test": MCNEMAR if plain else BOOTSTRAP,
    }


def mcnemar(gained: int, lost: int) -> float:
    """Return the p-value of McNemar's test, exact and two-sided (McNemar 1947).

    Of the n = gained + lost images that only one of two networks is right about, were they equally good, each
    would be right about half: min(1, 2 Σ_{k ≤ min(gained, lost)} C(n, k) / 2ⁿ).  Whole numbers throughout, so
    exact for every n.
    """
    n, ways, total = gained + lost, 1, 0
    for k in range(min(gained, lost) + 1):
        total += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * total / (1 << n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being many (Holm 1979).

    The k-th smallest of m becomes the largest of (m − j + 1) p_(j) over j ≤ k, at most 1.  Calling real
    what is then below 0.05 errs anywhere among the m in at most 5 of 100 experiments, however the tests
    hang together.
    """
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected

"""How much slower is a network than another?  From times that were measured in turn.

In every round both networks answer once, so that whatever else the machine does meets both; the ratio of a
round's two times is free of it.  The measure is the median ratio.  Rounds that follow one another share
noise, so blocks of them are drawn (the block bootstrap: Künsch 1989); few blocks count as few people do in
`crossfer.evaluation.intervals`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfer.evaluation.intervals import Draws, for_few

BLOCK, LEAST_BLOCKS = 10, 10
"""Rounds that are drawn together; fewer, where there would be fewer blocks than that."""
RESAMPLES = 10_000


def latency_ratio(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the median over rounds of the new network's time divided by the old one's."""
    return float(np.median(np.asarray(new) / np.asarray(old)))


def ratio_draws(old: Sequence[float], new: Sequence[float], resamples: int = RESAMPLES) -> Draws:
    """Draw the median ratio as it might have come out: float64 (resamples,).

    Parameters
    ----------
    old, new
        Times of R rounds, in the order in which they were measured.
    resamples
        How many draws; the same times give the same draws.
    """
    ratios = np.asarray(new) / np.asarray(old)
    together = max(1, min(BLOCK, len(ratios) // LEAST_BLOCKS))
    blocks = np.array_split(ratios, len(ratios) // together)
    shortest = min(map(len, blocks))
    table = np.stack([block[:shortest] for block in blocks])
    rng = np.random.default_rng(0)
    parts = []
    for start in range(0, resamples, 1000):
        chosen = rng.integers(len(table), size=(min(1000, resamples - start), len(table)))
        parts.append(np.median(table[chosen].reshape(len(chosen), -1), axis=1))
    value, draws = float(np.median(ratios)), np.concatenate(parts)
    return value + (draws - value) * for_few(len(table), resamples, rng)

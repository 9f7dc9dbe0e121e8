"""Latency of a network relative to another, from alternating measurements.

In every round both networks predict once, so that other load affects both, and the ratio of the two times is
free of it.  The statistic is the median ratio.  Successive rounds are correlated, so blocks of rounds are
resampled (block bootstrap: Carlstein 1986), with the correction of `crossfer.evaluation.intervals` for few
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfer.evaluation.intervals import Draws, for_few

BLOCK, LEAST_BLOCKS = 10, 10
"""Rounds in a block, and the minimum number of blocks, for which blocks are made shorter."""
RESAMPLES = 10_000


def latency_ratio(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the median over rounds of the new network's time divided by the old one's."""
    return float(np.median(np.asarray(new) / np.asarray(old)))


def ratio_draws(old: Sequence[float], new: Sequence[float]) -> Draws:
    """Return bootstrap draws of the median ratio: float64 (RESAMPLES,); the same times give the same draws.

    Parameters
    ----------
    old, new
        Times of R rounds, in the order of measurement.
    """
    ratios = np.asarray(new) / np.asarray(old)
    together = max(1, min(BLOCK, len(ratios) // LEAST_BLOCKS))
    blocks = np.array_split(ratios, len(ratios) // together)
    shortest = min(map(len, blocks))
    table = np.stack([block[:shortest] for block in blocks])
    rng = np.random.default_rng(0)
    parts = []
    for start in range(0, RESAMPLES, 1000):
        chosen = rng.integers(len(table), size=(min(1000, RESAMPLES - start), len(table)))
        parts.append(np.median(table[chosen].reshape(len(chosen), -1), axis=1))
    value, draws = float(np.median(ratios)), np.concatenate(parts)
    return value + (draws - value) * for_few(len(table), RESAMPLES, rng)

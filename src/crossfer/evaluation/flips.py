"""Which images flipped: right before and wrong now (negative), wrong before and right now (positive).

Two networks of the same accuracy may be wrong about different images.  Whoever uses the old one notices what
used to work and does not any more, whatever the accuracy says (Yan and others, "Positive-congruent training",
2021).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfer.classes import FER7 as EMOTIONS
from crossfer.evaluation.metrics import Labels


class Flips(NamedTuple):
    """Positions of the images that flipped, int64, ascending.

    (positive − negative) / N is the change of accuracy, exactly.
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]


def find_flips(labels: Labels, before: Labels, after: Labels) -> Flips:
    """Find the images whose decision became right or stopped being right.

    Parameters
    ----------
    labels
        The truth: integer (N,).
    before, after
        What the old and the new network said: integer (N,).
    """
    was, is_ = before == labels, after == labels
    return Flips(np.flatnonzero(~was & is_), np.flatnonzero(was & ~is_))


def per_class(labels: Labels, positions: NDArray[np.int64]) -> list[int]:
    """Count flipped images by their true class."""
    return [int(count) for count in np.bincount(labels[positions], minlength=len(EMOTIONS))]

"""Who is who from frame to frame of a video, and what the classifier says of them over time.

*Numbers.*  A face of a new frame is the known face whose last box shares the largest part of the union with
it, pairs with the largest share first (greedy matching by IoU: Bochinski et al., High-Speed
Tracking-by-Detection Without Using Image Information, 2017).  Nobody is recognised: a face that was out of
sight for more than a second gets a new number, and so may a face that jumps.

*Smoothing.*  What is said of a face is the mean of what was said in all its frames so far, each weighted by
exp(−age / seconds): an exponential moving average whose first frames weigh no more than later ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.faces import shared
from crossfer.datasets.record import Box

LEAST_SHARED = 0.3
"""Of the union of two boxes that are the same face."""
OUT_OF_SIGHT = 1.0
"""Seconds after which a face that comes back is a new one, if it was not in the last frame either."""


@dataclass
class _Track:
    number: int
    box: Box
    seen: float
    mean: NDArray[np.float32]
    weight: float = 1.0


@dataclass
class Tracker:
    """Numbers the faces of one video, and smooths what is said of them.

    Parameters
    ----------
    smooth
        Seconds after which a frame weighs 1/e of what it did; 0: every frame speaks for itself.
    """

    smooth: float
    _tracks: list[_Track] = field(default_factory=list)
    _numbers: int = 0
    _before: float = 0.0

    def update(
        self, seconds: float, boxes: Sequence[Box], probabilities: Sequence[NDArray[np.float32]]
    ) -> list[tuple[int, NDArray[np.float32]]]:
        """Take the faces of the next frame.

        Parameters
        ----------
        seconds
            When it is.
        boxes
            Of its faces.
        probabilities
            Of each, float (classes,).

        Returns
        -------
        list of (int, float (classes,))
            For each face its number, from 1, and its smoothed probabilities.
        """
        since = min(self._before, seconds - OUT_OF_SIGHT)
        self._tracks = [track for track in self._tracks if track.seen >= since]
        self._before = seconds
        known = match([track.box for track in self._tracks], boxes)
        said = []
        for face, (box, now) in enumerate(zip(boxes, probabilities, strict=True)):
            if face in known:
                track = self._tracks[known[face]]
                faded = math.exp((track.seen - seconds) / self.smooth) if self.smooth else 0.0
                track.weight = track.weight * faded + 1
                track.mean = track.mean + (now - track.mean) / np.float32(track.weight)
                track.box, track.seen = box, seconds
            else:
                self._numbers += 1
                track = _Track(self._numbers, box, seconds, now)
                self._tracks.append(track)
            said.append((track.number, track.mean))
        return said


def match(before: Sequence[Box], now: Sequence[Box]) -> dict[int, int]:
    """Return which box of before each box of now is: pairs that share most first, none twice."""
    pairs = sorted(
        ((shared(b, n), i, j) for i, b in enumerate(before) for j, n in enumerate(now)),
        key=lambda pair: -pair[0],
    )
    found: dict[int, int] = {}
    for share, i, j in pairs:
        if share >= LEAST_SHARED and j not in found and i not in found.values():
            found[j] = i
    return found

"""Track faces through the frames of a video, and smooth their probabilities over time.

*Tracking.*  The boxes of successive frames are matched greedily by descending IoU (Bochinski et al.,
High-Speed Tracking-by-Detection Without Using Image Information, 2017).  Faces are not recognised: a face
that was not visible for more than a second gets a new number, and so may a face that jumps.

*Smoothing.*  The probabilities of a face are the mean over all its frames so far, weighted by exp(−age /
seconds): a bias-corrected exponential moving average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.faces import iou
from crossfer.datasets.record import Box

LEAST_SHARED = 0.3
"""Minimum IoU of boxes of the same face."""
OUT_OF_SIGHT = 1.0
"""Seconds after which a face that reappears gets a new number, unless it was in the last frame."""


@dataclass
class _Track:
    number: int
    box: Box
    seen: float
    mean: NDArray[np.float32]
    weight: float = 1.0


@dataclass
class FaceTracker:
    """Numbers the faces of one video, and smooths their probabilities.

    Parameters
    ----------
    smooth
        Time constant of the smoothing, in seconds; 0: no smoothing.
    """

    smooth: float
    _tracks: list[_Track] = field(default_factory=list)
    _numbers: int = 0
    _before: float = 0.0

    def update(
        self, seconds: float, boxes: Sequence[Box], probabilities: Sequence[NDArray[np.float32]]
    ) -> list[tuple[int, NDArray[np.float32]]]:
        """Process the faces of the next frame.

        Parameters
        ----------
        seconds
            Time of the frame.
        boxes
            Boxes of its faces.
        probabilities
            Probabilities of each face, float (classes,).

        Returns
        -------
        list of (int, float (classes,))
            Number, from 1, and smoothed probabilities of each face.
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
                track.mean = track.mean + (now - track.mean) / np.float32(track.weight)  # pyrefly: ignore[bad-assignment]  # float32 it is
                track.box, track.seen = box, seconds
            else:
                self._numbers += 1
                track = _Track(self._numbers, box, seconds, now)
                self._tracks.append(track)
            said.append((track.number, track.mean))
        return said


def match(before: Sequence[Box], now: Sequence[Box]) -> dict[int, int]:
    """Return the matching box of the last frame for each box, greedily by descending IoU."""
    pairs = sorted(
        ((iou(b, n), i, j) for i, b in enumerate(before) for j, n in enumerate(now)),
        key=lambda pair: -pair[0],
    )
    found: dict[int, int] = {}
    for share, i, j in pairs:
        if share >= LEAST_SHARED and j not in found and i not in found.values():
            found[j] = i
    return found

"""What is predicted of a picture or a video frame: a row of a table for each face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.record import Box
from crossfer.deploy.sources import Source
from crossfer.errors import legible

Point = tuple[float, float]

NO_NUMBER = "the classifier's answer is not a number"
"""The problem of a face for which a damaged network, or one in half precision, gives NaN."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A face in a picture.

    Parameters
    ----------
    box
        Left, top, width and height in pixels of the picture; may extend beyond it.
    eyes
        x, y of the person's left and right eye; ``None`` without detection.
    score
        Score of the detector, 0–1; ``None`` without detection.
    probabilities
        float32 (classes,).
    """

    box: Box
    eyes: tuple[Point, Point] | None
    score: float | None
    probabilities: NDArray[np.float32]

    @property
    def is_answered(self) -> bool:
        """Whether its probabilities are numbers."""
        return bool(np.isfinite(self.probabilities).all())


@dataclass(frozen=True, slots=True)
class FaceRow:
    """A row of the table: a face in a picture or frame, or a problem.

    Parameters
    ----------
    source
        The picture or video.
    frame, seconds
        In a video, the frame, from 0, and its time.
    face
        Number of the face, from 1: in a picture by descending score, in a video the same for the same face.
    seen
        The face; ``None`` if there is a problem.
    problem
        Empty if there is a face.
    """

    source: str
    frame: int | None = None
    seconds: float | None = None
    face: int | None = None
    seen: Seen | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a source, in order; `last` marks its last part."""

    source: Source
    rows: list[FaceRow]
    last: bool


def columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of a table of faces.

    Returns
    -------
    list of str
        ``source``; ``frame`` and ``seconds`` (of videos); ``face``; ``left``, ``top``, ``width``, ``height``
        in pixels; the person's own ``left_eye_x`` … ``right_eye_y``; ``score``, the detector's, 0–1;
        ``class``; ``p_`` and a class: its probability; ``problem``.
    """
    eyes = [f"{side}_eye_{axis}" for side in ("left", "right") for axis in "xy"]
    box = ["left", "top", "width", "height"]
    said = [f"p_{name}" for name in classes]
    return ["source", "frame", "seconds", "face", *box, *eyes, "score", "class", *said, "problem"]


def as_record(row: FaceRow, classes: Sequence[str]) -> dict[str, Any]:
    """Return a row as a record of the table: a value for each of `columns`, or ``None``."""
    values: list[Any] = [None] * (11 + len(classes))
    if row.seen:
        seen = row.seen
        eyes = [value for eye in seen.eyes or ((None, None), (None, None)) for value in eye]
        said = [round(float(p), 6) for p in seen.probabilities]
        best = classes[int(seen.probabilities.argmax())]
        pixels = [None if value is None else round(value, 2) for value in (*seen.box, *eyes)]
        score = None if seen.score is None else round(seen.score, 4)
        values = [row.face, *pixels, score, best, *said]
    seconds = None if row.seconds is None else round(row.seconds, 3)
    names = columns(classes)
    source = legible(row.source)
    return dict(zip(names, [source, row.frame, seconds, *values, row.problem], strict=True))

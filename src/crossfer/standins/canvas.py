"""Painting primitives: the camera's view of the head, soft fills, tapered strokes."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import cv2
import numpy as np

from .person import Colour

_SUBPIXEL = 4  # fractional bits of a pixel that OpenCV gets
_STEPS = 6  # points drawn between two control points of a curve
_FAINTEST = 0.03  # fainter paint is left out
_HEAD = (1.18, 1.65, 0.95)  # half-axes of the head: across, down, towards the camera


@dataclass(frozen=True)
class Pose:
    """How the head is turned and where the picture shows it.

    Attributes
    ----------
    yaw, pitch, roll
        Angles in radians: turned to the viewer's right, nodding down, tilted clockwise.
    scale
        Length of a face unit as a share of the picture's shorter side.
    centre
        Where the point between the eyes lies, as shares of width and height.
    gaze
        Where the eyes look, right and down, about -0.4 to 0.4.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 0.25
    centre: tuple[float, float] = (0.5, 0.45)
    gaze: tuple[float, float] = (0.0, 0.0)

    def turn(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        """Turn points of the head, (n, 2) in face units, and look at them from the front.

        `lift` is how far they stand out from the head.
        """
        x, y = points[:, 0], points[:, 1]
        across, down, deep = _HEAD
        z = np.sqrt(np.maximum(1 - (x / across) ** 2 - ((y - 0.1) / down) ** 2, 0)) * deep + lift
        turned = np.empty_like(points, dtype=float)
        turned[:, 0] = x * cos(self.yaw) + z * sin(self.yaw)
        z = z * cos(self.yaw) - x * sin(self.yaw)
        turned[:, 1] = y * cos(self.pitch) + (z - 0.5) * sin(self.pitch)
        return turned

    def frame(self, height: int, width: int) -> np.ndarray:
        """Give the 2x3 matrix from turned face units to pixels of a picture."""
        unit = self.scale * min(height, width)
        c, s = unit * cos(self.roll), unit * sin(self.roll)
        return np.array([[c, -s, self.centre[0] * width], [s, c, self.centre[1] * height]])


def _basis() -> np.ndarray:
    t = np.arange(_STEPS)[:, None] / _STEPS
    columns = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    return 0.5 * np.concatenate(columns, 1)


_BASIS = _basis()


def smooth(points: np.ndarray, closed: bool = False) -> np.ndarray:
    """Draw a Catmull-Rom curve through points, (n, 2) to (m, 2) with m about 6 n."""
    before, after = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    knots = np.concatenate([before, points, after])
    pieces = knots[np.arange(len(knots) - 3)[:, None] + np.arange(4)]  # (pieces, 4, 2)
    curve = (_BASIS @ pieces).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def ribbon(line: np.ndarray, width: float, taper: float = 0.5) -> np.ndarray:
    """Give a line a body, `width` wide in the middle and thin at its ends, as a polygon."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    body = np.sin(np.pi * np.linspace(0.03, 0.97, len(line))) ** taper
    across = along[:, ::-1] * (-1, 1)
    across *= (0.5 * width * body / (np.hypot(*along.T) + 1e-9))[:, None]
    return np.concatenate([line + across, (line - across)[::-1]])


class Canvas:
    """A picture being painted, and the pose through which it sees the face.

    Attributes
    ----------
    picture
        (height, width, 3) float32 RGB, 0 to 255; every method paints into it.
    unit
        Pixels to a face unit.
    """

    def __init__(self, backdrop: np.ndarray, pose: Pose) -> None:
        self.picture = backdrop.astype(np.float32)
        self.pose = pose
        height, width = backdrop.shape[:2]
        self._frame = pose.frame(height, width)
        self.unit = pose.scale * min(height, width)

    def locate(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        """Find the pixels, (n, 2) float, of points of the face, (n, 2) in face units."""
        pixels: np.ndarray = self.pose.turn(points, lift) @ self._frame[:, :2].T + self._frame[:, 2]
        return pixels

    def fill(
        self,
        shape: np.ndarray | list[np.ndarray],
        colour: Colour,
        alpha: float = 1.0,
        soft: float = 0.0,
        lift: float = 0.0,
        within: np.ndarray | None = None,
    ) -> None:
        """Paint a polygon of the face, or several at once.

        Parameters
        ----------
        shape
            (n, 2) corners in face units, or a list of such.
        colour
            RGB, 0 to 255.
        alpha
            Opacity, 0 to 1.
        soft
            Blur of the edge, in face units.
        lift
            How far the shape stands out from the head.
        within
            Another polygon: paint inside it only.
        """
        if alpha < _FAINTEST:
            return
        shapes = shape if isinstance(shape, list) else [shape]
        corners = self.locate(np.concatenate(shapes), lift)
        blur = soft * self.unit
        margin = int(2 + 2.5 * blur)
        height, width = self.picture.shape[:2]
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        columns = slice(max(0, int(left) - margin), min(width, int(right) + margin + 1))
        rows = slice(max(0, int(top) - margin), min(height, int(bottom) + margin + 1))
        size = (rows.stop - rows.start, columns.stop - columns.start)
        if min(size) <= 0:
            return
        corner = (columns.start, rows.start)
        parts = np.split(corners - corner, np.cumsum([len(one) for one in shapes])[:-1])
        mask = _mask(parts, size)
        if blur > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        if within is not None:
            inside = _mask([self.locate(within, lift) - corner], size)
            mask = cv2.multiply(mask, inside, scale=1 / 255)
        part = self.picture[rows, columns]
        cover = (mask * np.float32(min(alpha, 1.0) / 255))[..., None]
        part += (np.array(colour, np.float32) - part) * cover

    def stroke(
        self,
        points: np.ndarray | list[np.ndarray],
        colour: Colour,
        width: float,
        alpha: float = 1.0,
        soft: float = 0.0,
        lift: float = 0.0,
        taper: float = 0.5,
    ) -> None:
        """Paint a curve through points, or several, `width` wide and thinner towards the ends."""
        if alpha >= _FAINTEST:
            curves = points if isinstance(points, list) else [points]
            bodies = [ribbon(smooth(curve), width, taper) for curve in curves]
            self.fill(bodies, colour, alpha, soft, lift)

    def shade(self, shape: np.ndarray, light: np.ndarray, grid: np.ndarray, lift: float) -> None:
        """Multiply the picture inside a polygon, (n, 2) corners in face units, by a small light map.

        `light` has float32 factors, (rows, columns, 3); `grid` is the 2x3 matrix from its columns and rows to
        turned face units; `lift` is as in `fill`.
        """
        height, width = self.picture.shape[:2]
        square = np.vstack([grid, (0, 0, 1)])
        matrix = self._frame @ square
        factors = cv2.warpAffine(light, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        mask = _mask([self.locate(shape, lift)], (height, width))
        self.picture *= 1 + (factors - 1) * (mask * np.float32(1 / 255))[..., None]


def _mask(shapes: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Rasterise polygons, (n, 2) pixels each, with smooth edges: (height, width) uint8."""
    mask = np.zeros(size, np.uint8)
    for corners in shapes:
        fixed = np.round(corners * 2**_SUBPIXEL).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SUBPIXEL)
    return mask

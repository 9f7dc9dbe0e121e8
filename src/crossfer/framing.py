"""The framing of a face: size, channels, and position of the eyes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossfer.errors import CrossferError

SIDE = 48
"""Side of the faces of the study's network, in pixels."""
SMALLEST = 0.1
"""Side of the smallest face to look for, as a share of √(width x height) of the picture."""


@dataclass(frozen=True)
class Framing:
    """Size and position of a face in its image.

    Parameters
    ----------
    side
        Side of the image, 16–1024 pixels.
    channels
        1 for gray, 3 for RGB.
    eye_distance
        Distance between the eyes, as a fraction (0.1–0.8) of the width.
    eye_height
        Distance from the top to the middle between the eyes, as a fraction (0.1–0.9) of the height.

    Raises
    ------
    CrossferError
        If a value is no number, or outside its range.
    """

    side: int = SIDE
    channels: Literal[1, 3] = 1
    eye_distance: float = 0.42
    eye_height: float = 0.42

    def __post_init__(self) -> None:
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise CrossferError(f"channels is {self.channels}: must be 1 (gray) or 3 (RGB)")
        if type(self.side) is not int:
            raise CrossferError(f"side is {self.side}: must be a whole number of pixels")
        ranges = {"side": (16, 1024), "eye_distance": (0.1, 0.8), "eye_height": (0.1, 0.9)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise CrossferError(f"{name} is {value!r}: must be a number")
            if not least <= value <= most:
                raise CrossferError(f"{name} is {value}: must be between {least} and {most}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a face: (side, side) or (side, side, 3)."""
        return shape_of(self.side, self.channels)


def shape_of(side: int, channels: int) -> tuple[int, ...]:
    """Return the shape of a face: (side, side) gray or (side, side, 3) RGB."""
    return (side, side) if channels == 1 else (side, side, channels)

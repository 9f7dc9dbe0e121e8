"""From a photograph to a face: decode, crop, gray, 48×48."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crossfer.datasets.record import Box, Record

SIDE = 48


class UnreadableImage(Exception):
    """A picture that cannot be used; the message says why in a few words."""


def face_of(record: Record, crop: float) -> tuple[NDArray[np.uint8], Box]:
    """Cut the face out of a record's picture.

    Parameters
    ----------
    record
        Its box is the face where it has one.
    crop
        Otherwise the face is the centred square with this share (0–1] of the picture's shorter side.

    Returns
    -------
    face : uint8 (48, 48)
        Gray, reduced with a filter that covers the whole area of every pixel.
    box : tuple of float
        Left, top, width and height of what was cut out, in pixels of the picture.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, truncated or no image, or the box lies outside the picture.
    """
    if isinstance(record.picture, np.ndarray) and record.picture.shape == (SIDE, SIDE):
        return record.picture, (0.0, 0.0, float(SIDE), float(SIDE))
    image = (
        _open(record.picture)
        if isinstance(record.picture, Path)
        else Image.fromarray(record.picture)
    )
    box = record.box or _centred_square(image.width, image.height, crop)
    left, top, width, height = box
    right, bottom = left + width, top + height
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise UnreadableImage(f"the face box lies outside the {image.width}×{image.height} picture")
    if image.size != (SIDE, SIDE) or box != (0.0, 0.0, SIDE, SIDE):
        image = image.resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
    return np.asarray(image), box


def _open(file: Path) -> Image.Image:
    """Decode an image file into 8-bit gray, upright."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel
                deep = np.asarray(image, dtype=np.float32)
                return Image.fromarray(np.clip(deep / 257, 0, 255).astype(np.uint8))
            return ImageOps.exif_transpose(image).convert("L")
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except Image.DecompressionBombError:
        raise UnreadableImage("too many pixels to be a photograph") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(_why(file, error)) from None


def _why(file: Path, error: Exception) -> str:
    if "truncated" in str(error).lower():
        return "truncated"
    try:
        empty = file.stat().st_size == 0
    except (OSError, ValueError):
        empty = False
    return "the file is empty" if empty else "not an image that can be read"


def _centred_square(width: int, height: int, share: float) -> Box:
    side = share * min(width, height)
    return (width - side) / 2, (height - side) / 2, side, side

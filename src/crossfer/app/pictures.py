"""Encode pictures for the browser."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image

from crossfer.datasets.record import Pixels


def encoded(pixels: Pixels, kind: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """Return pixels, uint8 (H, W) or (H, W, 3) RGB, as an image file."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, kind)
    return out.getvalue()


def as_address(content: bytes, kind: Literal["PNG", "JPEG"] = "PNG") -> str:
    """Return an image file as a ``data:`` address."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"

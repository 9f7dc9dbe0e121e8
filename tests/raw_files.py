"""Raw files, as readers find them: pictures of noise, texts, empty files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise(number: int, side: int = 48) -> np.ndarray:
    """Return a gray picture, another for each number: uint8 (side, side)."""
    return np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)


def picture(file: Path, number: int = 0, side: int = 48) -> Path:
    """Write `noise` as PNG, whatever the suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(number, side)).save(file, format="PNG")
    return file


def many(top: Path, *names: str) -> Path:
    """Write a picture of each name, numbered from 0, into a folder."""
    for number, name in enumerate(names):
        picture(top / name, number)
    return top


def text(file: Path, content: str) -> Path:
    """Write a text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def empty(top: Path, *names: str) -> Path:
    """Write empty files into a folder: readers look at names only."""
    for name in names:
        text(top / name, "")
    return top


def pixels_row(number: int) -> str:
    """Return the pixels of a black picture of FER2013 whose last one is a number."""
    return " ".join(["0"] * 2303 + [str(number)])

"""Image files in folders, as people really keep them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
STRAY_FOLDERS = frozenset({"__MACOSX"})


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the image files under a folder, at any depth, sorted; hidden and stray ones left out."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in STRAY_FOLDERS
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(root, name)

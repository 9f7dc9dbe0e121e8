"""List the files under a folder, by kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
"""Of what may be a picture: one that cannot be decoded is counted, any other file is passed over."""

PACKED_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar"})
VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".ogv", ".ts", ".webm", ".wmv"),
    }
)
STRAY_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"})


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all files under a folder, at any depth, sorted; hidden and stray ones left out.

    Links to folders are followed, but never back to a folder they are in.

    Raises
    ------
    OSError
        If a folder cannot be read: what is in it would be missing without a word.
    """

    def give_up(error: OSError) -> None:
        raise error

    trails: dict[str, frozenset[tuple[int, int]]] = {os.fspath(folder): frozenset()}
    for root, folders, names in os.walk(folder, onerror=give_up, followlinks=True):
        trail, here = trails.pop(root), os.stat(root)
        identity = (here.st_dev, here.st_ino)
        if identity in trail:  # a link that leads back up
            folders.clear()
            continue
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in STRAY_FOLDERS
        )
        trails.update((os.path.join(root, name), trail | {identity}) for name in folders)
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(root, name)

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
OTHER_SUFFIXES = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".lst", ".log", ".md", ".html", ".json", ".jsonl"),
        *(".yaml", ".yml", ".xml", ".ini", ".py", ".ipynb", ".pdf", ".doc", ".docx", ".xls"),
        *(".xlsx", ".db", ".parquet", ".npy", ".npz", ".mat", ".pkl", ".h5", ".hdf5"),
        *(".zip", ".tar", ".gz", ".7z", ".rar"),
        *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2", ".thm"),  # beside a JPEG
    }
)
"""Of what is no picture, whatever its first bytes are."""
PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What the bytes 8 to 11 of a HEIF file say, after ``ftyp`` (ISO/IEC 23008-12)."""
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


def is_picture(file: str | Path) -> bool:
    """Tell whether a file may be a picture: by its suffix, or, with an unknown one, by its first bytes."""
    suffix = os.path.splitext(file)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix in VIDEO_SUFFIXES | OTHER_SUFFIXES:
        return False
    start = start_of(file)
    kind, brand = start[4:8], start[8:12]
    return (
        start.startswith(PICTURE_STARTS)
        or (start[:2] == b"BM" and b"\0" in start)  # a text may begin so, too
        or (start[:4] == b"RIFF" and brand == b"WEBP")
        or (kind == b"ftyp" and brand in (*HEIF_BRANDS, b"avif"))
    )


def start_of(file: str | Path) -> bytes:
    """Return what a file begins with: nothing where it is no regular one, as a pipe, or may not be read."""
    try:
        if not os.path.isfile(file):
            return b""
        with open(file, "rb") as data:
            return data.read(1024)
    except OSError:
        return b""

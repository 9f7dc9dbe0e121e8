"""List pictures and videos given by name, in folders or in archives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from crossfer.datasets.archives import is_archive, unpack_all
from crossfer.datasets.walk import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_below
from crossfer.errors import CrossferError


@dataclass(frozen=True, slots=True)
class Source:
    """A picture or a video.

    Parameters
    ----------
    name
        What it is called: its path as it was given, or the archive's and the path in it.
    file
        Where it is.
    is_video
        By its name.
    """

    name: str
    file: Path
    is_video: bool


@dataclass(frozen=True)
class Sources:
    """Everything to look at, and how many other files lie among it."""

    found: list[Source]
    others: int


@contextmanager
def sources_in(paths: Sequence[str | Path]) -> Iterator[Sources]:
    """Find the pictures and videos; archives are unpacked for as long as they are needed.

    Parameters
    ----------
    paths
        Files, folders and archives.  A file that is named is a picture unless its name is a video's; in a
        folder or an archive, files that are neither by their names are counted and left out.

    Raises
    ------
    CrossferError
        If a path is not there, an archive cannot be trusted, or there is nothing to look at.
    """
    found: dict[str, Source] = {}
    others = 0
    with ExitStack() as unpacked:
        for path in map(Path, paths):
            if path.is_dir():
                folder = path
            elif is_archive(path):
                folder = Path(unpacked.enter_context(TemporaryDirectory(prefix="crossfer-")))
                others += len(unpack_all(path, folder))
            elif path.exists():
                found[str(path)] = Source(str(path), path, _is(path, VIDEO_SUFFIXES))
                continue
            else:
                raise CrossferError(f"{path}: no such file or folder")
            for file in map(Path, files_below(folder)):
                if not _is(file, IMAGE_SUFFIXES | VIDEO_SUFFIXES):
                    others += 1
                    continue
                name = os.path.join(path, file.relative_to(folder))
                found[name] = Source(name, file, _is(file, VIDEO_SUFFIXES))
        if not found:
            raise CrossferError(f"{', '.join(map(str, paths))}: contains no picture and no video")
        yield Sources(list(found.values()), others)


def _is(file: Path, suffixes: frozenset[str]) -> bool:
    return file.suffix.lower() in suffixes

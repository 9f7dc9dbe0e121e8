"""List pictures and videos: single files, and files in folders and archives."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from crossfer.datasets.archives import is_archive, unpack_all
from crossfer.datasets.walk import VIDEO_SUFFIXES, files_below, is_picture
from crossfer.errors import CrossferError


@dataclass(frozen=True, slots=True)
class Source:
    """A picture or a video.

    Parameters
    ----------
    name
        Its path as given, or the path of the archive followed by the path in it.
    file
        The file on disk.
    is_video
        Whether its suffix is that of a video.
    """

    name: str
    file: Path
    is_video: bool


@dataclass(frozen=True)
class Sources:
    """Pictures and videos, and the number of other files among them."""

    found: list[Source]
    others: int

    def note(self) -> str:
        """Say how many files are neither; empty where all are pictures or videos."""
        return f"neither pictures nor videos, skipped: {self.others:,}" if self.others else ""


def check_address(given: str | Path) -> None:
    """Refuse an address, in which a `Path` has one slash less.

    Raises
    ------
    CrossferError
        If it is one.
    """
    if found := re.match(r"(\w{2,}):/+(.*)", os.fspath(given)):
        raise CrossferError("{}://{}: an address; download it first".format(*found.groups()))


@contextmanager
def sources_in(paths: Sequence[str | Path]) -> Iterator[Sources]:
    """Find the pictures and videos; archives are unpacked temporarily.

    Parameters
    ----------
    paths
        Files, folders and archives.  A named file is a picture unless it has a video's suffix; in folders and
        archives, files that are neither by their suffix or first bytes are counted and left out.

    Raises
    ------
    CrossferError
        If a path is missing or an address, an archive is unsafe, or there is no picture or video.
    """
    if not paths:
        raise CrossferError("no path is given; name pictures, videos, folders or archives")
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
                found[str(path)] = Source(str(path), path, _is_video(path))
                continue
            else:
                check_address(path)
                raise CrossferError(f"{path}: no such file or folder")
            for file in map(Path, files_below(folder)):
                if not (_is_video(file) or is_picture(file)):
                    others += 1
                    continue
                name = os.path.join(path, file.relative_to(folder))
                found[name] = Source(name, file, _is_video(file))
        if not found:
            raise CrossferError(f"{', '.join(map(str, paths))}: contains no picture and no video")
        yield Sources(list(found.values()), others)


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES

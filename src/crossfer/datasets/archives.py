"""Archives, opened for the while that somebody reads them; nothing in one is trusted."""

from __future__ import annotations

import errno
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from crossfer.datasets.record import Skipped
from crossfer.errors import CrossferError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LARGEST_GROWTH = 200
"""Unpacked over packed size; faces grow little, pixels written as text four times, bombs a thousand."""
ALWAYS_ALLOWED = 64 * 2**20
MOST_MEMBERS = 5_000_000
AT_ONCE = 2**20

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
NOT_THE_DISK = (
    *(None, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL),
    *(errno.EILSEQ, errno.EOVERFLOW),
)
"""What the system says of damage and of names that it cannot write; anything else is no fault of the file."""


@dataclass(frozen=True)
class _Member:
    """A file in an archive; `open` is ``None`` for a link or a device."""

    name: str
    open: Callable[[], IO[bytes] | None] | None


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that can be opened."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Return a dataset's own name: the file's, without what says that it is an archive or a table."""
    name = path.name
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: -len(suffix)] if suffix and path.is_file() else path.stem


def unpack(archive: Path, folder: Path) -> list[Skipped]:
    """Unpack an archive into an empty folder.

    Parameters
    ----------
    archive
        Its name ends in one of `SUFFIXES`.
    folder
        Will hold the archive's regular files.

    Returns
    -------
    list of Skipped
        Links and devices: none is followed or made.

    Raises
    ------
    CrossferError
        If it is damaged, encrypted, names a file outside itself, or grows beyond all measure.
    """
    allowance = ALWAYS_ALLOWED + LARGEST_GROWTH * archive.stat().st_size
    allowance = min(allowance, shutil.disk_usage(folder).free)
    skipped: list[Skipped] = []
    members = _zipped if archive.name.lower().endswith(".zip") else _tarred
    try:
        with members(archive) as found:
            for number, member in enumerate(found):
                inside = _path_inside(archive, member.name)
                if number >= MOST_MEMBERS:
                    raise CrossferError(f"{archive}: more than {MOST_MEMBERS:,} files")
                source = member.open() if member.open else None
                if source is None:
                    skipped.append(Skipped(member.name, "a link or a device in the archive"))
                    continue
                file = folder / inside
                file.parent.mkdir(parents=True, exist_ok=True)
                with source, file.open("wb") as target:
                    while block := source.read(AT_ONCE):
                        allowance -= len(block)
                        if allowance < 0:
                            raise CrossferError(
                                f"{archive}: unpacks to more than {LARGEST_GROWTH} times its size, or "
                                "than the disk holds; unpack it yourself and name the folder"
                            )
                        target.write(block)
    except (*DAMAGE, OSError) as error:
        if getattr(error, "errno", None) not in NOT_THE_DISK:
            raise
        raise CrossferError(f"{archive}: not an archive that can be read ({error})") from None
    return skipped


@contextmanager
def _zipped(archive: Path) -> Iterator[Iterator[_Member]]:
    with zipfile.ZipFile(archive) as file:

        def members() -> Iterator[_Member]:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if not info.is_dir():
                    regular = kind in (0, stat.S_IFREG)
                    yield _Member(info.filename, partial(file.open, info) if regular else None)

        yield members()


@contextmanager
def _tarred(archive: Path) -> Iterator[Iterator[_Member]]:
    with tarfile.open(archive) as file:

        def members() -> Iterator[_Member]:
            for info in file:
                if not info.isdir():
                    yield _Member(
                        info.name,
                        partial(file.extractfile, info) if info.isreg() else None,
                    )

        yield members()


def _path_inside(archive: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    outside = not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in name
    if outside:
        raise CrossferError(f"{archive}: names a file outside itself ({name!r}); do not trust it")
    return Path(*parts)

"""Unpack archives without trusting them: paths, links, sizes and damage are checked."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, cast

from crossfer.datasets.record import Skipped
from crossfer.datasets.walk import IMAGE_SUFFIXES, files_below
from crossfer.errors import CrossferError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".gz")
DEEPEST = 2
"""Levels of archives in archives."""
LARGEST_GROWTH = 200
"""Unpacked over packed size; faces grow little, pixels written as text four times, bombs a thousand."""
ALWAYS_ALLOWED = 64 * 2**20
MOST_MEMBERS = 5_000_000
AT_ONCE = 2**20
TOO_LARGE = (
    f"{{archive}}: unpacks to more than {LARGEST_GROWTH} times its size, or beyond the free disk space; "
    "unpack it yourself and name the folder"
)

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
    if not is_archive(path):
        return path.stem
    own = _without_suffix(path)
    return Path(own).stem if is_single(path) else own


def _without_suffix(archive: Path) -> str:
    """Return an archive's name without the longest of `SUFFIXES` that it ends in."""
    longest = max(len(end) for end in SUFFIXES if archive.name.lower().endswith(end))
    return archive.name[:-longest]


def is_single(path: Path) -> bool:
    """Tell whether a file is one packed file, as a table (.csv.gz), and not many."""
    name = path.name.lower()
    return path.is_file() and name.endswith(".gz") and not name.endswith(".tar.gz")


def is_packed(path: Path) -> bool:
    """Tell whether a path is an archive, or a folder of archives without a picture or a table beside them."""
    if path.is_file():
        return is_archive(path)
    if not any(map(is_archive, path.iterdir())):
        return False
    return not any(
        os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES | {".parquet"}
        or _has_pixels(Path(file))
        for file in files_below(path)
    )


def unpack_all(source: Path, folder: Path) -> list[Skipped]:
    """Unpack an archive or a folder of archives into an empty folder, with the archives inside it.

    Other files of a folder of archives are linked.

    Parameters
    ----------
    source
        An archive or a folder for which `is_packed` holds.
    folder
        Where to unpack; an archive inside an archive gets a folder of its name.

    Returns
    -------
    list of Skipped
        As for `unpack`, and archives nested too deep.

    Raises
    ------
    CrossferError
        As for `unpack`; the limit of growth holds for everything together, too.
    """
    if source.is_file():
        packed, skipped = [source], unpack(source, folder)
    else:
        packed, skipped = list[Path](), list[Skipped]()
        for entry in sorted(source.iterdir()):
            if is_archive(entry):
                packed.append(entry)
                skipped += unpack(entry, _beside(folder / entry.name))
            elif not entry.name.startswith("."):
                _refer(folder / entry.name, entry.resolve())
    most = ALWAYS_ALLOWED + LARGEST_GROWTH * sum(file.stat().st_size for file in packed)
    for level in range(DEEPEST + 1):
        inner = [Path(file) for file in files_below(folder) if is_archive(Path(file))]
        for archive in inner:
            if not archive.resolve().is_relative_to(folder.resolve()):
                continue  # it stands in the user's own folder, below the first level
            if level == DEEPEST:
                where = archive.relative_to(folder).as_posix()
                skipped.append(Skipped(where, "an archive nested too deep; unpack it yourself"))
                continue
            skipped += unpack(archive, _beside(archive), most - _size(folder))
            archive.unlink()
    return skipped


def _refer(place: Path, to: Path) -> None:
    """Link a file or folder at a place; copy it where symbolic links are not allowed (Windows)."""
    try:
        place.symlink_to(to, target_is_directory=to.is_dir())
    except OSError:
        if to.is_dir():
            shutil.copytree(to, place)
        else:
            shutil.copy(to, place)


def _beside(archive: Path) -> Path:
    """Make the folder for what is in an archive: of its name, or of one more where that is taken."""
    if is_single(archive):
        return archive.parent
    own = archive.with_name(_without_suffix(archive) or "archive")
    while own.exists() or own.is_symlink():
        own = own.with_name(f"{own.name} unpacked")
    own.mkdir(parents=True)
    return own


def _size(folder: Path) -> int:
    return sum(os.stat(file).st_size for file in files_below(folder) if not os.path.islink(file))


def _has_pixels(file: Path) -> bool:
    """Tell whether a file is a table that holds its pictures itself."""
    if file.suffix.lower() not in (".csv", ".tsv"):
        return False
    with file.open("rb") as data:
        return b"pixels" in data.read(4096).lower()


def unpack(archive: Path, folder: Path, most: int | None = None) -> list[Skipped]:
    """Unpack an archive into an empty folder.

    Parameters
    ----------
    archive
        Its name ends in one of `SUFFIXES`.
    folder
        Where to write the archive's regular files.
    most
        Limit of the unpacked bytes, in addition to `LARGEST_GROWTH` times its size.

    Returns
    -------
    list of Skipped
        Links and devices, which are not created, and files of a name that comes again.

    Raises
    ------
    CrossferError
        If it is damaged, encrypted, has a path outside the folder, too many files, or exceeds a limit.
    """
    allowance = ALWAYS_ALLOWED + LARGEST_GROWTH * archive.stat().st_size
    allowance = min(allowance, shutil.disk_usage(folder).free)
    allowance = allowance if most is None else max(0, min(allowance, most))
    skipped: list[Skipped] = []
    members = _zipped if archive.name.lower().endswith(".zip") else _tarred
    members = _gzipped if is_single(archive) else members
    try:
        with closing(members(archive)) as found:
            for number, member in enumerate(found):
                inside = _path_inside(archive, member.name)
                if number >= MOST_MEMBERS:
                    raise CrossferError(
                        f"{archive}: has more than {MOST_MEMBERS:,} files; unpack it yourself and "
                        "name the folder"
                    )
                source = member.open() if member.open else None
                if source is None:
                    skipped.append(Skipped(member.name, "a link or a device in the archive"))
                    continue
                file = folder / inside
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.exists():
                    skipped.append(Skipped(member.name, "in the archive twice; the last is used"))
                with source, file.open("wb") as target:
                    while block := source.read(AT_ONCE):
                        allowance -= len(block)
                        if allowance < 0:
                            raise CrossferError(TOO_LARGE.format(archive=archive))
                        target.write(block)
    except (*DAMAGE, OSError) as error:
        if getattr(error, "errno", None) not in NOT_THE_DISK:
            raise
        raise CrossferError(f"{archive}: not a readable archive ({error})") from None
    return skipped


def _zipped(archive: Path) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir():
                regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                yield _Member(info.filename, partial(file.open, info) if regular else None)


def _gzipped(archive: Path) -> Generator[_Member, None, None]:
    def opened() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(archive, "rb"))

    yield _Member(_without_suffix(archive) or "file", opened)


def _tarred(archive: Path) -> Generator[_Member, None, None]:
    with archive.open("rb") as packed:
        magic = packed.read(6)
    kinds = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opened = next((how for head, how in kinds.items() if magic.startswith(head)), open)
    with (
        opened(archive, "rb") as stream,
        tarfile.TarFile(fileobj=cast(IO[bytes], _Stream(cast(IO[bytes], stream), archive))) as file,
    ):
        for info in file:
            if not info.isdir():
                yield _Member(info.name, partial(file.extractfile, info) if info.isreg() else None)


class _Stream:
    """What `tarfile` reads of an archive: at most as much as may be unpacked, and no endless header.

    It reads a name or a PAX header at once, of whatever size its header says.
    """

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self.stream, self.archive, self.name = stream, archive, str(archive)
        self.most = ALWAYS_ALLOWED + LARGEST_GROWTH * archive.stat().st_size

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, position: int) -> int:
        if position > self.most:
            raise CrossferError(TOO_LARGE.format(archive=self.archive))
        return self.stream.seek(position)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= AT_ONCE:
            raise tarfile.ReadError("a header of more than 1 MB")
        if self.tell() + size > self.most:
            raise CrossferError(TOO_LARGE.format(archive=self.archive))
        return self.stream.read(size)


def _path_inside(archive: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    outside = not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in name
    if outside:
        raise CrossferError(
            f"{archive}: contains a path outside the archive ({name!r}); do not use it"
        )
    return Path(*parts)

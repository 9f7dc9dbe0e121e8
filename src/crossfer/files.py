"""Atomic writes, hashes and file locks: what is on disk survives a crash or a full disk.

A process may be killed at any time, and a disk may fill up in the middle of a line.  So every file is written
under another name and then renamed, which is atomic.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crossfer.errors import CrossferError, one_line


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """Yield a path to write to; afterwards the file there atomically replaces `file`.

    It is synced to the disk first.  After an error, `file` is unchanged and the other file is removed.

    Raises
    ------
    OSError
        If the disk is full or not writable; the error names the file.
    """
    beside = file.with_name(f"{file.name}.partial")
    try:
        yield beside
        sync(beside)
        beside.replace(file)
        sync(file.parent)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        unnamed = (None, os.fspath(beside))
        if isinstance(error, OSError) and error.errno and error.filename in unnamed:
            error.filename = os.fspath(file)
        raise


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file atomically."""
    with written(file) as beside:
        beside.write_bytes(content)


def write_json(file: Path, content: Any) -> None:
    """Write JSON atomically; surrogates in paths are escaped and read back unchanged."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; None if it is not there.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_versioned(file: Path, version: int, again: str, kind: str = "") -> dict[str, Any]:
    """Return the JSON object of a file that says which format it has.

    Parameters
    ----------
    file
        The file.
    version
        The format that is read.
    again
        How the user makes the file again.
    kind
        What the file must say that it is; by default it says nothing.

    Raises
    ------
    CrossferError
        If it cannot be read, is damaged, or is of another kind or format.
    """
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        wrong = "cannot be read" if isinstance(error, OSError) else "damaged"
        wrong = f"not a {kind}" if kind else wrong
        raise CrossferError(f"{file}: {wrong} ({one_line(error)}); {again}") from None
    if kind and content.get("kind") != kind:
        raise CrossferError(f"{file}: not a {kind}; {again}")
    if (found := content.get("format")) != version:
        raise CrossferError(
            f"{file}: has format {found!r}, but this version reads {version}; {again}"
        )
    return content


def write_csv(file: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a header, atomically."""
    with (
        written(file) as beside,
        beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as text,
    ):
        table = csv.DictWriter(text, list(columns))
        table.writeheader()
        table.writerows(rows)


def place_folder(beside: Path, out: Path) -> None:
    """Rename a finished folder of ``tempfile.mkdtemp`` to `out`, which is empty or missing."""
    beside.chmod(0o755)  # mkdtemp lets only its owner in
    with suppress(FileNotFoundError):
        out.rmdir()  # only POSIX renames over an empty folder
    beside.replace(out)


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Sync a file, or a folder's list of files, to the disk."""
    if path.is_dir() and os.name != "posix":
        return  # only there can a folder be opened
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(file: Path, size: int) -> None:
    """Create a file of `size` bytes with allocated disk space.

    Without it, a full disk would kill a process that writes to the memory-mapped file.
    """
    with file.open("wb") as out:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, size)
        else:
            out.truncate(size)


@contextmanager
def alone(lock: Path, taken: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, which the system releases when the process ends.

    Parameters
    ----------
    lock
        The lock's file; the holder is written to a file beside it.
    taken
        Called with the process and host that hold the lock, if it is taken.  It may raise; otherwise the lock
        is waited for.
    """
    import filelock  # here: half of what `crossfer.files` would take to import, and few need it

    owner = lock.with_name(f"{lock.name}.owner")
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        who = "another process"
        with suppress(OSError):
            who = owner.read_text(encoding="utf-8")
        taken(who)
        held.acquire(poll_interval=0.5)
    try:
        owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        held.release()

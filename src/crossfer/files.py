"""Atomic writes, hashes and file locks: what is on disk survives a crash or a full disk.

A process may be killed between any two instructions and a disk may fill up in the middle of a line.  So
everything is written beside its place and then renamed, which a file system does entirely or not at all.
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


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """Give a path to write to, beside a file; what was written there then becomes the file.

    It is on the disk before it takes its place.  If anything fails, the file is what it was, and nothing
    lies beside it.

    Raises
    ------
    OSError
        If there is no room or no permission; it names the file.
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
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = os.fspath(file)
        raise


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with written(file) as beside:
        beside.write_bytes(content)


def write_json(file: Path, content: Any) -> None:
    """Write JSON, whole or not at all; a path that is no text is escaped, and read as it was."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; None if it is not there, or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_csv(file: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a line of column names, whole or not at all."""
    with (
        written(file) as beside,
        beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as text,
    ):
        table = csv.DictWriter(text, list(columns))
        table.writeheader()
        table.writerows(rows)


def place_folder(beside: Path, out: Path) -> None:
    """Let a folder of ``tempfile.mkdtemp``, now finished, be another one, which is empty or not there."""
    beside.chmod(0o755)  # mkdtemp lets only its owner in
    with suppress(FileNotFoundError):
        out.rmdir()  # only POSIX renames over an empty folder
    beside.replace(out)


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of files, to the disk itself, where a power cut cannot reach it."""
    if path.is_dir() and os.name != "posix":
        return  # only there can a folder be opened
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(file: Path, size: int) -> None:
    """Make a file of so many bytes for which the disk has room.

    Where a file is mapped into memory, a disk that fills up later would end the process without a word.
    """
    with file.open("wb") as out:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, size)
        else:
            out.truncate(size)


@contextmanager
def alone(lock: Path, taken: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock.  The system lets go of it when the process ends, however it ends.

    Parameters
    ----------
    lock
        The lock's file; beside it stands who holds it.
    taken
        Told which process on which host holds the lock, where one does.  It may raise; otherwise the lock
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

"""A raw dataset, read: its records, and what is left out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from crossfer.datasets import archives
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.readers.files import files_below, find
from crossfer.datasets.readers.in_memory import Memory
from crossfer.datasets.record import Reader, Record, Skipped
from crossfer.errors import CrossferError

STAND_IN_NOTE = "STAND-IN.txt"


@dataclass(frozen=True)
class Raw:
    """What was read of a raw dataset."""

    name: str
    reader: Reader
    why: str
    place: str
    state: str
    stand_in: bool
    records: list[Record]
    left_out: list[Skipped]


def read_raw(source: Path | Memory, how: Preparation, name: str | None, workshop: Path) -> Raw:
    """Read all records; an archive is unpacked first."""
    if isinstance(source, Memory):
        own = legible(source.name)
        records, left_out = _usable(source.read(how.read_options), source.reader, own)
        return Raw(
            name=legible(name or own),
            reader=source.reader,
            why="as the user says",
            place=own,
            state="",
            stand_in=False,
            records=records,
            left_out=left_out,
        )
    place, left_out = source, list[Skipped]()
    if archives.is_archive(source):
        place = workshop / "raw"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        left_out = archives.unpack(source, place)
    try:
        reader, why = (READERS[how.reader], "as the user says") if how.reader else recognise(place)
        items = [*reader.read(place, how.read_options), *left_out]
    except CrossferError as error:
        text = str(error).replace(str(place), str(source))
        raise CrossferError(text if str(source) in text else f"{source}: {text}") from None
    own = archives.stem(source) if reader.name in ("folder", "manifest") else reader.name
    where = legible(str(source.resolve()))
    records, left_out = _usable(items, reader, where)
    return Raw(
        name=legible(name or own),
        reader=reader,
        why=legible(why),
        place=where,
        state=raw_state(source),
        stand_in=bool(find(place, STAND_IN_NOTE)) or (source.parent / STAND_IN_NOTE).is_file(),
        records=records,
        left_out=left_out,
    )


def _usable(
    items: Iterable[Record | Skipped], reader: Reader, place: str
) -> tuple[list[Record], list[Skipped]]:
    """Split what was read into records of pictures that are there, each once, and the rest."""
    there, seen = cache(os.path.exists), set[tuple[Any, ...]]()
    records, left_out = list[Record](), list[Skipped]()
    for item in map(_legible, items):
        if isinstance(item, Skipped):
            left_out.append(item)
        elif not isinstance(item.picture, Path):
            records.append(item)
        elif not there(item.picture):
            left_out.append(Skipped(item.origin, "no such file"))
        elif (face := (item.picture, item.frame, item.box)) in seen:
            left_out.append(Skipped(item.origin, "listed more than once"))
        else:
            seen.add(face)
            records.append(item)
    if not records:
        detail = f" ({left_out[0].origin}: {left_out[0].reason})" if left_out else ""
        raise CrossferError(f"{place}: no usable image{detail}; expected {reader.layout}")
    return records, left_out


def legible(text: str) -> str:
    """Write out what is no text in a name: a file system takes any bytes, a table does not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _legible(item: Record | Skipped) -> Record | Skipped:
    """Write out what is no text in what a record says."""
    texts = ((name, getattr(item, name, None)) for name in ("origin", "subject", "reason"))
    odd: dict[str, Any] = {
        name: legible(text) for name, text in texts if text and text != legible(text)
    }
    return dataclasses.replace(item, **odd) if odd else item


def raw_state(path: Path) -> str:
    """Return a digest of the names, sizes and times of raw files: it tells whether any changed."""
    files = [path] if path.is_file() else sorted(map(Path, files_below(path)))
    stats = [(str(file.relative_to(path)), file.stat()) for file in files if file.is_file()]
    state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(state).encode()).hexdigest()

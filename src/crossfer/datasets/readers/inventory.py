"""Summarise a folder whose layout is not known, for the error message."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from crossfer.datasets.readers.columns import ALIASES, columns_in, plain
from crossfer.datasets.readers.tables import columns_of, tables_near
from crossfer.datasets.record import ReadOptions
from crossfer.datasets.walk import IMAGE_SUFFIXES, PACKED_SUFFIXES, VIDEO_SUFFIXES, files_below
from crossfer.errors import CrossferError

MOST = 100_000


def is_archive_name(file: str) -> bool:
    """Tell by its name whether a file is an archive."""
    return os.path.splitext(file)[1].lower() in PACKED_SUFFIXES


def found_in(path: Path) -> str:
    """Say in half a line what a folder holds: pictures and where, tables with their columns, archives."""
    kinds: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for file in islice(files_below(path), MOST):
        suffix = os.path.splitext(file)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            kinds["pictures"] += 1
            places[Path(file).parent.relative_to(path).as_posix()] += 1
        elif suffix in VIDEO_SUFFIXES:
            kinds["videos"] += 1
        elif is_archive_name(file):
            kinds["archives"] += 1
    parts = [f"{count:,} {kind}" for kind, count in sorted(kinds.items())]
    if places:
        some = ", ".join(
            name if name != "." else "the folder itself" for name in sorted(places)[:5]
        )
        depth = max(len(Path(name).parts) for name in places)
        more = f", … {len(places):,} folders" if len(places) > 5 else ""
        parts.append(f"the pictures are in {some}{more} ({depth} deep)")
    parts += [f"the table {t.relative_to(path).as_posix()} ({_columns(t)})" for t in _tables(path)]
    return "; ".join(parts) or "no known file"


def way_on(path: Path) -> str:
    """Say the shortest way from what is found to a dataset that can be read."""
    if tables := _tables(path):
        names = _names(tables[0])
        if any(os.path.splitext(name)[1] in IMAGE_SUFFIXES for name in names):
            return (
                f"{tables[0]} begins with a picture, not with a header: add a first line with its columns' "
                "names, for example path,label"
            )
        try:
            columns_in(names, ReadOptions(), str(tables[0]))
        except CrossferError as error:  # which column is the label?
            return str(error)
        return (
            f"if that table lists them: crossfer prepare {shlex.quote(str(tables[0]))} "
            f"{' '.join(_roles(names))} [--root FOLDER]"
        )
    if any(map(is_archive_name, islice(files_below(path), MOST))):
        return "archives beside pictures are not read; unpack them, or name one alone"
    return "put the pictures of each class in a folder of its name, or list them in a table: path,label"


def _tables(path: Path) -> list[Path]:
    return list(islice(tables_near(path, 2), 3))


def _roles(names: Sequence[str]) -> Iterator[str]:
    """Yield the options that name a table's picture and label: as recognised, or NAME."""
    by_plain = {plain(name): name for name in names}
    for role in ("path", "label"):
        known = next((by_plain[alias] for alias in ALIASES[role] if alias in by_plain), "NAME")
        yield f"--column {shlex.quote(f'{role}={known}')}"


def _columns(table: Path) -> str:
    return ", ".join(_names(table))[:120]


def _names(table: Path) -> list[str]:
    """Return the names of a table's columns; none where it cannot be read."""
    try:
        return [name for name in columns_of(table) if name]
    except CrossferError:
        return []

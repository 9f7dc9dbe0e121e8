"""Any table, CSV or Parquet, with a row per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from crossfer.datasets.readers.files import labelled
from crossfer.datasets.readers.splitnames import SPLIT_NAMES
from crossfer.datasets.readers.tables import box_of, header, table_rows
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.errors import CrossferError

NEEDED = {"path", "label"}
BOX = ("left", "top", "width", "height")
ROWS_AT_ONCE = 1024
LARGEST_GROWTH = 200
"""Bytes of a Parquet table over those of its file."""


def recognise(path: Path) -> str | None:
    """Say why a path looks like a manifest."""
    return (
        "it is a table with the columns path and label" if set(columns_of(path)) >= NEEDED else None
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record a row; paths are relative to the manifest's folder."""
    missing = NEEDED - set(columns_of(path))
    if missing:
        raise CrossferError(f"{path}: no column {' and '.join(sorted(missing))}")
    for number, row in _rows(path):
        origin = f"{path.name} row {number}"
        problem = row if isinstance(row, str) else _problem(row)
        if problem or isinstance(row, str):
            yield Skipped(origin, str(problem))
            continue
        try:
            label, reason = labelled(row["label"], options)
        except CrossferError as error:
            raise CrossferError(f"{path} row {number}: {error}") from None
        if label is None:
            yield Skipped(origin, reason)
            continue
        name = row["path"].replace("\\", "/")
        yield Record(
            path.parent / name,
            label,
            name,
            subject=row.get("subject") or options.subject_of(name),
            split=SPLIT_NAMES.get(row.get("split", "").lower()),
            box=box_of([row.get(side, "") for side in BOX]),
        )


def _is_parquet(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".parquet"


def columns_of(path: Path) -> list[str]:
    """Return a table's column names in lower case; none where a file is no table."""
    if not _is_parquet(path):
        return header(path)
    try:
        with path.open("rb") as data:  # whose name may be no text, as pyarrow wants it
            return [name.strip().lower() for name in pa.parquet.read_schema(data).names]
    except (pa.ArrowException, OSError) as error:
        raise CrossferError(f"{path}: not a readable table ({error})") from None


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Yield a table's rows as texts, with the number that people see."""
    if not _is_parquet(path):
        for number, row in table_rows(path):
            yield number, row if isinstance(row, str) else _texts(row)
        return
    try:
        with path.open("rb") as data, pa.parquet.ParquetFile(data) as file:
            _check_size(path, file.metadata)
            names, number = columns_of(path), 0
            for batch in file.iter_batches(ROWS_AT_ONCE):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, _texts(dict(zip(names, values, strict=True)))
    except (pa.ArrowException, OSError) as error:
        raise CrossferError(f"{path}: not a readable table ({error})") from None


def _check_size(path: Path, about: pa.parquet.FileMetaData) -> None:
    """Refuse a table that claims to hold more than so many bytes can say."""
    size = path.stat().st_size
    groups = (about.row_group(n) for n in range(about.num_row_groups))
    if about.num_rows > size or sum(g.total_byte_size for g in groups) > LARGEST_GROWTH * size:
        raise CrossferError(f"{path}: claims to hold more than a table of its size can")


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is not itself
        return ""
    # A column of whole numbers becomes one of fractions where a value is missing.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _problem(row: Mapping[str, str]) -> str | None:
    if not row["path"] or not row["label"]:
        return "path or label is empty"
    split = row.get("split", "")
    if split and split.lower() not in SPLIT_NAMES:
        return f"unknown split {split!r}: training, validation or test"
    sides = [row.get(side, "") for side in BOX]
    if any(sides) and box_of(sides) is None:
        return "the face box needs four numbers: left, top, width, height"
    return None


READER = Reader(
    name="manifest",
    title="any CSV or Parquet table with a row per image",
    size="any",
    licence="yours",
    access="yours",
    layout="columns path, label; optional subject, split, left, top, width, height",
    cropped=None,
    recognise=recognise,
    read=read,
)

"""Any table, CSV or Parquet, with a row per image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from crossfer.datasets.readers.folder import SPLIT_NAMES
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.emotions import label_of
from crossfer.errors import CrossferError

BOX = ("left", "top", "width", "height")


def recognise(path: Path) -> str | None:
    """Say why a path looks like a manifest."""
    if not path.is_file() or path.suffix.lower() not in (".csv", ".parquet"):
        return None
    missing = {"path", "label"} - set(_table(path).column_names)
    return None if missing else "it is a table with the columns path and label"


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record a row; paths are relative to the manifest's folder."""
    table = _table(path)
    missing = {"path", "label"} - set(table.column_names)
    if missing:
        raise CrossferError(f"{path}: no column {' and '.join(sorted(missing))}")
    for number, row in enumerate(table.to_pylist(), 2 if path.suffix.lower() == ".csv" else 1):
        origin = f"{path.name} row {number}"
        problem = _problem(row)
        if problem:
            yield Skipped(origin, problem)
            continue
        try:
            label = label_of(row["label"], options.labels)
        except CrossferError as error:
            raise CrossferError(f"{path} row {number}: {error}") from None
        if label is None:
            yield Skipped(origin, f"class {row['label']} is left out")
            continue
        split = _text(row.get("split"))
        yield Record(
            path.parent / str(row["path"]),
            label,
            str(row["path"]),
            subject=_text(row.get("subject")) or options.subject_of(str(row["path"])),
            split=SPLIT_NAMES[split.lower()] if split else None,
            box=_box(row),
        )


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            table = pa.parquet.read_table(path)
        else:
            table = pa.csv.read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CrossferError(f"{path}: not a readable table ({error})") from None
    return table.rename_columns([name.strip().lower() for name in table.column_names])


def _text(value: Any) -> str | None:
    text = "" if value is None or value != value else str(value).strip()  # NaN is not itself
    return text or None


def _problem(row: dict[str, Any]) -> str | None:
    if not _text(row["path"]) or not _text(row["label"]):
        return "path or label is empty"
    split = _text(row.get("split"))
    if split and split.lower() not in SPLIT_NAMES:
        return f"unknown split {split!r}: training, validation or test"
    given = [row.get(name) for name in BOX if row.get(name) is not None]
    if given and (len(given) < 4 or not all(isinstance(v, int | float) for v in given)):
        return "the face box needs four numbers: left, top, width, height"
    return None


def _box(row: dict[str, Any]) -> tuple[float, float, float, float] | None:
    if row.get("left") is None:
        return None
    left, top, width, height = (float(row[name]) for name in BOX)
    return left, top, width, height


READER = Reader(
    name="manifest",
    title="any CSV or Parquet table with a row per image",
    size="any",
    licence="yours",
    access="yours",
    layout="columns path, label; optional subject, split, left, top, width, height",
    recognise=recognise,
    read=read,
)

"""Write a table of faces incrementally, so that an interrupted run can resume.

Until the table is complete, rows are written to ``NAME.unfinished``, one line of JSON each.  A line marks the
end of each picture or video; rows after the last such line are discarded when the work resumes.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from crossfer.datasets.detector import NO_FACE
from crossfer.deploy.rows import RowBatch, as_record, columns
from crossfer.errors import CrossferError
from crossfer.files import alone, parsed, written
from crossfer.pooled import portions

FORMATS = (".csv", ".jsonl", ".parquet")
AT_ONCE = 10_000
"""Number of rows in memory."""


@dataclass
class Counted:
    """Counts of sources and faces."""

    sources: int = 0
    faces: int = 0
    """A face in a video counts once."""
    without_a_face: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    """Number of sources by reason."""
    _highest: int = 0
    _problems: set[str] = field(default_factory=set)

    def add(self, part: RowBatch) -> None:
        """Count the rows of a part."""
        for row in part.rows:
            self.row(row.face, row.problem)
        if part.last:
            self.end()

    def row(self, face: int | None, problem: str) -> None:
        """Count a row."""
        self._highest = max(self._highest, face or 0)
        if problem == NO_FACE:
            self.without_a_face += 1
        elif problem:
            self._problems.add(problem)

    def end(self) -> None:
        """Count a picture or video after its rows."""
        self.sources, self.faces, self._highest = self.sources + 1, self.faces + self._highest, 0
        self.unreadable.update(self._problems)
        self._problems.clear()


class Table:
    """An unfinished table of faces.

    Parameters
    ----------
    out
        The open file of rows, positioned at its end.
    classes
        Classes of the classifier.
    done
        Names of the finished sources.
    counted
        Counts of its rows.
    """

    def __init__(
        self, out: IO[bytes], classes: Sequence[str], done: set[str], counted: Counted
    ) -> None:
        self.out, self.classes, self.done, self.counted = out, classes, done, counted

    def add(self, part: RowBatch) -> None:
        """Write a part of a source, and its end after the last part."""
        self.counted.add(part)
        for row in part.rows:
            self.out.write(_line(list(as_record(row, self.classes).values())))
        if part.last:
            self.out.write(_line({"done": part.source.name}))
        self.out.flush()


@contextmanager
def table(file: Path, classes: Sequence[str], about: dict[str, Any]) -> Iterator[Table]:
    """Write a table of faces, or resume; the file appears when it is complete.

    Parameters
    ----------
    file
        Its suffix determines the format: one of `FORMATS`.
    classes
        Classes of the classifier.
    about
        What its rows depend on besides the pictures, as JSON; unfinished rows are resumed only if it is the
        same.

    Raises
    ------
    CrossferError
        If the file exists, has an unknown format, or its unfinished rows depend on something else.
    """
    _check(file)
    unfinished = file.with_name(f"{file.name}.unfinished")
    lock = file.with_name(f".{file.name}.lock")

    def taken(who: str) -> None:
        raise CrossferError(f"{file}: {who} is writing it; wait for it, or name another file")

    with alone(lock, taken):
        done, counted, end = _read(unfinished, about)
        with unfinished.open("ab") as out:
            out.truncate(end)
            if not end:
                out.write(_line({"about": about}))
            yield Table(out, classes, done, counted)
        with written(file) as beside:
            _WRITERS[file.suffix.lower()](beside, columns(classes), _rows(unfinished))
        unfinished.unlink()
    lock.unlink(missing_ok=True)


def _check(file: Path) -> None:
    if file.suffix.lower() not in FORMATS:
        raise CrossferError(f"{file}: its name must end in one of {', '.join(FORMATS)}")
    if file.suffix.lower() == ".parquet" and not find_spec("pyarrow"):
        raise CrossferError(f"{file}: Parquet needs PyArrow: pip install pyarrow, or write .csv")
    if file.exists():
        raise CrossferError(f"{file}: already exists; remove it, or name another file")


def _line(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _read(unfinished: Path, about: dict[str, Any]) -> tuple[set[str], Counted, int]:
    """Return the finished sources, their counts, and the position after the last of them."""
    done, counted, end, at = set[str](), Counted(), 0, 0
    rows: list[tuple[int | None, str]] = []
    if not unfinished.exists():
        return done, counted, end
    with unfinished.open("rb") as lines:
        for number, line in enumerate(lines):
            at += len(line)
            try:
                content = parsed(line) if line.endswith(b"\n") else None
            except ValueError:
                content = None
            if content is None:  # written when the power failed
                break
            if number == 0 and content != {"about": about}:
                raise CrossferError(
                    f"{unfinished}: started with another model, other paths or other options; use the same "
                    "ones, or remove this file"
                )
            if isinstance(content, list):
                rows.append((content[3], content[-1]))
                continue
            for row in rows:
                counted.row(*row)
            rows.clear()
            end = at
            if number:
                counted.end()
                done.add(content["done"])
    return done, counted, end


def _rows(unfinished: Path) -> Iterator[list[Any]]:
    with unfinished.open("rb") as lines:
        for line in lines:
            content = parsed(line)
            if isinstance(content, list):
                yield content


def _write_csv(file: Path, names: list[str], rows: Iterator[list[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out:
        writer = csv.writer(out)
        writer.writerow(names)
        writer.writerows(rows)


def _write_jsonl(file: Path, names: list[str], rows: Iterator[list[Any]]) -> None:
    with file.open("wb") as out:
        out.writelines(_line(dict(zip(names, row, strict=True))) for row in rows)


def _write_parquet(file: Path, names: list[str], rows: Iterator[list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    kinds = {"source": pa.string(), "class": pa.string(), "problem": pa.string()}
    kinds |= {"frame": pa.int64(), "face": pa.int32(), "seconds": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.float32())) for name in names])
    with pa.parquet.ParquetWriter(file, schema) as out:
        for some in portions(rows, AT_ONCE):
            values = [dict(zip(names, row, strict=True)) for row in some]
            out.write_table(pa.Table.from_pylist(values, schema))


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}

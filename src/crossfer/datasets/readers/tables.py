"""Read tables: CSV and its variants, JSON lines, Parquet."""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from crossfer.datasets.pictures import UnreadableImage, decoded
from crossfer.datasets.readers.files import is_text
from crossfer.datasets.record import Box
from crossfer.datasets.walk import STRAY_FOLDERS
from crossfer.errors import CrossferError

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
JSON_LINES = frozenset({".jsonl", ".ndjson"})
PARQUET = ".parquet"
SUFFIXES = TABLE_SUFFIXES | JSON_LINES | {PARQUET, ""}
ROWS_AT_ONCE = 1024
LARGEST_GROWTH = 200
"""Bytes of a Parquet table over those of its file."""
NOT_A_TABLE = frozenset({".txt", ".md", ".json", ".yaml", ".yml", ".py", ".log", ".xml", ".html"})
DELIMITERS = ",;\t"
LONGEST_LINE = 2**20
LONGEST_HEADER = 2**16
"""In characters.  A row of FER2013, the longest we know of, has 9,000."""


def encoding_of(file: Path) -> str:
    """Return how a text is encoded: UTF-16 where it begins so, else the first of three that it can be.

    UTF-8, or what Windows writes; Latin-1 has a character for every byte.
    """
    with file.open("rb") as data:
        if data.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    return next((name for name in ("utf-8-sig", "cp1252") if _can_be(file, name)), "latin-1")


def _can_be(file: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with file.open("rb") as data:
            while chunk := data.read(2**20):
                if not chunk.isascii() or decoder.getstate()[0]:  # plain text is known at a glance
                    decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def header(file: Path) -> list[str]:
    """Return a table's column names in lower case; none where the file is no table."""
    suffix = file.suffix.lower()
    if not file.is_file() or suffix in NOT_A_TABLE | JSON_LINES | {PARQUET}:
        return []
    if suffix not in TABLE_SUFFIXES and not is_text(file):
        return []
    first = _first_line(file)
    if suffix not in TABLE_SUFFIXES and not first.count(_delimiter(first)):
        return []
    return _names(next(csv.reader([first], delimiter=_delimiter(first)), []))


def delimiter_of(file: Path) -> str:
    """Return what stands between a table's values."""
    return _delimiter(_first_line(file))


def find_with_columns(path: Path, columns: Set[str]) -> Path | None:
    """Find a table that has columns: the path itself, or a file in the folder or just below."""
    return next(all_with_columns(path, columns), None)


def all_with_columns(path: Path, columns: Set[str]) -> Iterator[Path]:
    """Find every such table, the highest first."""
    files = [path] if path.is_file() else tables_near(path, depth=1)
    return (file for file in files if columns <= set(header(file)))


def tables_near(path: Path, depth: int) -> Iterator[Path]:
    """Yield what may be tables in a folder or few below, the highest first: also texts without suffix."""
    level = [path]
    for _ in range(depth + 1 if path.is_dir() else 0):
        below: list[Path] = []
        for folder in level:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith(".") or entry.name in STRAY_FOLDERS:
                        continue
                    suffix, path = os.path.splitext(entry.name)[1].lower(), Path(entry.path)
                    if entry.is_dir():
                        below.append(path)
                    elif suffix in SUFFIXES and entry.is_file() and (suffix or header(path)):
                        yield path
        level = below


def columns_of(path: Path) -> list[str]:
    """Return a table's column names in lower case; none where a file is no table."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in JSON_LINES | {PARQUET}:
        return header(path)
    if suffix == PARQUET:
        return _names(_schema(path).names)
    names = (dict.fromkeys(row) for _, row in _json_rows(path) if not isinstance(row, str))
    return list(dict.fromkeys(name for row in names for name in _names(list(row))))


def class_names(path: Path) -> dict[str, list[str]]:
    """Return the names of classes that a Parquet table of Hugging Face's holds, by column."""
    if path.suffix.lower() != PARQUET:
        return {}
    try:
        about = json.loads((_schema(path).metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(name).strip().lower(): [str(text) for text in kind["names"]]
            for name, kind in about.items()
            if isinstance(kind, dict) and isinstance(kind.get("names"), list)
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def any_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of any table, as `table_rows` does: texts, but for pictures (see `Encoded`)."""
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        yield from _parquet_rows(path)
    elif suffix in JSON_LINES:
        empty = dict.fromkeys(columns_of(path), "")  # a row may leave out what it has not
        for number, row in _json_rows(path, check=True):
            yield number, row if isinstance(row, str) else empty | _texts(row)
    else:
        for number, row in table_rows(path):
            yield number, row if isinstance(row, str) else _texts(row)


class Encoded:
    """A picture in a table, as the bytes of an image file; they are read when it is opened."""

    def __init__(self, read: Any) -> None:
        self.read = read

    def open(self) -> Image.Image:
        """Decode it."""
        content = self.read()
        if not isinstance(content, bytes):
            raise UnreadableImage("no picture")
        return decoded(content)


def _schema(path: Path) -> pa.Schema:
    try:
        with path.open("rb") as data:  # whose name may be no text, as pyarrow wants it
            return pa.parquet.read_schema(data)
    except (pa.ArrowException, OSError) as error:
        raise CrossferError(f"{path}: not a readable table ({error})") from None


def _is_encoded(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(n).name == "bytes" for n in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    schema = _schema(path)
    check_names(path, _names(schema.names))
    pictures = [name for name in schema.names if _is_encoded(schema.field(name).type)]
    try:
        with path.open("rb") as data, pa.parquet.ParquetFile(data) as file:
            _check_size(path, file.metadata)
            number = 0
            plain = [name for name in schema.names if name not in pictures]
            for group in range(file.num_row_groups):
                within = 0
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=plain):
                    columns = [column.to_pylist() for column in batch.columns]
                    names = batch.schema.names
                    for index in range(batch.num_rows):
                        number += 1
                        texts = {n: c[index] for n, c in zip(names, columns, strict=True)}
                        row: dict[str, Any] = _texts(texts)
                        for name in pictures:
                            read = partial(_bytes_at, path, group, name, within)
                            row[name.strip().lower()] = Encoded(read)
                        within += 1
                        yield number, row
    except (pa.ArrowException, OSError) as error:
        raise CrossferError(f"{path}: not a readable table ({error})") from None


def _bytes_at(path: Path, group: int, column: str, row: int) -> bytes | None:
    value = _group(path, group, column)[row].as_py()
    return value.get("bytes") if isinstance(value, dict) else value


@lru_cache(maxsize=4)
def _group(path: Path, group: int, column: str) -> pa.ChunkedArray:
    """Read the pictures of one row group; they are opened one after the other."""
    with path.open("rb") as data, pa.parquet.ParquetFile(data) as file:
        return file.read_row_group(group, columns=[column]).column(0)


def _check_size(path: Path, about: pa.parquet.FileMetaData) -> None:
    """Refuse a table that claims to hold more than so many bytes can say."""
    size = path.stat().st_size
    groups = (about.row_group(n) for n in range(about.num_row_groups))
    if about.num_rows > size or sum(g.total_byte_size for g in groups) > LARGEST_GROWTH * size:
        raise CrossferError(
            f"{path}: claims more data than a file of its size can hold; damaged or hostile"
        )


def _json_rows(path: Path, check: bool = False) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with path.open(encoding=encoding_of(path)) as text:
        for number, line in enumerate(lines_of(path, text), 1):
            if not line.strip():
                continue
            try:
                where = f"{path} row {number}"
                row = json.loads(line, object_pairs_hook=partial(_object, where) if check else None)
            except CrossferError:
                raise
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else "not a JSON object"


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_names(where, _names([name for name, _ in pairs]))
    return dict(pairs)


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).strip().lower(): _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) < 2:
        return _text(value[0]) if value else ""
    if value is None or value != value:  # NaN is not itself
        return ""
    # A column of whole numbers becomes one of fractions where a value is missing.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def table_rows(
    file: Path, columns: list[str] | None = None
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Yield the rows of a table, one after another.

    Parameters
    ----------
    file
        A text with commas, semicolons or tabs between the values.
    columns
        Its columns' names, where it has no header.

    Yields
    ------
    number : int
        The row as a spreadsheet counts it: the first is 1; blank rows are counted and left out.
    row : dict or str
        From a column's name in lower case to the row's text, or what is wrong with the row.

    Raises
    ------
    CrossferError
        If it is no text, a line is too long, or a column stands twice in its header.
    """
    with file.open(encoding=encoding_of(file), newline="") as text:
        delimiter = _delimiter(_first(lines_of(file, text)))
        text.seek(0)
        rows = enumerate(csv.reader(lines_of(file, text), delimiter=delimiter, strict=True), 1)
        try:
            names = columns or _names(next((row for _, row in rows if any(row)), []))
            while names and not names[-1]:  # spreadsheets like to add empty columns
                names.pop()
            check_names(file, names)
            for number, row in rows:
                if not any(row) or _names(row) == names:  # blank, or the header once more
                    continue
                if not any(row[len(names) :]):
                    row = row[: len(names)]
                if len(row) == len(names):
                    yield number, dict(zip(names, row, strict=True))
                else:
                    yield number, f"{len(row)} columns instead of {len(names)}"
        except (csv.Error, UnicodeError) as error:
            raise CrossferError(f"{file}: not a readable table ({error})") from None


def check_names(where: object, names: Sequence[str]) -> None:
    """Refuse a column that is there twice, in upper or lower case: the last would replace the first."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CrossferError(f"{where}: has the column {twice!r} twice; rename one")


def not_used(names: Iterable[str], used: Iterable[str]) -> list[str]:
    """Say which columns of a table are not used; nothing where all are."""
    others = [name for name in names if name and name not in set(used)]
    return [f"not used: {', '.join(others)}"] if others else []


def lines_of(file: Path, text: TextIO) -> Iterator[str]:
    """Yield the lines of a text, and keep none in memory.

    Parameters
    ----------
    file
        For the error.
    text
        It, open.

    Raises
    ------
    CrossferError
        If a line has more than `LONGEST_LINE` characters: it is not read to its end.
    """
    while line := text.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise CrossferError(
                f"{file}: has a line of more than {LONGEST_LINE:,} characters, so it is not a table"
            )
        yield line


def box_of(values: Iterable[str | float]) -> Box | None:
    """Return left, top, width and height of a face, or ``None`` where they are no such numbers."""
    try:
        left, top, width, height = map(float, values)
    except ValueError:
        return None
    return (left, top, width, height) if width > 0 and height > 0 else None


def _first_line(file: Path) -> str:
    """Return the first line that is not blank, of those a file begins with."""
    with file.open("rb") as data:
        start = data.read(LONGEST_HEADER).removeprefix(codecs.BOM_UTF8)
    first = _first(start.decode("ascii", errors="replace").splitlines())
    if not first.isascii():  # the rows may tell how it is encoded
        first = _first(start.decode(encoding_of(file), errors="replace").splitlines())
    return first


def _first(lines: Iterable[str]) -> str:
    """Return the first line that is not blank."""
    return next((line for line in lines if line.strip()), "")


def _delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _names(row: list[str]) -> list[str]:
    return [name.strip().lower() for name in row]

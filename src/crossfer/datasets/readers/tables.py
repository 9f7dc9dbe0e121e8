"""Tables in text files, as people really write them."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import TextIO

from crossfer.datasets.readers.files import near
from crossfer.datasets.record import Box
from crossfer.errors import CrossferError

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
DELIMITERS = ",;\t"
LONGEST_LINE = 2**20
"""In characters.  A row of FER2013, the longest we know of, has 9,000."""


def encoding_of(file: Path) -> str:
    """Return how a text is encoded: UTF-16 where it begins so, UTF-8 where it can be, else Latin-1."""
    with file.open("rb") as data:
        if data.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with file.open("rb") as data:
            while chunk := data.read(2**20):
                if not chunk.isascii() or decoder.getstate()[0]:  # plain text is known at a glance
                    decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def header(file: Path) -> list[str]:
    """Return a table's column names in lower case; none where the file is no table."""
    if file.suffix.lower() not in TABLE_SUFFIXES or not file.is_file():
        return []
    first = _first_line(file)
    return _names(next(csv.reader([first], delimiter=_delimiter(first)), []))


def delimiter_of(file: Path) -> str:
    """Return what stands between a table's values."""
    return _delimiter(_first_line(file))


def find_with_columns(path: Path, columns: Set[str]) -> Path | None:
    """Find a table that has columns: the path itself, or a file in the folder or just below."""
    files = [path] if path.is_file() else near(path, "*.[ct]sv", depth=1)
    return next((file for file in files if columns <= set(header(file))), None)


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
        rows = enumerate(csv.reader(lines_of(file, text), delimiter=delimiter), 1)
        try:
            names = columns or _names(next((row for _, row in rows if any(row)), []))
            while names and not names[-1]:  # spreadsheets like to add empty columns
                names.pop()
            if len(set(names)) < len(names):
                raise CrossferError(f"{file}: a column stands twice in its header")
            for number, row in rows:
                if not any(row):
                    continue
                if not any(row[len(names) :]):
                    row = row[: len(names)]
                if len(row) == len(names):
                    yield number, dict(zip(names, row, strict=True))
                else:
                    yield number, f"{len(row)} columns instead of {len(names)}"
        except (csv.Error, UnicodeError) as error:
            raise CrossferError(f"{file}: not a readable table ({error})") from None


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
                f"{file}: has a line of more than {LONGEST_LINE:,} characters: no table"
            )
        yield line


def box_of(values: list[str]) -> Box | None:
    """Return left, top, width and height of a face, or ``None`` where they are no such numbers."""
    try:
        left, top, width, height = map(float, values)
    except ValueError:
        return None
    return (left, top, width, height) if width > 0 and height > 0 else None


def _first_line(file: Path) -> str:
    """Return the first line that is not blank, of those a file begins with."""
    with file.open("rb") as data:
        start = data.read(4096)
    wide = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return _first(start.decode("utf-16" if wide else "utf-8-sig", errors="replace").splitlines())


def _first(lines: Iterable[str]) -> str:
    """Return the first line that is not blank."""
    return next((line for line in lines if line.strip()), "")


def _delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _names(row: list[str]) -> list[str]:
    return [name.strip().lower() for name in row]

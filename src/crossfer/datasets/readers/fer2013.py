"""FER2013: one CSV of pixels, or the folders of the popular copy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from crossfer.datasets.readers import splitnames
from crossfer.datasets.readers.files import Named, NamedFiles, labelled_or_unknown, plain_name
from crossfer.datasets.readers.labels import ORDERS
from crossfer.datasets.readers.tables import (
    LONGEST_LINE,
    all_with_columns,
    check_names,
    delimiter_of,
    encoding_of,
    header,
    not_used,
)
from crossfer.datasets.record import Item, Reader, ReadOptions, Record, Remark, Skipped, Split
from crossfer.errors import CrossferError

SIDE = 48
CODES = ORDERS["fer2013"]
PIXELS = SIDE * SIDE
COLUMNS = {"emotion", "pixels"}
USAGES: dict[str, Split] = {
    "training": "training",
    "publictest": "validation",
    "privatetest": "test",
}
FILE_NAME = re.compile(r"(training|publictest|privatetest)_(\d+)(?!\d)")
ROWS_AT_ONCE = 100
"""So few that their numbers stay in the processor's cache: more take twice the time."""

NO_PIXELS = f"0 pixels instead of {PIXELS:,}"


def recognise(path: Path) -> str | None:
    """Say why a path looks like FER2013."""
    if table := find_table(path):
        usage = " and Usage" if "usage" in header(table) else ", no Usage"
        return f"{table.name} has the columns emotion, pixels{usage}"
    return FOLDERS.recognise(path)


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Read the CSV where there is one, else the folders."""
    tables = list(all_with_columns(path, COLUMNS))
    if not tables:
        yield from FOLDERS.read(path, options)
    elif len(tables) == 1 or any("usage" in header(table) for table in tables):
        yield from read_table(_preferred(tables), options)
    else:
        yield from _read_parts(tables, path, options)


def find_table(path: Path) -> Path | None:
    """Find the CSV with FER2013's columns: the path itself, or a file in the folder or just below."""
    tables = list(all_with_columns(path, COLUMNS))
    return _preferred(tables) if tables else None


def _preferred(tables: Sequence[Path]) -> Path:
    """Return the first of some tables that knows the splits; else the first."""
    return next((table for table in tables if "usage" in header(table)), tables[0])


def _read_parts(tables: Sequence[Path], top: Path, options: ReadOptions) -> Iterator[Item]:
    """Read tables without a column Usage, a split each by their names."""
    names = {table: splitnames.of_table(table, top) for table in tables}
    splits = splitnames.splits_of(names.values(), options)
    parts = [splits[names[table]] for table in tables]
    if None in parts or len(set(parts)) < len(parts):
        listed = ", ".join(table.relative_to(top).as_posix() for table in tables)
        raise CrossferError(
            f"{top}: {listed} have no column Usage, and their names do not say which split each is; "
            "name one of them, or name them train.csv, valid.csv and test.csv"
        )
    for table, part in zip(tables, parts, strict=True):
        yield from read_table(table, options, part=part, top=top)


def parse(file: Path) -> Named | None:
    """Read ``angry/Training_3908.jpg``: its folder is the class, its name begins with the part."""
    named = FILE_NAME.match(plain_name(file).lower())
    if not named:
        return None
    usage, _ = named.groups()
    return Named(file.parent.name, (*named.groups(), file.parent.name), split=USAGES[usage])


FOLDERS = NamedFiles(parse, like="Training_*, PublicTest_* or PrivateTest_*", codes=CODES)


@dataclass(frozen=True, slots=True)
class PixelRow:
    """One row of the CSV.

    Parameters
    ----------
    number
        As a spreadsheet counts it.
    emotion, usage
        As the file has them, without the spaces around them.
    pixels
        uint8 (48, 48), or what is wrong with the row.
    """

    number: int
    emotion: str
    usage: str
    pixels: NDArray[np.uint8] | str


def read_rows(file: Path) -> Iterator[PixelRow]:
    """Yield the rows of a CSV with FER2013's columns, in the file's order; blank ones are left out.

    Raises
    ------
    CrossferError
        If it is no readable table.
    """
    broken: list[PixelRow] = []

    def leave_out(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} columns instead of {row.expected_columns}"
        broken.append(PixelRow(row.number, "", "", reason))
        return "skip"

    names = header(file)
    check_names(file, names)
    try:
        with file.open("rb") as data:  # whose name may be no text, as pyarrow wants it
            table = pyarrow.csv.read_csv(
                data,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=names,
                    skip_rows=1,
                    use_threads=False,
                    block_size=16 * LONGEST_LINE,  # no row may be longer
                    encoding=encoding_of(file).removesuffix("-sig"),
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=delimiter_of(file),
                    invalid_row_handler=leave_out,
                    ignore_empty_lines=False,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.string() for name in names}, strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid as error:
        raise CrossferError(f"{file}: not a readable CSV table ({error})") from None
    number = 1
    for batch in table.to_batches(ROWS_AT_ONCE):
        pictures, problems = _parse_pixels(batch.column("pixels"))
        emotions = batch.column("emotion").to_pylist()
        usages = batch.column("usage").to_pylist() if "usage" in names else [""] * len(emotions)
        for index, (emotion, usage) in enumerate(zip(emotions, usages, strict=True)):
            number += 1
            while broken and broken[0].number == number:
                yield broken.pop(0)
                number += 1
            if emotion or usage or problems.get(index) != NO_PIXELS:
                pixels = problems.get(index, pictures[index])
                yield PixelRow(number, emotion.strip(), usage.strip(), pixels)
    yield from broken


def read_table(
    file: Path,
    options: ReadOptions,
    codes: Mapping[str, str] = CODES,
    part: Split | None = None,
    top: Path | None = None,
) -> Iterator[Item]:
    """Yield one record a row of a CSV with FER2013's columns; `codes` are what its numbers mean.

    `part` is the split of all rows of a table without the column Usage; origins begin at the folder `top`.
    """
    name = file.relative_to(top).as_posix() if top else file.name
    label_of_row = cache(lambda emotion: labelled_or_unknown(emotion, options, codes))
    names = header(file)
    said = [] if "usage" in names else ["has no column Usage, so its pictures have no splits"]
    said = [f"all of it is {part}"] if part else said
    said += not_used(names, {*COLUMNS, "usage"})
    yield Remark(f"{name}: {'; '.join(said)}" if said else "", (file,))
    for row in read_rows(file):
        origin = f"{name} row {row.number}"
        split = part or USAGES.get(row.usage.lower())
        if isinstance(row.pixels, str):
            yield Skipped(origin, row.pixels)
        elif split is None and "usage" in names:
            yield Skipped(origin, f"unknown Usage {row.usage!r}")
        else:
            label, reason = label_of_row(row.emotion)
            if label is None:
                yield Skipped(origin, reason)
            else:
                yield Record(row.pixels, label, origin, split=split)


def _parse_pixels(column: pa.Array) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Turn texts of 2,304 numbers into images, a block of rows at a time.

    Parameters
    ----------
    column
        Strings of decimal numbers separated by one space.

    Returns
    -------
    images : uint8 (N, 48, 48)
    problems : dict
        From the index of a row that could not be read to the reason.
    """
    images = np.zeros((len(column), PIXELS), np.uint8)
    ended = pc.binary_join_element_wise(column, "", " ")
    _, offset_buffer, data = ended.buffers()
    bounds = np.frombuffer(offset_buffer, np.int32)[ended.offset : ended.offset + len(ended) + 1]
    text = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    ends = np.flatnonzero(text == ord(" "))
    lengths = np.diff(ends, prepend=-1) - 1
    digits = text - np.uint8(ord("0"))
    before = np.concatenate([np.zeros(3, np.uint8), digits])  # three places on
    values = before[ends + 2].astype(np.uint16)
    values += (before[ends + 1] * (lengths > 1)) * np.uint16(10)
    values += (before[ends] * (lengths > 2)) * np.uint16(100)
    good = (lengths >= 1) & (lengths <= 3) & (values <= 255)
    first = np.searchsorted(ends, bounds - bounds[0])
    suspicious = np.diff(first) != PIXELS
    if np.count_nonzero(digits > 9) != len(ends):  # neither digit nor space
        stray = np.flatnonzero((digits > 9) & (text != ord(" ")))
        suspicious[np.searchsorted(bounds - bounds[0], stray, side="right") - 1] = True
    if not good.all():
        suspicious[np.searchsorted(first, np.flatnonzero(~good), side="right") - 1] = True
    if not suspicious.any():
        images[:] = values.reshape(images.shape)
        return images.reshape(-1, SIDE, SIDE), {}
    problems: dict[int, str] = {}
    for index, (begin, odd) in enumerate(zip(first[:-1], suspicious, strict=True)):
        if not odd:
            images[index] = values[begin : begin + PIXELS]
        elif isinstance(row := _parse_row(column[index].as_py()), str):
            problems[index] = row
        else:
            images[index] = row
    return images.reshape(-1, SIDE, SIDE), problems


def _parse_row(text: str) -> NDArray[np.uint8] | str:
    """Read one row slowly: its pixels, or what is wrong with it."""
    numbers = text.split()
    if len(numbers) != PIXELS:
        return f"{len(numbers):,} pixels instead of {PIXELS:,}"
    wrong = [n for n in numbers if not (n.isascii() and n.isdigit()) or len(n) > 9 or int(n) > 255]
    if wrong:
        return f"pixel value {wrong[0][:12]!r} is not an integer from 0 to 255"
    return np.array(numbers, dtype=np.uint8)


READER = Reader(
    name="fer2013",
    title="FER2013, Facial Expression Recognition 2013",
    size="35,887 faces, 48×48 gray (28,709 training / 3,589 validation / 3,589 test)",
    licence="research use; the images come from the web and may not be passed on",
    access="Kaggle, “Challenges in Representation Learning: Facial Expression Recognition Challenge”",
    layout="fer2013.csv or icml_face_data.csv (emotion, pixels, Usage), or folders "
    "train/CLASS/Training_*.jpg, test/CLASS/{PublicTest,PrivateTest}_*.jpg",
    citation="Goodfellow et al., Challenges in Representation Learning, ICONIP 2013",
    cropped=True,
    recognise=recognise,
    read=read,
)

"""FER2013: one CSV of pixels, or the folders of the popular copy."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped, Split
from crossfer.emotions import label_of
from crossfer.errors import CrossferError

SIDE = 48
PIXELS = SIDE * SIDE
COLUMNS = {"emotion", "pixels", "usage"}
USAGES: dict[str, Split] = {
    "training": "training",
    "publictest": "validation",
    "privatetest": "test",
}
FILE_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_\d+\.", re.IGNORECASE)
ROWS_AT_ONCE = 1024


def recognise(path: Path) -> str | None:
    """Say why a path looks like FER2013."""
    if table := _table(path):
        return f"{table.name} has the columns emotion, pixels and Usage"
    if path.is_dir() and (file := next(filter(_official_name, image_files(path)), None)):
        return f"image files are named like {file.name}"
    return None


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Read the CSV where there is one, else the folders."""
    table = _table(path)
    return _read_table(table, options) if table else _read_folders(path, options)


def _official_name(file: Path) -> bool:
    return FILE_NAME.match(file.name) is not None


def _table(path: Path) -> Path | None:
    """Find the CSV with FER2013's columns: the path itself, or a file in the folder or just below."""
    if path.is_file():
        candidates = [path]
    else:
        candidates = sorted([*path.glob("*.csv"), *path.glob("*/*.csv")])
    return next((f for f in candidates if f.is_file() and set(_header(f)) >= COLUMNS), None)


def _header(file: Path) -> list[str]:
    if file.suffix.lower() != ".csv":
        return []
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline(4096)
    return [name.strip().lower() for name in next(csv.reader([first]), [])]


def _read_table(file: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    broken: dict[int, str] = {}

    def leave_out(row: pyarrow.csv.InvalidRow) -> str:
        broken[row.number] = f"{row.actual_columns} columns instead of {row.expected_columns}"
        return "skip"

    names = _header(file)
    if len(set(names)) < len(names):
        raise CrossferError(f"{file}: a column stands twice in its header")
    try:
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, skip_rows=1, use_threads=False, block_size=16 * 2**20
            ),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=leave_out),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise CrossferError(f"{file}: not a readable CSV table ({error})") from None
    yield from (Skipped(f"{file.name} row {row}", reason) for row, reason in broken.items())
    numbers = (number for number in count(2) if number not in broken)
    labels: dict[str, int | CrossferError | None] = {}
    for batch in table.select(["emotion", "usage", "pixels"]).to_batches(ROWS_AT_ONCE):
        pictures, problems = _parse_pixels(batch.column("pixels"))
        emotions, usages = batch.column("emotion").to_pylist(), batch.column("usage").to_pylist()
        for index, (emotion, usage) in enumerate(zip(emotions, usages, strict=True)):
            origin = f"{file.name} row {next(numbers)}"
            split = USAGES.get(usage.strip().lower())
            if emotion not in labels:
                labels[emotion] = _label_or_error(emotion, options)
            label = labels[emotion]
            if index in problems:
                yield Skipped(origin, problems[index])
            elif split is None:
                yield Skipped(origin, f"unknown Usage {usage.strip()!r}")
            elif isinstance(label, CrossferError):
                yield Skipped(origin, f"unknown class {emotion.strip()!r}")
            elif label is None:
                yield Skipped(origin, f"class {emotion.strip()} is left out")
            else:
                yield Record(pictures[index], label, origin, split=split)


def _label_or_error(name: str, options: ReadOptions) -> int | CrossferError | None:
    try:
        return label_of(name, options.labels)
    except CrossferError as error:
        return error


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
    digits = text - ord("0")
    values = digits[ends - 1].astype(np.int32)
    values += np.where(lengths > 1, digits[ends - 2], 0) * np.int32(10)
    values += np.where(lengths > 2, digits[ends - 3], 0) * np.int32(100)
    good = (lengths >= 1) & (lengths <= 3) & (values <= 255)
    first = np.searchsorted(ends, bounds - bounds[0])
    stray = np.flatnonzero((digits > 9) & (text != ord(" ")))
    suspicious = np.diff(first) != PIXELS
    suspicious[np.searchsorted(bounds - bounds[0], stray, side="right") - 1] = True
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
        return f"pixel value {wrong[0][:12]!r} is not a whole number from 0 to 255"
    return np.array(numbers, dtype=np.uint8)


def _read_folders(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    for file in image_files(path):
        origin = file.relative_to(path).as_posix()
        named = FILE_NAME.match(file.name)
        if not named:
            yield Skipped(origin, "not named like Training_*, PublicTest_* or PrivateTest_*")
            continue
        label = label_of(file.parent.name, options.labels)
        if label is None:
            yield Skipped(origin, f"class {file.parent.name} is left out")
        else:
            yield Record(file, label, origin, split=USAGES[named.group(1).lower()])


READER = Reader(
    name="fer2013",
    title="FER2013, Facial Expression Recognition 2013",
    size="35,887 faces, 48×48 gray (28,709 training / 3,589 validation / 3,589 test)",
    licence="research use; the images come from the web and may not be passed on",
    access="Kaggle, “Challenges in Representation Learning: Facial Expression Recognition Challenge”",
    layout="fer2013.csv or icml_face_data.csv (emotion, pixels, Usage), or folders "
    "train/CLASS/Training_*.jpg, test/CLASS/{PublicTest,PrivateTest}_*.jpg",
    citation="Goodfellow et al., Challenges in Representation Learning, ICONIP 2013",
    recognise=recognise,
    read=read,
)

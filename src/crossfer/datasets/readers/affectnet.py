"""AffectNet: faces from the web, eight expressions, and three ways to have none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from glob import escape
from itertools import islice
from pathlib import Path

import numpy as np

from crossfer.datasets.readers import splitnames
from crossfer.datasets.readers.columns import columns_in
from crossfer.datasets.readers.files import find, image_files, labelled_or_unknown
from crossfer.datasets.readers.labels import ORDERS
from crossfer.datasets.readers.tables import box_of, header, not_used, table_rows, tables_near
from crossfer.datasets.record import Item, Reader, ReadOptions, Record, Remark, Skipped, Split
from crossfer.errors import CrossferError

CODES = ORDERS["affectnet"]
COLUMNS = [
    "subdirectory_filepath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
]
FILE, BOX, CLASS = COLUMNS[0], COLUMNS[1:5], "expression"
TABLES: dict[str, Split] = {"training": "training", "validation": "test"}
FOLDERS: dict[str, Split] = {"train_set": "training", "val_set": "test"}
LOOK = 20


def recognise(path: Path) -> str | None:
    """Say why a path looks like AffectNet."""
    if tables := _tables(path):
        return f"{tables[0][0].name} has AffectNet's columns"
    if folders := _folders(path):
        return f"{folders[0][0].name} has the folders images and annotations"
    return None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Read the authors' tables where there are any, else the folders of the smaller release.

    The authors never gave out a test set.  Everybody measures on their validation set: it is our test
    set, and a validation set has to come from training.
    """
    tables = _tables(path)
    return _read_tables(tables, path, options) if tables else _read_folders(path, options)


def _tables(path: Path) -> list[tuple[Path, Split | None]]:
    """Find the tables of labels: training and validation, or else any with the columns of the release."""
    if path.is_file():
        return [(path, _split_of(path))] if _is_named(path) else []
    found = ((find(path, f"*{name}.csv"), split) for name, split in TABLES.items())
    usual: list[tuple[Path, Split | None]] = [
        (f, split) for f, split in found if f and (_is_named(f) or _is_bare(header(f)))
    ]
    return usual or [(f, _split_of(f)) for f in tables_near(path, 2) if _is_named(f)]


def _split_of(table: Path) -> Split | None:
    split = splitnames.exact(table.stem) or splitnames.affixed(table.stem)
    return "test" if split == "validation" else split


def _is_named(file: Path) -> bool:
    return set(header(file)) >= {FILE, CLASS}


def _is_bare(first: list[str]) -> bool:
    """Tell whether a table begins with a row of values: some copies have no header."""
    return len(first) == len(COLUMNS) and "/" in first[0]


def _read_tables(
    tables: list[tuple[Path, Split | None]], path: Path, options: ReadOptions
) -> Iterator[Item]:
    label_of_code = cache(lambda code: labelled_or_unknown(code, options, CODES))
    for table, split in tables:
        names = header(table)
        columns = COLUMNS if _is_bare(names) else None
        told = [] if columns else _not_used(table, names)
        yield Remark(f"{table.name}: {told[0]}" if told else "", (table,))
        top = _images(table, columns, path)
        for number, row in table_rows(table, columns):
            origin = f"{table.name} row {number}"
            if isinstance(row, str):
                yield Skipped(origin, row)
                continue
            label, reason = label_of_code(row[CLASS].strip())
            if label is None:
                yield Skipped(origin, reason)
            else:
                name = _name(row)
                above = top.relative_to(path) if top.is_relative_to(path) else Path()
                origin = (above / name).as_posix()
                box = box_of([row.get(side, "") for side in BOX])
                yield Record(top / name, label, origin, split=split, box=box)


def _not_used(table: Path, names: list[str]) -> list[str]:
    """Say which columns are not used; refuse to leave out splits and subjects."""
    roles = columns_in(names, ReadOptions(columns={"label": CLASS}), str(table))
    if lost := [name for name in (roles.split, roles.subject) if name]:
        raise CrossferError(
            f"{table}: read as affectnet, the columns {', '.join(lost)} would not be used; add --as "
            "manifest --order affectnet to use them, or remove them"
        )
    return not_used(names, COLUMNS)


def _name(row: dict[str, str]) -> str:
    return row[FILE].strip().replace("\\", "/")


def _images(table: Path, columns: list[str] | None, path: Path) -> Path:
    """Find the folder that the paths in a table start from, by the first of them."""
    for _, row in islice(table_rows(table, columns), LOOK):
        name = _name(row) if isinstance(row, dict) else ""
        if name and not Path(name).is_absolute():
            file = find(table.parent, escape(name)) or find(path, escape(name))
            if file:
                return file.parents[len(Path(name).parts) - 1]
    return table.parent


def _folders(path: Path) -> list[tuple[Path, Split]]:
    """Find the parts of the release with one small file per label."""
    found = [find(path, f"{name}/annotations", kind=Path.is_dir) for name in FOLDERS]
    return [(folder.parent, FOLDERS[folder.parent.name]) for folder in found if folder]


def _read_folders(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    for folder, split in _folders(path):
        if not (folder / "images").is_dir():
            raise CrossferError(
                f"{folder}: no folder `images` beside `annotations`; add it, or name the folder "
                "that holds both"
            )
        for file in image_files(folder / "images"):
            origin = file.relative_to(path).as_posix()
            annotation = folder / "annotations" / f"{file.stem}_exp.npy"
            if not os.path.isfile(annotation):
                yield Skipped(origin, "no annotation")
                continue
            try:  # mapped: what its header claims to hold must be there
                code = np.load(annotation, mmap_mode="r", allow_pickle=False)
                label, reason = labelled_or_unknown(str(code.item()), options, CODES)
            except Exception:  # NumPy evaluates the header: whatever may come of that
                yield Skipped(origin, "its annotation cannot be read")
                continue
            if label is None:
                yield Skipped(origin, reason)
            else:
                yield Record(file, label, origin, split=split)


READER = Reader(
    name="affectnet",
    title="AffectNet",
    size="about 290,000 labelled faces of eight classes; its validation set is the test set here",
    licence="non-commercial research; may not be passed on",
    access="on request: mohammadmahoor.com/pages/databases/affectnet",
    layout="training.csv, validation.csv and Manually_Annotated_Images/, or "
    "train_set/images/0.jpg, train_set/annotations/0_exp.npy and val_set/",
    citation="Mollahosseini, Hasani, Mahoor, AffectNet, IEEE Transactions on Affective Computing 2019",
    cropped=None,
    own_files=("*.npy",),
    recognise=recognise,
    read=read,
)

"""Any table with a row per image, by itself or in the folder of its pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from crossfer.classes import is_known
from crossfer.datasets.readers import splitnames
from crossfer.datasets.readers.columns import Columns, are_shares, columns_in
from crossfer.datasets.readers.files import image_files, labelled, labelled_or_unknown
from crossfer.datasets.readers.labels import meet, number_in, told_beside, understood
from crossfer.datasets.readers.lookup import Lookup
from crossfer.datasets.readers.tables import (
    Encoded,
    any_rows,
    class_names,
    columns_of,
    tables_near,
)
from crossfer.datasets.record import (
    LONGEST_GROUP,
    Item,
    Picture,
    Reader,
    ReadOptions,
    Record,
    Remark,
    Skipped,
    Split,
    subject_of_text,
)
from crossfer.errors import CrossferError

DEPTH = 2
"""How deep in a folder tables are looked for."""
LOOK = 20
SEVERAL = re.compile(r"\[.*,.*\]")
"""A list with more than one value, as texts show it."""


def recognise(path: Path) -> str | None:
    """Say why a path looks like a manifest: it is such a table, or a folder whose pictures tables list."""
    if path.is_file():
        return _why(_columns(path))
    tables = complete_tables(path)
    if not tables:
        return None
    if len(tables) > 1:
        return (
            f"{len(tables)} tables list its pictures, as {tables[0].relative_to(path).as_posix()}"
        )
    return f"{tables[0].name} lists its pictures: {_why(_columns(tables[0]))}"


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield one record a row; paths are relative to the table's folder, or are found below it."""
    tables = [path]
    if path.is_dir():
        tables = complete_tables(path) or [
            table for table in tables_near(path, DEPTH) if _columns(table, options).complete
        ]
        if not tables:
            raise CrossferError(f"{path}: no table with a path and a label; {_seen(path)}")
    top = path if path.is_dir() else path.parent
    names = {table: splitnames.of_table(table, top) for table in tables}
    splits = splitnames.splits_of(names.values(), options) if len(tables) > 1 else {}
    # Of a picture that several tables list, the first counts: one that is a split.
    tables.sort(key=lambda table: splits.get(names[table]) is None)
    labels = {name for table in tables for name in _labels(table, _columns(table, options))}
    meet(options, labels)
    if any(map(number_in, labels)) and any(_columns(table, options).others for table in tables):
        try:
            options, said = told_beside(_beside(tables, options), options)
        except CrossferError as error:
            raise CrossferError(f"{path}: {error}") from None
        yield Remark(said)
    options, said = understood(labels, options)
    yield Remark(said)
    seen: set[str] = set()
    contradictions: list[str] = []
    values: set[str] = set(splits)
    for table in tables:
        columns = _columns(table, options)
        _check_columns(table, columns, options)
        where = table.relative_to(top).as_posix()
        said = columns.in_words()
        part = splits.get(names[table])
        if part and not columns.split:
            said = "; ".join(filter(None, [said, f"all of it is {part}"]))
        yield Remark(f"{where}: {said}" if said else "", (table,))
        reading = _Reading(table, top, columns, options, part, seen)
        values |= set(reading.translation)
        yield from reading.items()
        contradictions += reading.contradictions
        if told := splitnames.in_words(reading.translation):
            yield Remark(f"{where}: {told}")
    splitnames.check_mapped(options, values)
    if contradictions:
        yield Remark(
            f"warning: table and folders disagree for {len(contradictions):,} pictures (first: "
            f"{contradictions[0]}); the table is used (--as folder uses the folders)"
        )
    if path.is_dir():
        for table in tables_near(path, DEPTH):
            if table not in tables:
                yield Remark(unused(table, top))


def _check_columns(table: Path, columns: Columns, options: ReadOptions) -> None:
    """Refuse a table without a path or a label, and subjects that are given twice."""
    if not columns.complete:
        missing = "a path" if columns.path is None else "a label"
        raise CrossferError(
            f"{table}: no column for {missing} among {', '.join(filter(None, columns_of(table)))}; name "
            "yours with --column path=NAME and --column label=NAME"
        )
    if columns.subject and options.subject:
        raise CrossferError(
            f"{table}: --subject has no effect, because the column {columns.subject} has the "
            "subjects; add --column subject= to ignore that column"
        )


def unused(table: Path, top: Path) -> str:
    """Say that a table is not read: its columns, or why they do not tell where picture and label are."""
    try:
        names = ", ".join(filter(None, columns_of(table)))[:120]
        why = f"columns {names or 'unknown'}"
        _columns(table)
    except CrossferError as error:
        why = str(error).removeprefix(f"{table}: ")
    return f"{table.relative_to(top).as_posix()}: not used ({why})"


def contradiction(
    table: Path, top: Path, shown: Mapping[Path, str | None], options: ReadOptions
) -> str:
    """Count the pictures of which a table that is not used says another label than their folders."""
    try:
        columns = _columns(table)
        if not columns.complete or not columns.label:
            return ""
        lookup, other, known = Lookup(top, table, None), list[str](), 0
        for row in _rows(table):
            name = row[str(columns.path)]
            if not isinstance(name, str) or not name:
                continue
            label, _reason = labelled_or_unknown(row[columns.label], options)
            here = shown.get(lookup.find(name))
            known += here is not None
            if here is not None and label is not None and here != label:
                other.append(name)
    except CrossferError:
        return ""
    if not other:
        return ""
    return (
        f"; it contradicts the folders for {len(other):,} of {known:,} pictures (first: {other[0]})"
    )


def complete_tables(path: Path) -> list[Path]:
    """Find the tables that list the pictures of a folder.

    Where the pictures lie in folders of classes, they must list all of them; else, some.
    """
    tables = []
    for table in tables_near(path, DEPTH):
        try:
            columns = _columns(table)
        except CrossferError:
            continue
        if columns.complete and _finds_pictures(table, path, columns):
            tables.append(table)
    if tables and (pictures := _pictures_in_class_folders(path)):
        listed = set[str]()
        for table in tables:
            lookup, names = Lookup(path, table, None), _paths(table, _columns(table))
            listed |= {os.fspath(lookup.find(name)) for name in names if name}
        if not pictures <= listed:
            return []
    return tables


class _Reading:
    """One table, being read."""

    def __init__(
        self,
        table: Path,
        top: Path,
        columns: Columns,
        options: ReadOptions,
        part: Split | None,
        seen: set[str],
    ) -> None:
        self.table, self.top, self.columns, self.options = table, top, columns, options
        self.part, self.seen = part, seen
        self.lookup = Lookup(top, table, options.root)
        self.names = class_names(table).get(columns.label or "", [])
        self.contradictions: list[str] = []
        self.relative = columns.form != "" and are_shares(
            box for row in _rows(table) if isinstance(box := columns.box_of(row), tuple)
        )
        self.translation: dict[str, Split | None] = {}
        if columns.split:
            values = {row[columns.split] for row in _rows(table)} - {""}
            self.translation = splitnames.splits_of(values, options)
            unknown = [value for value, split in self.translation.items() if split is None]
            if unknown:
                some = ", ".join(repr(value) for value in unknown[:8])
                raise CrossferError(
                    f"{table}: unknown split {some} in the column {columns.split}: map each with "
                    f"--split {unknown[0]}=training, or ignore the column with --column split="
                )
        elif part is None:
            self.translation = self._splits_in_paths()
        self.by_folder = cache(self._by_folder)

    def items(self) -> Iterator[Record | Skipped]:
        """Yield one record a row, or why there is none."""
        for number, row in any_rows(self.table):
            origin = f"{self.table.name} row {number}"
            if isinstance(row, str):
                yield Skipped(origin, row)
                continue
            yield self._item(number, row, origin)

    def _item(self, number: int, row: Mapping[str, Any], origin: str) -> Record | Skipped:
        columns, options = self.columns, self.options
        name = row[str(columns.path)]
        raw, reason = (row[columns.label], "") if columns.label else columns.marked(row)
        if reason:
            return self._skipped(origin, reason, name)
        if not name or not raw:
            return self._skipped(origin, "path or label is empty", name)
        box = columns.box_of(row)
        if isinstance(box, str):
            return self._skipped(origin, box, name)
        try:
            label, reason = labelled(_named(raw, self.names), options)
        except CrossferError as error:
            raise CrossferError(f"{self.table} row {number}: {error}") from None
        if label is None:
            return self._skipped(origin, reason, name)
        subject = subject_of_text(row[columns.subject]) if columns.subject else None
        picture: Picture
        if isinstance(name, Encoded):
            picture = name.open
        else:
            picture = self.lookup.find(name)
            if not picture.is_file() and (several := self.lookup.several(name)):
                folders = " and ".join(
                    f.parent.relative_to(self.lookup.top).as_posix() for f in several[:2]
                )
                return Skipped(
                    self._origin(name, picture, label, number),
                    f"it is in {folders}: name the folder in the column {columns.path}, too",
                )
            origin = self._origin(name, picture, label, number)
            subject = subject or options.subject_of(origin)
        return Record(
            picture,
            label,
            origin,
            subject=subject,
            split=self._split(row, name),
            box=box,
            relative=self.relative,
            groups={
                column: text[: LONGEST_GROUP + 1]
                for column in columns.others
                if isinstance(text := row.get(column), str) and text
            },
        )

    def _skipped(self, origin: str, reason: str, name: str | Encoded) -> Skipped:
        file = self.lookup.find(name) if name and isinstance(name, str) else None
        return Skipped(origin, reason, file=file)

    def _origin(self, name: str, picture: Path, label: str, number: int) -> str:
        """Return a unique origin for a row's picture; note it where its folders name another class."""
        origin = name.replace("\\", "/")
        by_folder = self.by_folder(picture.parent)
        if by_folder is not None and by_folder != label:
            self.contradictions.append(origin)
        row, table = f"{origin} row {number}", self.table.relative_to(self.top).as_posix()
        origin = next(o for o in (origin, row, f"{row} of {table}") if o not in self.seen)
        self.seen.add(origin)
        return origin

    def _split(self, row: Mapping[str, Any], name: str | Encoded) -> Split | None:
        """Return a row's split: by its column, by the folders in its path, or that of its table."""
        if self.columns.split:
            return self.translation.get(row[self.columns.split])
        if not self.translation or isinstance(name, Encoded):
            return self.part
        found = {self.translation.get(folder) for folder in _folders_in(name)} - {None}
        return found.pop() if len(found) == 1 else None

    def _splits_in_paths(self) -> dict[str, Split | None]:
        """Return what the folders in the paths mean, where they name more than one split."""
        paths = _paths(self.table, self.columns)
        translation = splitnames.splits_of(
            (folder for path in paths for folder in _folders_in(path)), self.options
        )
        return translation if len(set(translation.values()) - {None}) > 1 else {}

    def _by_folder(self, folder: Path) -> str | None:
        """Return the class that the folders of a picture name, if they name one."""
        if folder.is_relative_to(self.top):
            for name in reversed(folder.relative_to(self.top).parts):
                if is_known(name):
                    return labelled(name, self.options)[0]
        return None


def _labels(table: Path, columns: Columns) -> Iterator[str]:
    """Yield what a table writes as labels."""
    if not columns.label:
        yield from columns.marks
        return
    if names := class_names(table).get(columns.label):
        yield from names
    for number, row in any_rows(table):
        if isinstance(row, dict) and (label := row[columns.label]):
            if SEVERAL.fullmatch(label):
                raise CrossferError(
                    f"{table} row {number}: {label} are several labels; give each picture one in the "
                    f"column {columns.label}, or name another with --column label=NAME"
                )
            yield _named(label, names or [])


def _beside(
    tables: Sequence[Path], options: ReadOptions
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield what tables write as labels, and the columns that say nothing else."""
    for table in tables:
        columns, names = _columns(table, options), class_names(table)
        for row in _rows(table) if columns.label else ():
            others = {name: row.get(name) for name in columns.others}
            yield _named(row[str(columns.label)], names.get(str(columns.label), [])), others


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table that can be read."""
    return (row for _, row in any_rows(table) if isinstance(row, dict))


def _paths(table: Path, columns: Columns) -> Iterator[str]:
    """Yield what a table writes as paths; no picture that it holds itself."""
    return (path for row in _rows(table) if isinstance(path := row[str(columns.path)], str))


def _named(label: str, names: Sequence[str]) -> str:
    """Return the name of a number for which a table holds names."""
    return names[int(label)] if names and label.isdigit() and int(label) < len(names) else label


def _folders_in(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts[:-1]


def _columns(table: Path, options: ReadOptions | None = None) -> Columns:
    options = options or ReadOptions()
    if not options.people:
        options = replace(options, columns={**options.columns, "subject": ""})
    return columns_in(columns_of(table), options, str(table))


def _why(columns: Columns) -> str | None:
    if not columns.complete:
        return None
    what = columns.label or f"{columns.marks[0]}, {columns.marks[1]} …"
    return f"it is a table with the columns {columns.path} and {what}"


def _finds_pictures(table: Path, top: Path, columns: Columns) -> bool:
    """Tell whether the first rows of a table name pictures that are there."""
    lookup = Lookup(top, table, None)
    for _, row in islice(any_rows(table), LOOK):
        if isinstance(row, dict):
            name = row[str(columns.path)]
            if isinstance(name, Encoded) or (name and os.path.isfile(lookup.find(name))):
                return True
    return False


def _pictures_in_class_folders(path: Path) -> set[str]:
    """Return the pictures of a folder if they lie in folders of classes, else none."""
    pictures = list(image_files(path))
    inside = sum(any(map(is_known, file.relative_to(path).parts[:-1])) for file in pictures)
    return {os.fspath(file) for file in pictures} if 2 * inside > len(pictures) else set()


def _seen(path: Path) -> str:
    tables = [unused(table, path) for table in tables_near(path, DEPTH)]
    return "; ".join(tables[:5]) or "there is no table"


READER = Reader(
    name="manifest",
    title="any table with a row per image: CSV, Parquet, lines of JSON",
    layout="columns path, label; optional subject, split, left, top, width, height, or other usual names for "
    "them (docs/datasets.md); --column label=NAME names yours, --root the folder of the pictures",
    cropped=None,
    takes=frozenset({"subject", "columns", "order", "root", "splits"}),
    recognise=recognise,
    read=read,
)

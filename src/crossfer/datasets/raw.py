"""The records of a raw dataset, and what is left out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crossfer.classes import canonical, comparable, in_order, is_known
from crossfer.datasets import archives
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.readers.files import SYSTEM_FILES, find, what_is
from crossfer.datasets.readers.in_memory import InMemorySource
from crossfer.datasets.readers.labels import number_in
from crossfer.datasets.record import (
    LONGEST_GROUP,
    SPLITS,
    Item,
    Reader,
    ReadOptions,
    Record,
    Remark,
    Skipped,
    Split,
)
from crossfer.datasets.walk import files_below
from crossfer.errors import CrossferError, legible, some_of

STAND_IN_NOTE = "STAND-IN.txt"
TWO_LABELS, TWO_SUBJECTS = "two labels for one picture", "two subjects for one picture"
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What breaks a line, or moves the cursor: file names may hold it."""
TABLES = ("labels", "metadata", "annotations", "data")
"""Names of tables that say nothing of the dataset: it is called like their folder."""


@dataclass(frozen=True)
class Raw:
    """What was read of a raw dataset.

    Parameters
    ----------
    name
        The dataset's name.
    reader, why
        The reader, and why it was chosen.
    place
        The path of the raw files, or the name of a dataset in memory.
    state
        The digest of the raw files, see `raw_state`; empty for a dataset in memory.
    stand_in
        Whether its faces are drawn.
    records, left_out
        The usable pictures, and what is not used.
    remarks
        What the user should know about how it was read, a line each.
    """

    name: str
    reader: Reader
    why: str
    place: str
    state: str
    stand_in: bool
    records: list[Record]
    left_out: list[Skipped]
    remarks: list[str]


def read_raw(
    source: Path | InMemorySource, how: Preparation, name: str | None, staging: Path
) -> Raw:
    """Read all records; archives are unpacked first."""
    if isinstance(source, InMemorySource):
        own = legible(source.name)
        if how.reader:
            raise CrossferError(f"reader {how.reader} has no effect on a dataset in memory")
        _check_takes(source.reader, how)
        options = how.read_options
        items = [*source.read(options)]
        _check_labels(items, options, own)
        found = _usable(items, source.reader, own)
        return Raw(
            legible(name or own), source.reader, "as given by the user", own, "", False, *found
        )
    place, left_out, options = source, list[Skipped](), how.read_options
    if archives.is_packed(source):
        place = staging / "raw"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        left_out = archives.unpack_all(source, place)
        inside = [*place.iterdir()]
        if archives.is_single(source) and len(inside) == 1 and inside[0].is_file():
            place = inside[0]  # a packed table, whose pictures are beside it
            options = dataclasses.replace(options, root=options.root or source.parent)
    try:
        reader, why = _reader(place, how)
        _check_takes(reader, how)
        if how.root and not Path(how.root).is_dir():
            raise CrossferError(f"--root {how.root}: no such folder")
        items = [*reader.read(place, options), *left_out]
        _check_labels(items, options, str(source))
        _check_subject(items, how)
    except CrossferError as error:
        text = str(error).replace(str(place), str(source))
        raise CrossferError(text if str(source) in text else f"{source}: {text}") from None
    own = name_of(source, reader.name)
    where = legible(str(source.resolve()))
    records, left_out, remarks = _usable([*items, *_others(place, reader, items)], reader, where)
    if how.ignore_splits and any(how.splits.values()):
        remarks.append(
            "--split: only tells which names are splits; which ones does not matter with --ignore-splits"
        )
    return Raw(
        name=legible(name or own),
        reader=reader,
        why=legible(why),
        place=where,
        state=raw_state(source, items if _lists_pictures(source, how) else ()),
        stand_in=bool(find(place, STAND_IN_NOTE)) or (source.parent / STAND_IN_NOTE).is_file(),
        records=records,
        left_out=left_out,
        remarks=remarks,
    )


def _reader(place: Path, how: Preparation) -> tuple[Reader, str]:
    if how.reader:
        return READERS[how.reader], "as given by the user"
    if how.columns or how.root:
        return READERS["manifest"], "its columns are given by the user"
    return recognise(place)


def _check_takes(reader: Reader, how: Preparation) -> None:
    """Refuse an option that a reader would not read by."""
    for option, flag in (
        ("subject", "--subject"),
        ("everything", "--everything"),
        ("columns", "--column"),
        ("root", "--root"),
        ("order", "--order"),
        ("splits", "--split"),
    ):
        if option not in reader.takes and getattr(how, option) != getattr(Preparation(), option):
            takers = [r.name for r in READERS.values() if option in r.takes]
            raise CrossferError(
                f"{flag} has no effect on a dataset read as {reader.name}; leave it out (it is for "
                f"{', '.join(takers)}; choose one with --as NAME)"
            )


def _check_subject(items: Sequence[Item], how: Preparation) -> None:
    records = [item for item in items if isinstance(item, Record)]
    if how.subject and records and not any(record.subject for record in records):
        raise CrossferError(
            f"--subject '{how.subject}' matches no path; the first is {records[0].origin}"
        )


def _check_labels(items: Sequence[Item], options: ReadOptions, where: str) -> None:
    """Refuse a translation of a label that does not occur; to leave out a known one is no mistake."""
    met = options.met | {number for label in options.met if (number := number_in(label))}
    for label, ours in options.labels.items():
        if ours is None and is_known(label):
            continue
        if not {comparable(label), canonical(label), number_in(label)} & met:
            there = in_order({item.label for item in items if isinstance(item, Record)})
            some = some_of(there, 8) or "none"
            raise CrossferError(f"{where}: --label {label}: no such label; the labels are {some}")


def _others(place: Path, reader: Reader, items: Sequence[Item]) -> Iterator[Item]:
    """Name every file that was neither taken nor mentioned."""
    if place.is_dir():
        known = set[str]()
        for item in items:
            if isinstance(item, Remark):
                known |= {os.path.normpath(file) for file in item.used}
            elif isinstance(item, Skipped):
                known.add(os.path.normpath(item.file or place / item.origin))
            elif isinstance(item.picture, Path):
                known.add(os.path.normpath(item.picture))
        for file in files_below(place):
            name = os.path.basename(file)
            if name.lower() in SYSTEM_FILES or any(fnmatch(name, own) for own in reader.own_files):
                continue
            if os.path.normpath(file) not in known:
                origin = Path(file).relative_to(place).as_posix()
                yield Skipped(origin, what_is(file), picture=False)


def _usable(
    items: Iterable[Item], reader: Reader, place: str
) -> tuple[list[Record], list[Skipped], list[str]]:
    """Split what was read into records of pictures that are there, each once, the rest, and remarks."""
    there, seen = cache(os.path.exists), set[tuple[Any, ...]]()
    records, left_out, remarks = list[Record](), list[Skipped](), list[str]()
    items = [_legible(item) for item in items]
    listed: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for item in items:
        if isinstance(item, Record):
            listed[_face(item)].append(item)
    for item in items:
        if isinstance(item, Remark):
            remarks += [item.text] if item.text else []
        elif isinstance(item, Skipped):
            left_out.append(item)
        elif not isinstance(item.picture, Path):
            records.append(item)
        elif not there(item.picture):
            left_out.append(Skipped(item.origin, "no such file"))
        elif len({row.label for row in listed[_face(item)]}) > 1:
            left_out.append(Skipped(item.origin, TWO_LABELS))
        elif len({row.subject for row in listed[_face(item)]} - {None}) > 1:
            left_out.append(Skipped(item.origin, TWO_SUBJECTS))
        elif _face(item) in seen:
            left_out.append(Skipped(item.origin, "listed more than once"))
        else:
            seen.add(_face(item))
            records.append(_as_listed(item, listed[_face(item)]))
    if not records:
        odd = [item for item in left_out if item.picture] or left_out
        detail = f" ({odd[0].origin}: {odd[0].reason}{_remedy(odd[0].reason)})" if odd else ""
        raise CrossferError(f"{place}: no usable image{detail}; expected {reader.layout}")
    records, said = _without_long_groups(records)
    remarks += said
    nobody = [record for record in records if record.subject is None]
    if nobody and len(nobody) < len(records):
        remarks.append(
            f"warning: {len(nobody):,} pictures have no subject (first: {nobody[0].origin}); each "
            "counts as another person"
        )
    called = Counter(record.subject for record in records if record.subject is not None)
    if "NA" in called and not all(re.fullmatch("[A-Z]{2}", who) for who in called):  # as in JAFFE
        remarks.append(
            f"warning: {called['NA']:,} pictures are of a subject NA, who is read as a person; if it "
            "means nobody, leave the value empty"
        )
    for reason, what in ((TWO_LABELS, "label"), (TWO_SUBJECTS, "subject")):
        if torn := [item for item in left_out if item.reason == reason]:
            remarks.append(
                f"warning: {len(torn):,} rows give a picture another {what} than another row (first: "
                f"{torn[0].origin}); none of them is used{_remedy(reason)}"
            )
    several = [same[0].origin for same in listed.values() if len(_splits(same)) > 1]
    if several:
        remarks.append(
            f"warning: {len(several):,} pictures are listed in several splits (first: {several[0]}); "
            "the test set counts before validation, validation before training"
        )
    return records, left_out, remarks


def _without_long_groups(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Leave out of the groups what is too long to tell results apart by, and say of which columns."""
    kept, long = list[Record](), Counter[str]()
    for record in records:
        if odd := [name for name, text in record.groups.items() if len(text) > LONGEST_GROUP]:
            long.update(odd)
            groups = {name: text for name, text in record.groups.items() if name not in odd}
            record = dataclasses.replace(record, groups=groups)
        kept.append(record)
    return kept, [
        f"{name}: {count:,} values of more than {LONGEST_GROUP} characters are not kept"
        for name, count in sorted(long.items())
    ]


def _as_listed(record: Record, listed: Sequence[Record]) -> Record:
    """Return a record with what all rows of its face say: the last of their splits, so that none leaks."""
    if len(listed) == 1:
        return record
    subjects = [row.subject for row in listed if row.subject is not None]
    splits = sorted(_splits(listed), key=SPLITS.index)
    return dataclasses.replace(
        record,
        subject=subjects[0] if subjects else None,
        split=splits[-1] if splits else None,
    )


def _splits(listed: Sequence[Record]) -> set[Split]:
    return {row.split for row in listed if row.split is not None}


def _remedy(reason: str) -> str:
    if reason not in (TWO_LABELS, TWO_SUBJECTS):
        return ""
    return "; with several faces in a picture, each needs a box"


def _face(record: Record) -> tuple[Any, ...]:
    return (
        (os.path.normpath(record.picture), record.frame, record.box)
        if isinstance(record.picture, Path)
        else (id(record.picture), record.frame, record.box, record.origin)
    )


def _legible(item: Item) -> Item:
    """Write out what is no text, and no line, in what a record says."""

    def written(text: str) -> str:
        return CONTROL.sub(lambda found: repr(found[0])[1:-1], legible(text))

    texts = (
        (name, getattr(item, name, None))
        for name in ("origin", "label", "subject", "reason", "text")
    )
    odd: dict[str, Any] = {
        name: written(text) for name, text in texts if text and text != written(text)
    }
    return dataclasses.replace(item, **odd) if odd else item


def name_of(source: Path, reader: str) -> str:
    """Return the name of a dataset to which nobody gave one."""
    own = archives.stem(source) if reader in ("folder", "manifest", "yolo") else reader
    if reader == "manifest" and own.lower() in TABLES and (folder := source.resolve().parent.name):
        own = folder.removesuffix("-labels")  # as `crossfer label` calls it
    return legible(own)


def raw_state(path: Path, listed: Sequence[Item] = ()) -> str:
    """Return a digest of the names, sizes and times of raw files and of listed pictures."""
    files = [path] if path.is_file() else sorted(map(Path, files_below(path)))
    state = [(str(file.relative_to(path)), *_stat(file)) for file in files if file.is_file()]
    pictures = (item.picture for item in listed if isinstance(item, Record))
    outside = sorted({os.path.abspath(p) for p in pictures if isinstance(p, Path)})
    state += [(picture, *_stat(Path(picture))) for picture in outside]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def is_unchanged(path: Path, how: Preparation, state: str) -> bool:
    """Tell whether raw files are as they were, given their state; of a table, also what it lists."""
    if raw_state(path) == state:
        return True
    if not _lists_pictures(path, how):
        return False
    with TemporaryDirectory(prefix="crossfer-") as staging:
        return read_raw(path, how, None, Path(staging)).state == state


def _lists_pictures(path: Path, how: Preparation) -> bool:
    """Tell whether pictures may lie outside a path."""
    packed = archives.is_packed(path) and not archives.is_single(path)
    return how.root is not None or (path.is_file() and not packed)


def _stat(file: Path) -> tuple[int, int]:
    """Return a file's size and time; of one that is not there, none."""
    try:
        found = file.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns

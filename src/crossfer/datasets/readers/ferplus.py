"""FER+: the pictures of FER2013, each labelled by ten people."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from crossfer.datasets.readers.fer2013 import COLUMNS, USAGES, find_table, read_rows
from crossfer.datasets.readers.files import find, image_files, labelled
from crossfer.datasets.readers.tables import (
    encoding_of,
    find_with_columns,
    header,
    lines_of,
    not_used,
    table_rows,
)
from crossfer.datasets.record import Item, Reader, ReadOptions, Record, Remark, Skipped, Split
from crossfer.errors import CrossferError

CLASSES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "nf",
)
"""The columns of votes in their order; NF is “no face”."""

IMAGE_NAME = "image name"
VOTES = {*CLASSES, IMAGE_NAME}
PARTS: dict[str, Split] = {
    "FER2013Train": "training",
    "FER2013Valid": "validation",
    "FER2013Test": "test",
}


def recognise(path: Path) -> str | None:
    """Say why a path looks like FER+."""
    if tables := _tables(path):
        pixels, votes = tables
        return f"{votes.name} has votes for the pictures of {pixels.name}"
    if folders := _folders(path):
        return f"{folders[0].name} has images and a label.csv of votes"
    if named := _named(path):
        return f"{named.name} has votes for pictures by their names"
    return None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield one record a picture on which most of the people agree, see `majority`."""
    tables = _tables(path)
    if tables:
        return _read_tables(*tables, options)
    return _read_folders(path, options) if _folders(path) else _read_named(path, options)


def majority(votes: Sequence[float]) -> str | None:
    """Return the class that has most of the votes, as FER+'s own code decides in its mode “majority”.

    Single votes are taken for mistakes and dropped; the winner needs more than half of the others, so
    that a tie has no winner.

    Parameters
    ----------
    votes
        How many for each of `CLASSES`.

    Returns
    -------
    str or None
        One of `CLASSES`; ``None`` where nobody wins.
    """
    counted = [vote if vote > 1 else 0.0 for vote in votes]
    most = max(counted)
    return CLASSES[counted.index(most)] if most > sum(counted) / 2 else None


def _label(votes: Sequence[str], options: ReadOptions) -> tuple[str | None, str]:
    """Return the label that a row's votes decide, or the reason why there is none."""
    try:
        winner = majority([float(vote) for vote in votes])
    except ValueError:
        return None, "its votes are not ten numbers"
    if winner is None:
        return None, "pictures without a majority are left out"
    return labelled(winner, options)


def _tables(path: Path) -> tuple[Path, Path] | None:
    """Find FER2013's pixels and the votes, in a folder or just below, or beside the file of votes."""
    votes = find_with_columns(path, set(CLASSES))
    pixels = votes and find_table(path if path.is_dir() else path.parent)
    return (pixels, votes) if pixels and votes else None


def _read_tables(pixel_file: Path, vote_file: Path, options: ReadOptions) -> Iterator[Item]:
    yield Remark("", (pixel_file, vote_file))
    yield from _not_used(pixel_file, COLUMNS)
    yield from _not_used(vote_file, VOTES)
    pixel_rows, vote_rows = list(read_rows(pixel_file)), list(table_rows(vote_file))
    if len(pixel_rows) != len(vote_rows):
        raise CrossferError(
            f"{vote_file}: {len(vote_rows):,} rows, but {pixel_file.name} has {len(pixel_rows):,}: "
            "both must list the same pictures in the same order"
        )
    for row, (number, votes) in zip(pixel_rows, vote_rows, strict=True):
        origin = f"{pixel_file.name} row {row.number}"
        if isinstance(row.pixels, str) or isinstance(votes, str):
            yield Skipped(origin, row.pixels if isinstance(row.pixels, str) else str(votes))
            continue
        usage = votes.get("usage", row.usage).strip()
        if usage.lower() != row.usage.lower():
            raise CrossferError(
                f"{vote_file} row {number}: Usage is {usage}, but {row.usage} in {origin}: both "
                "must list the same pictures in the same order"
            )
        label, reason = _label([votes[name] for name in CLASSES], options)
        if usage.lower() not in USAGES:
            yield Skipped(origin, f"unknown Usage {usage!r}")
        elif label is None:
            yield Skipped(origin, reason)
        else:
            yield Record(row.pixels, label, origin, split=USAGES[usage.lower()])


def _not_used(table: Path, own: Collection[str]) -> Iterator[Remark]:
    for told in not_used(header(table), {*own, "usage"}):
        yield Remark(f"{table.name}: {told}")


def _named(path: Path) -> Path | None:
    """Find the votes where pictures lie in folders, named as in the column Image name."""
    votes = find_with_columns(path, VOTES)
    return votes if votes and any(find(path, f"{part}/*.png", depth=1) for part in PARTS) else None


def _read_named(path: Path, options: ReadOptions) -> Iterator[Item]:
    votes = _named(path)
    if votes is None:
        return
    yield Remark("", (votes,))
    yield from _not_used(votes, VOTES)
    images = {image.name: image for image in image_files(path if path.is_dir() else path.parent)}
    for number, row in table_rows(votes):
        origin = f"{votes.name} row {number}"
        if isinstance(row, str):
            yield Skipped(origin, row)
            continue
        name, usage = row[IMAGE_NAME].strip(), row.get("usage", "").strip()
        label, reason = _label([row[column] for column in CLASSES], options)
        if not name:
            yield Skipped(origin, "no image name: its picture has no face")
        elif name not in images:
            yield Skipped(origin, "no such file")
        elif label is None:
            yield Skipped(origin, reason)
        else:
            split = USAGES.get(usage.lower()) or PARTS.get(images[name].parent.name)
            yield Record(images[name], label, f"{images[name].parent.name}/{name}", split=split)


def _folders(path: Path) -> list[Path]:
    """Find the folders that FER+'s own code writes."""
    found = [find(path, f"{name}/label.csv", depth=1) for name in PARTS]
    folders = [file.parent for file in found if file]
    return [folder for folder in folders if next(image_files(folder), None)]


def _read_folders(path: Path, options: ReadOptions) -> Iterator[Item]:
    for folder in _folders(path):
        table = folder / "label.csv"
        yield Remark("", (table,))
        with table.open(encoding=encoding_of(table), newline="") as text:
            # The name, in some versions a box, and the votes; there is no header.
            for name, *rest in filter(None, csv.reader(lines_of(table, text))):
                file = folder / name.strip()
                origin = (folder.relative_to(path) / name.strip()).as_posix()
                label, reason = _label(rest[-len(CLASSES) :], options)
                if not os.path.isfile(file):  # nor a name too long for one
                    yield Skipped(origin, "no such file")
                elif label is None:
                    yield Skipped(origin, reason)
                else:
                    yield Record(file, label, origin, split=PARTS[folder.name])


READER = Reader(
    name="ferplus",
    title="FER+, FER2013 relabelled by ten annotators",
    size="the 35,887 faces of FER2013; those without a majority for one expression are left out",
    licence="labels: MIT; images as FER2013",
    access="labels: github.com/microsoft/FERPlus; images: FER2013",
    layout="fer2013new.csv beside fer2013.csv, or FER2013Train, FER2013Valid and FER2013Test, each with "
    "label.csv and fer0000000.png",
    citation="Barsoum et al., Training Deep Networks for Facial Expression Recognition with "
    "Crowd-Sourced Label Distribution, ICMI 2016",
    cropped=True,
    recognise=recognise,
    read=read,
)

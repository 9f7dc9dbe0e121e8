"""Raw files → a prepared dataset on disk: read, find faces, divide, write beside, rename."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from crossfer.classes import canonical, in_order
from crossfer.datasets import archives, splits
from crossfer.datasets.dataset import (
    BOX,
    CARD,
    FORMAT,
    IMAGES,
    SAMPLES,
    Dataset,
    class_counts,
    is_prepared,
    open_dataset,
    sample_table,
)
from crossfer.datasets.extract import Block, Extraction, are_cropped, blocks
from crossfer.datasets.look import LOOK
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.readers.files import find
from crossfer.datasets.readers.in_memory import Memory
from crossfer.datasets.readers.labels import check_label_map
from crossfer.datasets.record import SPLITS, Reader, ReadOptions, Record, Skipped, Split
from crossfer.datasets.walk import files_below
from crossfer.errors import CrossferError
from crossfer.files import alone, digest, sync
from crossfer.framing import Framing
from crossfer.progress import Told, silent

STAND_IN_NOTE = "STAND-IN.txt"
SKIPPED = "skipped.csv"
REPLACED = "replaced"
"""Where an older dataset waits, in the workshop, until the new one is in its place."""

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Preparation:
    """What a user may say about how to prepare a dataset; the defaults suit the dataset.

    Parameters
    ----------
    reader
        One of `crossfer.datasets.READERS`, instead of recognising the layout.
    labels
        From the dataset's class names to those that they get, or to ``None`` for a class to leave out.
    classes
        The labels that it tells apart: among them it is learnt from and measured.  By default those that
        occur; name them all if one is missing only by chance.
    subject
        Regular expression that finds the subject in an image's relative path (folders and manifests).
    everything
        Also read what the reader leaves out by default, as turned heads.
    faces
        ``find`` looks for the face and aligns it on the eyes; ``cropped`` takes pictures as the faces that
        they are; ``auto`` asks the reader, or else the size of the pictures.
    no_face
        What becomes of a picture without a face: ``keep`` its centre, ``drop`` it, or ``refuse`` the lot.
    side, channels
        Of the prepared faces: side in pixels; 1 for gray, 3 for colour.
    eyes
        Distance of the eyes as a share of the width, and their height as a share from the top.
    crop
        Where no face is looked for or found: side of the centred square, as a share (0–1] of the picture's
        shorter side.
    sizes
        Training, validation and test, as counts or shares, where there is no official split.
    exact
        Reach these sizes to the image, though subjects then stand on two sides.
    seed
        Of the split.
    """

    reader: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    classes: Sequence[str] | None = None
    subject: str | None = None
    everything: bool = False
    faces: Literal["auto", "find", "cropped"] = "auto"
    no_face: Literal["keep", "drop", "refuse"] = "keep"
    side: int = Framing.side
    channels: Literal[1, 3] = Framing.channels
    eyes: tuple[float, float] = (Framing.eye_distance, Framing.eye_height)
    crop: float | None = None
    sizes: tuple[float, float, float] | None = None
    exact: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reader is not None and self.reader not in READERS:
            raise CrossferError(
                f"unknown dataset {self.reader!r}: choose one of {', '.join(READERS)}"
            )
        for key, choices in (
            ("faces", ("auto", "find", "cropped")),
            ("no_face", ("keep", "drop", "refuse")),
        ):
            if getattr(self, key) not in choices:
                raise CrossferError(
                    f"{key} is {getattr(self, key)!r}: choose one of {', '.join(choices)}"
                )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise CrossferError(f"crop is {self.crop}: it must lie above 0 and at most at 1")
        if self.sizes is not None and not (
            len(self.sizes) == len(SPLITS)
            and all(math.isfinite(size) and size >= 0 for size in self.sizes)
            and sum(self.sizes) > 0
        ):
            raise CrossferError("sizes must be three numbers, none negative and not all 0")
        if self.seed < 0:
            raise CrossferError(f"seed is {self.seed}: it must not be negative")
        check_label_map(self.labels)
        try:
            re.compile(self.subject or "")
        except re.error as error:
            raise CrossferError(
                f"subject {self.subject!r} is no regular expression: {error}"
            ) from None
        Framing(self.side, self.channels, *self.eyes)  # refuses what lies outside its ranges

    @property
    def framing(self) -> Framing:
        """What a face looks like."""
        return Framing(self.side, self.channels, *self.eyes)

    @property
    def read_options(self) -> ReadOptions:
        """What readers are told."""
        subject = re.compile(self.subject) if self.subject else None
        return ReadOptions(self.labels, subject, self.everything)

    def as_json(self) -> dict[str, Any]:
        """Return what a card records of it."""
        lists = {"eyes": list(self.eyes), "sizes": list(self.sizes) if self.sizes else None}
        return asdict(self) | lists | {"classes": list(self.classes) if self.classes else None}


class NoFace(CrossferError):
    """A picture without a face, where the user wants none."""


@dataclass(frozen=True)
class _Raw:
    """What was read of a raw dataset."""

    name: str
    reader: Reader
    why: str
    place: str
    state: str
    stand_in: bool
    records: list[Record]
    left_out: list[Skipped]


def prepare(
    source: str | Path | Memory,
    out: str | Path,
    how: Preparation | None = None,
    *,
    name: str | None = None,
    replace: bool = False,
    progress: Told = silent,
) -> Dataset:
    """Turn a raw dataset into a prepared one.

    Nothing is at `out` before everything succeeded.  What is decoded is kept beside it, in a hidden
    folder, until then: the same call goes on where an interrupted one stopped.

    Parameters
    ----------
    source
        The files as the dataset's authors ship them (a folder, a table or an archive), or a folder of
        images per class, or a manifest, or what `crossfer.in_memory` returns.
    out
        The folder to make.
    how
        Whatever shall differ from what suits the dataset.
    name
        What to call it; by default what its reader is called, or a folder's or manifest's own name.
    replace
        Replace an older prepared dataset at `out`.
    progress
        Told how many pictures of how many are decoded.

    Returns
    -------
    Dataset

    Raises
    ------
    CrossferError
        If the layout is not recognised, a class is unknown, there is no image, more than half of the
        pictures cannot be used, or `out` is in use.
    """
    out, how = Path(out), how or Preparation()
    if not isinstance(source, Memory):
        source = Path(source)
        if source.resolve().is_relative_to(out.resolve()):
            raise CrossferError(f"{out}: holds the raw files {source}; name another folder")
        if not source.exists():
            raise CrossferError(f"{source}: no such file or folder")
        if is_prepared(source):
            raise CrossferError(f"{source}: is a prepared dataset already; name the raw files")
    _check_free(out, replace)
    with _workshop(out) as workshop:
        raw = _read(source, how, name, workshop)
        extraction = _extraction(raw, how)
        done = _resumable(workshop, raw, extraction)
        partial = workshop / "dataset"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        found = blocks(raw.records, extraction, done, progress)
        kept, skipped, table = _write_faces(raw, how, found, partial)
        assigned, split = _assign(kept, how.sizes or raw.reader.sizes, how.exact, how.seed)
        columns: dict[str, list[Any]] = {
            "label": [record.label for record in kept],
            "subject": [record.subject for record in kept],
            "split": assigned,
            "origin": [record.origin for record in kept],
            **table,
        }
        card = _card(raw, how, extraction, columns, split, skipped)
        _write(partial, card, sample_table(columns), skipped)
        _put_in_place(partial, out)
    return open_dataset(out)


def sweep(out: Path) -> None:
    """Remove what a process that was killed at the very end left beside a prepared dataset."""
    if _workshop_of(out).exists():
        with _workshop(out):
            pass


def raw_state(path: Path) -> str:
    """Return a digest of the names, sizes and times of raw files: it tells whether any changed."""
    files = [path] if path.is_file() else sorted(map(Path, files_below(path)))
    stats = [(str(file.relative_to(path)), file.stat()) for file in files if file.is_file()]
    state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def _check_free(out: Path, replace: bool) -> None:
    if out.name in ("", "..") or str(out) != legible(str(out)):
        raise CrossferError(f"{out}: cannot be the name of a dataset; name a folder to make")
    if out.is_file():
        raise CrossferError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        if not is_prepared(out):
            raise CrossferError(
                f"{out}: is in use and holds no prepared dataset; name another folder"
            )
        strangers = {file.name for file in out.iterdir()} - {CARD, IMAGES, SAMPLES, SKIPPED, LOOK}
        if strangers:
            raise CrossferError(f"{out}: also holds {min(strangers)}; name another folder")
        if not replace:
            raise CrossferError(
                f"{out}: holds a prepared dataset already; add --replace to replace it"
            )


def _workshop_of(out: Path) -> Path:
    return out.parent / f".{out.name}.partial"


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """Hold the hidden folder beside `out`, alone; an interruption leaves in it what is finished."""

    def taken(owner: str) -> None:
        raise CrossferError(f"{out}: {owner} prepares it; wait for it, or stop it")

    workshop = _workshop_of(out)
    workshop.mkdir(parents=True, exist_ok=True)
    with alone(workshop / "lock", taken):
        if (workshop / REPLACED).exists() and not out.exists():
            (workshop / REPLACED).rename(out)  # killed between two renames
        worth = False
        try:
            yield workshop
        except BaseException as error:
            hopeless = isinstance(error, CrossferError) and not isinstance(error, NoFace)
            worth = not hopeless and any(workshop.glob("blocks/*.npz"))
            raise
        finally:
            if not worth:
                shutil.rmtree(workshop, ignore_errors=True)


def _read(source: Path | Memory, how: Preparation, name: str | None, workshop: Path) -> _Raw:
    """Read all records; an archive is unpacked first."""
    if isinstance(source, Memory):
        own = legible(source.name)
        records, left_out = _usable(source.read(how.read_options), source.reader, own)
        return _Raw(
            name=legible(name or own),
            reader=source.reader,
            why="as the user says",
            place=own,
            state="",
            stand_in=False,
            records=records,
            left_out=left_out,
        )
    place, left_out = source, list[Skipped]()
    if archives.is_archive(source):
        place = workshop / "raw"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        left_out = archives.unpack(source, place)
    try:
        reader, why = (READERS[how.reader], "as the user says") if how.reader else recognise(place)
        items = [*reader.read(place, how.read_options), *left_out]
    except CrossferError as error:
        text = str(error).replace(str(place), str(source))
        raise CrossferError(text if str(source) in text else f"{source}: {text}") from None
    own = archives.stem(source) if reader.name in ("folder", "manifest") else reader.name
    where = legible(str(source.resolve()))
    records, left_out = _usable(items, reader, where)
    return _Raw(
        name=legible(name or own),
        reader=reader,
        why=legible(why),
        place=where,
        state=raw_state(source),
        stand_in=bool(find(place, STAND_IN_NOTE)) or (source.parent / STAND_IN_NOTE).is_file(),
        records=records,
        left_out=left_out,
    )


def _usable(
    items: Iterable[Record | Skipped], reader: Reader, place: str
) -> tuple[list[Record], list[Skipped]]:
    """Split what was read into records of pictures that are there, each once, and the rest."""
    there, seen = cache(os.path.exists), set[tuple[Any, ...]]()
    records, left_out = list[Record](), list[Skipped]()
    for item in map(_legible, items):
        if isinstance(item, Skipped):
            left_out.append(item)
        elif not isinstance(item.picture, Path):
            records.append(item)
        elif not there(item.picture):
            left_out.append(Skipped(item.origin, "no such file"))
        elif (face := (item.picture, item.frame, item.box)) in seen:
            left_out.append(Skipped(item.origin, "listed more than once"))
        else:
            seen.add(face)
            records.append(item)
    if not records:
        detail = f" ({left_out[0].origin}: {left_out[0].reason})" if left_out else ""
        raise CrossferError(f"{place}: no usable image{detail}; expected {reader.layout}")
    return records, left_out


def legible(text: str) -> str:
    """Write out what is no text in a name: a file system takes any bytes, a table does not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _legible(item: Record | Skipped) -> Record | Skipped:
    """Write out what is no text in what a record says."""
    texts = ((name, getattr(item, name, None)) for name in ("origin", "subject", "reason"))
    odd: dict[str, Any] = {
        name: legible(text) for name, text in texts if text and text != legible(text)
    }
    return dataclasses.replace(item, **odd) if odd else item


def _extraction(raw: _Raw, how: Preparation) -> Extraction:
    """Decide whether faces are looked for."""
    cropped = raw.reader.cropped if how.faces == "auto" else how.faces == "cropped"
    if cropped is None:
        cropped = are_cropped(raw.records)
    return Extraction(how.framing, not cropped, how.crop or (1.0 if cropped else raw.reader.crop))


def _resumable(workshop: Path, raw: _Raw, extraction: Extraction) -> Path:
    """Return the folder for blocks of faces: emptied, unless its blocks are of the same faces."""
    folder, note = workshop / "blocks", workshop / "blocks" / "key"
    origins = [(record.origin, record.frame, record.box) for record in raw.records]
    key = hashlib.sha256(
        repr((raw.state, extraction, version("crossfer"), origins)).encode()
    ).hexdigest()
    known = raw.state and note.is_file() and note.read_text() == key
    if not known:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        note.write_text(key)
    return folder


def _write_faces(
    raw: _Raw, how: Preparation, faces: Iterator[Block], folder: Path
) -> tuple[list[Record], list[Skipped], dict[str, list[Any]]]:
    """Write the usable faces to ``images.npy``.

    Returns
    -------
    kept : list of Record
        Those whose faces they are.
    skipped : list of Skipped
    columns : dict
        Per face: sha256, how it was found, the score, its box and roll.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("sha256", "found", "score", *BOX)}
    kept, unusable, dropped = list[Record](), list[Skipped](), list[Skipped]()
    records = iter(raw.records)
    with (folder / IMAGES).open("wb") as images:
        _write_header(images, len(raw.records), how.framing.shape)
        for block in faces:
            for index, problem in enumerate(block.problems):
                record = next(records)
                if problem:
                    unusable.append(Skipped(record.origin, str(problem)))
                elif block.found[index] == "centre" and how.no_face != "keep":
                    dropped.append(Skipped(record.origin, "no face found"))
                else:
                    pixels = block.images[index].tobytes()
                    images.write(pixels)
                    kept.append(record)
                    columns["sha256"].append(hashlib.sha256(pixels).hexdigest())
                    columns["found"].append(str(block.found[index]))
                    columns["score"].append(float(block.scores[index]))
                    for name, value in zip(BOX, block.boxes[index], strict=True):
                        columns[name].append(float(value))
        images.seek(0)
        _write_header(images, len(kept), how.framing.shape)
    _check_usable(raw, unusable, dropped, len(kept), how.no_face)
    return kept, raw.left_out + unusable + dropped, columns


def _check_usable(
    raw: _Raw, unusable: list[Skipped], dropped: list[Skipped], count: int, no_face: str
) -> None:
    if dropped and no_face == "refuse":
        raise NoFace(
            f"{raw.place}: no face found in {len(dropped):,} pictures (first: {dropped[0].origin}); "
            "--no-face keep takes their centre, --no-face drop leaves them out"
        )
    # What is left out on purpose is no sign of a wrong layout.
    odd = unusable + dropped
    odd += [item for item in raw.left_out if not item.reason.endswith("left out")]
    if len(odd) > count:
        raise CrossferError(
            f"{raw.place}: {len(odd):,} of {len(odd) + count:,} pictures cannot be used "
            f"(first: {odd[0].origin}: {odd[0].reason}); expected {raw.reader.layout}"
        )


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Write what stands before the pixels of an array file; as long for every count up to 10²⁰."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, about)


def _assign(
    records: list[Record], sizes: tuple[float, ...], exact: bool, seed: int
) -> tuple[list[Split], dict[str, Any]]:
    """Return the split of every record, and how it came about (for the card)."""
    names = in_order(record.label for record in records)
    labels = np.array([names.index(record.label) for record in records])
    subjects = [record.subject for record in records]
    given = [record.split for record in records]
    assigned = [split for split in given if split is not None]
    asked = None
    if len(assigned) == len(given):
        how = "official"
        if "validation" not in assigned:
            rows = np.flatnonzero(np.array(assigned) == "training")
            parts = splits.divide(
                labels[rows],
                [subjects[row] for row in rows],
                (1 - VALIDATION_SHARE, VALIDATION_SHARE),
                seed,
            )
            for row in rows[parts == 1]:
                assigned[row] = "validation"
            how = f"official, with {VALIDATION_SHARE:.0%} of training set aside as validation"
    elif assigned:
        missing = given.count(None)
        raise CrossferError(
            f"{missing:,} of {len(records):,} images have no split (first: "
            f"{records[given.index(None)].origin}): give every image one, or none"
        )
    else:
        parts = splits.divide(labels, subjects, sizes, seed)
        counts = splits.counts_of(len(records), sizes)
        asked = dict(zip(SPLITS, counts, strict=True))
        how = "subject-disjoint" if any(s is not None for s in subjects) else "stratified"
        if exact:
            parts = splits.reach(labels, subjects, parts, counts)
            how = "the counts asked for, to the image"
        assigned = [SPLITS[part] for part in parts]
    return assigned, {
        "how": how,
        "seed": seed,
        "asked": asked,
        "reached": {split: assigned.count(split) for split in SPLITS},
        "classes": {
            split: class_counts(labels[[part == split for part in assigned]], names)
            for split in SPLITS
        },
        "subjects_in_several_splits": len(splits.shared_subjects(subjects, assigned)),
    }


def _card(
    raw: _Raw,
    how: Preparation,
    extraction: Extraction,
    columns: Mapping[str, list[Any]],
    split: dict[str, Any],
    skipped: Sequence[Skipped],
) -> dict[str, Any]:
    """Return what ``dataset.json`` says, but for the digests."""
    return {
        "format": FORMAT,
        "name": raw.name,
        "title": raw.reader.title,
        "stand_in": raw.stand_in,
        "reader": raw.reader.name,
        "recognised": raw.why,
        "licence": raw.reader.licence,
        "citation": raw.reader.citation,
        "raw": raw.place,
        "raw_state": raw.state,
        "preparation": how.as_json(),
        "faces": {
            "mode": "find" if extraction.find else "cropped",
            "framing": asdict(extraction.framing),
            "crop": extraction.crop,
            "found": dict(Counter(columns["found"]).most_common()),
        },
        "classes": _classes(columns["label"], how.classes),
        "images": len(columns["label"]),
        "subjects": len(set(columns["subject"]) - {None}),
        "split": split,
        "skipped": dict(Counter(item.reason for item in skipped).most_common()),
        "versions": {
            package: version(package)
            for package in ("crossfer", "numpy", "pillow", "opencv-python-headless")
        },
    }


def _classes(labels: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """Return the labels that a dataset tells apart: those that occur, or those named."""
    occurring, told = set(labels), {canonical(name) for name in named or ()}
    if named and (others := occurring - told):
        raise CrossferError(
            f"classes: {min(others)!r} occurs too; name it, or leave it out by a label"
        )
    return in_order(told or occurring)


def _write(folder: Path, card: dict[str, Any], table: pa.Table, skipped: list[Skipped]) -> None:
    """Write everything but the images, which are there; the card last, with the digests of the rest."""
    pyarrow.parquet.write_table(table, folder / SAMPLES)
    with (folder / SKIPPED).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["origin", "reason"])
        rows.writerows((item.origin, item.reason) for item in skipped)
    digests = {file: digest(folder / file) for file in (IMAGES, SAMPLES)}
    # Of what training and measuring use, wherever it came from and however Parquet stores it.
    known = table.select(["label", "subject", "split"]).to_pydict()
    rows_digest = hashlib.sha256(repr(known).encode()).hexdigest()
    card |= {
        "sha256": digests,
        "fingerprint": hashlib.sha256((digests[IMAGES] + rows_digest).encode()).hexdigest(),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False), encoding="utf-8")


def _put_in_place(partial: Path, out: Path) -> None:
    os.chmod(partial, 0o755)
    for file in (*partial.iterdir(), partial):
        sync(file)
    replaced = partial.with_name(REPLACED)
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        out.rename(replaced)
    partial.rename(out)
    sync(out.parent)

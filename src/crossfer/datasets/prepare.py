"""Raw files → a prepared dataset on disk: read, decode, divide, write beside, rename."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from crossfer.datasets import splits
from crossfer.datasets.dataset import (
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
from crossfer.datasets.faces import SIDE, UnreadableImage, face_of
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.record import SPLITS, Box, Reader, ReadOptions, Record, Skipped
from crossfer.emotions import check_label_map
from crossfer.errors import CrossferError

STAND_IN_NOTE = "STAND-IN.txt"
SKIPPED = "skipped.csv"
VALIDATION_SHARE = 0.1
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Faces:
    """What could be decoded, row by row."""

    records: list[Record]
    images: NDArray[np.uint8]
    boxes: list[Box]
    skipped: list[Skipped]


@dataclass(frozen=True)
class Preparation:
    """What a user may say about how to prepare a dataset; the defaults suit the dataset.

    Parameters
    ----------
    reader
        One of `crossfer.datasets.READERS`, instead of recognising the layout.
    labels
        From the dataset's class names to ours, or to ``None`` for a class to leave out.
    subject
        Regular expression that finds the subject in an image's relative path (folders and manifests).
    crop
        Side of the centred square that holds the face, as a share (0–1] of the picture's shorter side.
    sizes
        Training, validation and test, as counts or shares, where there is no official split.
    seed
        Of the split.
    """

    reader: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    subject: str | None = None
    crop: float | None = None
    sizes: tuple[float, float, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reader is not None and self.reader not in READERS:
            raise CrossferError(
                f"unknown dataset {self.reader!r}: choose one of {', '.join(READERS)}"
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise CrossferError(f"crop is {self.crop}: it must lie above 0 and at most at 1")
        if self.sizes is not None and not (
            all(math.isfinite(size) and size >= 0 for size in self.sizes) and sum(self.sizes) > 0
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

    def as_json(self) -> dict[str, Any]:
        """Return what a card records of it."""
        return asdict(self) | {"sizes": list(self.sizes) if self.sizes else None}


def prepare(
    path: str | Path,
    out: str | Path,
    how: Preparation | None = None,
    *,
    name: str | None = None,
    replace: bool = False,
    progress: Progress = lambda done, total: None,
) -> Dataset:
    """Turn a raw dataset into a prepared one.

    Nothing is left at `out` unless everything succeeded.

    Parameters
    ----------
    path
        The files as the dataset's authors ship them, or a folder of images per class, or a manifest.
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
    path, out, how = Path(path), Path(out), how or Preparation()
    if path.resolve().is_relative_to(out.resolve()):
        raise CrossferError(f"{out}: holds the raw files {path}; name another folder")
    _check_free(out, replace)
    if not path.exists():
        raise CrossferError(f"{path}: no such file or folder")
    if is_prepared(path):
        raise CrossferError(f"{path}: is a prepared dataset already; name the raw files")
    reader, why = (READERS[how.reader], "as the user says") if how.reader else recognise(path)
    crop = how.crop or reader.crop
    options = ReadOptions(how.labels, re.compile(how.subject) if how.subject else None)
    faces = _decode(path, reader, options, crop, progress)
    assigned, split = _assign(faces.records, how.sizes or reader.sizes, how.seed)
    own = path.stem if reader.name in ("folder", "manifest") else reader.name
    card = {
        "format": FORMAT,
        "name": name or own,
        "title": reader.title,
        "stand_in": any((folder / STAND_IN_NOTE).is_file() for folder in (path, path.parent)),
        "reader": reader.name,
        "recognised": why,
        "licence": reader.licence,
        "citation": reader.citation,
        "raw": str(path.resolve()),
        "raw_state": raw_state(path),
        "preparation": how.as_json(),
        "crop": crop,
        "side": SIDE,
        "images": len(faces.records),
        "subjects": len({r.subject for r in faces.records if r.subject is not None}),
        "split": split,
        "skipped": dict(Counter(item.reason for item in faces.skipped).most_common()),
        "versions": {package: version(package) for package in ("crossfer", "numpy", "pillow")},
    }
    _write(out, card, faces, assigned)
    return open_dataset(out)


def raw_state(path: Path) -> str:
    """Return a digest of the names, sizes and times of raw files: it tells whether any changed."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def _check_free(out: Path, replace: bool) -> None:
    if out.is_file():
        raise CrossferError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        if not is_prepared(out):
            raise CrossferError(
                f"{out}: is in use and holds no prepared dataset; name another folder"
            )
        strangers = {file.name for file in out.iterdir()} - {CARD, IMAGES, SAMPLES, SKIPPED}
        if strangers:
            raise CrossferError(f"{out}: also holds {min(strangers)}; name another folder")
        if not replace:
            raise CrossferError(
                f"{out}: holds a prepared dataset already; add --replace to replace it"
            )


def _decode(
    path: Path, reader: Reader, options: ReadOptions, crop: float, progress: Progress
) -> _Faces:
    try:
        items = list(reader.read(path, options))
    except CrossferError as error:
        raise CrossferError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Skipped)]
    if not records:
        detail = f" ({left_out[0].origin}: {left_out[0].reason})" if left_out else ""
        raise CrossferError(f"{path}: no usable image{detail}; expected {reader.layout}")

    def cut(record: Record) -> tuple[NDArray[np.uint8], Box] | Skipped:
        try:
            return face_of(record, crop)
        except UnreadableImage as error:
            return Skipped(record.origin, str(error))

    images = np.empty((len(records), SIDE, SIDE), np.uint8)
    kept: list[Record] = []
    boxes: list[Box] = []
    unreadable: list[Skipped] = []
    with ThreadPoolExecutor() as pool:
        for done, (record, face) in enumerate(zip(records, pool.map(cut, records), strict=True), 1):
            if isinstance(face, Skipped):
                unreadable.append(face)
            else:
                images[len(kept)] = face[0]
                kept.append(record)
                boxes.append(face[1])
            if done % 64 == 0 or done == len(records):
                progress(done, len(records))
    # Classes that are not among the seven are left out on purpose: they are no sign of a wrong layout.
    odd = unreadable + [item for item in left_out if not item.reason.endswith("left out")]
    if len(odd) > len(kept):
        raise CrossferError(
            f"{path}: {len(odd):,} of {len(odd) + len(kept):,} pictures cannot be used "
            f"(first: {odd[0].origin}: {odd[0].reason}); expected {reader.layout}"
        )
    return _Faces(kept, images[: len(kept)], boxes, left_out + unreadable)


def _assign(
    records: list[Record], sizes: tuple[float, ...], seed: int
) -> tuple[list[str], dict[str, Any]]:
    """Return the split of every record, and how it came about (for the card)."""
    labels = np.array([record.label for record in records])
    subjects = [record.subject for record in records]
    given = [record.split for record in records]
    if None not in given:
        assigned, how = [str(split) for split in given], "official"
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
        asked = None
    elif any(split is not None for split in given):
        missing = given.count(None)
        raise CrossferError(
            f"{missing:,} of {len(records):,} images have no split: give every image one, or none"
        )
    else:
        parts = splits.divide(labels, subjects, sizes, seed)
        assigned = [SPLITS[part] for part in parts]
        how = "subject-disjoint" if any(s is not None for s in subjects) else "stratified"
        scale = len(records) / sum(sizes)
        asked = {split: round(size * scale) for split, size in zip(SPLITS, sizes, strict=True)}
    return assigned, {
        "how": how,
        "seed": seed,
        "asked": asked,
        "reached": {split: assigned.count(split) for split in SPLITS},
        "classes": {split: class_counts(labels[np.array(assigned) == split]) for split in SPLITS},
        "subjects_in_several_splits": len(splits.shared_subjects(subjects, assigned)),
    }


def _write(out: Path, card: dict[str, Any], faces: _Faces, assigned: list[str]) -> None:
    """Write everything into a folder beside `out`, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        np.save(partial / IMAGES, faces.images)
        left, top, width, height = zip(*faces.boxes, strict=True)
        table = sample_table(
            {
                "label": [record.label for record in faces.records],
                "subject": [record.subject for record in faces.records],
                "split": assigned,
                "origin": [record.origin for record in faces.records],
                "sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in faces.images],
                "left": left,
                "top": top,
                "width": width,
                "height": height,
            }
        )
        pyarrow.parquet.write_table(table, partial / SAMPLES)
        with (partial / SKIPPED).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["origin", "reason"])
            rows.writerows((item.origin, item.reason) for item in faces.skipped)
        digests = {
            file: hashlib.sha256((partial / file).read_bytes()).hexdigest()
            for file in (IMAGES, SAMPLES)
        }
        # Of what training and measuring use, wherever it came from and however Parquet stores it.
        known = table.select(["label", "subject", "split"]).to_pydict()
        rows_digest = hashlib.sha256(repr(known).encode()).hexdigest()
        card |= {
            "sha256": digests,
            "fingerprint": hashlib.sha256((digests[IMAGES] + rows_digest).encode()).hexdigest(),
        }
        (partial / CARD).write_text(
            json.dumps(card, indent=2, ensure_ascii=False), encoding="utf-8"
        )
        os.chmod(partial, 0o755)
        replaced = partial.with_name(partial.name + ".replaced")
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise

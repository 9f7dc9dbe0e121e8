"""Prepare a dataset: read raw files, find faces, assign splits, write atomically."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from crossfer.datasets.assign import assign
from crossfer.datasets.card import card_of, write_tables
from crossfer.datasets.dataset import (
    BOX,
    GROUP,
    IMAGES,
    Dataset,
    is_prepared,
    open_dataset,
    sample_table,
)
from crossfer.datasets.detector import NO_FACE
from crossfer.datasets.duplicates import across_splits
from crossfer.datasets.earlier import check_draw, earlier_state
from crossfer.datasets.extract import Block, Extraction, are_cropped, blocks
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.raw import Raw, read_raw
from crossfer.datasets.readers.in_memory import InMemorySource
from crossfer.datasets.record import Record, Skipped
from crossfer.datasets.staging import FacesStay, check_free, put_in_place, resumable, staging_of
from crossfer.errors import CrossferError
from crossfer.progress import OnProgress, silent

if TYPE_CHECKING:
    from crossfer.executors.ray import Ray

COMPARED = 5_000
"""Up to so many faces are compared with each other at once: it takes seconds."""


def prepare(
    source: str | Path | InMemorySource,
    out: str | Path,
    how: Preparation | None = None,
    *,
    name: str | None = None,
    replace: bool = False,
    new_split: bool = False,
    progress: OnProgress = silent,
    on: Ray | None = None,
) -> Dataset:
    """Turn a raw dataset into a prepared one.

    The folder `out` appears atomically when everything has succeeded. Until then, decoded faces are kept in
    a hidden folder beside it, so the same call resumes after an interruption.

    Parameters
    ----------
    source
        The raw files as distributed (a folder, a table or an archive), a folder of images per class, a
        table of labels, or the result of `crossfer.in_memory`.
    out
        The folder to create.
    how
        Options; the defaults suit the dataset.
    name
        The dataset's name; by default the reader's, or that of the folder or table.
    replace
        Replace a prepared dataset at `out`. Known faces (by the pixels of their pictures) keep their
        splits. New faces of a known subject go to the subject's split; others are distributed to approach
        the sizes.
    new_split
        Divide all faces again instead. A network trained before must not be measured on the new test set.
    progress
        Called with the number of decoded pictures and their total.
    on
        Find faces on this Ray cluster, whose nodes need not see the files.

    Raises
    ------
    CrossferError
        If the layout is not recognised, a class is unknown, there is no image, more than half of the
        pictures cannot be used, or `out` is in use; or if the cluster is not there, or is lost.
    """
    out, how = Path(out), how or Preparation()
    if on:
        on.check()
    if not isinstance(source, InMemorySource):
        source = Path(source)
        if source.resolve().is_relative_to(out.resolve()):
            raise CrossferError(f"{out}: contains the raw files {source}; name another folder")
        if not source.exists():
            raise CrossferError(f"{source}: no such file or folder")
        if is_prepared(source):
            raise CrossferError(f"{source}: is already a prepared dataset; name the raw files")
    check_free(out, replace)
    with staging_of(out) as staging:
        earlier = None if new_split else earlier_state(out)
        if earlier:
            check_draw(earlier, how, out)
        raw = read_raw(source, how, name, staging)
        extraction = _extraction(raw, how)
        done = resumable(staging, raw, extraction)
        partial = staging / "dataset"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if on:
            _extract_on(on, raw, extraction, done, progress)
            progress = silent
        found = blocks(raw.records, extraction, done, progress)
        kept, skipped, table = _write_faces(raw, how, found, partial)
        columns: dict[str, list[Any]] = {
            "label": [record.label for record in kept],
            "subject": [record.subject for record in kept],
            "origin": [record.origin for record in kept],
            **table,
        }
        columns["split"], split = assign(kept, columns, how, raw.reader.sizes, earlier)
        split["copies"] = None if raw.stand_in else _copies(partial, columns)
        for name in sorted({name for record in kept for name in record.groups}):
            columns[f"{GROUP}{name}"] = [record.groups.get(name) for record in kept]
        card = card_of(raw, how, extraction, columns, split, skipped)
        write_tables(partial, card, sample_table(columns), skipped)
        put_in_place(partial, out)
    return open_dataset(out)


def _extract_on(
    cluster: Ray, raw: Raw, extraction: Extraction, folder: Path, progress: OnProgress
) -> None:
    """Have a cluster find the faces; those that it has found stay, whatever goes wrong."""
    if not all(isinstance(record.picture, Path) for record in raw.records):
        raise CrossferError(
            f"{raw.place}: its pictures are no files of their own, and nothing else is sent to a cluster: "
            "leave --on out"
        )
    from crossfer.datasets.on_ray import extract_on_ray

    try:
        extract_on_ray(raw.records, extraction, folder, cluster, progress)
    except CrossferError as error:
        raise FacesStay(str(error)) from None


def _copies(partial: Path, columns: dict[str, list[Any]]) -> dict[str, Any] | None:
    """Count faces with a near copy in another split, among few enough to compare at once."""
    if len(columns["split"]) > COMPARED:
        return None
    found = across_splits(np.load(partial / IMAGES, mmap_mode="r"), columns["split"])
    return {
        split: {"images": count, "example": [columns["origin"][row] for row in example]}
        for split, (count, example) in found.items()
    }


def _extraction(raw: Raw, how: Preparation) -> Extraction:
    """Decide whether faces are looked for."""
    cropped = raw.reader.cropped if how.faces == "auto" else how.faces == "cropped"
    if cropped is None:
        cropped = are_cropped(raw.records)
    if cropped:
        for key, flag in (("eyes", "--eyes"), ("no_face", "--no-face")):
            if getattr(how, key) != getattr(Preparation, key):
                raise CrossferError(
                    f"{raw.place}: its pictures are used as cut-out faces, so {flag} has no "
                    "effect; leave it out, or add --faces find"
                )
    if how.crop is not None and all(record.box for record in raw.records):
        raise CrossferError(
            f"{raw.place}: every face has a box, so --crop has no effect; leave it out"
        )
    return Extraction(how.framing, not cropped, how.crop or (1.0 if cropped else raw.reader.crop))


def _write_faces(
    raw: Raw, how: Preparation, faces: Iterator[Block], folder: Path
) -> tuple[list[Record], list[Skipped], dict[str, list[Any]]]:
    """Write the usable faces to ``images.npy``.

    Returns
    -------
    kept : list of Record
        Those whose faces they are.
    skipped : list of Skipped
    columns : dict
        Per face: sha256 of it and of its picture, how it was found, the score, its box and roll.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("sha256", "picture", "found", "score", *BOX)
    }
    kept, unusable, dropped = list[Record](), list[Skipped](), list[Skipped]()
    records = iter(raw.records)
    with (folder / IMAGES).open("wb") as images:
        _write_header(images, len(raw.records), how.framing.shape)
        for block in faces:
            for index, problem in enumerate(block.problems):
                record = next(records)
                if problem:
                    unusable.append(Skipped(record.origin, str(problem)))
                elif block.found[index] in ("centre", "box") and how.no_face != "keep":
                    dropped.append(Skipped(record.origin, NO_FACE))
                else:
                    pixels = block.images[index].tobytes()
                    images.write(pixels)
                    kept.append(record)
                    columns["sha256"].append(hashlib.sha256(pixels).hexdigest())
                    columns["picture"].append(str(block.pictures[index]))
                    columns["found"].append(str(block.found[index]))
                    columns["score"].append(float(block.scores[index]))
                    for name, value in zip(BOX, block.boxes[index], strict=True):
                        columns[name].append(float(value))
        images.seek(0)
        _write_header(images, len(kept), how.framing.shape)
    _check_usable(raw, unusable, dropped, len(kept), how.no_face)
    return kept, raw.left_out + unusable + dropped, columns


def _check_usable(
    raw: Raw, unusable: list[Skipped], dropped: list[Skipped], count: int, no_face: str
) -> None:
    if dropped and no_face == "refuse":
        raise FacesStay(
            f"{raw.place}: no face found in {len(dropped):,} pictures (first: "
            f"{dropped[0].origin}); --no-face keep uses their centre or their box, --no-face drop "
            "leaves them out"
        )
    # What is left out on purpose is no sign of a wrong layout.
    odd = unusable + dropped
    odd += [item for item in raw.left_out if item.picture and not item.reason.endswith("left out")]
    if len(odd) > count:
        raise CrossferError(
            f"{raw.place}: {len(odd):,} of {len(odd) + count:,} pictures cannot be used "
            f"(first: {odd[0].origin}: {odd[0].reason}); expected {raw.reader.layout}"
        )


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Write what stands before the pixels of an array file; as long for every count up to 10²⁰."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, about)

"""The card of a prepared dataset, and the files beside its images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from crossfer.classes import UNLABELLED, canonical, in_order
from crossfer.datasets.dataset import DATASET_CARD, FORMAT, GROUP, IMAGES, SAMPLES
from crossfer.datasets.extract import Extraction
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.raw import Raw
from crossfer.datasets.record import Skipped
from crossfer.errors import CrossferError
from crossfer.evaluation.suggested import suggestions
from crossfer.files import digest, write_csv, write_json

SKIPPED = "skipped.csv"
YES, NO = "yes", "no"
SHOWN, CHANGED = f"{GROUP}suggestion_shown", f"{GROUP}suggestion_changed"
"""Columns of tables that `crossfer label` writes, `YES` or `NO`: whether who labelled saw what a model says,
and whether the label is another."""


def card_of(
    raw: Raw,
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
        "remarks": [*raw.remarks],
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
        "suggestions": _suggestions(columns),
        "skipped": dict(Counter(item.reason for item in skipped).most_common()),
        "versions": {
            package: version(package)
            for package in ("crossfer", "numpy", "pillow", "opencv-python-headless")
        },
    }


def _classes(labels: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """Return the labels that a dataset tells apart: those that occur, or those named."""
    occurring, told = set(labels) - {UNLABELLED}, {canonical(name) for name in named or ()}
    if named and (others := occurring - told):
        raise CrossferError(
            f"classes: {min(others)!r} also occurs; add it, or leave it out with a label"
        )
    return in_order(told or occurring)


def _suggestions(columns: Mapping[str, list[Any]]) -> dict[str, int] | None:
    """Count how far labels follow what a model suggested, where `crossfer label` says it."""
    said = zip(columns.get(SHOWN, ()), columns.get(CHANGED, ()), strict=False)
    found = suggestions((shown == YES, changed == YES) for shown, changed in said if shown)
    return asdict(found) if found else None


def write_tables(
    folder: Path, card: dict[str, Any], table: pa.Table, skipped: list[Skipped]
) -> None:
    """Write everything but the images, which are there; the card last, with the digests of the rest."""
    pyarrow.parquet.write_table(table, folder / SAMPLES)
    reasons = ({"origin": item.origin, "reason": item.reason} for item in skipped)
    write_csv(folder / SKIPPED, ("origin", "reason"), reasons)
    digests = {file: digest(folder / file) for file in (IMAGES, SAMPLES)}
    # Of what training and measuring use, wherever it came from and however Parquet stores it.
    known = table.select(["label", "subject", "split"]).to_pydict()
    rows_digest = hashlib.sha256(repr(known).encode()).hexdigest()
    card |= {
        "sha256": digests,
        "fingerprint": hashlib.sha256((digests[IMAGES] + rows_digest).encode()).hexdigest(),
    }
    write_json(folder / DATASET_CARD, card)

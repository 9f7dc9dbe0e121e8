"""Which split every record of a dataset belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfer.datasets import splits
from crossfer.datasets.dataset import class_counts
from crossfer.datasets.record import SPLITS, Record, Split
from crossfer.errors import CrossferError

VALIDATION_SHARE = 0.1


def assign(
    records: list[Record], sizes: tuple[float, ...], exact: bool, seed: int
) -> tuple[list[Split], dict[str, Any]]:
    """Return the split of every record, and how it came about (for the card)."""
    labels = np.array([record.label for record in records])
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
            split: class_counts(labels[[part == split for part in assigned]]) for split in SPLITS
        },
        "subjects_in_several_splits": len(splits.shared_subjects(subjects, assigned)),
    }

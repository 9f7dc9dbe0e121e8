"""Assign every record of a dataset to a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.classes import in_order
from crossfer.datasets import splits
from crossfer.datasets.dataset import class_counts
from crossfer.datasets.earlier import Earlier
from crossfer.datasets.preparation import VALIDATION_SHARE, Preparation
from crossfer.datasets.record import SPLITS, Record, Split
from crossfer.errors import CrossferError


def assign(
    records: Sequence[Record],
    columns: Mapping[str, Sequence[Any]],
    how: Preparation,
    sizes: tuple[float, float, float],
    earlier: Earlier | None = None,
) -> tuple[list[Split], dict[str, Any]]:
    """Assign a split to every record.

    The official split, if a record has one. Otherwise a face of the earlier state keeps its split, a new face
    of a known subject goes to the subject's split, and all others are divided.

    Parameters
    ----------
    records
        The records of the dataset, at least one.
    columns
        Columns of the sample table that identify faces: see `crossfer.datasets.earlier.CONTENT`, and origin.
    how
        The user's options.
    sizes
        The reader's default sizes of training, validation and test set.
    earlier
        The earlier state of the dataset, whose splits are kept.

    Returns
    -------
    splits : list
    card : dict
        How they were assigned, for ``dataset.json``.

    Raises
    ------
    CrossferError
        If only some records have an official split, or an option would have no effect.
    """
    names = in_order(record.label for record in records)
    index = {name: number for number, name in enumerate(names)}
    labels = np.array([index[record.label] for record in records], np.int64)
    subjects = [record.subject for record in records]
    official = [None if how.ignore_splits else record.split for record in records]
    _check_options(records, how)
    before = earlier.splits(columns) if earlier else [None] * len(records)
    allowed = [
        split if split and (given is None or split in _parts_of(given, official, how)) else None
        for split, given in zip(before, official, strict=True)
    ]
    asked = None
    if any(split is None for split in official):
        counts = splits.counts_of(len(records), how.sizes or sizes)
        asked = dict(zip(SPLITS, counts, strict=True))
        fixed = _fixed(allowed, subjects, earlier)
        parts = splits.divide(labels, subjects, how.sizes or sizes, how.seed, fixed)
        words = "subject-disjoint" if any(s is not None for s in subjects) else "stratified"
        if how.exact:
            parts = _exact(labels, subjects, parts, fixed, counts)
            words = "exactly the requested counts"
        assigned = [SPLITS[part] for part in parts]
    else:
        assigned, words = _cut(official, labels, subjects, allowed, how, earlier)
    return assigned, {
        "how": words,
        "seed": how.seed,
        "asked": asked,
        "reached": {split: assigned.count(split) for split in SPLITS},
        "classes": {
            split: class_counts(labels[[part == split for part in assigned]], names)
            for split in SPLITS
        },
        "kept": _kept(before, assigned) if earlier else None,
        "subjects_in_several_splits": len(splits.shared_subjects(subjects, assigned)),
    }


def _check_options(records: Sequence[Record], how: Preparation) -> None:
    """Refuse what would be ignored, and a dataset of which only some have an official split."""
    given = [record.split for record in records]
    has = set(given) - {None}
    if not has:
        for option, wanted in (
            ("--ignore-splits", how.ignore_splits),
            ("--test-share", how.test_share is not None),
        ):
            if wanted:
                raise CrossferError(
                    f"{option}: the files have no splits, so this has no effect; use --sizes"
                )
        return
    if how.ignore_splits:
        if how.test_share is not None:
            raise CrossferError("--test-share: has no effect with --ignore-splits; use --sizes")
        return
    if None in given:
        raise CrossferError(
            f"{given.count(None):,} of {len(records):,} images have no split (first: "
            f"{records[given.index(None)].origin}): give every image one, map a folder or value "
            "with --split NAME=training, or divide all of them with --ignore-splits"
        )
    come = f"the files have splits ({', '.join(split for split in SPLITS if split in has)})"
    remedy = "leave it out, or add --ignore-splits to divide again"
    if how.sizes is not None or how.exact:
        cut = "" if "test" in has else "; --test-share 0.2 takes a test set from training"
        raise CrossferError(
            f"{'--sizes' if how.sizes is not None else '--exact'}: {come}: {remedy}{cut}"
        )
    if how.test_share is not None and "test" in has:
        raise CrossferError(f"--test-share: {come}: {remedy}")
    if how.test_share is not None and "training" not in has:
        raise CrossferError(f"--test-share: {come}: there is no training set to take it from")
    drawn = "training" in has and ("validation" not in has or how.test_share is not None)
    if how.seed and not drawn:
        raise CrossferError(f"--seed: {come}, so nothing is random: {remedy}")


def _parts_of(given: Split, official: Sequence[Split | None], how: Preparation) -> set[Split]:
    """Return the splits that images of an official one may be in."""
    if given != "training":
        return {given}
    parts: set[Split] = {"training"}
    if "validation" not in official:
        parts.add("validation")
    if how.test_share is not None:
        parts.add("test")
    return parts


def _fixed(
    allowed: Sequence[Split | None], subjects: Sequence[str | None], earlier: Earlier | None
) -> NDArray[np.int64] | None:
    """Return the part of each image that has one already, else −1."""
    if earlier is None:
        return None
    here = {w: s for w, s in zip(subjects, allowed, strict=True) if w is not None and s}
    here |= earlier.subjects
    found = [
        split or (here.get(who) if who is not None else None)
        for split, who in zip(allowed, subjects, strict=True)
    ]
    return np.array([SPLITS.index(split) if split else -1 for split in found], np.int64)


def _exact(
    labels: NDArray[np.int64],
    subjects: Sequence[str | None],
    parts: NDArray[np.int64],
    fixed: NDArray[np.int64] | None,
    counts: Sequence[int],
) -> NDArray[np.int64]:
    """Reach the counts by moving images that have no part already."""
    free = np.arange(len(parts)) if fixed is None else np.flatnonzero(fixed < 0)
    have = np.bincount(np.delete(parts, free), minlength=len(counts))
    lacking = np.asarray(counts) - have
    if (lacking < 0).any():
        over = SPLITS[int(np.argmin(lacking))]
        raise CrossferError(
            f"--exact: more faces than requested keep their split in {over}; request more there, "
            "or divide again with --new-split"
        )
    parts = parts.copy()
    parts[free] = splits.reach(
        labels[free], [subjects[int(row)] for row in free], parts[free], lacking.tolist()
    )
    return parts


def _cut(
    official: Sequence[Split | None],
    labels: NDArray[np.int64],
    subjects: Sequence[str | None],
    allowed: Sequence[Split | None],
    how: Preparation,
    earlier: Earlier | None,
) -> tuple[list[Split], str]:
    """Take the official splits, with what is missing cut from training."""
    assigned = [split for split in official if split is not None]
    shares = [0.0, VALIDATION_SHARE * ("validation" not in official), how.test_share or 0.0]
    cut = [split for split, share in zip(SPLITS, shares, strict=True) if share]
    rows = [row for row, split in enumerate(assigned) if split == "training"]
    if not cut or not len(rows):
        return assigned, "official"
    shares[0] = 1 - sum(shares)
    chosen = [subjects[row] for row in rows]
    kinds: list[Split] = ["training", *cut]
    fixed = _fixed([allowed[row] for row in rows], chosen, earlier)
    if fixed is not None:  # who is in the official test set may be in training all the same
        known = {SPLITS.index(split): number for number, split in enumerate(kinds)}
        fixed = np.array([known.get(int(part), -1) for part in fixed], np.int64)
    wanted = [shares[SPLITS.index(split)] for split in kinds]
    parts = splits.divide(labels[rows], chosen, wanted, how.seed, fixed)
    for row, part in zip(rows, parts.tolist(), strict=True):
        assigned[row] = kinds[part]
    aside = " and ".join(
        f"{share:.0%} of training set aside as {split}"
        for split, share in zip(cut, wanted[1:], strict=True)
    )
    return assigned, f"official, with {aside}"


def _kept(before: Sequence[Split | None], assigned: Sequence[Split]) -> dict[str, Any]:
    """Count what kept its split, what is new, and what the files put elsewhere than it was."""
    pairs = list(zip(before, assigned, strict=True))
    new = Counter(split for was, split in pairs if was is None)
    return {
        "faces": sum(was == split for was, split in pairs),
        "moved": sum(was is not None and was != split for was, split in pairs),
        "new": {split: new[split] for split in SPLITS},
    }

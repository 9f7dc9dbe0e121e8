"""Assign every record of a dataset to a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.classes import UNLABELLED, in_order
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
    of a known subject goes to the subject's split, an unlabelled face of nobody who has labelled ones is for
    training, and all others are divided.

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
    cut = _cut_from_training(official, how)
    allowed = [
        split if given is None or (given == "training" and split in ("training", *cut)) else None
        for split, given in zip(before, official, strict=True)
    ]
    fixed = _fixed(allowed, subjects, earlier)
    free = np.flatnonzero(~((fixed < 0) & _only_unlabelled(records)))
    asked = None
    given = [split for split in official if split is not None]
    if not given:
        parts = np.zeros(len(records), np.int64)
        chosen = labels[free], [subjects[row] for row in free]
        counts = splits.counts_of(len(free), how.sizes or sizes)
        parts[free] = splits.divide(*chosen, how.sizes or sizes, how.seed, fixed[free])
        words = splits.SUBJECT_DISJOINT if any(s is not None for s in subjects) else "stratified"
        if how.exact:
            parts[free] = _exact(*chosen, parts[free], fixed[free], counts)
            words = "exactly the requested counts"
        assigned = [SPLITS[part] for part in parts]
        asked = dict(zip(SPLITS, counts, strict=True))
        asked["training"] += len(records) - len(free)
    else:
        assigned, words = _cut(given, labels, subjects, fixed, free, cut, how.seed)
    shared = len(splits.shared_subjects(subjects, assigned))
    if shared and words == splits.SUBJECT_DISJOINT:
        words = "kept from before, not subject-disjoint"
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
        "subjects_in_several_splits": shared,
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


def _cut_from_training(official: Sequence[Split | None], how: Preparation) -> dict[Split, float]:
    """Return the shares of the official training set that become validation and test set."""
    shares: dict[Split, float] = {}
    if "validation" not in official:
        shares["validation"] = VALIDATION_SHARE
    if how.test_share is not None:
        shares["test"] = how.test_share
    return shares


def _only_unlabelled(records: Sequence[Record]) -> NDArray[np.bool_]:
    """Tell which records are unlabelled, and of nobody who has labelled ones: bool (N,)."""
    labelled = {record.subject for record in records if record.label != UNLABELLED} - {None}
    return np.array([r.label == UNLABELLED and r.subject not in labelled for r in records])


def _fixed(
    allowed: Sequence[Split | None], subjects: Sequence[str | None], earlier: Earlier | None
) -> NDArray[np.int64]:
    """Return the part of each image that has one already, else −1."""
    here = {w: s for w, s in zip(subjects, allowed, strict=True) if w is not None and s}
    here |= earlier.subjects if earlier else {}
    found = [
        split or (here.get(who) if who is not None else None)
        for split, who in zip(allowed, subjects, strict=True)
    ]
    return np.array([SPLITS.index(split) if split else -1 for split in found], np.int64)


def _exact(
    labels: NDArray[np.int64],
    subjects: Sequence[str | None],
    parts: NDArray[np.int64],
    fixed: NDArray[np.int64],
    counts: Sequence[int],
) -> NDArray[np.int64]:
    """Reach the counts by moving images that have no part already."""
    free = np.flatnonzero(fixed < 0)
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
    official: Sequence[Split],
    labels: NDArray[np.int64],
    subjects: Sequence[str | None],
    fixed: NDArray[np.int64],
    free: NDArray[np.int64],
    cut: Mapping[Split, float],
    seed: int,
) -> tuple[list[Split], str]:
    """Take the official splits, with what is missing cut from training."""
    assigned = list(official)
    rows = [row for row in free.tolist() if assigned[row] == "training"]
    if not cut or not rows:
        return assigned, "official"
    kinds: list[Split] = ["training", *cut]
    # Who is in the official test set may be in training all the same.
    known = {SPLITS.index(split): number for number, split in enumerate(kinds)}
    places = np.array([known.get(int(part), -1) for part in fixed[rows]], np.int64)
    shares = [1 - sum(cut.values()), *cut.values()]
    parts = splits.divide(labels[rows], [subjects[row] for row in rows], shares, seed, places)
    for row, part in zip(rows, parts.tolist(), strict=True):
        assigned[row] = kinds[part]
    aside = " and ".join(
        f"{share:.0%} of training set aside as {split}" for split, share in cut.items()
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

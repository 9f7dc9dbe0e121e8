"""Split images by subject, with classes stratified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
SUBJECT_DISJOINT = "subject-disjoint"
"""What a division is called in which no subject is in two parts."""


def divide(
    labels: Labels,
    subjects: Sequence[str | None],
    shares: Sequence[float],
    seed: int,
    fixed: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Assign every image to one part.

    Subjects are kept whole: they are dealt out, the largest first, to the part that lacks their images
    most, and then moved and swapped while that brings the parts' class counts closer to their shares.
    An image without a subject counts as a subject of its own: without `fixed`, each class is divided within
    an image of its shares, and so are all of these images together.

    Parameters
    ----------
    labels
        Integer (N,), from 0.
    subjects
        N names; ``None`` where it is not known.
    shares
        The size that each part should have, relative to the others.
    seed
        Breaks ties, and shuffles.
    fixed
        Integer (N,): the part that an image is in already, −1 where it has none.  The others are dealt so
        that all of them together come close to their shares.

    Returns
    -------
    int64 (N,)
        The part of each image, 0 to ``len(shares) - 1``.
    """
    shares_array = np.asarray(shares, float) / np.sum(shares)
    generator = np.random.default_rng([seed, 0x5B117])
    parts = np.full(len(labels), -1, np.int64) if fixed is None else fixed.copy()
    have = np.zeros((len(shares), labels.max(initial=0) + 1))
    np.add.at(have, (parts[parts >= 0], labels[parts >= 0]), 1)
    free = parts < 0
    named = free & np.array([subject is not None for subject in subjects], bool)
    if named.any():
        names, group = np.unique(
            [str(who) for who, one in zip(subjects, named, strict=True) if one], return_inverse=True
        )
        counts = np.zeros((len(names), have.shape[1]))
        np.add.at(counts, (group, labels[named]), 1)
        parts[named] = _deal(counts, shares_array, generator, have)[group]
    owed = np.zeros(len(shares))  # to each part: small classes must not all round one way
    for label in np.unique(labels[free & ~named]):
        rows = generator.permutation(np.flatnonzero(free & ~named & (labels == label)))
        lacking = shares_array
        if have[:, label].any():
            lacking = shares_array * (have[:, label].sum() + len(rows)) - have[:, label]
            lacking = lacking.clip(0) / lacking.clip(0).sum()
        exact = np.round(lacking * len(rows), 9)
        counts = np.floor(exact).astype(int)
        owed += exact - counts
        first = np.argsort(np.where(exact > counts, -owed, np.inf), kind="stable")
        more = first[: len(rows) - counts.sum()]
        counts[more] += 1
        owed[more] -= 1
        for part, chosen in enumerate(np.split(rows, np.cumsum(counts)[:-1])):
            parts[chosen] = part
    return parts


def counts_of(total: int, shares: Sequence[float]) -> list[int]:
    """Divide a number of images by shares; the largest remainders get what rounding leaves over.

    Returns
    -------
    list of int
        Their sum is `total`.
    """
    exact = total * np.asarray(shares, float) / np.sum(shares)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def reach(
    labels: Labels, subjects: Sequence[str | None], parts: NDArray[np.int64], counts: Sequence[int]
) -> NDArray[np.int64]:
    """Move images between parts until every part has exactly the count asked for.

    The price is subjects on two sides: as few as can be, for all images that one part gives to another come
    from as few subjects as possible; within a subject, from the class that the giving part has too
    many of compared with the receiving one.

    Parameters
    ----------
    labels, subjects
        As for `divide`.
    parts
        What `divide` returned.
    counts
        Images that every part shall have; their sum is the number of images.

    Returns
    -------
    int64 (N,)
        The part of each image.
    """
    parts = parts.copy()
    shares = np.asarray(counts, float) / max(1, np.sum(counts))
    totals = np.bincount(labels)
    wanted = shares[:, None] * totals
    names = np.array([f"s{subject}" if subject is not None else "" for subject in subjects])
    giver: str | None = None
    while True:
        surplus = np.bincount(parts, minlength=len(counts)) - np.asarray(counts)
        if not surplus.any():
            return parts
        source, target = int(np.argmax(surplus)), int(np.argmin(surplus))
        rows = np.flatnonzero(parts == source)
        if giver is None or not (names[rows] == giver).any():
            found, sizes = np.unique(names[rows], return_counts=True)
            enough = sizes >= min(surplus[source], -surplus[target])
            # An image without a subject costs nothing; else the smallest subject that suffices.
            giver = str(
                found[np.lexsort((np.where(enough, sizes, -sizes), ~enough, found != ""))[0]]
            )
        rows = rows[names[rows] == giver]
        have = np.stack(
            [np.bincount(labels[parts == p], minlength=len(totals)) for p in (source, target)]
        )
        excess = (have[0] - wanted[source]) / np.maximum(wanted[source], 1) - (
            have[1] - wanted[target]
        ) / np.maximum(wanted[target], 1)
        parts[rows[np.argmax(excess[labels[rows]])]] = target


def take_fraction(
    labels: Labels, subjects: Sequence[str | None], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose a share of a training set: stratified, and with whole subjects where there are subjects.

    Parameters
    ----------
    labels, subjects
        As for `divide`.
    fraction
        0–1; 1 keeps everything.
    seed
        Another seed chooses another share.

    Returns
    -------
    int64
        The chosen rows, in ascending order.
    """
    if fraction >= 1:
        return np.arange(len(labels))
    parts = divide(labels, subjects, (fraction, 1 - fraction), seed)
    return np.flatnonzero(parts == 0)


def shared_subjects(
    subjects: Sequence[str | None], splits: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the subjects that stand in more than one split, with those splits."""
    seen: dict[str, set[str]] = {}
    for subject, split in zip(subjects, splits, strict=True):
        if subject is not None:
            seen.setdefault(subject, set()).add(split)
    return {subject: tuple(sorted(found)) for subject, found in seen.items() if len(found) > 1}


def _deal(
    counts: NDArray[np.float64],
    shares: NDArray[np.float64],
    generator: np.random.Generator,
    have: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Assign groups (rows of class counts) to parts so that every part gets its share of every class.

    What the parts `have` (rows of class counts) already is counted, and stays.
    """
    wanted = shares[:, None] * (counts.sum(0) + have.sum(0))
    weight = 1 / np.maximum(wanted, 1)  # a missing image weighs more in a small part
    have = have.copy()
    parts = np.full(len(counts), -1)

    def misfit(part: int, held: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((weight[part] * (held - wanted[part]) ** 2).sum(-1))

    shuffled = generator.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]
    for group in order:
        added = [
            misfit(part, have[part] + counts[group]) - misfit(part, have[part])
            for part in range(len(shares))
        ]
        parts[group] = int(np.argmin(added))
        have[parts[group]] += counts[group]

    improved = True
    while improved:
        improved = False
        for group in order:
            for part in range(len(shares)):
                own = parts[group]
                if part == own:
                    continue
                # Either move the group there, or swap it with one that is there.
                others = np.flatnonzero(parts == part)
                change = counts[group] - np.vstack([np.zeros_like(counts[:1]), counts[others]])
                before = misfit(own, have[own]) + misfit(part, have[part])
                after = misfit(own, have[own] - change) + misfit(part, have[part] + change)
                choice = int(np.argmin(after))
                if after[choice] < before - 1e-9:
                    have[own] -= change[choice]
                    have[part] += change[choice]
                    parts[group] = part
                    if choice:
                        parts[others[choice - 1]] = own
                    improved = True
    return parts

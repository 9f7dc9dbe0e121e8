"""Find copies of a face: the same pixels or the same photograph, mirrored or not.

A test image that also stands in training tells how well a model remembers, not how well it reads faces.
*Exact* copies have the same pixels.  *Near* copies are found in two steps: a perceptual hash (the lowest
frequencies of the cosine transform, as pHash, but kept as numbers) is compared for all pairs by matrix
products; pairs that are similar have their fine detail correlated, over shifts of up to a pixel.  A
mirrored face has the same even and the negative odd frequencies, so it costs no second transform.

Time grows with the square of the number of images; memory with the number.  docs/trust.md says how the
thresholds were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer.classes import UNLABELLED
from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import SPLITS, Split
from crossfer.evaluation.rows import Copies, Overlap, Place
from crossfer.progress import OnProgress, silent

Images = NDArray[np.uint8]
Rows = NDArray[np.int64]

SIDE = 48
FREQUENCIES = 10
"""The hash has the frequencies within this radius."""
CANDIDATE = 0.80
"""Faces whose hashes have a larger product are looked at closely."""
SAME = 0.90
"""Faces whose fine detail correlates better are copies."""
SHIFT = 1
"""How far two copies may be shifted against each other, in pixels of 48."""
FLAT = 5.0
"""A face whose gray levels deviate less has no detail to compare: exact copies only."""
METHOD = {"candidate": CANDIDATE, "same": SAME, "shift": SHIFT}
BLOCK = 2048
EXAMPLES = 5


@dataclass(frozen=True)
class Groups:
    """Which images are copies of each other; a copy of a copy is a copy.

    Parameters
    ----------
    exact
        int64 (N,): images with the same number have the same pixels.
    near
        int64 (N,): images with the same number show the same photograph, or its mirror image.
    """

    exact: Rows
    near: Rows


def group_copies(images: Sequence[Images], progress: OnProgress = silent) -> Groups:
    """Find which images are copies of each other.

    Parameters
    ----------
    images
        Arrays of uint8 (N, height, width) gray or (N, height, width, 3) RGB; they may differ in size.
    progress
        Told how many of how many blocks of pairs are compared.

    Returns
    -------
    Groups
        Over all the images, one array after the other.
    """
    seen: dict[tuple[tuple[int, ...], bytes], int] = {}
    exact = [
        seen.setdefault((face.shape, face.tobytes()), len(seen))
        for array in images
        for face in array
    ]
    exact_rows = np.array(exact, np.int64)
    _, first = np.unique(exact_rows, return_index=True)
    del seen
    faces = gray(images, first)
    pairs = [
        chosen[agreement(faces, chosen, mirrored) > SAME]
        for chosen, mirrored in candidates(hashes(faces), progress)
    ]
    joined = _joined(len(first), np.concatenate([np.empty((0, 2), np.int64), *pairs]))
    return Groups(exact_rows, joined[exact_rows])


def copied(groups: Rows, first: Rows, second: Rows) -> NDArray[np.bool_]:
    """Tell for the rows `second` whether each has a copy, other than itself, among the rows `first`."""
    counts = np.bincount(groups[first], minlength=groups.max(initial=0) + 1)
    return np.asarray(counts[groups[second]] > np.isin(second, first))


def across_splits(images: Images, splits: Sequence[Split]) -> dict[Split, tuple[int, Rows]]:
    """Find the images of validation and test that are copies of an image before them in the order of splits.

    Parameters
    ----------
    images
        uint8 (N, height, width) gray or (N, height, width, 3) RGB.
    splits
        N splits.

    Returns
    -------
    dict
        By split with such images: how many, and two rows that are copies of each other.
    """
    near, found = group_copies([images]).near, dict[Split, tuple[int, Rows]]()
    split = np.array(splits)
    for number, name in enumerate(SPLITS[1:], 1):
        before, own = np.flatnonzero(np.isin(split, SPLITS[:number])), np.flatnonzero(split == name)
        if len(before) and len(own) and (copies := own[copied(near, before, own)]).size:
            example = np.array([_copy_of(copies[0], before, near), copies[0]])
            found[name] = (len(copies), example)
    return found


def numbered(datasets: Sequence[Dataset]) -> list[tuple[Dataset, int]]:
    """Return each dataset with the row of its first image, where the images of all follow one another."""
    starts = np.cumsum([0, *(len(dataset.images) for dataset in datasets)])[:-1]
    return list(zip(datasets, starts.tolist(), strict=True))


def training_rows(datasets: Sequence[Dataset]) -> Rows:
    """Return the rows of all training sets, counted as `numbered` does: int64; unlabelled ones, too."""
    return np.concatenate(
        [_shown(dataset, "training") + start for dataset, start in numbered(datasets)]
    )


def _shown(dataset: Dataset, split: Split) -> Rows:
    """Return the rows of a split; of training, with the unlabelled ones, which may be adapted to."""
    rows = dataset.rows(split)
    return np.union1d(rows, dataset.unlabelled(split)) if split == "training" else rows


def in_training(datasets: Sequence[Dataset], groups: Groups) -> dict[str, Rows]:
    """Return, by dataset, the test rows that have a copy in any dataset's training set."""
    training, found = training_rows(datasets), {}
    for dataset, start in numbered(datasets):
        test = dataset.rows("test")
        found[dataset.name] = test[copied(groups.near, training, test + start)]
    return found


def overlaps(datasets: Sequence[Dataset], groups: Groups) -> tuple[Overlap, ...]:
    """Count copies within and across splits and datasets.

    Parameters
    ----------
    datasets
        Prepared datasets.  Images that belong to none of a dataset's classes are in no place.
    groups
        What `group_copies` found among their images.

    Returns
    -------
    tuple of Overlap
        For every two places (a dataset and a split; the same one twice for copies within it) that share
        images, some examples included.  Datasets of the same name go by their folders.
    """
    label_names = [name for d in datasets for name in d.samples.column("label").to_pylist()]
    labels = np.unique(label_names, return_inverse=True)[1]
    known = np.array(label_names) != UNLABELLED
    origins = [o for d in datasets for o in d.samples.column("origin").to_pylist()]
    # In the order of the splits, so that of two places training comes first.
    places = [
        (Place(name, split), _shown(dataset, split) + start)
        for split in SPLITS
        for name, (dataset, start) in zip(told_apart(datasets), numbered(datasets), strict=True)
    ]
    found = []
    for (one, first), (other, second) in combinations_with_replacement(places, 2):
        exact, near = (copied(group, first, second) for group in (groups.exact, groups.near))
        if near.any():
            pairs = [(_copy_of(row, first, groups.near), row) for row in second[near][:EXAMPLES]]
            found.append(
                Overlap(
                    first=one,
                    second=other,
                    images=len(second),
                    exact=int(exact.sum()),
                    near=int((near & ~exact).sum()),
                    relabelled=int(
                        _relabelled(
                            groups.near, labels, *(of[known[of]] for of in (first, second))
                        ).sum()
                    ),
                    leaks=one.split != other.split,
                    examples=tuple(
                        Copies(*(tuple(of[row] for row in pair) for of in (origins, label_names)))
                        for pair in pairs
                    ),
                )
            )
    return tuple(found)


def told_apart(datasets: Sequence[Dataset]) -> list[str]:
    """Return the names of datasets; those of the same name go by their folders."""
    names = [dataset.name for dataset in datasets]
    return [str(d.folder) if names.count(d.name) > 1 else d.name for d in datasets]


def _copy_of(row: int, rows: Rows, groups: Rows) -> int:
    """Return the first copy of a row, other than itself, among some rows."""
    return int(rows[(groups[rows] == groups[row]) & (rows != row)][0])


def _relabelled(groups: Rows, labels: Rows, first: Rows, second: Rows) -> NDArray[np.bool_]:
    """Tell for the rows `second` whether each has a copy with another label among `first`."""
    kinds = labels.max(initial=0) + 1
    labelled = groups * kinds + labels
    size = (groups.max(initial=0) + 1) * kinds
    everyone = np.bincount(groups[first], minlength=size)
    alike = np.bincount(labelled[first], minlength=size)
    return np.asarray(everyone[groups[second]] > alike[labelled[second]])


def hashes(faces: Images) -> NDArray[np.float32]:
    """Return the perceptual hashes of gray faces of 48×48.

    Returns
    -------
    float32 (2, N, 50)
        The frequencies that are even across the face, and the odd ones.  The product of two hashes is the
        sum of both parts' products, at most 1; that with a mirrored face is their difference.
    """
    frequency = np.arange(FREQUENCIES)
    angle = np.pi / SIDE * np.outer(frequency, np.arange(SIDE) + 0.5)
    basis = (np.cos(angle) * np.where(frequency, 1, np.sqrt(0.5))[:, None]).astype(np.float32)
    radius = np.hypot(frequency[:, None], frequency)
    # Low frequencies are strong in every face: weighted by frequency, all count alike.
    weight = np.where(radius < FREQUENCIES, radius, 0).astype(np.float32)
    waves = np.empty((len(faces), FREQUENCIES, FREQUENCIES), np.float32)
    for start in range(0, len(faces), BLOCK):
        block = faces[start : start + BLOCK].astype(np.float32)
        part = basis @ block @ basis.T * weight
        length = np.linalg.norm(part, axis=(1, 2), keepdims=True)
        textured = block.std(axis=(1, 2), keepdims=True) >= FLAT
        waves[start : start + BLOCK] = np.where(textured, part / np.maximum(length, 1e-6), 0)
    return np.stack([waves[:, :, odd::2].reshape(len(faces), -1) for odd in (0, 1)])


def gray(images: Sequence[Images], rows: Rows) -> Images:
    """Return chosen rows of several arrays as gray faces of 48×48."""
    faces = np.empty((len(rows), SIDE, SIDE), np.uint8)
    start = 0
    for array in images:
        for place in np.flatnonzero((rows >= start) & (rows < start + len(array))):
            face = np.asarray(array[rows[place] - start])
            if face.ndim == 3:
                face = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)
            if face.shape != (SIDE, SIDE):
                face = np.asarray(cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            faces[place] = face
        start += len(array)
    return faces


def candidates(hashed: NDArray[np.float32], progress: OnProgress) -> Iterator[tuple[Rows, bool]]:
    """Yield pairs of rows with similar hashes, (P, 2), and whether one has to be mirrored for that."""
    even, odd = hashed
    blocks = list(combinations_with_replacement(range(0, len(even), BLOCK), 2))
    for done, (a, b) in enumerate(blocks):
        rows, columns = slice(a, a + BLOCK), slice(b, b + BLOCK)
        evens, odds = even[rows] @ even[columns].T, odd[rows] @ odd[columns].T
        for mirrored in (False, True):
            product = evens - odds if mirrored else evens + odds
            pairs = np.argwhere(product > CANDIDATE) + (a, b)
            yield pairs[pairs[:, 0] < pairs[:, 1]], mirrored
        progress(done + 1, len(blocks))


def agreement(faces: Images, pairs: Rows, mirrored: bool) -> NDArray[np.float64]:
    """Return the best correlation of the pairs' fine detail over small shifts: (P,)."""
    best = np.full(len(pairs), -1.0)
    size = SIDE - 2 * SHIFT
    for start in range(0, len(pairs), BLOCK):
        chosen = pairs[start : start + BLOCK]
        one, other = (np.stack([_detail(faces[row]) for row in side]) for side in chosen.T)
        if mirrored:
            one = one[:, :, ::-1]
        centre = _unit(one[:, SHIFT : SHIFT + size, SHIFT : SHIFT + size])
        for top in range(2 * SHIFT + 1):
            for left in range(2 * SHIFT + 1):
                window = _unit(other[:, top : top + size, left : left + size])
                match = np.einsum("pk,pk->p", centre, window)
                best[start : start + BLOCK] = np.maximum(best[start : start + BLOCK], match)
    return best


def _detail(face: Images) -> NDArray[np.float32]:
    """Remove noise, and light and shade."""
    values = face.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(values, (0, 0), 0.8) - cv2.GaussianBlur(values, (0, 0), 4))


def _unit(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = windows.reshape(len(windows), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def _joined(size: int, pairs: Rows) -> Rows:
    """Number the groups that pairs join, each by its smallest member."""
    group = np.arange(size)
    while True:
        lowest = group.copy()
        np.minimum.at(lowest, pairs[:, 0], group[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], group[pairs[:, 0]])
        if np.array_equal(lowest, group):
            return group
        group = lowest

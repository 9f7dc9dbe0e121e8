"""How well copies of faces are found: the numbers of docs/trust.md.

    python benchmarks/copies.py data/fer2013 --people data/ck48

Recall is measured on altered copies of faces drawn from the dataset.  False alarms are counted among all
pairs of different people in a second dataset that knows its subjects: no such pair is a copy.  Two classic
hashes stand beside: how many unrelated pairs they let through where they find 95 % of the copies.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer.datasets import Dataset, open_dataset
from crossfer.datasets import duplicates as copies
from crossfer.progress import silent

Face = NDArray[np.uint8]
THRESHOLDS = (0.80, 0.85, 0.90, 0.95)


def jpeg(face: Face, quality: int) -> Face:
    """Compress and decompress."""
    _, code = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)


def levels(values: NDArray[np.floating]) -> Face:
    """Round to gray levels."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def cut(face: Face, left: int, right: int) -> Face:
    """Cut pixels off at the left and top, and at the right and bottom, and scale back."""
    inner = face[left : len(face) - right, left : len(face) - right]
    return np.asarray(cv2.resize(inner, face.shape), np.uint8)


def shift(face: Face) -> Face:
    """Move by a pixel each way."""
    return np.pad(face, ((1, 0), (1, 0)), mode="edge")[: len(face), : len(face)]


def alterations(chance: np.random.Generator) -> dict[str, Callable[[Face], Face]]:
    """Return what may happen to a picture on its way through the web."""
    return {
        "JPEG, quality 90": lambda face: jpeg(face, 90),
        "JPEG, quality 50": lambda face: jpeg(face, 50),
        "contrast −20 %": lambda face: levels((face - 128.0) * 0.8 + 128),
        "contrast +20 %": lambda face: levels((face - 128.0) * 1.2 + 128),
        "gamma 0.7": lambda face: levels(255 * (face / 255.0) ** 0.7),
        "gamma 1.4": lambda face: levels(255 * (face / 255.0) ** 1.4),
        "noise, deviation 3": lambda face: levels(face + chance.normal(0, 3, face.shape)),
        "shifted by a pixel": shift,
        "2 pixels cut off at two sides": lambda face: cut(face, 2, 0),
        "2 pixels cut off at every side": lambda face: cut(face, 2, 2),
        "mirrored": lambda face: face[:, ::-1].copy(),
        "mirrored, 1 pixel cut off, contrast +20 %, JPEG 70": lambda face: jpeg(
            levels((cut(face[:, ::-1], 1, 1) - 128.0) * 1.2 + 128), 70
        ),
    }


def show_recall(faces: NDArray[np.uint8]) -> None:
    """Print how many altered faces are found, by the hash and by the close look."""
    even, odd = copies.hashes(faces)
    pairs = np.arange(2 * len(faces)).reshape(2, -1).T
    print(f"\n{len(faces):,} faces | candidates % | found %")
    for name, alter in alterations(np.random.default_rng(0)).items():
        altered = np.stack([alter(face) for face in faces])
        even2, odd2 = copies.hashes(altered)
        mirrored = name.startswith("mirrored")
        product = (even * even2).sum(1) + (-1 if mirrored else 1) * (odd * odd2).sum(1)
        close = copies.agreement(np.concatenate([faces, altered]), pairs, mirrored)
        candidate = product > copies.CANDIDATE
        found = candidate & (close > copies.SAME)
        print(f"| {name} | {100 * candidate.mean():.1f} | {100 * found.mean():.1f} |")


def bits(faces: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """Return a classic hash: the 64-bit pHash, or the 256-bit difference hash."""
    if kind == "pHash, 64 bits":
        small = [cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA) for face in faces]
        waves = np.stack([cv2.dct(face.astype(np.float32))[:8, :8] for face in small])
        flat = waves.reshape(len(waves), -1)
        return np.packbits(flat > np.median(flat[:, 1:], axis=1, keepdims=True), axis=1)
    small = [cv2.resize(face, (17, 16), interpolation=cv2.INTER_AREA) for face in faces]
    steps = np.diff(np.stack(small).astype(int), axis=2) > 0
    return np.packbits(steps.reshape(len(faces), -1), axis=1)


def show_hashes(faces: NDArray[np.uint8], all_pairs: float) -> None:
    """Print how many unrelated pairs each hash lets through when it finds 95 % of an alteration."""
    chance = np.random.default_rng(0)
    named = ("shifted by a pixel", "2 pixels cut off at two sides", "JPEG, quality 50")
    altered = {
        name: np.stack([alterations(chance)[name](face) for face in faces]) for name in named
    }
    upper = np.triu_indices(len(faces), 1)
    print(f"\ncandidates where 95 % are found | {' | '.join(named)}")
    for kind in ("pHash, 64 bits", "difference hash, 256 bits"):
        code = bits(faces, kind)
        far = np.concatenate(
            [np.bitwise_count(code[i] ^ code[i + 1 :]).sum(1) for i in range(len(faces))]
        )
        near = {n: np.bitwise_count(code ^ bits(a, kind)).sum(1) for n, a in altered.items()}
        show_passed(kind, far, near, all_pairs)
    ours = np.concatenate(list(copies.hashes(faces)), axis=1)
    moved = {n: np.concatenate(list(copies.hashes(a)), axis=1) for n, a in altered.items()}
    far = 1 - (ours @ ours.T)[upper]
    show_passed("ours", far, {n: 1 - (ours * a).sum(1) for n, a in moved.items()}, all_pairs)


def show_passed(
    kind: str, far: NDArray[np.floating], near: dict[str, NDArray[np.floating]], all_pairs: float
) -> None:
    """Print one hash's line."""
    passed = [all_pairs * (far <= np.quantile(changed, 0.95)).mean() for changed in near.values()]
    print(f"| {kind} | {' | '.join(f'{count:,.0f}' for count in passed)} |")


def show_false_alarms(people: Dataset) -> None:
    """Print how many pairs of different people would be called copies, at several thresholds."""
    faces = copies.gray([people.images], np.arange(len(people.images)))
    subjects = np.array(people.subjects)
    different = subjects[:, None] != subjects
    print(f"\n{np.triu(different, 1).sum():,} pairs of different people of {people.name}")
    for pairs, mirrored in copies.candidates(copies.hashes(faces), silent):
        chosen = pairs[different[pairs[:, 0], pairs[:, 1]]]
        close = copies.agreement(faces, chosen, mirrored)
        counts = ", ".join(f"{(close > t).sum()} over {t:.2f}" for t in THRESHOLDS)
        side = "mirrored" if mirrored else "as they are"
        print(f"{side}: {len(chosen):,} candidates; {counts}; highest {close.max(initial=0):.3f}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("--people", type=Path, help="a prepared dataset that knows its subjects")
    parser.add_argument("--faces", type=int, default=4000, help="how many to alter")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.dataset)
    n = len(dataset.images)
    chosen = np.random.default_rng(0).choice(n, min(arguments.faces, n), replace=False)
    faces = copies.gray([dataset.images], np.sort(chosen))
    faces = faces[faces.std(axis=(1, 2)) >= copies.FLAT]
    show_recall(faces)
    show_hashes(faces, n * (n - 1) / 2)
    if arguments.people:
        show_false_alarms(open_dataset(arguments.people))
    began = time.perf_counter()
    copies.group_copies([dataset.images])
    print(f"\nall {n:,} faces compared: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

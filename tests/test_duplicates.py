"""Copies of faces are found, whatever was done to them; different faces are not; counts are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crossfer.classes import FER7
from crossfer.datasets.audit import Audit
from crossfer.datasets.dataset import Dataset, sample_table
from crossfer.datasets.duplicates import group_copies, in_training, overlaps
from crossfer.evaluation.rows import Copies

Faces = NDArray[np.uint8]


def drawn(number: int) -> Faces:
    """Return smooth noise, which has as much detail as a face."""
    noise = np.random.default_rng(number).normal(size=(48, 48))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5) + 3 * cv2.GaussianBlur(noise, (0, 0), 5)
    return np.asarray(cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8))  # pyrefly: ignore[no-matching-overload]


FACES = np.stack([drawn(number) for number in range(24)])


def jpeg(face: Faces) -> Faces:
    _, code = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)


ALTERED: dict[str, Callable[[Faces], Faces]] = {
    "jpeg": jpeg,
    "darker": lambda face: np.round(face * 0.8).astype(np.uint8),
    "gamma": lambda face: np.round(255 * (face / 255) ** 1.3).astype(np.uint8),
    "shifted": lambda face: np.pad(face, ((1, 0), (1, 0)), mode="edge")[:48, :48],
    "mirrored": lambda face: jpeg(np.ascontiguousarray(face[:, ::-1])),
}


def dataset(
    name: str,
    images: Faces,
    splits: Sequence[str],
    labels: Sequence[str] | None = None,
    subjects: Sequence[str | None] | None = None,
) -> Dataset:
    n = len(images)
    numbers = dict.fromkeys(("left", "top", "width", "height", "roll", "score"), [0.0] * n)
    columns: dict[str, Sequence[Any]] = {
        "label": labels or ["angry"] * n,
        "subject": subjects or [None] * n,
        "split": splits,
        "origin": [f"{name}/{row}.png" for row in range(n)],
        **dict.fromkeys(("sha256", "picture", "found"), [""] * n),
        **numbers,
    }
    return Dataset(Path(), {"name": name, "classes": [*FER7]}, images, sample_table(columns))


def test_different_faces_are_different() -> None:
    groups = group_copies([FACES])
    assert groups.exact.tolist() == groups.near.tolist() == list(range(len(FACES)))


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_is_a_near_copy(how: str) -> None:
    copies = np.stack([ALTERED[how](face) for face in FACES])
    groups = group_copies([FACES, copies])
    assert len(np.unique(groups.exact)) == 2 * len(FACES)
    assert groups.near.tolist() == [*range(len(FACES))] * 2


def test_size_and_colour_do_not_hide_a_copy() -> None:
    large = np.stack([cv2.cvtColor(cv2.resize(f, (96, 96)), cv2.COLOR_GRAY2RGB) for f in FACES[:4]])
    assert group_copies([FACES[:4], large]).near.tolist() == [0, 1, 2, 3] * 2


def test_without_texture_only_the_same_pixels_are_copies() -> None:
    flat = np.full((3, 48, 48), 7, np.uint8)
    flat[2] += 1
    assert group_copies([flat]).near.tolist() == [0, 0, 1]


@given(st.permutations(range(12)))
def test_the_order_of_images_changes_no_group(order: list[int]) -> None:
    pool = np.stack([*FACES[:5], *(alter(FACES[0]) for alter in ALTERED.values()), *FACES[1:3]])
    before, after = group_copies([pool]).near[order], group_copies([pool[order]]).near
    assert np.array_equal(before[:, None] == before, after[:, None] == after)


def test_counts_within_and_across_splits_and_datasets() -> None:
    one = dataset(
        "one",
        np.stack([*FACES[:4], FACES[0], FACES[1], jpeg(FACES[2]), FACES[5]]),
        ["training"] * 5 + ["test"] * 3,
        labels=[FER7[code] for code in (0, 1, 2, 3, 0, 1, 6, 5)],
        subjects=["A", *"BCDEFG", "A"],
    )
    other = dataset("other", np.stack([jpeg(FACES[5]), FACES[6]]), ["training", "test"])
    datasets = [one, other]
    groups = group_copies([dataset.images for dataset in datasets])
    found = overlaps(datasets, groups)
    counts = {
        tuple(f"{place.dataset} {place.split}" for place in (o.first, o.second)): (
            o.images,
            o.exact,
            o.near,
            o.relabelled,
            o.leaks,
        )
        for o in found
    }
    assert counts == {
        ("one training", "one training"): (5, 2, 0, 0, False),
        ("one training", "one test"): (3, 1, 1, 1, True),
        ("other training", "one test"): (3, 0, 1, 1, True),
    }
    (across,) = (o for o in found if o.first.dataset == "other")
    assert across.examples == (Copies(("other/0.png", "one/7.png"), ("angry", "surprise")),)
    assert one.subjects_in_several_splits() == {"A": ("test", "training")}
    assert other.subjects_in_several_splits() == {}
    assert Audit((), found).leaks
    assert not Audit((), overlaps([other], group_copies([other.images]))).leaks
    alike = [replace(d, folder=Path(d.name)).called("mine") for d in datasets]
    assert overlaps(alike, groups) == found  # of one name, they go by their folders
    rows = in_training(datasets, groups)
    assert {name: found.tolist() for name, found in rows.items()} == {"one": [5, 6, 7], "other": []}

"""Splits never share a subject, and come as close to what was asked as subjects permit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfer.datasets.splits import counts_of, divide, reach, shared_subjects, take_fraction

people = st.lists(
    st.tuples(st.integers(0, 6), st.one_of(st.none(), st.sampled_from("ABCDEFGHIJ"))), max_size=120
)


@given(people, st.integers(0, 5))
def test_no_subject_is_on_two_sides_and_the_same_seed_gives_the_same_split(
    rows: list[tuple[int, str | None]], seed: int
) -> None:
    labels = np.array([label for label, _ in rows], int)
    subjects = [subject for _, subject in rows]
    parts = divide(labels, subjects, (7, 1, 2), seed)
    assert not shared_subjects(subjects, [str(part) for part in parts])
    assert set(parts.tolist()) <= {0, 1, 2}
    assert np.array_equal(parts, divide(labels, subjects, (7, 1, 2), seed))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.integers(0, 3))
def test_without_subjects_every_class_is_divided_exactly(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    parts = divide(array, [None] * len(labels), (0.5, 0.5), seed)
    for label in set(labels):
        first = ((array == label) & (parts == 0)).sum()
        assert abs(first - (array == label).sum() / 2) <= 0.5


def test_forty_subjects_reach_the_papers_counts_of_tfeid_closely() -> None:
    labels = np.tile(np.arange(7), 40)
    subjects = [f"s{n}" for n in range(40) for _ in range(7)]
    parts = divide(labels, subjects, (405, 47, 58), 0)
    counts = np.bincount(parts, minlength=3)
    assert counts.tolist() == pytest.approx(
        [280 * n / 510 for n in (405, 47, 58)], abs=7
    )  # one subject


@given(people, st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 3))
def test_a_fraction_keeps_subjects_whole(
    rows: list[tuple[int, str | None]], fraction: float, seed: int
) -> None:
    labels = np.array([label for label, _ in rows], int)
    subjects = [subject for _, subject in rows]
    chosen = take_fraction(labels, subjects, fraction, seed)
    inside = {subjects[row] for row in chosen} - {None}
    outside = {subjects[row] for row in set(range(len(rows))) - set(chosen.tolist())} - {None}
    assert not inside & outside
    assert np.array_equal(take_fraction(labels, subjects, 1.0, seed), np.arange(len(rows)))


def test_half_of_a_balanced_training_set_is_a_balanced_half() -> None:
    labels = np.tile(np.arange(7), 12)
    subjects = [f"s{n}" for n in range(12) for _ in range(7)]
    chosen = take_fraction(labels, subjects, 0.5, 1)
    assert np.bincount(labels[chosen]).tolist() == [6] * 7
    assert not np.array_equal(chosen, take_fraction(labels, subjects, 0.5, 2))


@given(st.integers(0, 10_000), st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
def test_counts_add_up_to_all_images(total: int, shares: list[float]) -> None:
    counts = counts_of(total, shares)
    assert sum(counts) == total
    exact = total * np.array(shares) / sum(shares)
    assert np.abs(np.array(counts) - exact).max() < 1


@given(people, st.integers(0, 3))
def test_asked_counts_are_reached_to_the_image(
    rows: list[tuple[int, str | None]], seed: int
) -> None:
    labels = np.array([label for label, _ in rows], int)
    subjects = [subject for _, subject in rows]
    parts = divide(labels, subjects, (7, 1, 2), seed)
    counts = counts_of(len(rows), (7, 1, 2))
    exact = reach(labels, subjects, parts, counts)
    assert np.bincount(exact, minlength=3).tolist() == counts


@pytest.mark.parametrize(
    ("subjects", "counts"), [(10, (131, 15, 67)), (40, (405, 47, 58)), (86, (5877, 741, 734))]
)
def test_the_counts_of_table_1_cost_few_subjects(
    subjects: int, counts: tuple[int, int, int]
) -> None:
    """As many images as JAFFE, TFEID and MUG have, dealt to as many people."""
    people = [f"s{n % subjects}" for n in range(sum(counts))]
    labels = np.arange(sum(counts)) // subjects % 7
    parts = divide(labels, people, counts, 0)
    largest = -(-sum(counts) // subjects)
    assert np.abs(np.bincount(parts) - counts).max() <= largest  # whole subjects: at most one off
    exact = reach(labels, people, parts, counts)
    assert np.bincount(exact).tolist() == list(counts)
    assert 0 < len(shared_subjects(people, [str(part) for part in exact])) <= 3


@given(people, st.integers(0, 3))
def test_who_has_a_place_keeps_it_and_others_bring_the_parts_closer_to_their_shares(
    rows: list[tuple[int, str | None]], seed: int
) -> None:
    labels = np.array([label for label, _ in rows], int)
    subjects = [subject for _, subject in rows]
    half = len(rows) // 2
    before = divide(labels[:half], subjects[:half], (7, 1, 2), seed)
    homes = {who: part for who, part in zip(subjects, before, strict=False) if who is not None}
    fixed = np.array(
        [*before, *(homes.get(who, -1) if who else -1 for who in subjects[half:])], int
    )
    parts = divide(labels, subjects, (7, 1, 2), seed, fixed)
    assert np.array_equal(parts[:half], before)
    assert set(parts.tolist()) <= {0, 1, 2}
    assert not shared_subjects(subjects, [str(part) for part in parts])


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=200),
    st.lists(st.integers(1, 20), min_size=2, max_size=3),
    st.integers(0, 3),
)
def test_without_subjects_every_part_is_within_one_image_of_its_share(
    labels: list[int], shares: list[int], seed: int
) -> None:
    """Of every class, and of all of them: classes too small to divide do not all round one way."""
    array = np.array(labels)
    parts = divide(array, [None] * len(labels), shares, seed)
    for rows in (array >= 0, *(array == label for label in set(labels))):
        wanted = rows.sum() * np.array(shares) / sum(shares)
        assert np.abs(np.bincount(parts[rows], minlength=len(shares)) - wanted).max() <= 1 + 1e-6

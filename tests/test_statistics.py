"""Intervals, paired tests and flips, against references and against what must hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, ks_2samp, t

from crossfer.evaluation.answers import Answers
from crossfer.evaluation.evidence import (
    Evidence,
    comparisons,
    with_intervals,
    with_mean_intervals,
)
from crossfer.evaluation.intervals import (
    accuracy_interval,
    change,
    change_interval,
    interval,
    p_value,
    resample,
    subject_codes,
    wilson_interval,
)
from crossfer.evaluation.measure import find_flips
from crossfer.evaluation.paired import compare, holm, mcnemar
from crossfer.evaluation.rows import Average, Mean, Result
from crossfer.terms import BL, SIDES
from tests.test_evaluation import result

Right = NDArray[np.bool_]


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> None:
    """Draw as many resamples as users do."""


def drawn(
    seed: int, seeds: int, images: int, subjects: int
) -> tuple[Right, Right, NDArray[Any] | None]:
    """Draw two networks' answers, and who is in the images (0: not known)."""
    rng = np.random.default_rng(seed)
    after, before = rng.random((2, seeds, images)) < rng.random((2, 1, 1))
    return after, before, rng.integers(0, subjects, images) if subjects else None


SEED = st.integers(0, 2**32 - 1)
CASES = st.builds(drawn, SEED, st.integers(1, 4), st.integers(1, 70), st.integers(0, 8))
Case = tuple[Right, Right, NDArray[Any] | None]


@given(CASES)
def test_an_interval_holds_its_estimate_and_stays_in_range(case: Case) -> None:
    after, before, subjects = case
    low, high = accuracy_interval(after, subjects)
    assert 0 <= low <= 100 * after.mean() + 1e-9
    assert 100 * after.mean() - 1e-9 <= high <= 100
    low, high = change_interval(after, before, subjects)
    assert -100 <= low <= change(after, before) <= high <= 100


@given(CASES)
def test_swapping_two_strategies_mirrors_everything(case: Case) -> None:
    after, before, subjects = case
    assume(np.any(after != before))
    one, other = compare(after, before, subjects), compare(before, after, subjects)
    assert one.difference == -other.difference
    assert one.interval == pytest.approx([-end for end in reversed(other.interval)])
    assert (one.gained, one.lost, one.p) == (other.lost, other.gained, other.p)
    assert (one.p_images, one.people) == (other.p_images, other.people)


@given(SEED, st.integers(1, 70))
def test_flips_add_up_to_the_change(seed: int, images: int) -> None:
    labels, before, after = np.random.default_rng(seed).integers(0, 7, (3, images))
    old, new = (Answers.of(labels, np.eye(7)[said]) for said in (before, after))
    positive, negative = find_flips(old, new)
    difference = change(new.right[None], old.right[None])
    assert difference == 100 * (len(positive) - len(negative)) / len(labels)
    assert all(before[i] == labels[i] != after[i] for i in negative)


def test_subjects_of_one_image_each_are_images() -> None:
    after, before, _ = drawn(3, 2, 200, 0)
    alone = np.random.default_rng(0).permutation(200)
    assert np.array_equal(resample(after, before), resample(after, before, alone))
    other = resample(after, before, alone, seed=1)
    assert ks_2samp(resample(after, before), other).pvalue > 0.01


def test_subjects_are_drawn_whole() -> None:
    """Ten subjects of which each is all right or all wrong: as if there were ten images."""
    subjects = np.repeat(np.arange(10), 50)
    right = (subjects < 6)[None]
    low, high = accuracy_interval(right, subjects)
    by_images = accuracy_interval(right)
    assert high - low > 5 * (by_images[1] - by_images[0])
    half = 100 * t.ppf(0.975, 9) * np.sqrt(0.6 * 0.4 / 9)
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_many_images_of_one_seed_give_the_normal_interval() -> None:
    after, before, _ = drawn(5, 1, 3000, 0)
    scores = after.astype(float) - before
    half = 1.96 * 100 * scores.std() / np.sqrt(scores.size)
    centre = change(after, before)
    expected = (centre - half, centre + half)
    assert change_interval(after, before) == pytest.approx(expected, abs=0.15)
    wilson = wilson_interval(int(after.sum()), after.size)
    drawn_interval = interval(100 * float(after.mean()), resample(after), 0)
    assert drawn_interval == pytest.approx(wilson, abs=0.15)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_give_students_interval(seeds: int) -> None:
    """Where trainings differ and images hardly do: mean ± t s / √S."""
    shares = np.linspace(0.3, 0.7, seeds)
    right = np.arange(100_000) < (100_000 * shares)[:, None]
    low, high = interval(50.0, resample(right, resamples=100_000), -1e9)
    half = 100 * t.ppf(0.975, seeds - 1) * np.std(shares, ddof=1) / np.sqrt(seeds)
    assert min(high, 50 + half) - 50 == pytest.approx(min(half, 50), rel=0.2)
    assert low < 50 - 0.8 * half


def test_none_wrong_is_not_certainty() -> None:
    right = np.ones((1, 67), bool)
    assert accuracy_interval(right) == pytest.approx([94.6, 100], abs=0.1)
    subjects = np.repeat(np.arange(4), 17)[:67]
    low, high = accuracy_interval(right, subjects)
    assert low < 97
    assert high == 100
    low, high = change_interval(right, right)
    assert -8 < low < 0 < high < 8
    assert p_value(resample(right, right)) > 0.5


def test_wilson_interval_against_published_values_and_scipy() -> None:
    """Newcombe (1998), Statistics in Medicine 17, Table I: 81/263 and 15/148 and 0/20."""
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(15, 148) == pytest.approx((6.24, 16.05), abs=0.01)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)
    for right, total in [(1, 7), (67, 67), (2000, 3589)]:
        low, high = binomtest(right, total).proportion_ci(method="wilson")
        assert wilson_interval(right, total) == pytest.approx((100 * low, 100 * high))


def test_unknown_subjects_stand_for_themselves() -> None:
    assert subject_codes([None, None]) is None
    codes = subject_codes(["KA", None, "KA", None, "image"])
    assert codes is not None
    assert codes.tolist() == [0, 1, 0, 2, 3]


@given(st.integers(0, 600), st.integers(0, 600))
def test_mcnemar_is_an_exact_binomial_test(gained: int, lost: int) -> None:
    assume(gained + lost)
    expected = binomtest(gained, gained + lost).pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_no_and_of_many_images() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 20_000) == 0
    assert 0 < mcnemar(49_000, 51_000) < 1e-9


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_bonferroni_closed(p_values: list[float]) -> None:
    """Marcus, Peritz, Gabriel (1976): one falls where every set that holds it falls, by Bonferroni."""
    which = range(len(p_values))
    sets = [each for size in which for each in combinations(which, size + 1)]
    bonferroni = {each: min(1.0, len(each) * min(p_values[i] for i in each)) for each in sets}
    expected = [max(p for each, p in bonferroni.items() if i in each) for i in which]
    assert holm(p_values) == pytest.approx(expected)


def test_which_test_is_used() -> None:
    after, before, subjects = drawn(1, 1, 60, 6)
    assert compare(after, before).test == "McNemar"
    assert compare(after, before, np.arange(60)).test == "McNemar"
    assert compare(after, before, subjects).test == "bootstrap"
    assert compare(np.repeat(after, 2, 0), np.repeat(before, 2, 0)).test == "bootstrap"


def test_these_images_and_other_people_are_two_questions() -> None:
    """Forty won, seven lost, of three people of whom one gained nothing."""
    before, after = np.zeros((2, 1, 90), bool)
    after[0, :40], before[0, 83:] = True, True
    compared = compare(after, before, np.repeat([0, 1, 2], 30))
    assert (compared.gained, compared.lost, compared.people) == (40, 7, 3)
    assert compared.p_images == pytest.approx(mcnemar(40, 7))
    assert compared.p_images is not None and compared.p_images < 1e-5
    assert compared.p > 0.05
    assert compare(np.repeat(after, 2, 0), np.repeat(before, 2, 0)).p_images is None


def test_every_pair_is_compared_once_and_every_number_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    rows = [
        replace(result(strategy, 50, 50, fraction), target=target, seeds=(0, 1))
        for target in ("jaffe", "mug")
        for strategy, fraction in (
            (BL, None),
            *((s, f) for f in (0.5, 1.0) for s in ("FC", "RE")),
        )
    ]
    rows = [
        replace(
            row,
            memory_integrity=replace(row.memory_integrity, points=0.0),
            gain=replace(row.gain, points=0.0),
        )
        for row in rows
    ]
    labels = {"source": np.zeros(300, int), "target": np.zeros(80, int)}
    answers = {
        ((row.target, row.fraction, row.strategy, seed), side): [
            Answers.of(labels[side], np.eye(2)[rng.integers(0, 2, len(labels[side]))])
        ]
        for row in rows
        for seed in (0, 1)
        for side in SIDES
    }
    people = np.arange(80) // 20
    subjects = {(t, s): people if s == "target" else None for t in ("jaffe", "mug") for s in SIDES}
    evidence = Evidence(answers, subjects)
    found = comparisons(rows, evidence)
    who = [(r.target, r.fraction, r.side, r.strategy, r.against) for r in found]
    assert len(who) == len(set(who)) == 2 * 2 * 2 * 3
    assert all(row.p_holm >= row.paired.p for row in found)
    certain = with_intervals(rows, evidence, classes=True)
    assert certain[0].gain.interval == (0, 0)
    for row in (row for row in certain if row.strategy != BL):
        of_class, other = row.gain.classes
        assert of_class and other is None
        for ends in (row.gain.interval, of_class.interval, row.on_target.test.interval):
            assert ends and ends[0] < ends[1]
    value = float(np.mean([100 * _integrity(evidence, row) for row in rows if row.fraction == 1]))
    averages = [Average(1.0, "fine-tunings", ("jaffe", "mug"), Mean(value), Mean(0.0))]
    (mean,) = with_mean_intervals(averages, rows, evidence)
    assert mean.memory_integrity.interval
    low, high = mean.memory_integrity.interval
    assert low < value < high
    assert (low + high) / 2 == pytest.approx(value, abs=(high - low) / 8)


def _integrity(evidence: Evidence, row: Result) -> float:
    return float(evidence.right(row, "source").mean() - evidence.before(row, "source").mean())

"""Metrics, integrity and recommendation: exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crossfer.evaluation import summary
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.measure import change, find_flips, measure
from crossfer.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    confusion,
    decide,
    macro_f1,
    recalls,
)
from crossfer.evaluation.rows import (
    Change,
    ClassChange,
    Cost,
    Flips,
    Measurements,
    Metrics,
    Result,
)

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def as_arrays(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, decisions = np.array(pairs, np.int64).T
    return labels, decisions


def one_hot(decisions: list[int]) -> np.ndarray:
    return np.eye(7, dtype=np.float32)[decisions] * 0.9 + 0.1 / 7


def test_a_handmade_example() -> None:
    labels = np.array([0, 0, 1, 3])
    result = measure(Answers.of(labels, one_hot([0, 3, 1, 3])))
    assert result.accuracy == 75.0
    assert result.recall == (50.0, 100.0, None, 100.0, None, None, None)
    matrix = np.array(result.confusion)
    assert matrix[0, 3] == 1
    assert matrix.sum() == 4


def test_a_dataset_without_neutral_is_decided_among_its_own_classes() -> None:
    probabilities = np.array([[0.1, 0, 0, 0.3, 0, 0, 0.6]])
    assert decide(probabilities).tolist() == [6]
    assert decide(probabilities, [0, 1, 2, 3, 4, 5]).tolist() == [3]


def test_several_sets_as_one_are_decided_each_among_its_own_classes() -> None:
    rng = np.random.default_rng(0)
    sets = [(rng.integers(0, 6, 40), rng.dirichlet(np.ones(7), 40), c) for c in (range(6), None)]
    answers = [Answers.of(labels, said, classes) for labels, said, classes in sets]
    one, other = map(measure, answers)
    both = measure(Answers.joined(answers))
    assert both.images == 80
    assert both.accuracy == pytest.approx((one.accuracy + other.accuracy) / 2)
    assert np.array_equal(both.confusion, np.add(one.confusion, other.confusion))


@pytest.mark.parametrize("classes", [2, 3, 8, 11])
def test_sizes_come_from_the_answers(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes - 1, 60)  # none of the last class
    before, after = (
        Answers.of(labels, rng.dirichlet(np.ones(classes), 60).astype(np.float32)) for _ in range(2)
    )
    measured = measure(after)
    assert np.shape(measured.confusion) == (classes, classes)
    assert measured.recall[-1] is None and len(measured.recall) == classes
    names = [f"class {i}" for i in range(classes)]
    changed = change(before, after, names, ["image"] * 60)
    assert changed.classes[-1] is None
    positive, negative = find_flips(before, after)
    assert changed.points == pytest.approx(100 * (len(positive) - len(negative)) / 60)
    assert sum(changed.flips.positive) == len(positive)
    for name, old, new, one in zip(
        names, measure(before).recall, measured.recall, changed.classes, strict=True
    ):
        assert (old is None) == (one is None), name
        if one and old is not None and new is not None:
            assert one.points == pytest.approx(new - old)


@given(PAIRS)
def test_accuracy_confusion_and_recall_agree(pairs: list[tuple[int, int]]) -> None:
    labels, decisions = as_arrays(pairs)
    matrix = confusion(labels, decisions, 7)
    assert matrix.sum() == len(pairs)
    assert accuracy(labels, decisions) == pytest.approx(100 * np.trace(matrix) / len(pairs))
    weights = matrix.sum(1) / len(pairs)
    shares = [recall or 0.0 for recall in recalls(matrix)]
    assert accuracy(labels, decisions) == pytest.approx(float(np.dot(weights, shares)))


@given(PAIRS)
def test_balanced_accuracy_and_macro_f1_against_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    labels, decisions = as_arrays(pairs)
    matrix, present = confusion(labels, decisions, 7), np.unique(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.metrics._classification.warnings.warn", lambda *_, **__: None)
        recall = balanced_accuracy_score(labels, decisions)
    f1 = f1_score(labels, decisions, labels=present, average="macro", zero_division=0)
    assert balanced_accuracy(matrix) == pytest.approx(100 * recall)
    assert macro_f1(matrix) == pytest.approx(100 * f1)


def slow_calibration_error(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: list[int]
) -> float:
    """Guo and others (2017), equations 1 to 3, word for word."""
    error = 0.0
    for b in range(15):
        members = []
        for label, row in zip(labels, probabilities, strict=True):
            confidence = max(row[classes]) / sum(row[classes])
            if b / 15 < confidence <= (b + 1) / 15:
                said = max(classes, key=lambda c: row[c])
                members.append((said == label, confidence))
        if members:
            right, confidence = np.mean(members, 0)
            error += len(members) / len(labels) * abs(right - confidence)
    return 100 * error


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.sampled_from([6, 7]))
def test_calibration_error_against_a_slow_loop(seed: int, images: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(7, 0.5), images)
    labels = rng.integers(0, classes, images)
    expected = slow_calibration_error(labels, probabilities, list(range(classes)))
    found = measure(Answers.of(labels, probabilities, range(classes))).calibration_error
    assert found == pytest.approx(expected)


def test_calibration_error_of_extremes() -> None:
    labels = np.array([0, 1, 2, 3])
    sure = np.eye(7)[[0, 1, 2, 3]]
    assert measure(Answers.of(labels, sure)).calibration_error == 0
    assert measure(Answers.of(labels, sure[::-1])).calibration_error == 100
    assert np.isnan(measure(Answers.of(labels[:0], sure[:0])).calibration_error)


def result(
    strategy: str, source: float, target: float, fraction: float | None, seed: int = 0
) -> Result:
    def on(value: float) -> Measurements:
        one = Metrics(100, value, value, value, value, (value, None), ((1, 2), (0, 0)))
        return Measurements(one, one, {})

    def changed(points: float) -> Change:
        return Change(points, (ClassChange(3, points), None), Flips((2, 0), (1, 0), (), ()))

    return Result(
        target="jaffe",
        fraction=fraction,
        strategy=strategy,
        seeds=(seed,),
        runs=(f"{strategy}-{seed}",),
        on_source=on(source),
        on_target=on(target),
        memory_integrity=changed(source - 64.0),
        gain=changed(target - 40.3),
        cost=Cost(10, 1e9, 1.0, 0.1, 1e8 * (seed + 1)),
    )


ROWS = [
    result("BL", 64.0, 40.3, None),
    result("FC", 40.0, 60.0, 1.0),
    result("FC+CL", 42.0, 62.0, 1.0),
    result("RE", 38.0, 64.0, 1.0),
    result("FU", 64.27, 68.66, 1.0),
]


def test_averages_over_the_three_fine_tunings() -> None:
    averages = summary.over_targets(summary.by_strategy(ROWS))
    tuned = next(row for row in averages if row.strategy == "fine-tunings")
    assert tuned.memory_integrity.points == pytest.approx(-24.0)
    assert tuned.gain.points == pytest.approx(62 - 40.3)


def test_seeds_are_averaged_with_their_deviation() -> None:
    rows = [result("BL", 60.0, 40.0, None, 0), result("BL", 64.0, 44.0, None, 1)]
    (row,) = summary.by_strategy(rows)
    test = row.on_source.test
    assert test.accuracy == 62.0
    assert test.deviation == pytest.approx(np.std([60, 64], ddof=1))
    assert (test.recall, test.confusion) == ((62.0, None), ((2, 4), (0, 0)))
    of_class, other = row.gain.classes
    assert of_class and other is None
    assert of_class.images == 3 and of_class.points == pytest.approx(1.7)
    assert (row.seeds, row.runs) == ((0, 1), ("BL-0", "BL-1"))
    assert row.cost.peak_memory_bytes == 2e8
    assert row.balance == pytest.approx((62 + 42) / 2)


def test_only_strategies_with_the_same_seeds_are_compared() -> None:
    def rows(**seeds: Sequence[int]) -> list[Result]:
        return [replace(ROWS[0], strategy=n, seeds=(s,)) for n, own in seeds.items() for s in own]

    def kept(**seeds: Sequence[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in summary.complete(rows(**seeds)):
            found.setdefault(row.strategy, []).append(row.seeds[0])
        return found

    every = [0, 1, 2]
    whole = {"BL": every, "FC": every, "RE": every, "KD": every}
    assert kept(BL=every, FC=every, RE=every, KD=every) == whole
    assert kept(BL=every, FC=every, RE=every, KD=every, FU=[0, 2]) == whole, "FU failed on one"
    assert kept(BL=every, FC=[1], FU=[1]) == {"BL": [1], "FC": [1], "FU": [1]}, "as all did"
    assert kept(BL=[0, 1], FC=[0], FU=[1]) == {"BL": [0], "FC": [0]}, "something, at least"
    assert kept(BL=[0, 1], FU=[1]) == {"BL": [1], "FU": [1]}, "an update, if there is one"
    apart = [replace(row, target="mug", seeds=(7,)) for row in rows(BL=[7], FC=[7])]
    both = summary.complete([*rows(BL=every, FC=every), *apart])
    assert len(both) == 8, "each target has seeds of its own"


def test_a_mean_over_targets_has_all_of_them() -> None:
    mug = [replace(row, target="mug") for row in ROWS if row.strategy != "FU"]
    averages = summary.over_targets([*ROWS, *mug])
    assert {row.targets for row in averages} == {("jaffe", "mug")}
    assert {row.strategy for row in averages} == {"FC", "FC+CL", "RE", "fine-tunings"}

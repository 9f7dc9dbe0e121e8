"""Metrics, integrity and recommendation: exact numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

from crossfer.evaluation import paper, summary
from crossfer.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    confusion,
    decide,
    macro_f1,
    measure,
    measure_as_one,
    per_class_accuracy,
)

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def as_arrays(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, decisions = np.array(pairs, np.int64).T
    return labels, decisions


def one_hot(decisions: list[int]) -> np.ndarray:
    return np.eye(7, dtype=np.float32)[decisions] * 0.9 + 0.1 / 7


def test_a_handmade_example() -> None:
    labels = np.array([0, 0, 1, 3])
    result = measure(labels, one_hot([0, 3, 1, 3]))
    assert result["accuracy"] == 75.0
    assert result["per_class"] == [50.0, 100.0, None, 100.0, None, None, None]
    matrix = np.array(result["confusion"])
    assert matrix[0, 3] == 1
    assert matrix.sum() == 4


def test_a_dataset_without_neutral_is_decided_among_its_own_classes() -> None:
    probabilities = np.array([[0.1, 0, 0, 0.3, 0, 0, 0.6]])
    assert decide(probabilities).tolist() == [6]
    assert decide(probabilities, [0, 1, 2, 3, 4, 5]).tolist() == [3]


def test_several_sets_as_one_are_decided_each_among_its_own_classes() -> None:
    rng = np.random.default_rng(0)
    sets = [(rng.integers(0, 6, 40), rng.dirichlet(np.ones(7), 40), c) for c in (range(6), None)]
    one, other = (measure(*each) for each in sets)
    both = measure_as_one(sets)
    assert both["images"] == 80
    assert both["accuracy"] == pytest.approx((one["accuracy"] + other["accuracy"]) / 2)
    assert np.array_equal(both["confusion"], np.add(one["confusion"], other["confusion"]))


@given(PAIRS)
def test_accuracy_confusion_and_recall_agree(pairs: list[tuple[int, int]]) -> None:
    labels, decisions = as_arrays(pairs)
    matrix = confusion(labels, decisions, 7)
    assert matrix.sum() == len(pairs)
    assert accuracy(labels, decisions) == pytest.approx(100 * np.trace(matrix) / len(pairs))
    weights = matrix.sum(1) / len(pairs)
    recalls = [recall or 0.0 for recall in per_class_accuracy(matrix)]
    assert accuracy(labels, decisions) == pytest.approx(float(np.dot(weights, recalls)))


@given(PAIRS)
def test_balanced_accuracy_and_macro_f1_against_scikit_learn(pairs: list[tuple[int, int]]) -> None:
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
    found = measure(labels, probabilities, range(classes))["calibration_error"]
    assert found == pytest.approx(expected)


def test_calibration_error_of_extremes() -> None:
    labels = np.array([0, 1, 2, 3])
    sure = np.eye(7)[[0, 1, 2, 3]]
    assert measure(labels, sure)["calibration_error"] == 0
    assert measure(labels, sure[::-1])["calibration_error"] == 100
    assert np.isnan(measure(labels[:0], sure[:0])["calibration_error"])


def result(
    strategy: str, source: float, target: float, fraction: float | None, seed: int = 0
) -> summary.Result:
    def side(value: float) -> dict[str, object]:
        recalls = [value, None, *[value] * 5]
        return dict.fromkeys(summary.METRICS, value) | {"per_class": recalls, "images": 100}

    return {
        "strategy": strategy,
        "target": "jaffe",
        "fraction": fraction,
        "seed": seed,
        "source_test": side(source),
        "target_test": side(target),
        "source_validation": side(source),
        "target_validation": side(target),
        "cost": {"seconds": 1.0, "images_seen": 10},
    }


ROWS = [
    result("BL", 64.0, 40.3, None),
    result("FC", 40.0, 60.0, 1.0),
    result("FC+CL", 42.0, 62.0, 1.0),
    result("RE", 38.0, 64.0, 1.0),
    result("FU", 64.27, 68.66, 1.0),
]


def test_memory_integrity_and_gain_are_differences_to_the_baseline() -> None:
    rows = {row["strategy"]: row for row in summary.with_changes(ROWS)}
    assert rows["FU"]["memory_integrity"] == pytest.approx(0.27)
    assert rows["FU"]["gain"] == pytest.approx(28.36)
    assert rows["BL"]["memory_integrity"] == 0
    assert rows["FU"]["gain_per_class"] == pytest.approx([28.36, None, *[28.36] * 5])


def test_averages_over_the_three_fine_tunings() -> None:
    averages = summary.over_targets(summary.by_strategy(summary.with_changes(ROWS)))
    tuned = next(row for row in averages if row["strategy"] == "fine-tunings")
    assert tuned["memory_integrity"] == pytest.approx(-24.0)
    assert tuned["gain"] == pytest.approx(62 - 40.3)


def test_seeds_are_averaged_with_their_deviation() -> None:
    rows = [result("BL", 60.0, 40.0, None, 0), result("BL", 64.0, 44.0, None, 1)]
    (row,) = summary.by_strategy(summary.with_changes(rows))
    assert row["source_test"]["accuracy"] == 62.0
    assert row["source_test"]["deviation"] == pytest.approx(np.std([60, 64], ddof=1))
    assert row["seeds"] == [0, 1]


def test_the_papers_figures_are_the_papers() -> None:
    assert sum(paper.TABLE_I["jaffe"][s] for s in ("training", "validation", "test")) == 213
    assert sum(paper.TABLE_I["mug"][s] for s in ("training", "validation", "test")) == 7352
    assert paper.JAFFE_TEST_ACCURACY["BL"] == 40.30

"""Metrics, integrity and recommendation: exact numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfer.evaluation import paper, summary
from crossfer.evaluation.metrics import (
    accuracy,
    confusion,
    decide,
    measure,
    per_class_accuracy,
    wilson_interval,
)


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


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60))
def test_accuracy_confusion_and_recall_agree(pairs: list[tuple[int, int]]) -> None:
    labels, decisions = (np.array(side) for side in zip(*pairs, strict=True))
    matrix = confusion(labels, decisions)
    assert matrix.sum() == len(pairs)
    assert accuracy(labels, decisions) == pytest.approx(100 * np.trace(matrix) / len(pairs))
    weights = matrix.sum(1) / len(pairs)
    recalls = [recall or 0.0 for recall in per_class_accuracy(matrix)]
    assert accuracy(labels, decisions) == pytest.approx(float(np.dot(weights, recalls)))


def test_wilson_interval_against_published_values() -> None:
    """Newcombe (1998), Statistics in Medicine 17, Table I: 81/263 and 15/148 and 0/20."""
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(15, 148) == pytest.approx((6.24, 16.05), abs=0.01)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)


def result(
    strategy: str, source: float, target: float, fraction: float | None, seed: int = 0
) -> summary.Result:
    def side(value: float) -> dict[str, object]:
        return {"accuracy": value, "interval": [value - 5, value + 5], "images": 100}

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


def test_the_recommendation_looks_at_validation_only() -> None:
    rows = [dict(row) for row in ROWS]
    rows[4]["target_validation"] = {"accuracy": 1.0, "interval": [0, 2], "images": 10}
    chosen = summary.recommend(summary.by_strategy(summary.with_changes(ROWS)))
    other = summary.recommend(summary.by_strategy(summary.with_changes(rows)))
    assert [c["strategy"] for c in chosen] == ["FU"]
    assert [c["strategy"] for c in other] != ["FU"]


def test_the_papers_figures_are_the_papers() -> None:
    assert sum(paper.TABLE_I["jaffe"][s] for s in ("training", "validation", "test")) == 213
    assert sum(paper.TABLE_I["mug"][s] for s in ("training", "validation", "test")) == 7352
    assert paper.JAFFE_TEST_ACCURACY["BL"] == 40.30

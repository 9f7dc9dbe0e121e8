"""A deployed model that is read wrongly is found out before anything is compared with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from crossfer.classes import FER7, PRESETS
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.mistaken import best_assignment, guesses, mistaken_order
from crossfer.experiment import baseline


@given(st.integers(1, 7).flatmap(lambda n: arrays(np.int64, (n, n), elements=st.integers(0, 50))))
def test_the_best_assignment_is_the_hungarian_one(gains: np.ndarray) -> None:
    chosen = best_assignment(gains)
    assert sorted(chosen) == list(range(len(gains)))
    rows, columns = linear_sum_assignment(gains, maximize=True)
    assert gains[range(len(gains)), list(chosen)].sum() == gains[rows, columns].sum()


def decided(order: list[int], right: float, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and what a network of some accuracy says that calls class i order[i]."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, count)
    said = np.where(rng.random(count) < right, labels, rng.integers(0, 7, count))
    return labels, np.asarray(order)[said]


def test_another_order_is_found_and_chance_is_no_order() -> None:
    order = [6, 3, 4, 5, 2, 1, 0]
    assert mistaken_order(*decided(order, 0.5), 7) == tuple(order)
    swapped = [0, 1, 2, 3, 6, 5, 4]
    assert mistaken_order(*decided(swapped, 0.6), 7) == tuple(swapped)
    for right in (0.0, 0.2, 0.5, 0.9):
        assert mistaken_order(*decided(list(range(7)), right), 7) is None
        assert mistaken_order(*decided(order, right, 12), 7) in (None, tuple(order))


def refused(
    monkeypatch: pytest.MonkeyPatch, order: list[int], right: float, expect: float | None = None
) -> str:
    labels, said = decided(order, right)
    answers = Answers.of(labels, np.eye(7, dtype=np.float32)[said])
    monkeypatch.setattr(baseline, "load_answers", lambda *a: answers)
    monkeypatch.setattr(baseline, "parts_of", lambda dataset: [])
    source: Any = SimpleNamespace(name="old")
    network = SimpleNamespace(outputs=FER7, expect=expect, unknown=lambda classes: ())
    strategy = SimpleNamespace(start="deployed")
    classes = PRESETS["fer7"]
    run: Any = SimpleNamespace(strategy=strategy, classes=classes, network=network)
    try:
        baseline.check_baseline(run, source, Path())
    except CrossferError as error:
        return str(error)
    return ""


def test_a_deployed_model_is_what_it_is_said_to_be_or_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = list(range(7))
    assert refused(monkeypatch, same, 0.6, expect=0.66) == ""
    said = refused(monkeypatch, [0, 1, 2, 3, 6, 5, 4], 0.6)
    assert "on old's validation set the network predicts neutral for sad, sad for neutral" in said
    assert said.endswith("may be angry, disgust, fear, happy, neutral, surprise, sad")
    assert "near chance" in refused(monkeypatch, same, 0.0)
    said = refused(monkeypatch, same, 0.5, expect=0.75)
    assert said.startswith("model.expect: the deployed network has 5") and "not 75 %" in said


@pytest.mark.parametrize(
    ("table", "low", "guessed"),
    [
        ([[10, 0], [10, 0]], 29.9, True),  # always the same class
        ([[10, 0], [0, 10]], 83.9, False),
        ([[90, 0], [8, 2]], 85.0, True),  # hardly above the frequent class
        ([[80, 10], [2, 8]], 80.5, False),  # below it, and no guess
        ([[6, 4], [5, 5]], 34.2, True),
    ],
)
def test_what_is_no_better_than_guessing_is_found(
    table: list[list[int]], low: float, guessed: bool
) -> None:
    measured: Any = SimpleNamespace(confusion=table, interval=(low, 100.0))
    assert guesses(measured) == guessed

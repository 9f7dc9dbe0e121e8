"""What to use and whether to ship it: chosen on validation data, within limits, proven on test data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.errors import CrossferError
from crossfer.evaluation.decision import Constraints, front, gate, recommend
from crossfer.evaluation.intervals import change, lower_bounds, resample
from crossfer.experiment.results import past_of, write_results
from crossfer.strategies import BASELINE, DEPLOYED, Strategy
from tests.test_report import made_results


def row(
    strategy: str,
    validation: tuple[float, float],
    test: tuple[float, float] = (60.0, 60.0),
    seconds: float = 60.0,
    fraction: float | None = 1.0,
    target: str = "jaffe",
) -> dict[str, Any]:
    pairs = {"validation": validation, "test": test}
    return {
        "strategy": strategy,
        "target": target,
        "fraction": None if strategy == "BL" else fraction,
        "seconds": seconds,
        "memory_integrity": test[0] - 60,
        "gain": test[1] - 40,
        **{
            f"{side}_{split}": {"accuracy": pair[i]}
            for split, pair in pairs.items()
            for i, side in enumerate(("source", "target"))
        },
    }


SUMMARY = [
    row("BL", (64, 40), (60, 40), 1000),
    row("FU", (64, 80), (60.5, 78), 3000),
    row("MIX", (62.5, 81), (58.6, 79), 100),
    row("LwF", (58, 79), (55, 79.5), 50),
    row("ER-50", (60, 78), (56, 70), 40),
    row("RE", (50, 83), (47, 80), 40),
    row("RE", (63, 99), (47, 80), 20, fraction=0.5),
]
NEEDS = {"LwF": "none", "RE": "none", "ER-50": "some per class"}
STRATEGIES = [
    {
        "name": name,
        "past_data": NEEDS.get(name, "all source"),
        "exemplars": 50 if name == "ER-50" else None,
    }
    for name in ("BL", "FU", "MIX", "LwF", "ER-50", "RE")
]


@pytest.mark.parametrize(
    ("constraints", "strategy"),
    [
        (Constraints(), "FU"),
        (Constraints(max_source_drop=1), "FU"),
        (Constraints(max_source_drop=2), "MIX"),
        (Constraints(max_source_drop=100), "RE"),
        (Constraints(budget=600), "MIX"),
        (Constraints(past_data="none"), "LwF"),
        (Constraints(past_data="statistics", max_source_drop=5), "BL"),
        (Constraints(past_data="some per class", exemplars=50), "ER-50"),
        (Constraints(past_data="some per class", exemplars=49), "LwF"),
        (Constraints(budget=1), "BL"),
    ],
)
def test_the_best_of_what_is_allowed(constraints: Constraints, strategy: str) -> None:
    summary = SUMMARY
    if constraints.past_data == "some per class":
        summary = [*SUMMARY[:4], row("ER-50", (60, 79), (56, 70), 40), *SUMMARY[5:]]
    (choice,) = recommend(summary, STRATEGIES, constraints)
    assert choice["strategy"] == strategy
    assert strategy not in choice["ruled_out"]


def test_what_the_baseline_took_is_spent() -> None:
    """Mixed by nothing, a network is the baseline: it is no update, so the second rule is tried."""
    rows = [row("BL", (65, 70), seconds=1600), row("MIX", (65, 70), seconds=90)]
    (choice,) = recommend(rows, STRATEGIES)
    assert choice["strategy"] == "BL"
    (choice,) = recommend([*rows, row("LwF", (62, 92), seconds=50)], STRATEGIES)
    assert (choice["strategy"], choice["limit"]) == ("LwF", None)


def test_what_a_strategy_starts_from_needs_the_past_too() -> None:
    def past(start: str) -> tuple[str, int | None]:
        return past_of(Strategy("mine", start, "FC", "target"))

    assert past("baseline") == past("RE") == past("BL") == ("none", None)
    assert past("EWC") == ("statistics", None)
    assert past("ER-50+WiSE") == ("some per class", 50)
    assert past("MIX")[0] == past("FU")[0] == "all source"
    assert past_of(DEPLOYED) == past_of(BASELINE) == ("all source", None)


def test_reasons_are_given() -> None:
    limits = Constraints(max_source_drop=3, past_data="none", budget=45)
    (choice,) = recommend(SUMMARY, STRATEGIES, limits)
    assert choice["strategy"] == "BL"
    assert choice["ruled_out"] == {
        "FU": ["needs all of the source's images", "takes 3000 s"],
        "MIX": ["needs all of the source's images", "takes 100 s"],
        "LwF": ["loses 6.0 points on the source's validation set", "takes 50 s"],
        "ER-50": [
            "needs 50 source images a class",
            "loses 4.0 points on the source's validation set",
        ],
        "RE": ["loses 14.0 points on the source's validation set"],
    }


@given(st.randoms(use_true_random=False))
def test_test_sets_decide_nothing(random: Any) -> None:
    limits = Constraints(max_source_drop=2, budget=600)
    shuffled = [
        r | {f"{side}_test": {"accuracy": random.uniform(0, 100)} for side in ("source", "target")}
        for r in SUMMARY
    ]
    chosen = [recommend(rows, STRATEGIES, limits)[0]["strategy"] for rows in (SUMMARY, shuffled)]
    assert chosen == ["MIX", "MIX"]


def test_every_target_has_its_own() -> None:
    other = [r | {"target": "mug"} for r in SUMMARY if r["strategy"] in ("BL", "LwF")]
    assert [(c["target"], c["strategy"]) for c in recommend([*SUMMARY, *other], STRATEGIES)] == [
        ("jaffe", "FU"),
        ("mug", "LwF"),
    ]


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_beats_all_others_and_nothing_beats_it(points: list[tuple[int, int]]) -> None:
    rows = [row(f"S{i}", (0, 0), point) for i, point in enumerate(points)]
    on_front = {r["strategy"] for r in front(rows)}
    for i, (a, b) in enumerate(points):
        better = {
            f"S{j}" for j, (c, d) in enumerate(points) if c >= a and d >= b and (c, d) != (a, b)
        }
        assert (f"S{i}" in on_front) == (not better)
        assert f"S{i}" in on_front or better & on_front


def test_the_gate_asks_for_evidence_not_for_estimates() -> None:
    rng = np.random.default_rng(0)
    before = rng.random((1, 4000)) < 0.6
    after = before ^ (rng.random((1, 4000)) < 0.01)
    few, many = slice(0, 60), slice(0, 4000)
    for part, passes in ((few, False), (many, True)):
        bounds = lower_bounds(
            change(after[:, part], before[:, part]), resample(after[:, part], before[:, part])
        )
        measured = change(after[:, part], before[:, part])
        asked = {"memory_integrity": measured, "memory_integrity_bounds": bounds}
        asked |= {"gain": measured, "gain_bounds": bounds}
        source, target = gate(asked, max_source_drop=1.5, min_target_gain=5)
        assert source.passed == passes
        assert not target.passed
        assert source.bound <= source.measured
        strict = gate(asked, 1.5, 5, confidence=0.999)[0]
        assert strict.bound <= source.bound


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_harmful_update_passes_no_more_often_than_promised(confidence: float) -> None:
    """At the margin itself the gate lets an update through in at most 1 − confidence of the cases."""
    rng = np.random.default_rng(1)
    margin, passed, times, images = 2.0, 0, 300, 600
    for _ in range(times):
        draw = rng.random((1, images))
        before, after = draw < 0.6, (draw >= 0.05) & (draw < 0.6 + 0.05 - margin / 100)
        measured = change(after, before)
        bounds = lower_bounds(measured, resample(after, before, resamples=500))
        passed += bounds[f"{confidence:g}"] >= -margin
    assert passed / times <= 1 - confidence + 0.04


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an experiment with made-up results."""
    accuracies = {
        "jaffe": {"BL": (64, 40), "FC": (57, 62), "RE": (50, 63), "FU": (63.7, 80)},
        "mug": {"BL": (64, 60), "FC": (64, 90), "RE": (60, 91), "FU": (64.2, 60)},
    }
    results = made_results(accuracies, images={"jaffe": 67})  # type: ignore[arg-type]
    write_results(results, [], tmp_path)
    return tmp_path


def crossfer(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_recommends_within_limits(folder: Path) -> None:
    told = crossfer("recommend", folder)
    assert told.exit_code == 0
    words = " ".join(told.stdout.split())
    assert "FU kept FER2013 within 0.3 points and gained 40.0 on JAFFE: use it." in words
    assert "FC kept FER2013 as it was and gained 30.0 on mug: use it." in words
    assert "RE has 1.0 points more on the test set" in words
    limited = crossfer("recommend", folder, "--past-data", "none", "--max-source-drop", 2, "--json")
    assert [choice["strategy"] for choice in json.loads(limited.stdout)] == ["BL", "FC"]
    quick = crossfer("recommend", folder, "--budget", "1min")
    assert "takes 1100 s" in quick.stdout


def test_the_gate_is_an_exit_status(folder: Path) -> None:
    passed = crossfer("gate", folder, "--max-source-drop", 5, "--min-target-gain", 5)
    assert passed.exit_code == 0, passed.output
    assert "ship it" in passed.stdout
    assert "One seed" in passed.stdout
    failed = crossfer("gate", folder, "--max-source-drop", 0.5, "--min-target-gain", 5)
    assert failed.exit_code == 1
    assert "though the estimate would do" in failed.stdout
    one = crossfer("gate", folder, "--target", "mug", "--strategy", "FU", "--json")
    content = json.loads(one.stdout)
    assert [answer["target"] for answer in content["answers"]] == ["mug"]
    assert content["passed"] == (one.exit_code == 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gate", "--confidence", 0.5), "choose among 0.8"),
        (("gate", "--strategy", "XX"), "choose among BL, FC"),
        (("gate", "--target", "XX"), "choose among jaffe, mug"),
        (("recommend", "--budget", "soon"), "write 90s, 10min or 2h"),
        (("recommend", "--past-data", "0"), "write none, statistics, all"),
    ],
)
def test_a_wrong_option_is_named(folder: Path, arguments: tuple[Any, ...], words: str) -> None:
    command, *options = arguments
    error = crossfer(command, folder, *options).exception
    assert isinstance(error, CrossferError)
    assert words in str(error)

"""What to use and whether to ship it: chosen on validation data, within limits, proven on test data."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.decision import Constraints, front, recommend
from crossfer.evaluation.evidence import Evidence, Key
from crossfer.evaluation.gate import Groups, Limits, PairedOutcomes, ask, bound_of, gate, p_of
from crossfer.evaluation.paired import compare
from crossfer.evaluation.rows import (
    Ahead,
    Measurements,
    Recommendation,
    Result,
    StrategyFacts,
)
from crossfer.evaluation.summary import by_strategy
from crossfer.experiment.results import past_of
from crossfer.files import write_json
from crossfer.strategies import BASELINE, DEPLOYED
from crossfer.strategy import Strategy
from crossfer.terms import BL, SIDES, PastData, Side
from tests.commands import crossfer
from tests.test_evaluation import result
from tests.test_report import made_results


def row(
    strategy: str,
    validation: tuple[float, float],
    test: tuple[float, float] = (60.0, 60.0),
    seconds: float = 60.0,
    fraction: float | None = 1.0,
    target: str = "jaffe",
) -> Result:
    one = result(strategy, 0, 0, None if strategy == BL else fraction)

    def on(side: int) -> Measurements:
        measured = one.on_source.test
        return Measurements(
            replace(measured, accuracy=validation[side]), replace(measured, accuracy=test[side]), {}
        )

    return replace(
        one,
        target=target,
        on_source=on(0),
        on_target=on(1),
        memory_integrity=replace(one.memory_integrity, points=test[0] - 60),
        gain=replace(one.gain, points=test[1] - 40),
        cost=replace(one.cost, seconds=seconds),
    )


def chosen(
    rows: list[Result],
    constraints: Constraints = Constraints(),  # noqa: B008
) -> list[Recommendation]:
    return recommend(rows, rows, STRATEGIES, surely(rows), constraints)


def surely(rows: list[Result], error: float = 0.0) -> list[Ahead]:
    """Return by how much each row is ahead of each other on the validation sets, known so well."""
    return [
        Ahead(
            target=one.target,
            side=side,
            strategy=one.strategy,
            against=other.strategy,
            points=one.on(side).validation.accuracy - other.on(side).validation.accuracy,
            error=error,
            images=100,
            people=None,
        )
        for one, other in combinations(rows, 2)
        if one.target == other.target and {one.fraction, other.fraction} <= {None, 1.0}
        for side in SIDES
    ]


SUMMARY = [
    row("BL", (64, 40), (60, 40), 1000),
    row("FU", (64, 80), (60.5, 78), 3000),
    row("MIX", (62.5, 81), (58.6, 79), 100),
    row("LwF", (58, 79), (55, 79.5), 50),
    row("ER-50", (60, 78), (56, 70), 40),
    row("RE", (50, 83), (47, 80), 40),
    row("RE", (63, 99), (47, 80), 20, fraction=0.5),
]
NEEDS: dict[str, PastData] = {"LwF": "none", "RE": "none", "ER-50": "some per class"}
STRATEGIES = [
    StrategyFacts(
        name=name,
        start="baseline",
        layers="all",
        data="target",
        about="",
        past_data=NEEDS.get(name, "all source"),
        exemplars=50 if name == "ER-50" else None,
    )
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
    (choice,) = chosen(summary, constraints)
    assert choice.strategy == strategy
    assert strategy not in choice.ruled_out


def test_what_the_baseline_took_is_spent() -> None:
    """Mixed by nothing, a network is the baseline: it is no update, so the second rule is tried."""
    rows = [row("BL", (65, 70), seconds=1600), row("MIX", (65, 70), seconds=90)]
    (choice,) = chosen(rows)
    assert choice.strategy == "BL"
    (choice,) = chosen([*rows, row("LwF", (62, 92), seconds=50)])
    assert (choice.strategy, choice.limit) == ("LwF", None)


@pytest.mark.parametrize(
    ("error", "strategy", "limit"),
    [(0.0, "FU", 1.0), (79.0, "FU", 1.0), (81.0, "BL", None)],
)
def test_in_doubt_the_old_model_is_kept(error: float, strategy: str, limit: float | None) -> None:
    """Shown is more than half a standard error, as for epochs: FU is ahead by 40 points."""
    rows = [row("BL", (64, 40)), row("LwF", (58, 44)), row("FU", (64, 80), (60, 10))]
    (choice,) = recommend(rows, rows, STRATEGIES, surely(rows, error))
    assert (choice.strategy, choice.best, choice.limit) == (strategy, "FU", limit)
    if strategy == BL:  # then both sides count the same: FU is 20 ahead, and that is no surer
        assert choice.behind == pytest.approx(20)
        assert choice.behind_error == pytest.approx(error / 2**0.5)


def test_of_several_seeds_the_best_on_the_validation_data_is_shipped() -> None:
    """On the validation data of both sides; what it reached on the test data decides nothing."""
    seeds = [
        replace(one, seeds=(seed,), runs=(f"{one.strategy}-{seed}",))
        for seed, (source, target, test) in enumerate([(64, 80, 90), (63, 84, 10), (65, 81, 50)])
        for one in (
            row("BL", (64, 40), seconds=1000),
            row("FU", (source, target), (60, test)),
        )
    ]
    averaged = by_strategy(seeds)
    (choice,) = recommend(seeds, averaged, STRATEGIES, surely(averaged))
    assert (choice.strategy, choice.seed, choice.run) == ("FU", 1, "FU-1")


def test_what_a_strategy_starts_from_needs_the_past_too() -> None:
    def past(start: str) -> tuple[str, int | None]:
        return past_of(Strategy("mine", start, "FC", "target"))

    assert past("baseline") == past("RE") == past("BL") == ("none", None)
    assert past("EWC") == ("all source", None)
    assert past("GFR+WiSE") == ("statistics", None)
    assert past("ER-50+WiSE") == ("some per class", 50)
    assert past("MIX")[0] == past("FU")[0] == "all source"
    assert past_of(DEPLOYED) == past_of(BASELINE) == ("all source", None)


def test_reasons_are_given() -> None:
    limits = Constraints(max_source_drop=3, past_data="none", budget=45)
    (choice,) = chosen(SUMMARY, limits)
    assert choice.strategy == "BL"
    assert choice.ruled_out == {
        "FU": ("needs all of the source's images", "takes 3000 s"),
        "MIX": ("needs all of the source's images", "takes 100 s"),
        "LwF": ("loses 6.0 points on the source's validation set", "takes 50 s"),
        "ER-50": (
            "needs 50 source images a class",
            "loses 4.0 points on the source's validation set",
        ),
        "RE": ("loses 14.0 points on the source's validation set",),
    }


@given(st.randoms(use_true_random=False))
def test_test_sets_decide_nothing(random: Any) -> None:
    limits = Constraints(max_source_drop=2, budget=600)

    def drawn(on: Measurements) -> Measurements:
        return replace(on, test=replace(on.test, accuracy=random.uniform(0, 100)))

    shuffled = [
        replace(r, on_source=drawn(r.on_source), on_target=drawn(r.on_target)) for r in SUMMARY
    ]
    assert [chosen(rows, limits)[0].strategy for rows in (SUMMARY, shuffled)] == ["MIX", "MIX"]


def test_every_target_has_its_own() -> None:
    other = [replace(r, target="mug") for r in SUMMARY if r.strategy in ("BL", "LwF")]
    assert [(c.target, c.strategy) for c in chosen([*SUMMARY, *other])] == [
        ("jaffe", "FU"),
        ("mug", "LwF"),
    ]


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_beats_all_others_and_nothing_beats_it(points: list[tuple[int, int]]) -> None:
    rows = [row(f"S{i}", (0, 0), point) for i, point in enumerate(points)]
    on_front = {r.strategy for r in front(rows)}
    for i, (a, b) in enumerate(points):
        better = {
            f"S{j}" for j, (c, d) in enumerate(points) if c >= a and d >= b and (c, d) != (a, b)
        }
        assert (f"S{i}" in on_front) == (not better)
        assert f"S{i}" in on_front or better & on_front


def asked(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    subjects: NDArray[np.int64] | None = None,
    classes: int = 2,
) -> tuple[Result, Evidence]:
    """Return a result with these answers on both sides, of classes in turn, and the evidence."""
    labels = np.arange(len(before)) % classes
    answers: dict[tuple[Key, Side], list[Answers]] = {}
    for side in SIDES:
        for strategy, fraction, right in ((BL, None, before), ("FU", 1.0, after)):
            said = np.where(right, labels, (labels + 1) % classes)
            answers[("jaffe", fraction, strategy, 0), side] = [
                Answers.of(labels, np.eye(classes)[said])
            ]
    people: dict[tuple[str, Side], NDArray[np.int64] | None] = {
        ("jaffe", side): subjects for side in SIDES
    }
    return row("FU", (0, 0)), Evidence(answers, people)


NAMES = ("happy", "sad")


@pytest.mark.parametrize(("before", "after"), [(55, 54), (80, 79), (64, 63)])
def test_one_point_less_is_one_point(before: int, after: int) -> None:
    """Of 100 images each; the difference of two rounded fractions may be a little more."""
    exact = [100 * float(np.mean(np.arange(100) < right)) for right in (before, after)]
    rows = [row("BL", (exact[0], 40)), row("RE", (exact[1], 80))]
    (choice,) = chosen(rows, Constraints(max_source_drop=1.0))
    assert choice.strategy == "RE"


@pytest.mark.parametrize("lost", [7, 14, 28, 29])
def test_as_many_negative_flips_as_the_limit_do_not_break_it(lost: int) -> None:
    before, after = np.ones(100, bool), np.arange(100) >= lost
    limits = Limits(100, -100, max_negative_flips=float(lost))
    (flips, _) = (c for c in gate(*asked(before, after), limits, NAMES) if "flips" in c.about)
    assert (flips.measured, flips.verdict) == (lost, "not proven")


@pytest.mark.parametrize("level", [0.05, 0.05 / 3, 0.025, 0.1, 0.0001])
def test_a_bound_keeps_a_limit_exactly_where_it_is_proven(level: float) -> None:
    draws = np.random.default_rng(0).permutation(np.arange(2000.0))
    bound = bound_of(draws, level)
    for least in np.arange(0.0, 250.0, 0.5).tolist():
        assert (bound >= least) == (p_of(draws, least) <= level)


def test_where_holm_has_stopped_no_bound_keeps_its_limit() -> None:
    """Two sets with the same answers: neither is proven, and neither bound says otherwise."""
    rng = np.random.default_rng(3)
    before = rng.random(300) < 0.6
    after = before ^ (rng.random(300) < 0.05)
    one, evidence = asked(before, after)
    for limit in np.arange(0.5, 8, 0.5).tolist():
        for found in gate(one, evidence, Limits(limit, -limit), NAMES):
            assert (found.verdict == "pass") == (found.bound >= found.limit)


def test_the_gate_asks_for_evidence_not_for_estimates() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(4000) < 0.6
    after = before ^ (rng.random(4000) < 0.01)
    for part, verdict in ((slice(0, 60), "not proven"), (slice(0, 4000), "pass")):
        one, evidence = asked(before[part], after[part])
        source, target = gate(one, evidence, Limits(1.5, 5), NAMES)
        assert (source.verdict, target.verdict) == (verdict, "fail")
        assert source.bound <= source.measured
        strict = gate(one, evidence, Limits(1.5, 5, confidence=0.999), NAMES)[0]
        assert strict.bound <= source.bound


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_harmful_update_passes_no_more_often_than_promised(
    confidence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the margin itself the gate lets an update through in at most 1 − confidence of the cases."""
    # How many images would prove it is not asked here, and takes most of the time.
    monkeypatch.setattr("crossfer.evaluation.gate._Test._needed", lambda test, alpha: None)
    rng = np.random.default_rng(1)
    margin, passed, times, images = 2.0, 0, 100, 600
    for _ in range(times):
        draw = rng.random(images)
        before, after = draw < 0.6, (draw >= 0.05) & (draw < 0.6 + 0.05 - margin / 100)
        limits = Limits(margin, -100, confidence=confidence)
        passed += gate(*asked(before, after), limits, NAMES)[0].verdict == "pass"
    assert passed / times <= 1 - confidence + 0.06


def test_a_class_that_falls_does_not_pass_unseen() -> None:
    """As many happy faces won as sad ones lost: the accuracy says nothing of it."""
    before, after = np.arange(2000) % 4 < 2, np.arange(2000) % 4 != 1
    after[3::4] = False
    one, evidence = asked(before, after)
    assert evidence.right(one, "source").mean() == evidence.before(one, "source").mean()
    limits = Limits(max_source_drop=8, min_target_gain=-8, max_class_drop=5, max_negative_flips=10)
    criteria = gate(one, evidence, limits, NAMES)
    verdicts = {(c.side, c.about): c.verdict for c in criteria}
    for side in SIDES:
        assert verdicts[side, "accuracy"] == "pass"
        assert verdicts[side, "recall of happy"] == "pass"
        assert verdicts[side, "recall of sad"] == "fail"
        assert verdicts[side, "negative flips"] == "fail"
    (flips,) = (c for c in criteria if (c.side, c.about) == ("source", "negative flips"))
    assert (flips.measured, flips.limit, flips.at_least) == (25, 10, False)
    assert flips.bound >= flips.measured


def test_each_group_is_asked_and_what_all_say_is_corrected() -> None:
    rng = np.random.default_rng(2)
    before = rng.random(900) < 0.5
    after = before | (rng.random(900) < 0.2)
    cameras = np.repeat(["A", "B", "C"], 300)
    after[cameras == "C"] = before[cameras == "C"]
    one, evidence = asked(before, after)
    groups: Groups = {"source": None, "target": cameras.tolist()}
    limits = Limits(min_target_gain=2)
    criteria = {c.about: c for c in gate(one, evidence, limits, NAMES, {"camera": groups})[1:]}
    assert list(criteria) == ["accuracy", "camera = A", "camera = B", "camera = C"]
    assert [c.verdict for c in criteria.values()] == ["pass", "pass", "pass", "fail"]
    assert criteria["camera = A"].images == 300
    alone = gate(one, evidence, limits, NAMES)[1]
    assert alone.p is not None and criteria["accuracy"].p is not None
    assert criteria["accuracy"].p >= alone.p
    assert criteria["accuracy"].bound <= alone.bound


def test_the_number_of_images_that_would_prove_it_does() -> None:
    """What is measured on 300 images and not proven is proven by as many as the gate says."""
    before = np.arange(300) % 2 == 0
    after = before.copy()
    after[:6] = [True, True, True, True, True, False]
    one, evidence = asked(before, after)
    (_, target) = gate(one, evidence, Limits(100, 0), NAMES)
    assert target.verdict == "not proven" and target.needed
    assert 300 < target.needed < 3000
    times = -(-target.needed // 300) + 1
    one, evidence = asked(np.tile(before, times), np.tile(after, times))
    assert gate(one, evidence, Limits(100, 0), NAMES)[1].verdict == "pass"


@pytest.mark.parametrize(
    ("images", "people", "limit"),
    [(40, 8, 1), (60, None, 1), (3, None, 1), (30, 30, 5), (6, 3, 10)],
)
def test_without_any_flip_as_many_images_do(images: int, people: int | None, limit: float) -> None:
    """Then no variance tells how many: it is the imagined images that have to be outweighed."""

    def test_set(count: int) -> PairedOutcomes:
        rows = np.arange(count)
        right = np.ones((1, count), bool)
        subjects = rows // (images // people) if people else None
        labels = np.zeros(count, np.int64)
        return PairedOutcomes("source", right, right, labels, subjects, -limit, {}, 1)

    (found,) = ask([test_set(images)], Limits(limit), NAMES)
    assert found.verdict == "not proven" and found.needed
    verdicts = {
        count: ask([test_set(count)], Limits(limit), NAMES)[0].verdict
        for count in (round(0.9 * found.needed), round(1.05 * found.needed))
    }
    assert list(verdicts.values()) == ["not proven", "pass"], verdicts


def test_one_person_proves_nothing_about_others() -> None:
    right, zeros = np.ones((1, 2000), bool), np.zeros(2000, np.int64)
    wrong = right & (np.arange(2000) < 900)
    (found,) = ask([PairedOutcomes("source", right, right, zeros, zeros, -5)], Limits(5), NAMES)
    assert (found.verdict, found.needed, found.people) == ("not proven", None, 1)
    (known,) = ask([PairedOutcomes("source", right, right, zeros, None, -5)], Limits(5), NAMES)
    assert known.verdict == "pass", "2,000 people, as far as is known"
    paired = compare(right, wrong, zeros)
    assert paired.p == 1 and paired.p_images is not None and paired.p_images < 1e-9


def test_a_larger_network_is_seen() -> None:
    one, evidence = asked(np.ones(9, bool), np.ones(9, bool))
    limits = Limits(max_size_ratio=1.5)
    assert [gate(one, evidence, limits, NAMES, size_ratio=x)[-1].verdict for x in (1.5, 2)] == [
        "pass",
        "fail",
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an experiment with made-up results."""
    accuracies = {
        "jaffe": {"BL": (64, 40), "FC": (57, 62), "RE": (50, 63), "FU": (63.7, 80)},
        "mug": {"BL": (64, 60), "FC": (64, 90), "RE": (60, 91), "FU": (64.2, 60)},
    }
    results = made_results(accuracies, images={"jaffe": 67})
    write_json(tmp_path / "results.json", results.as_json())
    return tmp_path


def test_the_command_recommends_within_limits(folder: Path) -> None:
    told = crossfer("recommend", folder)
    assert told.exit_code == 0
    words = " ".join(told.stdout.split())
    assert "FU kept FER2013 (−0.3 points) and gained 40.0 on JAFFE: use it." in words
    assert "FC left FER2013 unchanged and gained 30.0 on mug: use it." in words
    assert "RE is 1.0 points better on the test set" in words
    limited = crossfer("recommend", folder, "--past-data", "none", "--max-source-drop", 2, "--json")
    assert [choice["strategy"] for choice in json.loads(limited.stdout)] == ["BL", "FC"]
    quick = crossfer("recommend", folder, "--budget", "1min")
    assert "takes 1100 s" in quick.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gate", "--confidence", 0.4), "must be between 0.5 and 1"),
        (("gate", "--min-target-gain", "nan"), "--min-target-gain nan: must be a finite number"),
        (("gate", "--strategy", "XX"), "choose among BL, FC"),
        (("gate", "--target", "XX"), "choose among jaffe, mug"),
        (("recommend", "--budget", "soon"), "write a duration, e.g. 90s, 10min or 2h"),
        (("recommend", "--past-data", "0"), "write none, statistics, all"),
    ],
)
def test_a_wrong_option_is_named(folder: Path, arguments: tuple[Any, ...], words: str) -> None:
    command, *options = arguments
    error = crossfer(command, folder, *options).exception
    assert isinstance(error, CrossferError)
    assert words in str(error)

"""More than two datasets: all as one, one after the other, and each left out once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfer import standins
from crossfer.classes import FER7
from crossfer.datasets import SPLITS, Dataset, Preparation, prepare
from crossfer.datasets.union import unite
from crossfer.errors import CrossferError
from crossfer.evaluation import continual
from crossfer.evaluation.rows import Results
from crossfer.experiment import check_experiment, load_results, run_experiment, verify
from crossfer.experiment.data import fraction_rows
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.protocols import plan_all
from crossfer.loading import faces_of
from crossfer.report import write_report
from crossfer.terms import SIDES
from tests.test_experiment import make_up_predictions

CONTENT: dict[str, Any] = {
    "name": "several",
    "source": "fer2013",
    "targets": ["jaffe", "tfeid"],
    "strategies": ["FC", "FU", "HEAD", "LP-FT"],
    "fractions": [1.0],
    "model": {"width": 0.05},
    "recipes": {"default": {"epochs": 1, "batch_size": 32}},
    "protocols": ["together", "in-turn", "leave-one-out"],
}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """Run all protocols once."""
    folder = tmp_path_factory.mktemp("protocols")
    standins.write("tfeid", folder / "tfeid", images=70)
    six = Preparation(labels={"neutral": None})
    prepare(folder / "tfeid", folder / "six", replace(six, faces="cropped"), name="tfeid")
    content = CONTENT | {"data": data, "targets": ["jaffe", {"path": folder / "six"}]}
    return folder / "out", run_experiment(check_experiment(content), folder / "out")


def test_datasets_as_one_keep_their_splits_people_and_classes(
    prepared: dict[str, Dataset],
) -> None:
    first = replace(
        prepared["jaffe"], card=prepared["jaffe"].card | {"classes": ["angry", "happy", "sad"]}
    )
    second = prepared["fer2013"]
    both = unite([first, second])
    assert both.parts == (first, second)
    assert both.name == "jaffe+fer2013"
    for split in SPLITS:
        rows = both.rows(split)
        assert len(rows) == len(first.rows(split)) + len(second.rows(split))
        taken = faces_of(both, rows)
        assert np.array_equal(taken.labels.numpy(), both.labels[rows])
        assert taken.known is not None
        mine = len(first.rows(split))
        assert (taken.known[:mine].sum(1) == 3).all()
        assert taken.known[mine:].all()
        expected = [first.images[first.rows(split)], second.images[second.rows(split)]]
        assert np.array_equal(taken.images.numpy(), np.concatenate(expected))
    assert not set(filter(None, first.subjects)) & set(filter(None, both.subjects))
    assert unite([first]) is first
    assert unite([first, second]).fingerprint != unite([second, first]).fingerprint


def test_all_targets_together_are_one_more_target(
    finished: tuple[Path, Results], tmp_path: Path
) -> None:
    """With predictions made up; tfeid has no neutral, so no image of it may be taken for neutral."""
    kept, results = finished
    out = tmp_path / "out"
    shutil.copytree(kept, out)
    make_up_predictions(out)
    results = run_experiment(check_experiment(results.config), out)
    rows = {r.strategy: r for r in results.results if r.target == "jaffe+tfeid"}
    assert rows.keys() == {"BL", "FC", "FU", "HEAD", "LP-FT"}
    parts = {d.name: d.counts["test"] for d in results.datasets}
    images = {name: sum(parts[name].values()) for name in ("jaffe", "tfeid")}
    for row in rows.values():
        mean = sum(row.on_target.parts[name] * n for name, n in images.items()) / sum(
            images.values()
        )
        assert row.on_target.test.accuracy == pytest.approx(mean)
        assert not any(v.problems for v in verify(out, row.runs))
        for side in SIDES:
            change = row.change(side)
            difference = sum(change.flips.positive) - sum(change.flips.negative)
            assert change.points == pytest.approx(100 * difference / row.on(side).test.images)
    trained = {r.key: r.training_images for r in results.runs}
    assert trained[rows["FC"].runs[0]] == sum(
        sum(d.counts["training"].values()) for d in results.datasets if d.name in ("jaffe", "tfeid")
    )
    assert {row.strategy for row in results.averages} >= {"FC"}
    assert all("jaffe+tfeid" not in row.targets for row in results.averages)


def test_one_after_the_other(finished: tuple[Path, Results]) -> None:
    _, results = finished
    pairs = {(r.strategy, r.target): r for r in results.results}
    trained = {r.key: r for r in results.runs}
    chains = {chain.strategy: chain for chain in results.in_turn}
    assert chains.keys() == {"FC", "FU", "HEAD"}, "LP-FT starts where HEAD arrived"
    for name, chain in chains.items():
        assert chain.datasets == ("fer2013", "jaffe", "tfeid")
        assert chain.runs[:2] == (pairs["BL", "jaffe"].runs[0], pairs[name, "jaffe"].runs[0])
        matrix = np.array(chain.accuracy)
        assert matrix.shape == (3, 3)
        for step, target in ((0, "BL"), (1, name)):
            pair = pairs[target, "jaffe"]
            assert matrix[step, 0] == pair.on_source.test.accuracy
            assert matrix[step, 1] == pair.on_target.test.accuracy
        assert chain.backward_transfer == continual.backward_transfer(matrix.tolist())
        last = trained[chain.runs[2]]
        if name != "FU":
            assert last.identity["parent"] == chain.runs[1]
            assert last.label.endswith("after jaffe · seed 0")
    everything = sum(sum(d.counts["training"].values()) for d in results.datasets if not d.parts)
    assert trained[chains["FU"].runs[2]].training_images == everything


def test_of_what_came_before_only_the_share_that_was_shown_is_past(
    prepared: dict[str, Dataset],
) -> None:
    source, first = prepared["fer2013"], prepared["jaffe"]
    second = replace(first, card=first.card | {"name": "other", "fingerprint": "another"})
    content = CONTENT | {"targets": ["jaffe", "other"], "strategies": ["FU"], "fractions": [0.5]}
    planned = plan_all(
        check_experiment(content), source, [first, second], Arithmetic("cpu", "32-true")
    )
    (chain,) = planned.chains
    _, one, two = chain.runs
    shown = len(fraction_rows(first, 0.5, 0))
    assert shown < len(first.rows("training"))
    assert one.training_images == len(source.rows("training")) + shown
    past = two.source.open(planned.datasets)
    taken = faces_of(past, past.rows("training"))
    assert np.array_equal(taken.images[-shown:], first.images[fraction_rows(first, 0.5, 0)])
    assert len(taken) == one.training_images
    assert planned.measured_on(two) == [source, first, second]


def test_every_dataset_is_left_out_once(finished: tuple[Path, Results]) -> None:
    _, results = finished
    sizes = {d.name: sum(d.counts["training"].values()) for d in results.datasets}
    trained = {r.key: r.training_images for r in results.runs}
    names = ["fer2013", "jaffe", "tfeid"]
    assert [row.left_out for row in results.leave_one_out] == names
    for row in results.leave_one_out:
        assert list(row.accuracy) == names
        assert trained[row.run] == sum(sizes[n] for n in names if n != row.left_out)


def test_it_is_verified_and_reported(finished: tuple[Path, Results], tmp_path: Path) -> None:
    out, results = finished
    keys = [r.key for r in results.runs]
    assert len(set(keys)) == len(keys) == 1 + 3 * 4 + 3 + 3
    assert not any(verdict.problems for verdict in verify(out))
    again = [results.in_turn[0].runs[-1], results.leave_one_out[1].run]
    assert not any(verdict.problems for verdict in verify(out, again, retrain=True))
    page = write_report(load_results(out), tmp_path).read_text()
    assert "One target after the other" in page
    assert "Every dataset left out once" in page
    assert "jaffe+tfeid" in page
    assert "over JAFFE stand-in and TFEID stand-in, in points" in page


def test_a_deployed_network_cannot_leave_its_past_out(tmp_path: Path) -> None:
    model = {
        "network": "tests.tiny_networks:residual",
        "weights": str(tmp_path / "w.pt"),
        "classes": list(FER7),
        "normalisation": "per-image",
    }
    content = CONTENT | {"model": model, "protocols": ["leave-one-out"]}
    with pytest.raises(CrossferError, match="protocols"):
        check_experiment(content)


def test_protocols_of_several_targets_need_several() -> None:
    with pytest.raises(CrossferError, match="protocols: together needs several targets"):
        check_experiment(CONTENT | {"targets": ["jaffe"]})


SQUARE = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 100), min_size=n, max_size=n), min_size=n, max_size=n)
)


def test_a_worked_example() -> None:
    matrix = [[60.0, 40.0, 30.0], [50.0, 80.0, 35.0], [40.0, 70.0, 90.0]]
    assert continual.average_accuracy(matrix) == pytest.approx(200 / 3)
    assert continual.backward_transfer(matrix) == pytest.approx(((40 - 60) + (70 - 80)) / 2)
    assert continual.forgetting(matrix) == pytest.approx(((60 - 40) + (80 - 70)) / 2)
    assert continual.forward_transfer(matrix) == pytest.approx(35 - 30)


@given(SQUARE)
def test_forgetting_is_at_least_what_backward_transfer_lost(matrix: list[list[float]]) -> None:
    assert continual.forgetting(matrix) >= -continual.backward_transfer(matrix) - 1e-9

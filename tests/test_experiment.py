"""From a YAML file to results: validated, shared, resumable, honest."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from typer.testing import CliRunner

from crossfer.app.flips import Wanted, of_experiment
from crossfer.classes import FER7
from crossfer.cli import app
from crossfer.datasets import Dataset, Preparation, open_dataset, prepare
from crossfer.errors import CrossferError
from crossfer.evaluation.metrics import accuracy, decide
from crossfer.evaluation.rows import Results
from crossfer.experiment import (
    Experiment,
    Progress,
    check_experiment,
    load_experiment,
    load_results,
    run_experiment,
)
from crossfer.experiment.finished import Finished
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.opening import open_datasets
from crossfer.experiment.plan import Run, plan
from crossfer.experiment.run import alone_in
from crossfer.files import digest
from crossfer.report import copied, write_report
from crossfer.strategies import GENTLE
from crossfer.strategy import Strategy
from crossfer.terms import SIDES
from crossfer.training.recipe import FINE_TUNING, FROM_SCRATCH, STRONG, Augmentation, Recipe

SMALL: dict[str, Any] = {
    "name": "small",
    "source": "fer2013",
    "targets": ["jaffe"],
    "strategies": ["BL", "FC", "FC+CL", "RE", "FU"],
    "model": {"width": 0.05},
    "recipes": {"default": {"epochs": 2, "batch_size": 32}},
}

CPU = Arithmetic("cpu", "32-true")


class Heard(Progress):
    def __init__(self) -> None:
        self.trained: list[str] = []
        self.images = 0

    def step(self, run: Run, images: int) -> None:
        self.images += images

    def ended(self, run: Run, folder: Path) -> None:
        self.trained.append(run.label)


@pytest.fixture(scope="module")
def finished(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results, int]:
    """Run the small experiment once, from raw files."""
    out = tmp_path_factory.mktemp("experiments") / "small"
    heard = Heard()
    results = run_experiment(check_experiment(SMALL | {"data": raw}), out, heard)
    return out, results, heard.images


def yaml_error(tmp_path: Path, **changes: Any) -> str:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(SMALL | changes))
    with pytest.raises(CrossferError) as error:
        load_experiment(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_errors_in_the_configuration_name_the_key(tmp_path: Path) -> None:
    assert "fraction: unknown key, perhaps fractions; known are name, data, " in yaml_error(
        tmp_path, fraction=[1]
    )
    assert "fractions.0: " in yaml_error(tmp_path, fractions=[0])
    assert "fractions: " in yaml_error(tmp_path, fractions=[0.5, 0.5])
    assert "targets" in yaml_error(tmp_path, targets=[])
    assert "targets: must be a list: [a, b]" in yaml_error(tmp_path, targets="mug")
    assert "recipes.FC: must be a mapping: {a: b}" in yaml_error(tmp_path, recipes={"FC": None})
    assert "unknown strategy 'XX'" in yaml_error(tmp_path, strategies=["XX"])
    assert "recipes.FC.epochs" in yaml_error(tmp_path, recipes={"FC": {"epochs": "many"}})
    assert "epochs is 0" in yaml_error(tmp_path, recipes={"FC": {"epochs": 0}})
    assert "recipes.FC.lr: unknown key; known are epochs, " in yaml_error(
        tmp_path, recipes={"FC": {"lr": 1}}
    )
    nested = {"default": {"augmentation": {"tilt": 3}}}
    assert "augmentation.tilt: unknown key" in yaml_error(tmp_path, recipes=nested)
    assert "recipes.XX: no such strategy" in yaml_error(tmp_path, recipes={"XX": {}})
    assert "slow is no recipe; use quick or strong or long" in yaml_error(
        tmp_path, recipes={"FU": "slow"}
    )
    assert (
        "recipes: FC: strong is a recipe for training from random weights; use it for BL and FU"
        in (yaml_error(tmp_path, recipes={"FC": "strong"}))
    )
    assert "selection" in yaml_error(tmp_path, selection="test")
    assert "source: crop is 2" in yaml_error(tmp_path, source={"path": "x", "crop": 2})
    odd = [{"name": "odd", "start": "middle", "layers": "FC", "data": "target"}]
    assert "start" in yaml_error(tmp_path, strategies=odd)


def test_python_gets_the_same_line_as_yaml_and_experiments_can_be_copied(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"fraction": [1]}, {"fractions": [10]}, {"strategies": ["XX"]}]
    for changes in wrong:
        with pytest.raises(CrossferError) as error:
            Experiment(**SMALL | changes)
        assert yaml_error(tmp_path, **changes).endswith(f": {error.value}")
    experiment = Experiment(**SMALL)
    assert pickle.loads(pickle.dumps(experiment)) == experiment == experiment.model_copy()


def test_recipes_for_random_weights_have_names() -> None:
    experiment = check_experiment(SMALL | {"recipes": {"BL": "strong", "FU": "quick"}})
    of = {one.name: experiment.recipe(one) for one in experiment.strategies}
    assert (of["BL"], of["FU"]) == (STRONG, FROM_SCRATCH)


def test_yaml_that_is_none_or_repeats_a_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for text, words in [
        ("a: [", "not valid YAML"),
        ("source: a\nsource: b\n", "'source' is repeated"),
        ("- a\n", "must be a mapping"),
    ]:
        file.write_text(text)
        with pytest.raises(CrossferError, match=words):
            load_experiment(file)
    with pytest.raises(CrossferError, match="cannot be read"):
        load_experiment(tmp_path / "none.yaml")


def test_a_recipe_in_a_strategy_changes_its_default_and_what_all_have() -> None:
    mine: dict[str, Any] = {"name": "mine", "start": "baseline", "layers": "all", "data": "target"}
    short = {"epochs": 3, "augmentation": {"flip": False}}

    def recipe(strategy: Any, **recipes: Any) -> Recipe:
        """Return what it has, also once the experiment is written and read again."""
        experiment = check_experiment(SMALL | {"strategies": [strategy], "recipes": recipes})
        again = check_experiment(experiment.model_dump(mode="json", by_alias=True))
        assert again == experiment
        return again.recipe(again.strategies[-1])

    default = replace(FINE_TUNING, epochs=3, augmentation=Augmentation(flip=False))
    assert recipe(mine | {"recipe": short}) == recipe(mine, mine=short) == default
    general = {"epochs": 5, "batch_size": 16}
    more = {"augmentation": {"shift": 0.0}}
    assert recipe(mine | {"recipe": short}, default=general, mine=more) == replace(
        default, batch_size=16, augmentation=Augmentation(flip=False, shift=0.0)
    )
    whole = replace(FINE_TUNING, epochs=9)
    assert recipe(Strategy(**mine, recipe=whole), default=general) == whole
    assert recipe("MIX", default=general) == replace(GENTLE, **general), "the default recipe of MIX"
    listed = {"mine": Strategy(**mine, recipe=whole)}
    of_view = check_experiment(SMALL | {"strategies": listed.values()})  # no sequence
    assert of_view.recipe(of_view.strategies[-1]) == whole


def test_recipes_may_share_with_yaml_merge_keys(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    content = """
        source: a
        targets: [b]
        recipes:
          default: {augmentation: &few {shift: 0.1}}
          FC: &short {epochs: 10, batch_size: 32}
          RE: &shorter
            <<: *short
            epochs: 5
          FU: {<<: [*shorter, *short], augmentation: {<<: *few, flip: false}}
    """
    file.write_text(content)
    recipes = load_experiment(file).recipes
    assert recipes["RE"] == {"epochs": 5, "batch_size": 32}
    assert recipes["FU"] == recipes["RE"] | {"augmentation": {"shift": 0.1, "flip": False}}
    file.write_text(content.replace("epochs: 5", "epochs: 5\n            epochs: 6"))
    with pytest.raises(CrossferError, match="the key 'epochs' is repeated in line 10"):
        load_experiment(file)


def test_the_baseline_is_trained_once_per_seed_and_shared(prepared: dict[str, Dataset]) -> None:
    experiment = check_experiment(SMALL | {"targets": ["jaffe", "other"], "seeds": [0, 1]})
    source, jaffe = prepared["fer2013"], prepared["jaffe"]
    other = replace(jaffe, card=jaffe.card | {"name": "other", "fingerprint": "another"})
    runs = plan(experiment, source, [jaffe, other], CPU)
    assert len(runs) == 2 * (1 + 4 * 2 * 2)
    assert len({run.key for run in runs}) == len(runs)
    baselines = [run for run in runs if run.strategy.name == "BL"]
    assert len(baselines) == 2
    for run in runs:
        if run.strategy.start == "baseline":
            assert run.parent is not None
            assert run.parent.seed == run.seed
            assert runs.index(run.parent) < runs.index(run)
        else:
            assert run.parent is None


def test_a_strategy_starts_where_another_arrived_whatever_that_was_shown(
    prepared: dict[str, Dataset],
) -> None:
    points = [
        {"name": "BL2", "start": "baseline", "layers": "all", "data": "source"},
        {"name": "FC2", "start": "BL2", "layers": "FC", "data": "target"},
        {"name": "back", "start": "FC2", "layers": "FC", "data": "source"},
        {"name": "FU2", "start": "FU", "layers": "FC", "data": "target"},
        {"name": "mixed", "start": "FU", "layers": "none", "data": "target", "merge": True},
    ]
    content = SMALL | {"seeds": [0], "fractions": [0.5, 1.0], "strategies": [*points, "FU"]}
    runs = plan(
        check_experiment(content), prepared["fer2013"], [prepared["jaffe"]], CPU
    )  # fmt: skip
    found = {(run.strategy.name, run.fraction): run for run in runs}
    assert len(found) == len(runs) == len({run.key for run in runs}) == 2 + 2 * 5
    baseline = found["BL", None]
    assert baseline.baseline is None and found["BL2", None].parent is baseline
    for fraction in (0.5, 1.0):
        assert found["FC2", fraction].parent is found["BL2", None]
        assert found["back", fraction].parent is found["FC2", fraction]
        assert found["FU", fraction].parent is None
        for name in ("FU2", "mixed"):
            assert found[name, fraction].parent is found["FU", fraction]
            assert found[name, fraction].baseline is baseline
    assert found["mixed", 1.0].identity["baseline"] == baseline.key
    assert found["FU2", 1.0].identity["baseline"] is None


def test_a_run_is_identified_by_what_determines_it_and_nothing_else(
    prepared: dict[str, Dataset],
) -> None:
    def keys(**changes: Any) -> list[str]:
        experiment = check_experiment(SMALL | {"seeds": [0]} | changes)
        return [run.key for run in plan(experiment, prepared["fer2013"], [prepared["jaffe"]], CPU)]

    base = keys()
    assert keys(name="another name") == base
    changed = keys(recipes={"default": SMALL["recipes"]["default"], "FU": {"epochs": 3}})
    assert [a == b for a, b in zip(changed, base, strict=True)] == [True] * 7 + [False] * 2
    assert not set(keys(seeds=[1])) & set(base)


def test_selection_never_involves_a_test_set_and_follows_the_option(
    prepared: dict[str, Dataset],
) -> None:
    def sides(selection: str) -> dict[str, tuple[str, ...]]:
        experiment = check_experiment(SMALL | {"selection": selection, "fractions": [1.0]})
        runs = plan(experiment, prepared["fer2013"], [prepared["jaffe"]], CPU)
        return {run.strategy.name: run.validate_on for run in runs}

    assert sides("trained-on") == {
        "BL": ("source",),
        "FC": ("target",),
        "FC+CL": ("target",),
        "RE": ("target",),
        "FU": ("source", "target"),
    }
    assert sides("both")["FC"] == ("source", "target")
    assert sides("both")["BL"] == ("source",)
    assert sides("source")["RE"] == ("source",)


def test_a_fraction_that_leaves_nothing_is_an_error(prepared: dict[str, Dataset]) -> None:
    experiment = check_experiment(SMALL | {"fractions": [0.001]})
    with pytest.raises(CrossferError, match=r"fractions: 0.001 leaves fewer than 2 of jaffe"):
        plan(experiment, prepared["fer2013"], [prepared["jaffe"]], CPU)


def test_every_network_is_measured_on_both_test_sets(
    finished: tuple[Path, Results, int],
) -> None:
    out, results, images = finished
    assert [r.strategy for r in results.results] == ["BL"] + ["FC"] * 2 + ["FC+CL"] * 2 + [
        "RE",
        "RE",
        "FU",
        "FU",
    ]
    assert results == load_results(out)
    assert results.stand_in is True
    assert images == sum(run.cost.images_seen for run in results.runs)
    for run in results.runs:
        assert run.cost.seconds > 0
        assert run.cost.peak_memory_bytes > 1e6
    table = list(csv.DictReader((out / "results.csv").open()))
    assert len(table) == 9
    assert float(table[3]["gain"]) == pytest.approx(results.results[3].gain.points)
    means = list(csv.DictReader((out / "summary.csv").open()))
    assert [row["strategy"] for row in means] == [row.strategy for row in results.summary]
    last, mean = means[-1], results.summary[-1]
    assert mean.gain.interval
    found = [float(last[name]) for name in ("gain", "gain_low", "gain_high", "target_p")]
    (p,) = (
        c.p_holm
        for c in results.comparisons
        if (c.target, c.fraction, c.strategy, c.against, c.side)
        == (mean.target, mean.fraction, mean.strategy, "BL", "target")
    )
    assert found == pytest.approx([mean.gain.points, *mean.gain.interval, p])


def test_a_run_says_which_epoch_was_kept_and_by_how_many_images(
    finished: tuple[Path, Results, int],
) -> None:
    for run in finished[1].runs:
        chosen = run.chosen
        assert chosen is not None
        assert (chosen["what"], chosen["kept"]["epoch"]) == ("epoch", run.kept_epoch)
        assert chosen["in_doubt"]["epoch"] == chosen["of"] >= run.kept_epoch
        assert set(chosen["by"]) == set(run.identity["validate_on"])
        for side, by in chosen["by"].items():
            assert by["images"] > 0
            assert (by["subjects"] is None) == (side == "source")


def test_every_number_can_be_recomputed_from_the_stored_predictions(
    finished: tuple[Path, Results, int],
) -> None:
    out, results, _ = finished
    for run, result in zip(results.runs, results.results, strict=True):
        table = pyarrow.parquet.read_table(out / run.folder / "predictions.parquet").to_pylist()
        for side, name in zip(SIDES, ("fer2013", "jaffe"), strict=True):
            for split in ("validation", "test"):
                rows = [r for r in table if r["dataset"] == name and r["split"] == split]
                probabilities = np.array([[r[e] for e in results.classes] for r in rows])
                labels = np.array([r["label"] for r in rows])
                assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
                expected = accuracy(labels, decide(probabilities))
                measured = getattr(result.on(side), split)
                assert measured.accuracy == pytest.approx(expected)


def make_up_predictions(out: Path) -> None:
    """Let networks that were trained so briefly that they hardly differ say anything."""
    rng = np.random.default_rng(0)
    for file in sorted(out.glob("runs/*/predictions.parquet")):
        table = pyarrow.parquet.read_table(file)
        made_up = rng.dirichlet(np.ones(7), len(table)).astype(np.float32)
        for emotion, column in zip(FER7, made_up.T, strict=True):
            table = table.set_column(table.column_names.index(emotion), emotion, [column])
        pyarrow.parquet.write_table(table, file)
        record = json.loads(file.with_name("run.json").read_text(encoding="utf-8"))
        record["files"]["predictions.parquet"] = digest(file)  # or they would be made again
        file.with_name("run.json").write_text(json.dumps(record), encoding="utf-8")


def test_every_test_number_has_its_interval_and_every_flip_its_line(
    finished: tuple[Path, Results, int], raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    make_up_predictions(out)
    heard = Heard()
    results = run_experiment(check_experiment(SMALL | {"data": raw}), out, heard)
    assert heard.images == 0
    for row in (*results.results, *results.summary):
        for side in SIDES:
            test, changed = row.on(side).test, row.change(side)
            assert test.interval and changed.interval
            assert test.interval[0] <= test.accuracy <= test.interval[1]
            assert changed.interval[0] <= changed.points <= changed.interval[1]
    assert len(results.comparisons) == 2 * 2 * 10  # sides, fractions, pairs of five strategies
    assert {(c.side, c.paired.test) for c in results.comparisons} == {
        ("source", "McNemar"),
        ("target", "bootstrap"),
    }
    lines = list(csv.DictReader((out / "flips.csv").open()))
    for row in results.results:
        for side in SIDES:
            own = [x for x in lines if (x["run"], x["side"]) == (row.runs[0], side)]
            won = [x for x in own if x["flip"] == "positive"]
            assert all(x["before"] != x["label"] == x["after"] for x in won)
            assert all(x["before"] == x["label"] != x["after"] for x in own if x not in won)
            change = 100 * (2 * len(won) - len(own)) / row.on(side).test.images
            assert row.change(side).points == pytest.approx(change)
            flips = row.change(side).flips
            assert sum(flips.positive) == len(won)
            assert sum(flips.negative) == len(own) - len(won)
            assert len(flips.positive_examples) == min(5, len(won))
    of_jaffe = [x for x in lines if x["dataset"] == "jaffe"]
    assert len(of_jaffe) > 10
    assert all((raw / "jaffe" / x["origin"]).is_file() for x in of_jaffe)


def test_the_gate_is_an_exit_status(
    finished: tuple[Path, Results, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results, _ = finished

    def gate(*options: str) -> Any:
        return CliRunner().invoke(app, ["gate", str(out), "--strategy", "RE", *options])

    monkeypatch.setattr("crossfer.report.verdict.guesses", lambda measured: True)
    guessed = gate("--junit", str(tmp_path / "gate.xml"))
    assert guessed.exit_code == 1 and "do not ship it" in guessed.stdout
    assert "No comparison: BL has" in guessed.stdout
    (case,) = ElementTree.parse(tmp_path / "gate.xml").getroot().findall("testcase")
    assert case.get("name") == "an update" and case[0].get("type") == "no update"
    monkeypatch.setattr(
        "crossfer.report.verdict.guesses", lambda measured: False
    )  # so small a network does
    lenient = ["--max-source-drop", "100", "--min-target-gain", "-100", "--max-class-drop", "100"]
    passed = gate(*lenient, "--max-size-ratio", "1", "--junit", str(tmp_path / "gate.xml"))
    assert passed.exit_code == 0, passed.output
    assert "PASS" in passed.stdout and "ship it" in passed.stdout
    assert "One seed" in passed.stdout
    chosen = next(r for r in results.results if (r.strategy, r.fraction) == ("RE", 1.0))
    assert str(out / results.run(chosen.runs[0]).folder) in passed.stdout
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert suite.get("failures") == "0" and suite.get("tests") == str(len(suite) - 1)
    assert "RE, jaffe: One seed" in suite.findtext("system-out", "")

    failed = gate("--min-target-gain", "99", "--max-source-drop", "100", "--by", "found", "--json")
    assert failed.exit_code == 1
    content = json.loads(failed.stdout)
    assert content["passed"] is False
    (answer,) = content["answers"]
    verdicts = {(c["side"], c["about"]): c["verdict"] for c in answer["criteria"]}
    assert verdicts["source", "accuracy"] == "pass"
    assert verdicts["target", "accuracy"] == "fail"
    assert verdicts["target", "found = eyes"] == "fail"
    drop = max(0.0, -chosen.memory_integrity.points) + 1  # it fell by less, but that is not proven
    doubtful = gate("--min-target-gain", "-100", "--max-source-drop", f"{drop:.1f}")
    assert "; you need about" in doubtful.stdout, "of source images"
    nothing = CliRunner().invoke(app, ["gate", str(out), "--strategy", "BL"]).exception
    assert "--strategy BL: is the old network itself, so there is no update" in str(nothing)
    old = tuple(replace(choice, strategy="BL") for choice in results.recommendations)
    with monkeypatch.context() as patch:
        kept_old = replace(results, recommendations=old)
        patch.setattr("crossfer.experiment.load_results", lambda folder: kept_old)
        kept = CliRunner().invoke(app, ["gate", str(out), "--json"])
    assert kept.exit_code == 1
    (kept_answer,) = json.loads(kept.stdout)["answers"]
    assert kept_answer["criteria"] == [] and kept_answer["run"] is None
    unknown = gate("--by", "camera").exception
    assert isinstance(unknown, CrossferError) and "choose among found" in str(unknown)
    column = Finished._column

    def of_target(finished: Finished, row: Any, side: Any, name: str) -> Any:
        return None if (side, name) == ("source", "found") else column(finished, row, side, name)

    monkeypatch.setattr(Finished, "_column", of_target)
    lacking = gate(*lenient, "--by", "found", "--json")
    (partly,) = json.loads(lacking.stdout)["answers"]
    unasked = f"{results.source.name}: has no column found, so nothing is said of its groups."
    assert unasked in partly["remarks"]


def test_an_exported_run_says_what_its_experiment_measured(
    finished: tuple[Path, Results, int], tmp_path: Path
) -> None:
    out, results, _ = finished
    row = next(r for r in results.results if (r.strategy, r.fraction) == ("RE", 1.0))
    run = out / results.run(row.runs[0]).folder
    written = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "model")])
    assert written.exit_code == 0, written.output
    card = (tmp_path / "model" / "README.md").read_text()
    for name, side in (("fer2013", row.on_source), (row.target, row.on_target)):
        test = side.test
        assert test.interval
        said = f"{test.accuracy:.1f} ({test.interval[0]:.1f}–{test.interval[1]:.1f})"
        (line,) = [x for x in card.splitlines() if x.startswith(f"| {name.upper()} stand-in | ")]
        assert line.endswith(f"| {test.images} | {said} |")
    header = yaml.safe_load(card.split("---\n")[1])
    assert len(header["model-index"][0]["results"]) == 2
    assert "Licence: " in card
    alone = shutil.copytree(run, tmp_path / "cache" / run.name)
    written = CliRunner().invoke(app, ["export", str(alone), "--out", str(tmp_path / "again")])
    assert "the card will not contain the experiment's measurements: no results.json" in " ".join(
        written.output.split()
    )


def test_started_again_nothing_is_trained_again(
    finished: tuple[Path, Results, int], raw: Path
) -> None:
    out, results, _ = finished
    heard = Heard()
    again = run_experiment(check_experiment(SMALL | {"data": raw}), out, heard)
    assert heard.images == 0
    assert again == results


def test_the_same_point_under_another_name_is_not_trained_again(
    finished: tuple[Path, Results, int], raw: Path
) -> None:
    out, results, _ = finished
    mine = {"name": "mine", "start": "baseline", "layers": "FC", "data": "target"}
    heard = Heard()
    mine_only = check_experiment(SMALL | {"data": raw, "strategies": [mine]})
    again = run_experiment(mine_only, out, heard)
    assert [row.strategy for row in again.summary] == ["BL", "mine", "mine"]
    assert again.summary[1].gain == results.summary[1].gain
    beside = check_experiment(SMALL | {"data": raw, "strategies": ["FC", mine, "RE"]})
    again = run_experiment(beside, out, heard)
    assert heard.images == 0
    rows = {(row.strategy, row.fraction): row for row in again.summary}
    assert len(rows) == 1 + 3 * 2
    assert rows["mine", 1.0] == replace(rows["FC", 1.0], strategy="mine")
    assert {run.strategy for run in again.runs} == {"BL", "FC", "RE"}, "a run is a run"
    page = write_report(again, out).read_text(encoding="utf-8")
    assert all(f"<b>{name}</b>, 2 epochs" in page for name in ("FC", "mine"))
    run_experiment(check_experiment(SMALL | {"data": raw}), out)  # as it was, for the others


def test_results_of_another_configuration_decide_nothing(
    finished: tuple[Path, Results, int], raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)

    class Stop(Progress):
        def planned(self, runs: list[Run], finished: list[Run]) -> None:
            raise KeyboardInterrupt

    assert load_results(out) == finished[1]
    with pytest.raises(KeyboardInterrupt):
        run_experiment(check_experiment(SMALL | {"data": raw, "strategies": ["RE"]}), out, Stop())
    with pytest.raises(CrossferError, match=r"results.json: belongs to another configuration.*run"):
        load_results(out)
    (out / "experiment.json").unlink()
    assert load_results(out) == finished[1], "alone it speaks for itself"


def test_a_configuration_that_is_refused_leaves_a_finished_experiment_as_it_is(
    finished: tuple[Path, Results, int], raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    with pytest.raises(CrossferError, match="folds: 50 are more than"):
        run_experiment(check_experiment(SMALL | {"data": raw, "folds": 50}), out)
    assert load_results(out) == finished[1]


def test_interrupted_in_the_middle_it_goes_on(
    finished: tuple[Path, Results, int], data: Path, tmp_path: Path
) -> None:
    results = finished[1]
    names = ("BL", "FC", "RE")

    class Stop(Heard):
        def ended(self, run: Run, folder: Path) -> None:
            super().ended(run, folder)
            if len(self.trained) == 3:
                raise KeyboardInterrupt

    experiment = check_experiment(SMALL | {"data": data, "strategies": ["FC", "RE"]})
    first, second = Stop(), Heard()
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, tmp_path / "out", first)
    again = run_experiment(experiment, tmp_path / "out", second)
    images = sum(run.cost.images_seen for run in results.runs if run.strategy in names)
    assert first.images + second.images == images
    rows = [row for row in results.summary if row.strategy in names]
    assert again.summary == tuple(
        replace(row, cost=other.cost) for row, other in zip(rows, again.summary, strict=True)
    )


def test_another_target_later_does_not_retrain_the_baseline(
    finished: tuple[Path, Results, int], raw: Path
) -> None:
    out, results, _ = finished
    other = {"path": "jaffe", "name": "other", "seed": 1, "faces": "cropped"}
    experiment = check_experiment(SMALL | {"data": raw, "targets": [other], "strategies": ["BL"]})
    heard = Heard()
    again = run_experiment(experiment, out, heard)
    assert heard.images == 0
    assert [r.target for r in again.results] == ["other"]
    run_experiment(check_experiment(SMALL | {"data": raw}), out, heard)  # as it was, for the others
    assert heard.images == 0


def test_a_target_without_some_classes_is_measured_on_those_it_has(
    raw: Path, tmp_path: Path
) -> None:
    how = Preparation(labels={"NE": None}, faces="cropped")
    prepare(raw / "jaffe", tmp_path / "no-neutral", how, name="no neutral")
    experiment = check_experiment(
        SMALL
        | {
            "data": raw,
            "targets": [tmp_path / "no-neutral"],
            "strategies": ["RE"],
            "fractions": [1.0],
        }
    )
    results = run_experiment(experiment, tmp_path / "out")
    target = results.datasets[1]
    assert "neutral" not in target.classes
    assert target.skipped == {"class NE is left out": 12}
    for result in results.results:
        assert np.array(result.on_target.test.confusion)[:, 6].sum() == 0
        assert result.on_target.test.recall[6] is None
    baseline, adapted = (run.identity for run in results.runs)
    assert baseline["source"]["parts"][0]["classes"] == list(range(7))
    assert adapted["target"]["parts"][0]["classes"] == list(range(6))


def test_a_class_that_is_missing_by_chance_can_be_named(raw: Path, tmp_path: Path) -> None:
    labels = {"NE": None}
    how = Preparation(labels=labels, classes=FER7, faces="cropped")
    named = prepare(raw / "jaffe", tmp_path / "named", how)
    assert named.classes == list(range(7)) and named.card["classes"] == list(FER7)
    with pytest.raises(CrossferError, match="'disgust' also occurs"):
        prepare(raw / "jaffe", tmp_path / "few", replace(how, classes=["angry"]))
    assert not (tmp_path / "few").exists()


def hold(out: Path, ready: Any) -> None:
    with alone_in(out):
        ready.set()
        time.sleep(60)


def test_a_folder_in_use_or_of_somebody_else_is_refused(raw: Path, tmp_path: Path) -> None:
    experiment = check_experiment(SMALL | {"data": raw})
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(CrossferError, match="contains no experiment"):
        run_experiment(experiment, mine)
    out, processes = tmp_path / "out", multiprocessing.get_context("spawn")
    ready = processes.Event()
    other = processes.Process(target=hold, args=(out, ready))
    other.start()
    assert ready.wait(60)
    (out / "experiment.json").write_text("{}")
    with pytest.raises(CrossferError, match=f"process {other.pid} on {os.uname().nodename}"):
        run_experiment(experiment, out)
    other.kill()
    other.join()


def test_new_photographs_in_a_raw_folder_are_noticed(raw: Path, data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "jaffe"
    shutil.copytree(raw / "jaffe", photos)
    changes: dict[str, Any] = {"source": data / "fer2013", "strategies": ["BL"]}
    changes["targets"] = [{"path": photos, "faces": "cropped"}]
    experiment = check_experiment(SMALL | changes)
    first = run_experiment(experiment, tmp_path / "out")
    shutil.copy(next(photos.glob("KA.HA1.*")), photos / "KA.HA4.999.tiff")
    second = run_experiment(experiment, tmp_path / "out")
    assert [r.datasets[1].images for r in (first, second)] == [84, 85]
    for name in ("theirs", None):  # a name that is taken back is no longer there
        named = {**changes["targets"][0], **({"name": name} if name else {})}
        experiment = check_experiment(SMALL | changes | {"targets": [named]})
        assert open_datasets(experiment, tmp_path / "out", Progress())[1].name == (name or "jaffe")


def test_options_for_a_prepared_dataset_are_not_ignored(
    prepared: dict[str, Dataset], raw: Path, tmp_path: Path
) -> None:
    folder = prepared["jaffe"].folder
    changes = {"data": raw, "strategies": ["BL"], "targets": [{"path": folder, "name": "women"}]}
    results = run_experiment(check_experiment(SMALL | changes), tmp_path / "out")
    assert results.datasets[1].name == "women"
    cropped = check_experiment(SMALL | {"data": raw, "targets": [{"path": folder, "crop": 0.5}]})
    with pytest.raises(CrossferError, match="is a prepared dataset"):
        run_experiment(cropped, tmp_path / "other")


def test_two_datasets_of_one_name_are_refused(raw: Path, tmp_path: Path) -> None:
    experiment = check_experiment(SMALL | {"data": raw, "targets": ["fer2013"]})
    with pytest.raises(CrossferError, match="two datasets are called fer2013"):
        run_experiment(experiment, tmp_path / "out")
    missing = check_experiment(SMALL | {"data": raw, "targets": ["nowhere"]})
    with pytest.raises(CrossferError, match="nowhere: no such dataset"):
        run_experiment(missing, tmp_path / "other")


def test_test_images_that_also_stand_in_training_are_counted_or_dropped(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    source, target = prepared["fer2013"], tmp_path / "jaffe"
    shutil.copytree(prepared["jaffe"].folder, target)
    jaffe = open_dataset(target)
    images = np.random.default_rng(0).integers(0, 256, jaffe.images.shape, np.uint8)
    test, training = jaffe.rows("test"), jaffe.rows("training")
    images[test[0]] = images[training[0]]
    images[test[1]] = source.images[source.rows("training")[5]][:, ::-1]
    np.save(target / "images.npy", images)
    card = json.loads((target / "dataset.json").read_text())
    card["sha256"]["images.npy"] = digest(target / "images.npy")
    card["fingerprint"] = "of the altered one"
    (target / "dataset.json").write_text(json.dumps(card))
    content = SMALL | {
        "source": {"path": source.folder},
        "targets": [{"path": target}],
        "strategies": ["FC"],
        "fractions": [1.0],
        "cache": tmp_path / "cache",
    }
    found = run_experiment(check_experiment(content | {"copies": "count"}), tmp_path / "count")
    assert found.leakage and found.leakage.in_training == {"fer2013": 0, "jaffe": 2}
    assert found.results[0].on_target.test.images == len(test)
    heard = Heard()
    dropped = run_experiment(
        check_experiment(content | {"copies": "drop"}), tmp_path / "drop", heard
    )
    assert heard.images == 0, "nothing is trained again"
    assert [run.key for run in dropped.runs] == [run.key for run in found.runs]
    (counted,), (left_out,) = copied(found), copied(dropped)  # as `crossfer run` says
    assert "2 of the" in counted and "networks may remember them" in counted
    assert "have a copy in a training set: they are left out of all results" in left_out
    assert dropped.results[0].on_target.test.images == len(test) - 2
    flipped = csv.DictReader((tmp_path / "drop" / "flips.csv").open())
    assert not {int(row["row"]) for row in flipped if row["side"] == "target"} & set(test[:2])
    for before, after in zip(found.results, dropped.results, strict=True):
        assert before.on_target.validation == after.on_target.validation
        assert before.on_source.test == after.on_source.test
    ignored = check_experiment(content | {"copies": "ignore"})
    assert run_experiment(ignored, tmp_path / "ignore").leakage is None


def test_the_app_shows_what_flipped(finished: tuple[Path, Results, int]) -> None:
    out, results, _ = finished
    with (out / "flips.csv").open(newline="") as table:
        rows = [
            row
            for row in csv.DictReader(table)
            if (row["strategy"], row["fraction"]) == ("FU", "1.0")
        ]
    shown = {choice.title: choice for choice in of_experiment(Finished(out, results))}
    for name in ("fer2013", "jaffe"):
        (choice,) = (
            choice
            for title, choice in shown.items()
            if title.startswith("FU (100% of jaffe, seed 0") and title.endswith(f" on {name}")
        )
        changed = choice.load()
        for flip, way in (("won", "positive"), ("lost", "negative")):
            own = [changed.described(int(i)) for i in changed.chosen(Wanted(flip))]
            assert [(one.origin, one.label, one.before, one.after) for one in own] == [
                (row["origin"], row["label"], row["before"], row["after"])
                for row in rows
                if (row["dataset"], row["flip"]) == (name, way)
            ]
        assert changed.picture(0).shape == (48, 48)


def test_moved_together_with_its_raw_files_nothing_is_prepared_or_divided_again(
    raw: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(raw / "jaffe", tmp_path / "here" / "jaffe")
    changes: dict[str, Any] = {"source": data / "fer2013", "strategies": ["BL"]}
    changes["targets"] = [{"path": "jaffe", "faces": "cropped"}]

    def at(place: Path) -> Experiment:
        return check_experiment(SMALL | changes | {"data": place})

    first = run_experiment(at(tmp_path / "here"), tmp_path / "here" / "out")
    photos = tmp_path / "here" / "jaffe"  # one is added, so that splits are kept and not drawn
    shutil.copy(next(photos.glob("KA.HA1.*")), photos / "KA.HA4.999.tiff")
    second = run_experiment(at(tmp_path / "here"), tmp_path / "here" / "out")
    assert first.datasets[1].fingerprint != second.datasets[1].fingerprint
    there = (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(CrossferError, match=r"not there, or .*another path on this machine; start"):
        open_datasets(at(there), there / "out", Progress(), checked=True)
    heard = Heard()
    again = run_experiment(at(there), there / "out", heard)
    assert again.datasets == second.datasets
    assert heard.images == 0
    assert len(list((there / "out" / "datasets").glob("*"))) == 1

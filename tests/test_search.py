"""Recipes are tuned on validation data, with the same budget for every strategy, and interrupted at will."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.errors import CrossferError
from crossfer.experiment import Progress, check_experiment, search
from crossfer.experiment.plan import Run
from crossfer.experiment.search import TUNED
from crossfer.strategies import STRATEGIES

CONTENT: dict[str, Any] = {
    "name": "small",
    "source": "fer2013",
    "targets": ["jaffe"],
    "strategies": ["FC", "FU", "ER-50", "LP-FT", "WiSE-FT"],
    "seeds": [3, 4],
    "model": {"width": 0.05},
    "recipes": {"default": {"epochs": 2, "batch_size": 32}, "FC": {"epochs": 50}},
}


@pytest.fixture(scope="module")
def found(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Search a little."""
    out = tmp_path_factory.mktemp("search") / "out"
    return out, search(check_experiment(CONTENT | {"data": raw}), out, trials=3, budget=2.5)


def test_every_strategy_has_the_same_budget_and_keeps_to_it(
    found: tuple[Path, dict[str, Any]],
) -> None:
    _, results = found
    tuned = {one["name"]: one for one in results["strategies"]}
    assert list(tuned) == ["FC", "ER-50", "HEAD", "LP-FT", "RE"]
    assert results["left_out"]["FU"] > 2.5
    for one in tuned.values():
        assert len(one["trials"]) == 3
        assert all(trial["equivalent_epochs"] <= 2.5 for trial in one["trials"])
    assert any(trial["recipe"]["epochs"] > 2 for trial in tuned["FC"]["trials"]), "FC costs less"


def test_the_first_trial_is_the_recipe_as_it_was_cut_to_the_budget(
    found: tuple[Path, dict[str, Any]],
) -> None:
    _, results = found
    first = {one["name"]: one["default"]["recipe"] for one in results["strategies"]}
    recipe = STRATEGIES["FC"].default_recipe()
    assert first["FC"] == {
        "learning_rate": recipe.learning_rate,
        "epochs": 16,
        "batch_size": 32,
        "weight_decay": recipe.weight_decay,
        "label_smoothing": recipe.label_smoothing,
    }
    for one in results["strategies"]:
        values = [trial["value"] for trial in one["trials"]]
        assert one["best"]["value"] == max(values)
        assert one["best"]["value"] == pytest.approx(
            (one["best"]["source"] + one["best"]["target"]) / 2
        )


def test_the_best_recipes_are_recipes_of_an_experiment(
    found: tuple[Path, dict[str, Any]], raw: Path
) -> None:
    out, results = found
    recipes = yaml.safe_load((out / "recipes.yaml").read_text())
    experiment = check_experiment(CONTENT | {"data": raw, "recipes": recipes})
    for one in results["strategies"]:
        recipe = experiment.recipe(STRATEGIES[one["name"]])
        assert {name: getattr(recipe, name) for name in TUNED} == one["best"]["recipe"]


def test_only_the_best_run_of_each_is_kept(found: tuple[Path, dict[str, Any]]) -> None:
    out, results = found
    kept = {folder.name.rpartition("-")[2] for folder in (out / "runs").glob("[!.]*")}
    best = {key for one in results["strategies"] for key in one["best"]["runs"]}
    assert best <= kept
    # BL beside them, and HEAD with the recipe that LP-FT starts from.
    assert len(kept - best) <= 2


class Stopped(Progress):
    """Stops in the middle of the n-th training."""

    def __init__(self, runs: int) -> None:
        self.left = runs

    def started(self, run: Run) -> None:
        self.left -= 1

    def step(self, images: int) -> None:
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("runs", [2, 4, 6])
def test_interrupted_it_goes_on_as_if_nothing_had_been(
    runs: int, found: tuple[Path, dict[str, Any]], raw: Path, tmp_path: Path
) -> None:
    _, whole = found
    experiment = check_experiment(CONTENT | {"data": raw})
    arguments: dict[str, Any] = {"trials": 3, "budget": 2.5, "strategies": ["FC"]}
    with pytest.raises(KeyboardInterrupt):
        search(experiment, tmp_path / "out", **arguments, progress=Stopped(runs))
    again = search(experiment, tmp_path / "out", **arguments)

    def without_time(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in trial.items() if k != "seconds"} for trial in trials]

    assert without_time(again["strategies"][0]["trials"]) == without_time(
        whole["strategies"][0]["trials"]
    )
    unchanged = search(experiment, tmp_path / "out", **arguments, progress=Stopped(1))
    assert unchanged == again, "nothing is left to do"


def test_what_cannot_be_done_is_said_in_one_line(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = check_experiment(CONTENT | {"data": raw})
    with pytest.raises(CrossferError, match="choose among FC, FU"):
        search(experiment, tmp_path / "out", strategies=["XX"])
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(CrossferError, match="holds no search"):
        search(experiment, tmp_path / "used")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CrossferError, match=r"pip install 'crossfer\[search\]'"):
        search(experiment, tmp_path / "out")


def test_the_command(raw: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(CONTENT))
    options = ["--trials", "1", "--budget", "2", "--strategy", "FC", "--strategy", "FU"]
    told = CliRunner().invoke(
        app, ["search", str(file), "--data", str(raw), "--out", str(tmp_path / "out"), *options]
    )
    assert told.exit_code == 0, told.output
    assert "FU is left out" in told.stdout
    assert yaml.safe_load((tmp_path / "out" / "recipes.yaml").read_text()).keys() == {"FC"}

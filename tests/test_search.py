"""Recipes are tuned on validation data, with the same budget for every strategy, and interrupted at will."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.errors import CrossferError
from crossfer.experiment import Progress, check_experiment, search
from crossfer.experiment.execute import execute
from crossfer.experiment.folder import folder_of
from crossfer.experiment.plan import Run
from crossfer.experiment.search import Searched, Tuned
from crossfer.experiment.trials import RANGES, Trial
from crossfer.selection import MARGIN
from crossfer.strategies import STRATEGIES

CONTENT: dict[str, Any] = {
    "name": "small",
    "source": "fer2013",
    "targets": ["jaffe"],
    "strategies": ["FC", "FU", "ER-50", "LP-FT", "WiSE-FT"],
    "seeds": [3, 4],
    "model": {"width": 0.05},
    "recipes": {
        "default": {"epochs": 2, "batch_size": 32},
        "FC": {"epochs": 50, "weight_decay": 0.0},
    },
}


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Searched]:
    """Search a little."""
    out = tmp_path_factory.mktemp("search") / "out"
    return out, search(check_experiment(CONTENT | {"data": data}), out, trials=2, budget=2.5)


def test_every_strategy_has_the_same_budget_and_keeps_to_it(
    found: tuple[Path, Searched],
) -> None:
    _, results = found
    tuned = {one.name: one for one in results.strategies}
    assert list(tuned) == ["FC", "ER-50", "HEAD", "LP-FT", "RE"]
    assert results.left_out["FU"] > 2.5
    for one in tuned.values():
        assert len(one.trials) == 2
        assert all(0 < (trial.equivalent_epochs or 0) <= 2.5 for trial in one.trials)
    assert any(trial.recipe["epochs"] > 2 for trial in tuned["FC"].trials), "FC costs less"


def test_the_first_trial_is_the_recipe_as_it_was_cut_to_the_budget(
    found: tuple[Path, Searched],
) -> None:
    _, results = found
    first = {one.name: one.default.recipe for one in results.strategies}
    recipe = STRATEGIES["FC"].default_recipe()
    assert first["FC"] == {
        "learning_rate": recipe.learning_rate,
        "epochs": 16,
        "batch_size": 32,
        "weight_decay": 0.0,  # as it was, although none is looked for there
        "label_smoothing": recipe.label_smoothing,
    }
    for one in results.strategies:
        begin, *others = one.trials
        assert begin.kept and begin.ahead is None
        for trial in others:
            assert trial.ahead is not None and trial.error is not None
            assert trial.kept == (trial.ahead > MARGIN * trial.error)
        assert one.best == [trial for trial in one.trials if trial.kept][-1]
        assert one.best.source is not None and one.best.target is not None
        assert one.best.value == pytest.approx((one.best.source + one.best.target) / 2)


def test_the_best_recipes_are_recipes_of_an_experiment(
    found: tuple[Path, Searched], data: Path
) -> None:
    out, results = found
    recipes = yaml.safe_load((out / "recipes.yaml").read_text())
    experiment = check_experiment(CONTENT | {"data": data, "recipes": recipes})
    for one in results.strategies:
        recipe = experiment.recipe(STRATEGIES[one.name])
        assert {name: getattr(recipe, name) for name in RANGES} == one.best.recipe


def test_only_the_best_run_of_each_is_kept(found: tuple[Path, Searched]) -> None:
    out, results = found
    kept = {folder.name.rpartition("-")[2] for folder in (out / "runs").glob("[!.]*")}
    best = {key for one in results.strategies for key in one.best.runs}
    assert best <= kept
    # BL beside them, and HEAD with the recipe that LP-FT starts from.
    assert len(kept - best) <= 2


def test_the_trials_of_another_experiment_are_not_taken_over(data: Path, tmp_path: Path) -> None:
    content = CONTENT | {"data": data, "strategies": ["FC"]}
    begun: list[int] = []

    def tuned(**changes: Any) -> Tuned:
        begun.clear()
        results = search(
            check_experiment(content | changes),
            tmp_path / "out",
            trials=2,
            budget=0.3,
            on_trial=lambda name, done, total: begun.append(done),
        )
        (one,) = results.strategies
        return one

    first = tuned()
    assert begun == [0, 1, 2]
    assert tuned() == first and begun == [2]
    other = tuned(recipes={"default": {"epochs": 1, "batch_size": 16, "momentum": 0.5}})
    assert begun == [0, 1, 2]
    assert other.default.recipe["batch_size"] == 16
    written = yaml.safe_load((tmp_path / "out" / "recipes.yaml").read_text())
    assert "momentum" not in RANGES  # but it was so when the others were found
    assert check_experiment(content | {"recipes": written}).recipe(STRATEGIES["FC"]).momentum == 0.5
    elsewhere = check_experiment(
        content
        | {"source": "jaffe", "targets": ["fer2013"], "strategies": ["HEAD"]}
        | {"recipes": {"default": {"epochs": 1}}}
    )
    found = search(elsewhere, tmp_path / "out", trials=1, budget=0.3)
    assert [one.name for one in found.strategies] == ["HEAD"]  # nothing of other data beside it


def without_time(trials: tuple[Trial, ...]) -> list[Trial]:
    return [replace(trial, seconds=None) for trial in trials]


class Stopped(Progress):
    """Stops in the middle of the n-th training."""

    def __init__(self, runs: int) -> None:
        self.left = runs

    def started(self, run: Run) -> None:
        self.left -= 1

    def step(self, run: Run, images: int) -> None:
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_interrupted_it_goes_on_as_if_nothing_had_been(
    runs: int, found: tuple[Path, Searched], data: Path, tmp_path: Path
) -> None:
    _, whole = found
    experiment = check_experiment(CONTENT | {"data": data})
    arguments: dict[str, Any] = {"trials": 2, "budget": 2.5, "strategies": ["FC"]}
    with pytest.raises(KeyboardInterrupt):
        search(experiment, tmp_path / "out", **arguments, progress=Stopped(runs))
    again = search(experiment, tmp_path / "out", **arguments)

    assert without_time(again.strategies[0].trials) == without_time(whole.strategies[0].trials)
    unchanged = search(experiment, tmp_path / "out", **arguments, progress=Stopped(1))
    assert unchanged == again, "nothing is left to do"


def test_side_by_side_the_same_recipes_are_tried(
    found: tuple[Path, Searched], data: Path, tmp_path: Path
) -> None:
    experiment = check_experiment(CONTENT | {"data": data})
    names = ["FC", "LP-FT"]
    two = search(experiment, tmp_path, trials=2, budget=2.5, strategies=names, workers=2)
    one = {tuned.name: tuned for tuned in found[1].strategies}
    assert [tuned.name for tuned in two.strategies] == names
    for tuned in two.strategies:
        assert without_time(tuned.trials) == without_time(one[tuned.name].trials[:2])


class Preparing(Progress):
    """Stops while the second dataset is prepared."""

    def preparing(self, name: str, done: int, total: int) -> None:
        if name == "jaffe":
            raise KeyboardInterrupt


def test_interrupted_while_it_prepares_it_goes_on(raw: Path, tmp_path: Path) -> None:
    experiment = check_experiment(CONTENT | {"data": raw})
    arguments: dict[str, Any] = {"trials": 1, "budget": 0.01}
    with pytest.raises(KeyboardInterrupt):
        search(experiment, tmp_path / "out", **arguments, progress=Preparing())
    assert search(experiment, tmp_path / "out", **arguments).left_out.keys() >= {"FC", "FU"}


class Faults(Progress):
    """Makes some runs fail, as a small GPU does; counts what was said of them."""

    def __init__(self, patch: pytest.MonkeyPatch, fails: Callable[[Run], bool]) -> None:
        self.why: list[str] = []

        def execute_or_fail(run: Run, runs_folder: Path, *arguments: Any, **more: Any) -> Path:
            if fails(run):
                folder_of(run, runs_folder).mkdir(parents=True)
                raise RuntimeError("CUDA out of memory.\nTried to allocate 2.00 GiB")
            return execute(run, runs_folder, *arguments, **more)

        patch.setattr(sys.modules["crossfer.experiment.trials"], "execute", execute_or_fail)

    def failed(self, run: Run, why: str) -> None:
        self.why.append(why)


def test_a_trial_that_fails_counts_and_the_search_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, experiment = tmp_path / "out", check_experiment(CONTENT | {"data": data})
    begun: list[str] = []

    def fails(run: Run) -> bool:
        begun.append(run.strategy.name)
        return begun[-1] == "ER-50" or (begun[-1] == "FC" and begun.count("FC") > 1)

    faults = Faults(monkeypatch, fails)
    names = ["FC", "ER-50"]
    found = search(experiment, out, trials=3, budget=2.5, strategies=names, progress=faults)
    why = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"
    (tuned,) = found.strategies
    assert [trial.value is None for trial in tuned.trials] == [False, True, True]
    assert str(tuned.trials[1].why).endswith(why) and tuned.best == tuned.default
    assert found.failed["ER-50"].endswith(why)
    assert faults.why == [why] * 5
    kept = sorted(folder.name.partition("-")[0] for folder in (out / "runs").glob("[!.]*"))
    assert kept == ["BL", "FC"], "nothing is left of trials that failed"
    assert search(experiment, out, trials=3, budget=2.5, strategies=names) == found
    with pytest.raises(CrossferError, match="^ER-50: every trial failed .*out of memory") as error:
        search(experiment, out, trials=3, budget=2.5, strategies=["ER-50"])
    assert "\n" not in str(error.value)


def test_what_no_trial_can_do_without_ends_the_search(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline and a full disk are no fault of a recipe: the same call tries them again."""
    out, experiment = tmp_path / "out", check_experiment(CONTENT | {"data": data})
    arguments: dict[str, Any] = {"trials": 1, "budget": 1, "strategies": ["FC"]}
    with monkeypatch.context() as patch:
        Faults(patch, lambda run: run.strategy.name == "BL")
        with pytest.raises(CrossferError, match="^BL.* failed: RuntimeError: CUDA out of memory"):
            search(experiment, out, **arguments)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:

        def no_room(*_: Any) -> bool:
            raise full

        Faults(patch, no_room)
        with pytest.raises(OSError, match="No space left"):
            search(experiment, out, **arguments)
    assert (search(experiment, out, **arguments).strategies[0].best.value or 0) > 0


def test_recipes_of_other_strategies_are_kept(
    found: tuple[Path, Searched], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(found[0], tmp_path / "out")
    experiment = check_experiment(CONTENT | {"data": data})
    again = search(experiment, tmp_path / "out", trials=1, budget=1, strategies=["FC"])
    before = {one.name: one for one in found[1].strategies}
    after = {one.name: one for one in again.strategies}
    written = (tmp_path / "out" / "search.json").read_bytes()
    assert TypeAdapter(Searched).validate_json(written) == again
    assert list(after) == list(before)
    assert after.pop("FC").budget == 1 and before.pop("FC").budget == 2.5
    assert after == before
    recipes = yaml.safe_load((tmp_path / "out" / "recipes.yaml").read_text())
    assert recipes == {one.name: one.best.recipe for one in again.strategies}


def test_what_cannot_be_done_is_said_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = check_experiment(CONTENT | {"data": data})
    with pytest.raises(CrossferError, match="choose among FC, FU"):
        search(experiment, tmp_path / "out", strategies=["XX"])
    with pytest.raises(CrossferError, match="strategies: none .* nothing to tune"):
        search(check_experiment(CONTENT | {"strategies": ["BL"], "recipes": {}}), tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(CrossferError, match="contains no search"):
        search(experiment, tmp_path / "used")
    with pytest.raises(CrossferError, match="is a file; name a folder"):
        search(experiment, tmp_path / "used" / "file")
    with pytest.raises(CrossferError, match="--budget nan: must be above 0"):
        search(experiment, tmp_path / "out", budget=float("nan"))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CrossferError, match=r"pip install 'crossfer\[search\]'"):
        search(experiment, tmp_path / "out")


def test_the_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(CONTENT))
    command = ["search", str(file), "--data", str(data), "--out", str(tmp_path / "out")]
    options = ["--trials", "1", "--budget", "2", "--strategy", "FC", "--strategy"]
    told = CliRunner().invoke(app, [*command, *options, "FU"])
    assert told.exit_code == 0, told.output
    assert "FU is left out" in told.stdout
    assert told.stdout.startswith("not used by a search: seeds after the first\n")
    Faults(monkeypatch, lambda run: run.strategy.name == "HEAD")
    told = CliRunner().invoke(app, [*command, *options, "HEAD"])
    assert told.exit_code == 1, told.output
    assert "HEAD: every trial failed: " in told.stderr and " FC " in told.stdout
    assert yaml.safe_load((tmp_path / "out" / "recipes.yaml").read_text()).keys() == {"FC"}


def test_a_journal_whose_process_was_killed_goes_on_and_a_damaged_one_is_named(
    found: tuple[Path, Searched], data: Path, tmp_path: Path
) -> None:
    out, experiment = tmp_path / "out", check_experiment(CONTENT | {"data": data})
    shutil.copytree(found[0], out)
    journal = out / "trials.journal"
    whole = journal.read_bytes()
    arguments: dict[str, Any] = {"trials": 2, "budget": 2.5, "strategies": ["FC"]}
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    again = search(experiment, out, **arguments)
    assert again.strategies == found[1].strategies
    assert journal.read_bytes().startswith(whole)
    lines = whole.splitlines(keepends=True)
    for damaged in ([*lines[:3], b"?\n", *lines[3:]], [*lines[:3], b"{}\n", *lines[3:]]):
        journal.write_bytes(b"".join(damaged))
        with pytest.raises(CrossferError, match=r"trials.journal: damaged \(.*\); delete it"):
            search(experiment, out, **arguments)
    journal.write_bytes(whole.replace(b'"measured"', b'"measures"'))
    with pytest.raises(CrossferError, match=r"trials.journal: damaged \(KeyError.*; delete it"):
        search(experiment, out, **arguments)

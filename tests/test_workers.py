"""Several processes carry out an experiment as one does, to the bit; its folder says how far it is."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from crossfer.adaptation import adapt
from crossfer.cli import app
from crossfer.datasets import Dataset
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment, run_experiment
from crossfer.experiment.plan import Run
from crossfer.experiment.progress import Progress
from crossfer.experiment.run import run_one
from crossfer.experiment.status import status
from crossfer.experiment.workers import how_many
from crossfer.machine import Machine
from crossfer.strategy import Strategy
from crossfer.training import Trained

SMALL: dict[str, Any] = {
    "name": "small",
    "source": "fer2013",
    "targets": ["jaffe"],
    "strategies": ["FC", "WiSE-FT", "FU"],
    "fractions": [1.0],
    "model": {"width": 0.05},
    "recipes": {"default": {"epochs": 2, "batch_size": 32}},
    "precision": "32-true",
}


class Heard(Progress):
    def __init__(self) -> None:
        self.images = 0
        self.ends: list[str] = []

    def step(self, run: Run, images: int) -> None:
        self.images += images

    def ended(self, run: Run, folder: Path) -> None:
        self.ends.append(run.strategy.name)


def experiment_on(prepared: dict[str, Dataset], **changes: Any) -> Any:
    data = next(iter(prepared.values())).folder.parent
    return check_experiment(SMALL | {"data": data} | changes)


def weights_of(out: Path) -> dict[str, dict[str, Any]]:
    return {f.parent.name: load_file(f) for f in sorted((out / "runs").glob("*/model.safetensors"))}


def test_two_processes_give_the_bits_of_one(prepared: dict[str, Dataset], tmp_path: Path) -> None:
    experiment = experiment_on(prepared)
    heard = {1: Heard(), 2: Heard()}
    results = {n: run_experiment(experiment, tmp_path / str(n), heard[n], workers=n) for n in heard}
    one, two = (weights_of(tmp_path / str(n)) for n in heard)
    assert one.keys() == two.keys() and len(one) == 5
    for name, tensors in one.items():
        assert all(t.equal(two[name][key]) for key, t in tensors.items()), name
    assert [(r.on_source, r.on_target) for r in results[1].summary] == [
        (r.on_source, r.on_target) for r in results[2].summary
    ]
    assert heard[1].images == heard[2].images > 0
    assert sorted(heard[1].ends) == sorted(heard[2].ends)
    assert {one.state for one in status(tmp_path / "2")} == {"finished"}


def test_one_run_at_a_time_for_a_scheduler_of_ones_own(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = experiment_on(prepared, strategies=["FC"])
    run_experiment(first, out)
    keys = {one.label.split(" · ")[0]: one.key for one in status(out)}
    for folder in (out / "runs").glob("*-*"):
        (folder / "run.json").unlink()
    with pytest.raises(CrossferError, match=f"waits for BL · seed 0; run {keys['BL']} first"):
        run_one(out, keys["FC"])
    with pytest.raises(CrossferError, match="not a run of"):
        run_one(out, "0" * 16)
    assert {one.state for one in status(out)} == {"interrupted"}
    before = weights_of(out)
    with pytest.raises(KeyboardInterrupt):
        run_one(out, keys["BL"], stopping=lambda: True)
    assert list((out / "runs").glob("BL-*/checkpoint.safetensors"))
    run_one(out, keys["BL"])
    run_one(out, keys["FC"])
    told = CliRunner().invoke(app, ["status", str(out), "--json"])
    assert [one["state"] for one in json.loads(told.stdout)] == ["finished", "finished"]
    for name, tensors in weights_of(out).items():
        assert all(t.equal(before[name][key]) for key, t in tensors.items()), name
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"crossfer": "9.9"}))
    with pytest.raises(CrossferError, match="planned by crossfer 9.9, but this machine has"):
        run_one(out, keys["BL"])


def test_why_a_run_failed_is_on_disk(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(strategy: Strategy, *arguments: Any, **options: Any) -> Trained:
        if strategy.name == "FC":
            raise RuntimeError("out of memory")
        return adapt(strategy, *arguments, **options)

    monkeypatch.setattr("crossfer.experiment.execute.adapt", broken)
    run_experiment(experiment_on(prepared, strategies=["FC"]), tmp_path / "out")
    (failed,) = [one for one in status(tmp_path / "out") if one.state == "failed"]
    assert failed.label.startswith("FC") and failed.detail == "RuntimeError: out of memory"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")
def test_status_tells_who_trains(prepared: dict[str, Dataset], tmp_path: Path) -> None:
    experiment = experiment_on(prepared, strategies=["BL"], recipes={"BL": {"epochs": 5000}})
    out = tmp_path / "out"
    training = multiprocessing.get_context("spawn").Process(
        target=run_experiment, args=(experiment, out)
    )
    training.start()
    try:
        for _ in range(1200):
            time.sleep(0.1)
            if (out / "plan.json").exists() and status(out)[0].state == "running":
                break
        (one,) = status(out)
        assert one.state == "running"
        assert f"process {training.pid} on {os.uname().nodename}" in one.detail
    finally:
        training.kill()
        training.join()
    assert status(out)[0].state in ("interrupted", "waiting")


def test_how_many_processes_pay() -> None:
    machine: Any = Machine.of("cpu", "32-true")
    large = [15_000.0] * 3
    assert how_many(3, large, 3, machine) == (3, 1)
    assert how_many(1, large, 3, machine) == (1, None)
    assert how_many("auto", large, 3, machine, cores=2) == (2, 1)
    assert how_many("auto", large, 3, machine, cores=8) == (3, 1)
    assert how_many("auto", large[:1], 1, machine, cores=8) == (1, None)
    assert how_many("auto", large, 3, machine, cores=1) == (1, None)
    assert how_many("auto", large, 3, machine, threads=4, cores=8) == (2, 4)
    assert how_many("auto", large[:1], 1, machine, threads=4, cores=8) == (1, 4)


def test_an_experiment_that_resumes_has_as_many_threads_as_before() -> None:
    """Their number affects rounding, and an experiment that resumes ends in the same bits."""
    machine: Any = Machine.of("cpu", "32-true")
    for left in (2, 1, 0):
        assert how_many("auto", [15_000.0] * 3, left, machine, cores=8) == (max(1, left), 1)
        assert how_many("auto", [1.0] * 3, left, machine, cores=8) == (1, None)

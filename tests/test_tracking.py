"""An experiment is logged where people look for it; that logging fails is no failure of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from crossfer.datasets import Dataset
from crossfer.errors import CrossferError
from crossfer.experiment import Progress, check_experiment, load_results, run_experiment
from crossfer.experiment.tracking import DATABASE, TENSORBOARD, MLflow

SMALL: dict[str, Any] = {
    "name": "small",
    "source": "fer2013",
    "targets": ["jaffe"],
    "strategies": ["FC", "WiSE-FT"],
    "fractions": [1.0],
    "model": {"width": 0.05},
    "recipes": {"default": {"epochs": 2, "batch_size": 32}},
}


class Heard(Progress):
    def __init__(self) -> None:
        self.troubles: list[str] = []

    def said(self, line: str) -> None:
        if line.startswith("tracking: "):
            self.troubles.append(line)


def experiment_on(prepared: dict[str, Dataset], **changes: Any) -> Any:
    data = next(iter(prepared.values())).folder.parent
    return check_experiment(SMALL | {"data": data} | changes)


def test_parameters_curves_metrics_and_bundle_are_logged_once(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pytest.importorskip("mlflow"), pytest.importorskip("tensorboard")
    heard = Heard()
    run_experiment(experiment_on(prepared), tmp_path, heard)
    assert not (tmp_path / DATABASE).exists(), "off by default"
    experiment = experiment_on(prepared, tracking=["mlflow", "tensorboard"])
    for _ in range(2):
        results = run_experiment(experiment, tmp_path, heard)
    assert heard.troubles == []
    client = MLflow("small", tmp_path).client
    number = client.get_experiment_by_name("small").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([number])}
    assert len(runs) == len(results.runs) + 1
    (record,) = [record for record in results.runs if record.strategy == "FC"]
    logged = runs[record.label]
    assert logged.info.status == "FINISHED"
    assert logged.data.params["recipe.epochs"] == "2"
    assert logged.data.tags["crossfer.key"] == record.key
    losses = client.get_metric_history(logged.info.run_id, "training_loss")
    assert [one.step for one in losses] == [1, 2]
    (row,) = [row for row in results.results if row.strategy == "FC"]
    low, high = row.gain.interval or (0, 0)
    for name, value in {"": row.gain.points, ".low": low, ".high": high}.items():
        assert logged.data.metrics[f"jaffe/gain{name}"] == value
    files = {file.path for file in client.list_artifacts(logged.info.run_id, "bundle")}
    assert "bundle/model.safetensors" in files
    assert "FC 1/jaffe/gain" in runs["means over seeds"].data.metrics
    curves = list((tmp_path / TENSORBOARD).glob("*/events*"))
    assert len(curves) == len(results.runs)


def test_a_run_is_none_the_worse_for_a_log_that_fails(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'file'}")
    heard, experiment = Heard(), experiment_on(prepared, strategies=["FC"], tracking="mlflow")
    results = run_experiment(experiment, tmp_path / "out", heard)
    assert len(results.runs) == 2 and results.failed == ()
    (trouble,) = heard.troubles
    assert trouble.startswith("tracking: mlflow is disabled from now on: ") and "\n" not in trouble
    assert load_results(tmp_path / "out") == results


def test_a_library_that_is_missing_is_named_before_anything_runs(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(CrossferError, match=r"mlflow: needs MLflow: .*'crossfer\[tracking\]'"):
        run_experiment(experiment_on(prepared, tracking="mlflow"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CrossferError, match=r"tracking\.0"):
        experiment_on(prepared, tracking="wandb")

"""An experiment from configuration to results: resumable, one process to a folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from crossfer.datasets.dataset import Dataset, is_prepared, open_dataset
from crossfer.datasets.prepare import prepare
from crossfer.errors import CrossferError
from crossfer.experiment.config import DatasetConfig, Experiment
from crossfer.experiment.execute import execute, folder_of, is_finished, write_json
from crossfer.experiment.plan import Run, plan
from crossfer.experiment.results import collect, write_results
from crossfer.training.machine import machine

EXPERIMENT = "experiment.json"


class Progress:
    """Told how an experiment goes on; this one says nothing."""

    def preparing(self, name: str, done: int, total: int) -> None:
        """Pictures of a dataset were decoded."""

    def planned(self, runs: list[Run], finished: list[Run]) -> None:
        """All runs are known, and those that were finished before."""

    def started(self, run: Run) -> None:
        """A run begins, or goes on."""

    def step(self, images: int) -> None:
        """The running training has seen that many more images."""

    def ended(self, run: Run, folder: Path) -> None:
        """A run is finished and measured."""


def run_experiment(
    experiment: Experiment, out: str | Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Run whatever of an experiment is not finished yet, and write its results.

    Parameters
    ----------
    experiment
        From `load_experiment`, or built in Python.
    out
        The experiment's folder: prepared datasets, runs and results.  Started again with the same
        folder, finished runs are not repeated and an interrupted one goes on.
    progress
        Told how it goes on.

    Returns
    -------
    dict
        The content of ``results.json``.

    Raises
    ------
    CrossferError
        If a dataset cannot be used, or another process works in the folder.
    """
    out, progress = Path(out), progress or Progress()
    if out.is_file():
        raise CrossferError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / EXPERIMENT).is_file():
        raise CrossferError(f"{out}: is in use and holds no experiment; name another folder")
    with _alone_in(out):
        write_json(out / EXPERIMENT, experiment.model_dump(mode="json", by_alias=True))
        source, *targets = _datasets(experiment, out, progress)
        runs = plan(experiment, source, targets)
        runs_folder = out / "runs"
        progress.planned(runs, [run for run in runs if is_finished(folder_of(run, runs_folder))])
        fabric = machine(experiment.device, experiment.precision)
        for run in runs:
            progress.started(run)
            measured_on = [source, *([run.target] if run.target else targets)]
            folder = execute(run, runs_folder, measured_on, fabric, progress.step)
            progress.ended(run, folder)
        results = collect(experiment, source, targets, runs, runs_folder)
        write_results(results, out)
    return results


def load_results(folder: str | Path) -> dict[str, Any]:
    """Read the results of a finished experiment.

    Raises
    ------
    CrossferError
        If there are none.
    """
    file = Path(folder) / "results.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise CrossferError(
            f"{file}: no results; finish the experiment with `crossfer run` first"
        ) from None


def _datasets(experiment: Experiment, out: Path, progress: Progress) -> list[Dataset]:
    datasets: list[Dataset] = []
    for config in (experiment.source, *experiment.targets):
        dataset = _dataset(config, experiment.data, out, progress)
        if any(dataset.name == other.name for other in datasets):
            raise CrossferError(
                f"two datasets are called {dataset.name}: give one another `name` in the configuration"
            )
        datasets.append(dataset)
    return datasets


def _dataset(config: DatasetConfig, root: Path | None, out: Path, progress: Progress) -> Dataset:
    """Open a prepared dataset, or prepare a raw one inside the experiment's folder."""
    path = (root or Path()) / config.path
    if is_prepared(path):
        return open_dataset(path)
    if not path.exists():
        raise CrossferError(f"{path}: no such dataset; name the data root with --data")
    how = config.preparation()
    name = config.name or path.stem
    folder = out / "datasets" / name
    if is_prepared(folder):
        dataset = open_dataset(folder)
        card = dataset.card
        if card["raw"] == str(path.resolve()) and card["preparation"] == how.as_json():
            return dataset
    return prepare(
        path,
        folder,
        how,
        name=config.name,
        replace=True,
        progress=lambda done, total: progress.preparing(name, done, total),
    )


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    owner = out / ".owner"
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        who = owner.read_text() if owner.is_file() else "another process"
        raise CrossferError(f"{out}: {who} works in this folder; wait for it, or stop it") from None
    try:
        owner.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()

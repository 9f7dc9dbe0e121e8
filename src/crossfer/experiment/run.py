"""An experiment from configuration to results: resumable, one process to a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from crossfer.datasets.dataset import Dataset, is_prepared, open_dataset
from crossfer.datasets.earlier import can_keep
from crossfer.datasets.prepare import prepare
from crossfer.datasets.raw import raw_state
from crossfer.datasets.workshop import sweep
from crossfer.errors import CrossferError, one_line
from crossfer.experiment.config import DatasetConfig, Experiment
from crossfer.experiment.execute import execute
from crossfer.experiment.folder import folder_of, is_finished
from crossfer.experiment.leakage import LEAKAGE, look_for_leakage
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import plan_all
from crossfer.experiment.results import FORMAT, RESULTS, collect, write_results
from crossfer.files import alone, write_json
from crossfer.networks import NetworkConfig, check_network
from crossfer.training.machine import machine, precision_of

EXPERIMENT, LOCK, DATASETS, RUNS = "experiment.json", ".lock", "datasets", "runs"
BEGUN = (LOCK, f"{LOCK}.owner", EXPERIMENT, f"{EXPERIMENT}.partial")
"""What the folder of an experiment that has only just begun may hold."""


class Progress:
    """Told how an experiment goes on; this one says nothing."""

    def preparing(self, name: str, done: int, total: int) -> None:
        """Pictures of a dataset were decoded."""

    def comparing(self, done: int, total: int) -> None:
        """Blocks of faces were compared with each other, to find copies."""

    def prepared(self, dataset: Dataset) -> None:
        """A raw dataset was prepared on the way."""

    def opened(self, dataset: Dataset) -> None:
        """A dataset is there, with the classes of the experiment."""

    def planned(self, runs: list[Run], finished: list[Run]) -> None:
        """All runs are known, and those that were finished before."""

    def started(self, run: Run) -> None:
        """A run begins, or goes on."""

    def waiting(self, run: Run, owner: str) -> None:
        """Another experiment, in another process, trains the same run just now."""

    def step(self, images: int) -> None:
        """The running training has seen that many more images."""

    def ended(self, run: Run, folder: Path) -> None:
        """A run is finished and measured."""

    def failed(self, run: Run, why: str) -> None:
        """A run failed, or cannot begin."""


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
        folder, finished runs are not repeated, and interrupted or failed ones go on.
    progress
        Told how it goes on.

    Returns
    -------
    dict
        The content of ``results.json``; ``failed`` names the runs that failed, and why.

    Raises
    ------
    CrossferError
        If a dataset cannot be used, another process works in the folder, or every baseline failed, so that
        there is nothing to compare with.
    OSError
        If there is no room or no permission to write: make some, and the same call goes on.
    """
    out, progress = Path(out), progress or Progress()
    check_free(out, "experiment", EXPERIMENT, BEGUN)
    check_paths(experiment)
    fabric = machine(experiment.device, experiment.precision, experiment.deterministic)
    with alone_in(out):
        write_json(out / EXPERIMENT, experiment.model_dump(mode="json", by_alias=True))
        check_network(experiment.model, [s.layers for s in experiment.strategies], fabric)
        source, *targets = open_datasets(experiment, out, progress)
        leakage = look_for_leakage(
            experiment.copies, (source, *targets), out / LEAKAGE, progress.comparing
        )
        planned = plan_all(experiment, source, targets, precision_of(fabric))
        runs = planned.runs
        runs_folder = experiment.cache.expanduser() if experiment.cache else out / RUNS
        progress.planned(runs, [run for run in runs if is_finished(folder_of(run, runs_folder))])
        failed: dict[str, str] = {}
        for run in runs:
            progress.started(run)
            try:
                _check_possible(run, failed)
                folder = execute(
                    run,
                    runs_folder,
                    planned.measured_on(run),
                    fabric,
                    progress.step,
                    partial(progress.waiting, run),
                )
            except OSError:
                raise  # no fault of this run: none would fare better
            except Exception as error:
                failed[run.key] = one_line(error)
                progress.failed(run, failed[run.key])
            else:
                progress.ended(run, folder)
        results, flipped = collect(experiment, planned, runs_folder, out, failed, leakage)
        write_results(results, flipped, out)
    return results


def _check_possible(run: Run, failed: dict[str, str]) -> None:
    """Refuse a run that starts where one failed."""
    if run.parent and run.parent.key in failed:
        raise CrossferError(f"it starts from {run.parent.label}, which failed")


def load_results(folder: str | Path) -> dict[str, Any]:
    """Read the results of a finished experiment.

    Raises
    ------
    CrossferError
        If there are none, or they are not those of the configuration that stands beside them.
    """
    file, asked = Path(folder) / RESULTS, _read_json(Path(folder) / EXPERIMENT)
    content = _read_json(file)
    if content is None:
        raise CrossferError(f"{file}: no results; finish the experiment with `crossfer run` first")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CrossferError(f"{file}: written by another version; run the experiment again")
    if asked not in (None, content.get("config")):
        raise CrossferError(
            f"{file}: of another configuration than {EXPERIMENT} beside it; run the experiment again"
        )
    return content


def _read_json(file: Path) -> Any:
    """Return what a file says; None if it is not there, or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def open_datasets(experiment: Experiment, out: Path, progress: Progress) -> list[Dataset]:
    """Open an experiment's source and targets; what is raw is prepared in its folder."""
    datasets: list[Dataset] = []
    for config in (experiment.source, *experiment.targets):
        dataset = _dataset(config, experiment, out, progress)
        _check_shape(dataset, experiment.model)
        for other in datasets:
            if dataset.name == other.name:
                raise CrossferError(
                    f"two datasets are called {dataset.name}: give one another `name`"
                )
            if dataset.fingerprint == other.fingerprint:
                raise CrossferError(f"{dataset.name} and {other.name} are the same data")
        progress.opened(dataset)
        datasets.append(dataset)
    return datasets


def _check_shape(dataset: Dataset, network: NetworkConfig) -> None:
    how = network.preprocessing
    if dataset.images.shape[1:] != how.image_shape:
        faces = "×".join(map(str, dataset.images.shape[1:]))
        raise CrossferError(
            f"{dataset.name}: its faces are {faces}; the network reads "
            f"{'×'.join(map(str, how.image_shape))} (model.input): prepare it again with "
            f"--side {how.side}{' --colour' if how.channels == 3 else ''}"
        )


def _dataset(
    config: DatasetConfig, experiment: Experiment, out: Path, progress: Progress
) -> Dataset:
    """Open a prepared dataset, or prepare a raw one inside the experiment's folder."""
    path = experiment.path(config)
    if is_prepared(path):
        if given := config.model_fields_set - {"path", "name"}:
            raise CrossferError(
                f"{path}: is prepared already, so {min(given)} has no effect; only raw files take options"
            )
        dataset = open_dataset(path)
        dataset.check()
        return dataset.called(config.name or dataset.name)
    reads = experiment.model.preprocessing
    how = config.preparation(reads.channels, reads.side)
    name = config.name or path.stem
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    folder = out / DATASETS / f"{path.stem}-{place}"
    with suppress(CrossferError):  # not there, damaged, or of another version: it is made anew
        dataset = open_dataset(folder)
        dataset.check()
        card = dataset.card
        if card["preparation"] == how.as_json() and card["raw_state"] == raw_state(path):
            sweep(folder)
            return dataset.called(config.name or dataset.name)
    dataset = prepare(
        path,
        folder,
        how,
        name=config.name,
        replace=True,
        new_split=not can_keep(folder, how),
        progress=lambda done, total: progress.preparing(name, done, total),
    )
    progress.prepared(dataset)
    return dataset


def check_free(out: Path, kind: str, mark: str, begun: Collection[str]) -> None:
    """Refuse a folder that holds more than what has `begun` there, unless a file marks it as of this kind."""
    if out.is_file():
        raise CrossferError(f"{out}: is a file; name a folder")
    strangers = {file.name for file in out.iterdir()} - set(begun) if out.is_dir() else set()
    if strangers and not (out / mark).is_file():
        raise CrossferError(f"{out}: is in use and holds no {kind}; name another folder")


def check_paths(experiment: Experiment) -> None:
    """Refuse an experiment that names a dataset which is not there, before anything is prepared."""
    for config in (experiment.source, *experiment.targets):
        path = experiment.path(config)
        if not path.exists():
            raise CrossferError(f"{path}: no such dataset; name the data root with --data")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the folder's lock; if nothing comes of it all, leave nothing behind."""

    def taken(owner: str) -> None:
        raise CrossferError(f"{out}: {owner} works in this folder; wait for it, or stop it")

    out.mkdir(parents=True, exist_ok=True)
    with alone(out / LOCK, taken):
        try:
            yield
        except BaseException:
            with suppress(OSError):
                (out / DATASETS).rmdir()  # if it is empty
            if not {file.name for file in out.iterdir()} - set(BEGUN):
                _remove(out)
            raise


def _remove(out: Path) -> None:
    """Remove the folder of an experiment that has only just begun."""
    with suppress(OSError):
        for name in BEGUN:
            (out / name).unlink(missing_ok=True)
        out.rmdir()

"""Carry out a run: train or resume, predict, and write the run's folder.

``run.json`` is written last: a folder that contains it is finished and is never trained again.  Several
experiments may share a folder of runs; a lock lets one process at a time train a run.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from crossfer.adaptation import adapt, untrained
from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import Split
from crossfer.errors import CrossferError
from crossfer.evaluation.intervals import count_people
from crossfer.executors.graph import Emit
from crossfer.experiment.data import rows_to_learn
from crossfer.experiment.folder import (
    BUNDLE_FILES,
    CHECKPOINT,
    MEASURED_SPLITS,
    changed_start,
    check_weights,
    folder_of,
)
from crossfer.experiment.names import ERROR, LOCKS
from crossfer.experiment.plan import Run
from crossfer.experiment.progress import SAID, Steps
from crossfer.experiment.resuming import begun, discard
from crossfer.files import alone, digest, write_bytes, write_csv, write_json, written
from crossfer.framing import Framing
from crossfer.loading import faces_of
from crossfer.machine import Machine, describe, peak_memory, reset_peak_memory
from crossfer.memory.file import MEMORY, Memory, load_memory
from crossfer.memory.merging import DEFAULT_ALPHA
from crossfer.networks import Classifier, load
from crossfer.provenance import versions
from crossfer.run_folder import HISTORY, PREDICTIONS, RUN, altered, is_finished, load_run, read_run
from crossfer.selection import BEHIND
from crossfer.training import Misfit, Trained, predict, specialised
from crossfer.training.checkpoint import Checkpoints, Facts
from crossfer.training.devices import on_devices
from crossfer.training.trainer import State


def execute(
    run: Run,
    runs_folder: Path,
    datasets: Sequence[Dataset],
    measured_on: Sequence[Dataset],
    machine: Machine,
    tell: Emit,
    stopping: Callable[[], bool] = lambda: False,
) -> Path:
    """Train and measure a run, unless that is done; return its folder.

    A finished run is trained again if one that it starts from has other weights now.  If it fails, the
    traceback is written to ``error.txt`` in its folder.

    Parameters
    ----------
    run
        The run; its parent must be finished.
    runs_folder
        The folder of run folders.
    datasets
        Open datasets, at least those that it trains on.
    measured_on
        The datasets on whose validation and test sets it is measured.
    machine
        Device and precision.
    tell
        Called with `STEP` and the number of images after training steps, and with `SAID` and a line about
        what is unusual: who else trains it and is waited for, that it is trained again, how it resumes.
    stopping
        Called after each training step; if it returns true, a checkpoint is written and `KeyboardInterrupt`
        raised.
    """
    locks, steps, say = runs_folder / LOCKS, Steps(tell), partial(tell, SAID)
    locks.mkdir(parents=True, exist_ok=True)
    with alone(locks / run.key, lambda owner: say(f"{owner} is training it; waiting")):
        execution = Execution(run, runs_folder, datasets, measured_on, machine)
        try:
            if is_finished(execution.folder) and (above := changed_start(execution.folder)):
                say(f"trained again, since {above}, which it starts from, has other weights now")
                (execution.folder / RUN).unlink()
            if is_finished(execution.folder):
                execution.complete()
            else:
                execution.carry_out(steps, stopping, say)
        except OSError:
            raise  # a full disk, say: no fault of the run
        except Exception:
            trace = traceback.format_exc().encode("utf-8", "backslashreplace")
            write_bytes(execution.folder / ERROR, trace)
            raise
        for leftover in (CHECKPOINT, ERROR):
            (execution.folder / leftover).unlink(missing_ok=True)
    steps.tell()
    return execution.folder


def load_network(folder: Path) -> Classifier:
    """Return the classifier of a finished run, in evaluation mode."""
    check_weights(folder)
    return load(folder)


@dataclass(frozen=True)
class Execution:
    """A run that is carried out, with all that this takes; for the parameters see `execute`."""

    run: Run
    runs_folder: Path
    datasets: Sequence[Dataset]
    measured_on: Sequence[Dataset]
    machine: Machine

    @cached_property
    def folder(self) -> Path:
        """The run's folder."""
        return folder_of(self.run, self.runs_folder)

    @cached_property
    def source(self) -> Dataset:
        """The source, open."""
        return self.run.source.open(self.datasets)

    @cached_property
    def target(self) -> Dataset | None:
        """The target, open."""
        return self.run.target.open(self.datasets) if self.run.target else None

    @property
    def validation(self) -> dict[str, tuple[Dataset, NDArray[np.int64]]]:
        """The validation sets that select the epoch, by side: datasets and rows."""
        sides = {"source": self.source, "target": self.target}
        opened = {side: dataset for side, dataset in sides.items() if dataset}
        return {
            side: (opened[side], opened[side].rows("validation")) for side in self.run.validate_on
        }

    @property
    def memory(self) -> Memory | None:
        """The memory file's statistics, for a strategy that uses them.

        Raises
        ------
        CrossferError
            If there is no memory file, or it is damaged.
        """
        run = self.run
        if not run.strategy.memory:
            return None
        if run.memory:
            return load_memory(run.memory.file)
        assert run.baseline, "only the baseline has none, and it uses no memory file"
        folder = folder_of(run.baseline, self.runs_folder)
        if not (folder / MEMORY).is_file():
            why = (read_run(folder)["memory"] or {}).get("none", "it has no training images")
            raise CrossferError(f"{folder}: contains no usable memory file ({why})")
        return load_memory(folder / MEMORY)

    def carry_out(
        self,
        on_step: Callable[[int], None],
        stopping: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """Train, or resume from the checkpoint, and write the folder; see `execute`."""

        def train_and_write() -> None:
            with begun(self.run, self.folder, self.runs_folder, self.machine, say) as facts:
                train = partial(self.train, facts)
                devices = self.run.devices
                trained, most = on_devices(devices, self.machine, train, on_step, stopping)
                self._write(trained, most, facts)

        self.folder.mkdir(exist_ok=True)
        try:
            train_and_write()
        except Misfit:
            discard(self.folder, "is of another version or training", say)
            train_and_write()

    def complete(self) -> None:
        """Add to a finished run what is missing, damaged or out of date: predictions, the memory file."""
        check_weights(self.folder)
        tables = _predicted_before(self.folder)
        if missing := _not_measured(tables, self.measured_on):
            tables.append(self.predictions(load_network(self.folder), missing))
            self._write_predictions(pa.concat_tables(tables))
            self._record(PREDICTIONS)
        known = read_run(self.folder)["files"].get(MEMORY)
        given = self.run.memory
        if known and (altered(self.folder, MEMORY) or (given and given.sha256 != known)):
            self._record(MEMORY, memory=self.remember())

    def train(
        self,
        facts: Facts,
        machine: Machine,
        on_step: Callable[[int], None],
        stopping: Callable[[], bool],
    ) -> tuple[Trained, int]:
        """Train, or resume from the checkpoint; return the result and the peak memory in bytes.

        Parameters
        ----------
        facts
            What checkpoints say beside the state.
        machine
            Of several devices, the one that this process trains on; the first writes checkpoints.
        on_step, stopping
            As for `execute`.
        """
        run, strategy = self.run, self.run.strategy
        sides, rows = {"source": self.source}, {"source": self.source.rows("training")}
        if self.target:
            sides["target"] = self.target
            rows["target"] = rows_to_learn(
                self.target, run.fraction, run.seed, not strategy.unlabelled
            )
        start = baseline = self._start()
        if strategy.looks_back and run.baseline and run.baseline is not run.parent:
            baseline = load_network(folder_of(run.baseline, self.runs_folder))
        checkpoints = Checkpoints(self.folder / CHECKPOINT, facts=facts)
        resume = checkpoints.load()
        if resume:
            on_step(resume.images_seen)
        reset_peak_memory(machine.device)

        def on_state(standing: Callable[[], State]) -> None:
            stop, first = stopping(), machine.number == 0
            if first and stop:
                checkpoints.save(standing())
            elif first:
                checkpoints.save_if_due(standing)
            if stop:
                raise KeyboardInterrupt

        trained = adapt(
            strategy,
            start,
            baseline,
            {side: faces_of(d, rows[side]) for side, d in sides.items() if side in strategy.needs},
            {side: faces_of(*validation) for side, validation in self.validation.items()},
            run.recipe,
            run.seed,
            machine,
            self.memory,
            keep=run.keep,
            resume=resume,
            on_step=on_step,
            on_state=on_state,
        )
        return trained, peak_memory(machine.device)

    def predictions(self, model: Classifier, datasets: Sequence[Dataset]) -> pa.Table:
        """Return the probabilities of every validation and test image."""
        one = faces_of(datasets[0], datasets[0].rows("test")[:1])
        network = specialised(model, one.images, self.machine.device)
        return pa.concat_tables(
            [_predicted(network, d, s, self.machine) for d in datasets for s in MEASURED_SPLITS]
        )

    def remember(self) -> dict[str, Any] | None:
        """Write the memory file into a baseline's folder; return its size and time, or why there is none.

        It is a copy of one that the experiment names.  Otherwise it is computed with the saved network, so
        that it has the same bits when it is written again.
        """
        run, source, file = self.run, self.source, self.folder / MEMORY
        rows, began = source.rows("training"), time.perf_counter()
        if run.baseline or not (run.memory or len(rows)):
            return None
        if run.memory:
            write_bytes(file, run.memory.file.read_bytes())
            return {"bytes": file.stat().st_size, "seconds": time.perf_counter() - began}
        try:
            Memory.of(
                load(self.folder),
                faces_of(source, rows),
                self.machine,
                validation=faces_of(source, source.rows("validation")),
                name=source.name,
            ).save(file)
        except CrossferError as error:
            return {"none": str(error)}
        return {"bytes": file.stat().st_size, "seconds": time.perf_counter() - began}

    def _start(self) -> Classifier:
        """Return the initial network."""
        run = self.run
        if run.parent:
            return load_network(folder_of(run.parent, self.runs_folder))
        deployed = run.strategy.start == "deployed"
        build = run.network.deployed if deployed else run.network.build
        return untrained(partial(build, run.classes), run.seed)

    def _write(self, trained: Trained, most: int, facts: Facts) -> None:
        """Write the folder of a training that has ended, and took `most` bytes; ``run.json`` last."""
        run, folder, model = self.run, self.folder, trained.model
        began = time.perf_counter()
        self._write_predictions(self.predictions(model, self.measured_on))
        model.framing = self._framing()
        model.save(folder)
        history = trained.history or trained.tried
        write_csv(folder / HISTORY, history[0] if history else (), history)
        parameters = list(model.parameters())
        memory = self.remember()
        files = (
            *BUNDLE_FILES,
            PREDICTIONS,
            HISTORY,
            *((MEMORY,) if (folder / MEMORY).is_file() else ()),
        )
        content: dict[str, Any] = {
            "key": run.key,
            "label": run.label,
            "strategy": run.strategy.name,
            "about": run.strategy.about,
            "target": run.target.name if run.target else None,
            "fraction": run.fraction,
            "seed": run.seed,
            "identity": run.identity,
            "kept_epoch": trained.kept_epoch,
            "cached_features": trained.cached,
            "merged": {"alpha": trained.alpha, "tried": trained.tried},
            "chosen": self._chosen(trained),
            "training_images": run.training_images,
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "cost": {
                **self._cost(trained),
                "evaluation_seconds": time.perf_counter() - began,
                "peak_memory_bytes": most,
            },
            "memory": memory,
            "starts_from": facts["starts_from"],
            "resumed": facts["resumed"],
            "machine": describe(self.machine) | {"devices": run.devices},
            "versions": versions(),
            "files": {name: digest(folder / name) for name in files},
        }
        write_json(folder / RUN, content)

    def _write_predictions(self, table: pa.Table) -> None:
        with written(self.folder / PREDICTIONS) as beside:
            pa.parquet.write_table(table, beside)

    def _record(self, name: str, **changes: Any) -> None:
        """Record in ``run.json`` that a file was written again."""
        content = read_run(self.folder) | changes
        content["files"][name] = digest(self.folder / name)
        write_json(self.folder / RUN, content)

    def _framing(self) -> Framing:
        """Return the framing of the faces that it was trained on."""
        reads = self.run.network.preprocessing
        faces = self.source.parts[0].card["faces"]
        if faces["mode"] == "cropped" and self.run.network.framed:
            return self.run.network.framed  # nobody measured the source's
        framing = faces["framing"]
        return Framing(reads.side, reads.channels, framing["eye_distance"], framing["eye_height"])

    def _chosen(self, trained: Trained) -> dict[str, Any] | None:
        """Return which epoch, or weight of a merge, was selected, and by which differences.

        See `crossfer.selection`: ``kept`` and the preferred one (``in_doubt``), each with its difference from
        the best (`crossfer.selection.Behind.as_row`); ``of`` how many; ``by`` how many images and subjects.
        """
        what, tried = ("alpha", trained.tried) if trained.tried else ("epoch", trained.history)
        if not tried or (what == "epoch" and self.run.keep == "last"):
            return None
        kept, in_doubt = float(trained.kept_epoch), float(len(tried))
        if trained.alpha is not None:
            kept, in_doubt = trained.alpha, DEFAULT_ALPHA
        columns = (what, *BEHIND)
        found = {row[what]: {column: row[column] for column in columns} for row in tried}
        return {
            "what": what,
            "of": len(tried),
            "kept": found[kept],
            "in_doubt": found[in_doubt],
            "by": {
                side: {"images": len(rows), "subjects": count_people(dataset.people(rows))}
                for side, (dataset, rows) in self.validation.items()
            },
        }

    def _cost(self, trained: Trained) -> dict[str, float]:
        """Return the cost after the baseline, including that of the run it starts from."""
        run = self.run
        cost = {name: getattr(trained, name) for name in ("images_seen", "flop", "seconds")}
        if run.parent and run.parent is not run.baseline:
            before = load_run(folder_of(run.parent, self.runs_folder)).cost
            cost = {name: value + getattr(before, name) for name, value in cost.items()}
        return cost


def is_complete(folder: Path, measured_on: Sequence[Dataset]) -> bool:
    """Tell whether a run is finished, undamaged, and measured on all of these datasets."""
    try:
        # Nothing depends on the history, and only another training would mend it.
        files = [name for name in read_run(folder)["files"] if name != HISTORY]
    except CrossferError:  # it is not there, or damaged
        return False
    if changed_start(folder) or any(altered(folder, name) for name in files):
        return False
    return not _not_measured(_predicted_before(folder), measured_on)


def keeps_weights(folder: Path) -> bool:
    """Tell whether a run is finished and keeps its weights, though it may lack measurements."""
    try:
        changed = changed_start(folder)
    except CrossferError:  # it is not there, or damaged
        return False
    return not changed and not any(altered(folder, name) for name in BUNDLE_FILES)


def _predicted_before(folder: Path) -> list[pa.Table]:
    """Return the predictions of a finished run; empty if they are damaged."""
    return [] if altered(folder, PREDICTIONS) else [pa.parquet.read_table(folder / PREDICTIONS)]


def _not_measured(tables: Sequence[pa.Table], measured_on: Sequence[Dataset]) -> list[Dataset]:
    known = {mark for table in tables for mark in table.column("fingerprint").unique().to_pylist()}
    return [dataset for dataset in measured_on if dataset.fingerprint not in known]


def _predicted(network: Classifier, dataset: Dataset, split: Split, machine: Machine) -> pa.Table:
    """Return the probabilities of every image of one split."""
    rows = dataset.rows(split)
    shown = faces_of(dataset, rows)
    probabilities = predict(network, shown.images, machine).numpy()
    if not np.isfinite(probabilities).all():
        raise CrossferError(
            f"its predictions on {dataset.name} are no numbers: the training diverged; set a lower "
            "learning_rate"
        )
    return pa.table(
        {
            "dataset": pa.array([dataset.name] * len(rows)),
            "fingerprint": pa.array([dataset.fingerprint] * len(rows)),
            "split": pa.array([split] * len(rows)),
            "row": pa.array(rows, pa.int64()),
            "label": pa.array(shown.labels.numpy(), pa.int16()),
            **{
                name: pa.array(probabilities[:, i])
                for i, name in enumerate(dataset.class_set.names)
            },
        }
    )

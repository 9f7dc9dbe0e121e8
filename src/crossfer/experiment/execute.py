"""Carry out a run: train or resume, predict, and write the run's folder.

``run.json`` is written last: a folder that contains it is finished and is never trained again.  Several
experiments may share a folder of runs; a lock lets one process at a time train a run.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
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
    on_step: Callable[[int], None] = lambda images: None,
    on_wait: Callable[[str], None] = lambda owner: None,
    stopping: Callable[[], bool] = lambda: False,
    on_note: Callable[[str], None] = lambda what: None,
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
    on_step
        Called after each training step with the number of its images.
    on_wait
        Called with the name of another process that trains this run, before waiting for it.
    stopping
        Called after each training step; if it returns true, a checkpoint is written and `KeyboardInterrupt`
        raised.
    on_note
        Called with what is unusual: that it is trained again, or how it resumes.
    """
    locks = runs_folder / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    with alone(locks / run.key, on_wait):
        folder = folder_of(run, runs_folder)
        try:
            if is_finished(folder) and (above := changed_start(folder)):
                on_note(
                    f"trained again, since {above}, which it starts from, has other weights now"
                )
                (folder / RUN).unlink()
            if not is_finished(folder):
                folder.mkdir(exist_ok=True)

                def train() -> None:
                    with begun(run, folder, runs_folder, machine, on_note) as facts:
                        _train_and_write(
                            run, folder, runs_folder, datasets, measured_on, machine,
                            on_step, stopping, facts,
                        )  # fmt: skip

                try:
                    train()
                except Misfit:
                    discard(folder, "is of another version or training", on_note)
                    train()
            else:
                _measure(folder, measured_on, machine)
                _remember_again(run, folder, datasets, machine)
        except OSError:
            raise  # a full disk, say: no fault of the run
        except Exception:
            write_bytes(folder / ERROR, traceback.format_exc().encode("utf-8", "backslashreplace"))
            raise
        for leftover in (CHECKPOINT, ERROR):
            (folder / leftover).unlink(missing_ok=True)
    return folder


def load_network(folder: Path) -> Classifier:
    """Return the classifier of a finished run, in evaluation mode."""
    check_weights(folder)
    return load(folder)


def _train_and_write(
    run: Run,
    folder: Path,
    runs_folder: Path,
    datasets: Sequence[Dataset],
    measured_on: Sequence[Dataset],
    machine: Machine,
    on_step: Callable[[int], None],
    stopping: Callable[[], bool],
    facts: Facts,
) -> None:
    """Train a run, and write its folder."""
    single = run.devices == 1 or run.strategy.layers == "none"
    train = partial(_train, run, folder, runs_folder, datasets, facts)
    if single:
        trained, most = train(machine, on_step, stopping)
    else:
        trained, most = on_devices(run.devices, machine, train, on_step)
    source = run.source.open(datasets)
    began = time.perf_counter()
    _write_table(folder / PREDICTIONS, _predictions(trained.model, measured_on, machine))
    trained.model.framing = _framing(run, source)
    trained.model.save(folder)
    history = trained.history or trained.tried
    write_csv(folder / HISTORY, history[0] if history else (), history)
    parameters = list(trained.model.parameters())
    memory = _remember(run, folder, source, machine)
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
        "chosen": _chosen(trained, run, datasets),
        "training_images": run.training_images,
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "cost": {
            **_cost(run, trained, runs_folder),
            "evaluation_seconds": time.perf_counter() - began,
            "peak_memory_bytes": most,
        },
        "memory": memory,
        "starts_from": facts["starts_from"],
        "resumed": facts["resumed"],
        "machine": describe(machine) | {"devices": 1 if single else run.devices},
        "versions": versions(),
        "files": {name: digest(folder / name) for name in files},
    }
    write_json(folder / RUN, content)


def _train(
    run: Run,
    folder: Path,
    runs_folder: Path,
    datasets: Sequence[Dataset],
    facts: Facts,
    machine: Machine,
    on_step: Callable[[int], None],
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Trained, int]:
    """Train, or resume from the checkpoint; return the result and the peak memory in bytes."""
    source = run.source.open(datasets)
    sides, rows = {"source": source}, {"source": source.rows("training")}
    if run.target:
        sides["target"] = target = run.target.open(datasets)
        labelled = run.strategy.labels == "all"
        rows["target"] = rows_to_learn(target, run.fraction or 1.0, run.seed, labelled)
    training = {s: faces_of(d, rows[s]) for s, d in sides.items() if s in run.strategy.needs}
    start = _start(run, runs_folder)
    baseline = start
    if run.strategy.looks_back and run.baseline and run.baseline is not run.parent:
        baseline = load_network(folder_of(run.baseline, runs_folder))
    checkpoints = Checkpoints(folder / CHECKPOINT, facts=facts)
    resume = checkpoints.load()
    if resume:
        on_step(resume.images_seen)
    reset_peak_memory(machine.device)

    def on_state(standing: Callable[[], State]) -> None:
        if stopping():
            checkpoints.save(standing())
            raise KeyboardInterrupt
        checkpoints.save_if_due(standing)

    trained = adapt(
        run.strategy,
        start,
        baseline,
        training,
        {
            side: faces_of(dataset, rows)
            for side, (dataset, rows) in _validation(run, datasets).items()
        },
        run.recipe,
        run.seed,
        machine,
        _memory(run, runs_folder),
        keep=run.keep,
        resume=resume,
        on_step=on_step,
        on_state=on_state if machine.number == 0 else lambda standing: None,
    )
    return trained, peak_memory(machine.device)


def _memory(run: Run, runs_folder: Path) -> Memory | None:
    """Return the memory file's statistics, for a strategy that uses them.

    Raises
    ------
    CrossferError
        If there is no memory file, or it is damaged.
    """
    if not run.strategy.memory:
        return None
    if run.memory:
        return load_memory(run.memory.file)
    assert run.baseline, "only the baseline has none, and it uses no memory file"
    folder = folder_of(run.baseline, runs_folder)
    if not (folder / MEMORY).is_file():
        why = (read_run(folder)["memory"] or {}).get("none", "it has no training images")
        raise CrossferError(f"{folder}: contains no usable memory file ({why})")
    return load_memory(folder / MEMORY)


def _remember(run: Run, folder: Path, source: Dataset, machine: Machine) -> dict[str, Any] | None:
    """Write the memory file into a baseline's folder; return its size and time, or why there is none.

    It is a copy of one that the experiment names.  Otherwise it is computed with the saved network, so that
    it has the same bits when it is written again.
    """
    rows, began = source.rows("training"), time.perf_counter()
    if run.baseline or not (run.memory or len(rows)):
        return None
    if run.memory:
        write_bytes(folder / MEMORY, run.memory.file.read_bytes())
        size = (folder / MEMORY).stat().st_size
        return {"bytes": size, "seconds": time.perf_counter() - began}
    try:
        validation = faces_of(source, source.rows("validation"))
        file = Memory.of(
            load(folder),
            faces_of(source, rows),
            machine,
            validation=validation,
            name=source.name,
        ).save(folder / MEMORY)
    except CrossferError as error:
        return {"none": str(error)}
    return {"bytes": file.stat().st_size, "seconds": time.perf_counter() - began}


def _remember_again(run: Run, folder: Path, datasets: Sequence[Dataset], machine: Machine) -> None:
    """Write the memory file of a finished baseline again if it was deleted or damaged, or is another now."""
    content = read_run(folder)
    known = content["files"].get(MEMORY)
    if known and (altered(folder, MEMORY) or (run.memory and run.memory.sha256 != known)):
        source = run.source.open(datasets)
        content["memory"] = _remember(run, folder, source, machine)
        content["files"][MEMORY] = digest(folder / MEMORY)
        write_json(folder / RUN, content)


def _validation(
    run: Run, datasets: Sequence[Dataset]
) -> dict[str, tuple[Dataset, NDArray[np.int64]]]:
    """Return the validation sets that select the epoch of a run: datasets and rows."""
    sides = {"source": run.source, "target": run.target}
    opened = {side: ref.open(datasets) for side, ref in sides.items() if ref}
    return {side: (opened[side], opened[side].rows("validation")) for side in run.validate_on}


def _framing(run: Run, source: Dataset) -> Framing:
    """Return the framing of the faces that a run was trained on."""
    reads, faces = run.network.preprocessing, source.parts[0].card["faces"]
    if faces["mode"] == "cropped" and run.network.framed:
        return run.network.framed  # nobody measured the source's
    framing = faces["framing"]
    return Framing(reads.side, reads.channels, framing["eye_distance"], framing["eye_height"])


def _chosen(trained: Trained, run: Run, datasets: Sequence[Dataset]) -> dict[str, Any] | None:
    """Return which epoch, or weight of a merge, was selected, and by which differences.

    See `crossfer.selection`: ``kept`` and the preferred one (``in_doubt``), each with its difference from the
    best (`crossfer.selection.Behind.as_row`); ``of`` how many; ``by`` how many images and subjects.
    """
    what, tried = ("alpha", trained.tried) if trained.tried else ("epoch", trained.history)
    if not tried or (what == "epoch" and run.keep == "last"):
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
            for side, (dataset, rows) in _validation(run, datasets).items()
        },
    }


def _cost(run: Run, trained: Trained, runs_folder: Path) -> dict[str, float]:
    """Return the cost after the baseline, including that of the run it starts from."""
    cost = {name: getattr(trained, name) for name in ("images_seen", "flop", "seconds")}
    if run.parent and run.parent is not run.baseline:
        before = load_run(folder_of(run.parent, runs_folder)).cost
        cost = {name: value + getattr(before, name) for name, value in cost.items()}
    return cost


def _start(run: Run, runs_folder: Path) -> Classifier:
    """Return the initial network of a run."""
    if run.parent:
        return load_network(folder_of(run.parent, runs_folder))
    deployed = run.strategy.start == "deployed"
    build = run.network.deployed if deployed else run.network.build
    return untrained(partial(build, run.classes), run.seed)


def _measure(folder: Path, measured_on: Sequence[Dataset], machine: Machine) -> None:
    """Add missing predictions to a finished run; damaged ones are made again."""
    check_weights(folder)
    content, file = read_run(folder), folder / PREDICTIONS
    tables = _predicted_before(folder)
    if missing := _not_measured(tables, measured_on):
        model = load_network(folder)
        tables.append(_predictions(model, missing, machine))
        _write_table(file, pa.concat_tables(tables))
        files = content["files"] | {PREDICTIONS: digest(file)}
        write_json(folder / RUN, content | {"files": files})


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


def _predictions(model: Classifier, datasets: Sequence[Dataset], machine: Machine) -> pa.Table:
    """Return the probabilities of every validation and test image."""
    one = faces_of(datasets[0], datasets[0].rows("test")[:1])
    network = specialised(model, one.images, machine.device)
    return pa.concat_tables(
        [_predicted(network, d, split, machine) for d in datasets for split in MEASURED_SPLITS]
    )


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


def _write_table(file: Path, table: pa.Table) -> None:
    with written(file) as beside:
        pa.parquet.write_table(table, beside)

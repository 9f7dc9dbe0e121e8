"""Does a result hold?  All is computed again from predictions; if asked, networks are trained again.

Nothing in the experiment's folder is changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file

from crossfer.datasets.dataset import Dataset, is_prepared, open_dataset
from crossfer.errors import CrossferError
from crossfer.evaluation.evidence import SIDES
from crossfer.evaluation.metrics import measure_as_one
from crossfer.experiment.config import Experiment, check_experiment
from crossfer.experiment.execute import execute
from crossfer.experiment.folder import (
    BUNDLE,
    MEASURED_SPLITS,
    PREDICTIONS,
    RUN,
    WEIGHTS,
    altered,
    load_predictions,
    load_run,
)
from crossfer.experiment.plan import Run, key_of
from crossfer.experiment.protocols import Plan, plan_all
from crossfer.experiment.results import RESULTS, collect
from crossfer.experiment.run import DATASETS, EXPERIMENT, Progress, load_results
from crossfer.provenance import versions
from crossfer.training.machine import Precision, describe, machine


@dataclass(frozen=True)
class Verdict:
    """What became of a run's result, or of what follows from all of them.

    Parameters
    ----------
    label
        The run, or ``results.json``.
    checked
        What was compared, and is the same; or why it was not compared.
    problems
        What does not hold; none if all does.
    """

    label: str
    checked: tuple[str, ...]
    problems: tuple[str, ...]


def verify(
    path: str | Path,
    runs: Sequence[str] = (),
    retrain: bool = False,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Check the results of an experiment, or of one of its runs.

    Each run's metrics are computed again from its predictions.  If all of these hold, no run was named and
    the data are still there, so is everything else that ``results.json`` says of them.

    Parameters
    ----------
    path
        An experiment's folder, or the folder of one of its runs in it.
    runs
        How the hashes of the runs to check begin; all, if none is named.
    retrain
        Whether to train every one of these networks again, in a temporary folder.  On the same machine,
        with the same versions and number of threads, the same bits come out.
    on_verdict
        Told each verdict at once.
    progress
        Told how training again goes on.

    Raises
    ------
    CrossferError
        If there are no results, or, for training again, the data are not there any more.
    """
    out, only = _experiment_of(Path(path))
    results = load_results(out)
    records = [
        record
        for record in results["runs"]
        if (only is None or (out / record["folder"]).resolve() == only)
        and (not runs or record["key"].startswith(tuple(runs)))
    ]
    if not records:
        raise CrossferError(f"{path}: no such run among the results of {out}")
    again = _Again(out, results, records, progress or Progress()) if retrain else None
    verdicts: list[Verdict] = []
    for record in records:
        problems = list(_differences(record, out / record["folder"], results))
        checked = ["identity, files and metrics hold"]
        if again and not problems:
            problems += again.differences(record)
            checked.append("trained again, the same bits")
        verdict = Verdict(record["label"], () if problems else tuple(checked), tuple(problems))
        on_verdict(verdict)
        verdicts.append(verdict)
    if only is None and not runs and not any(verdict.problems for verdict in verdicts):
        verdicts.append(_collected_again(out, results))
        on_verdict(verdicts[-1])
    return verdicts


def _experiment_of(path: Path) -> tuple[Path, Path | None]:
    """Return the folder of the experiment, and that of the one run asked for."""
    if (path / EXPERIMENT).is_file() or not (path / RUN).is_file():
        return path, None
    for above in path.resolve().parents:
        if (above / EXPERIMENT).is_file():
            return above, path.resolve()
    raise CrossferError(
        f"{path}: a run outside its experiment's folder; name that, and the run by --run HASH"
    )


def _differences(
    record: Mapping[str, Any], folder: Path, results: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what of a run's stored result does not hold."""
    try:
        stored = load_run(folder)
    except CrossferError as error:
        yield str(error)
        return
    if key_of(stored["identity"]) != record["key"]:
        yield "its identity is not the one that its hash was made of"
    if any(stored[key] != record[key] for key in stored if key not in ("strategy", "about")):
        yield "run.json says something else than results.json"
    for name in (*BUNDLE, PREDICTIONS):
        if why := altered(folder, name):
            yield f"{name}: {why}"
    datasets = {dataset["name"]: dataset for dataset in results["datasets"]}
    source = next(d for d in results["datasets"] if d["role"] == "source")
    for row in results["results"]:
        if row["run"] != record["key"]:
            continue
        for side, dataset in zip(SIDES, (source, datasets[row["target"]]), strict=True):
            for split in MEASURED_SPLITS:
                try:
                    parts = [datasets[name] for name in dataset.get("parts", [dataset["name"]])]
                    again = _measured(folder, parts, split, results)
                except (CrossferError, KeyError, ValueError) as error:
                    yield f"{dataset['name']}, {split}: {error}"
                    continue
                told = row[f"{side}_{split}"]
                for name in (name for name in again if told.get(name) != again[name]):
                    yield f"{dataset['name']}, {split}: {name} is {again[name]}, not {told.get(name)}"


def _measured(
    folder: Path,
    parts: Sequence[Mapping[str, Any]],
    split: str,
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Compute a network's metrics on one set again; no data are needed for it."""
    leakage, classes = results["leakage"], results["classes"]
    dropped = leakage["dropped"] if leakage and split == "test" else {}
    sets = []
    for part in parts:
        said = load_predictions(folder, part["fingerprint"], split)
        _, labels, probabilities = said.without(dropped.get(part["name"], []))
        sets.append((labels, probabilities, [classes.index(name) for name in part["classes"]]))
    return measure_as_one(sets)


def _collected_again(out: Path, results: Mapping[str, Any]) -> Verdict:
    """Compute everything that ``results.json`` says again, and compare."""
    failed = {run["key"]: run["why"] for run in results["failed"]}
    try:
        experiment, planned = _planned(out, results)
        if {run.key for run in planned.runs} != failed.keys() | {r["key"] for r in results["runs"]}:
            raise CrossferError("this version of crossfer makes other runs of its configuration")
    except (CrossferError, OSError) as error:
        why = f"what follows from the runs was not computed again: {error}"
        return Verdict(RESULTS, (why,), ())
    runs_folder = (out / results["runs"][0]["folder"]).parent
    now, _ = collect(experiment, planned, runs_folder, out, failed, results["leakage"])
    compared = now.keys() - {"crossfer", "config"}  # which version it was, and what was asked
    found = (_difference(now[key], results.get(key), key) for key in now if key in compared)
    if difference := next(filter(None, found), None):
        return Verdict(RESULTS, (), (difference,))
    return Verdict(RESULTS, ("all that follows from the runs holds",), ())


def _difference(now: Any, then: Any, where: str) -> str | None:
    """Say where two contents of a JSON file differ first, if they do."""
    if isinstance(now, dict) and isinstance(then, dict):
        inside = ((f"{where}: {key}", now.get(key), then.get(key)) for key in now | then)
    elif isinstance(now, list) and isinstance(then, list):
        both = zip_longest(now, then)
        inside = ((f"{where}: {_called(b, i)}", a, b) for i, (a, b) in enumerate(both))
    else:
        return None if now == then else f"{where} is {now}, not {then}"
    return next(filter(None, (_difference(a, b, name) for name, a, b in inside)), None)


def _called(item: Any, position: int) -> str:
    """Return what an item of a list is about, or its position."""
    keys = ("name", "strategy", "against", "left_out", "target", "fraction", "seed", "side")
    about = [str(item[k]) for k in keys if k in item] if isinstance(item, dict) else []
    return " ".join(about) or str(position)


def _planned(out: Path, results: Mapping[str, Any]) -> tuple[Experiment, Plan]:
    """Plan an experiment again, on the data that it was measured on."""
    experiment = check_experiment(results["config"], str(out / RESULTS))
    source, *targets = _datasets(experiment, out, results)
    precision = results["runs"][0]["identity"]["precision"]  # all have the same
    return experiment, plan_all(experiment, source, targets, precision)


class _Again:
    """Trains runs of an experiment again, elsewhere."""

    def __init__(
        self,
        out: Path,
        results: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
        progress: Progress,
    ) -> None:
        self.experiment, self.planned = _planned(out, results)
        self.folders = {record["key"]: out / record["folder"] for record in results["runs"]}
        asked = {record["key"] for record in records}
        self.runs = {run.key: run for run in self.planned.runs if run.key in asked}
        self.progress = progress
        progress.planned(list(self.runs.values()), [])

    def differences(self, record: Mapping[str, Any]) -> list[str]:
        """Train a run again and say what comes out differently."""
        run = self.runs.get(record["key"])
        if run is None:
            return ["this configuration, with this version of crossfer, gives no such run"]
        self.progress.started(run)
        precision = cast(Precision, run.precision)
        fabric = machine(self.experiment.device, precision, self.experiment.deterministic)
        before = self.folders[run.key]
        measured_on = self.planned.measured_on(run)
        with (
            TemporaryDirectory(prefix="crossfer-verify-") as elsewhere,
            _threads(int(record["machine"]["threads"])),
        ):
            for key in _ancestors(run):
                shutil.copytree(self.folders[key], Path(elsewhere) / f"from-{key}")
            after = execute(run, Path(elsewhere), measured_on, fabric, self.progress.step)
            self.progress.ended(run, after)
            found = [f"trained again: {what}" for what in _other_bits(before, after, measured_on)]
        if found:
            now = describe(fabric) | versions()
            then = record["machine"] | record["versions"]
            for name in sorted(now.keys() & then.keys()):
                if now[name] != then[name]:
                    found.append(f"{name} was {then[name]} and is {now[name]}: bits may differ")
        return found


def _other_bits(before: Path, after: Path, measured_on: Sequence[Dataset]) -> Iterator[str]:
    """Yield how two finished runs differ, in weights and predictions."""
    old, new = (load_file(folder / WEIGHTS) for folder in (before, after))
    if old.keys() != new.keys():
        yield "other tensors"
        return
    other = [name for name in old if not torch.equal(old[name], new[name])]
    if other:
        far = max((old[name].float() - new[name].float()).abs().max().item() for name in other)
        yield f"{len(other)} of {len(old)} tensors differ, by {far:.2g} at most"
    for dataset in measured_on:
        for split in MEASURED_SPLITS:
            one, two = (
                load_predictions(folder, dataset.fingerprint, split) for folder in (before, after)
            )
            if not np.array_equal(one.labels, two.labels):
                yield f"{dataset.name}, {split}: other labels"
            elif not np.array_equal(one.probabilities, two.probabilities):
                far = float(np.abs(one.probabilities - two.probabilities).max())
                yield f"{dataset.name}, {split}: probabilities differ, by {far:.2g} at most"


def _ancestors(run: Run) -> list[str]:
    """Return the keys of the runs that one starts from, and is held to."""
    keys = []
    above = run.parent
    while above:
        keys.append(above.key)
        above = above.parent
    return keys


def _datasets(experiment: Experiment, out: Path, results: Mapping[str, Any]) -> list[Dataset]:
    """Open the data that an experiment was measured on, wherever they lie."""
    prepared_here = [path for path in sorted((out / DATASETS).glob("*")) if is_prepared(path)]
    found = []
    configs = (experiment.source, *experiment.targets)
    alone = [dataset for dataset in results["datasets"] if "parts" not in dataset]
    for config, described in zip(configs, alone, strict=True):
        for path in (experiment.path(config), *prepared_here):
            if is_prepared(path) and open_dataset(path).fingerprint == described["fingerprint"]:
                dataset = open_dataset(path)
                dataset.check()
                found.append(dataset.called(described["name"]))
                break
        else:
            raise CrossferError(
                f"{described['name']}: the data that were measured are not there any more "
                f"(fingerprint {described['fingerprint'][:16]})"
            )
    return found


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Calculate with so many threads: sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

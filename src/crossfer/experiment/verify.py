"""Verify results: recompute them from predictions and, if asked, train the networks again.

The experiment's folder is not modified.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError
from crossfer.evaluation.measure import measure
from crossfer.evaluation.paired import mcnemar
from crossfer.evaluation.rows import Metrics, RunFacts
from crossfer.evaluation.summary import over_folds
from crossfer.executors import Events, Failure, Task, Work
from crossfer.executors.graph import Emit
from crossfer.experiment.execute import execute
from crossfer.experiment.finished import Finished
from crossfer.experiment.folder import (
    BUNDLE_FILES,
    MEASURED_SPLITS,
    changed_start,
    load_answers,
    parts_of,
)
from crossfer.experiment.identity import Arithmetic, key_of
from crossfer.experiment.names import EXPERIMENT
from crossfer.experiment.plan import Run
from crossfer.experiment.progress import SAID, STEP, Progress
from crossfer.experiment.protocols import Plan, plan_all
from crossfer.experiment.results import RESULTS, collect
from crossfer.experiment.resuming import ELSEWHERE, on_other_system
from crossfer.experiment.run import load_results
from crossfer.experiment.workers import (
    Workers,
    carry_out,
    how_many,
)
from crossfer.machine import Machine, describe, threads_of
from crossfer.networks.classifier import WEIGHTS
from crossfer.provenance import versions
from crossfer.run_folder import PREDICTIONS, RUN, altered, load_predictions, load_run, read_run
from crossfer.terms import SIDES

HOLDS = "key, files and metrics verified"
SAME_BITS = "retrained with the same bits"
DIFFERENCES = "differences"
"""The event of a run that was trained again; its value are the differences."""

TOLERANCE = 0.01
"""Level of McNemar's exact test, for all sets of a run together, by which accuracies may then differ."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run, or on ``results.json`` as a whole.

    Parameters
    ----------
    label
        The run, or ``results.json``.
    checked
        What was verified, or why it was not.
    problems
        Differences; empty if there are none.
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
    *,
    workers: Workers = 1,
) -> list[Verdict]:
    """Check the results of an experiment, or of one of its runs.

    The metrics of each run are recomputed from its predictions.  If they agree, no run was named and the
    datasets are available, the rest of ``results.json`` is recomputed, too.

    Parameters
    ----------
    path
        An experiment's folder, or the folder of one of its runs in it.
    runs
        Prefixes of the keys of the runs to verify; by default all runs.
    retrain
        Whether to train these networks again, in a temporary folder.  The same machine, versions and number
        of threads give the same bits.  On another processor, a run is verified if its accuracies do not
        differ significantly, see `TOLERANCE`.
    on_verdict
        Called with each verdict at once.
    progress
        Receives the events of the training.
    workers
        Number of networks trained at the same time, as for `crossfer.experiment.run_experiment`; each uses
        its original number of threads.

    Raises
    ------
    CrossferError
        If there are no results or, with `retrain`, a dataset is missing.
    """
    out, only = _experiment_of(Path(path))
    results = load_results(out)
    records = [
        record
        for record in results.runs
        if (only is None or (out / record.folder).resolve() == only)
        and (not runs or record.key.startswith(tuple(runs)))
    ]
    unknown = [key for key in runs if not any(one.key.startswith(key) for one in records)]
    if unknown or not records:
        which = f"--run {unknown[0]}: no such run" if unknown else f"{path}: not a run"
        raise CrossferError(f"{which} in the results of {out}")
    finished = Finished(out, results)
    verdicts: dict[str, Verdict] = {}

    def say(record: RunFacts, problems: Sequence[str], *checked: str) -> None:
        if not problems:
            checked += tuple(_resumed(record, out / record.folder))
        verdicts[record.key] = Verdict(record.label, () if problems else checked, tuple(problems))
        on_verdict(verdicts[record.key])

    again: list[RunFacts] = []
    for record in records:
        problems = list(_differences(record, finished))
        if retrain and not problems:
            again.append(record)
        else:
            say(record, problems, HOLDS)
    if again:
        for record, problems, said in _trained_again(
            finished, again, progress or Progress(), workers
        ):
            say(record, problems, HOLDS, said)
    found = [verdicts[record.key] for record in records]
    if only is None and not runs and not any(verdict.problems for verdict in found):
        found.append(_collected_again(finished))
        on_verdict(found[-1])
    return found


def _experiment_of(path: Path) -> tuple[Path, Path | None]:
    """Return the folder of the experiment, and that of the run if a run was named."""
    if (path / EXPERIMENT).is_file() or not (path / RUN).is_file():
        return path, None
    for above in path.resolve().parents:
        if (above / EXPERIMENT).is_file():
            return above, path.resolve()
    raise CrossferError(
        f"{path}: this run is outside its experiment's folder; name that folder, and the run with "
        "--run HASH"
    )


def _differences(record: RunFacts, finished: Finished) -> Iterator[str]:
    """Yield the differences between a run's stored and recomputed results."""
    results, folder = finished.results, finished.out / record.folder
    try:
        stored = load_run(folder)
    except CrossferError as error:
        yield str(error)
        return
    if key_of(dict(stored.identity)) != record.key:
        yield "its key does not match its identity"
    # Another experiment may have trained the same run under another name.
    called = replace(stored, strategy=record.strategy, about=record.about, folder=record.folder)
    if called != record:
        yield "run.json and results.json disagree"
    for name in dict.fromkeys((*BUNDLE_FILES, PREDICTIONS, *read_run(folder)["files"])):
        if why := altered(folder, name):
            yield f"{name}: {why}"
    if above := changed_start(folder):
        yield f"{above}, which it starts from, has other weights now; run the experiment again"
    datasets = {dataset.name: dataset for dataset in results.datasets}
    for row in results.results:
        if record.key not in row.runs:
            continue
        for side, dataset in zip(SIDES, (results.source, datasets[row.target]), strict=True):
            for split in MEASURED_SPLITS:
                told = getattr(row.on(side), split)
                try:
                    again = over_folds([measure(one) for one in finished.said(row, side, split)])
                except (CrossferError, ValueError, IndexError) as error:
                    yield f"{dataset.name}, {split}: {error}"
                    continue
                for name in _FROM_ANSWERS:
                    if (now := getattr(again, name)) != (then := getattr(told, name)):
                        yield f"{dataset.name}, {split}: {name} is {now}, not {then}"


def _resumed(record: RunFacts, folder: Path) -> Iterator[str]:
    """Yield each interruption after which a run was trained on another system."""
    systems = read_run(folder).get("resumed", [])
    for then, now in pairwise([*systems, record.machine]):
        yield f"training resumed {on_other_system(then, now)}, so its bits may differ"


_FROM_ANSWERS = [f.name for f in fields(Metrics) if f.name not in ("interval", "deviation")]
"""The metrics that follow from a network's own predictions; the rest is recomputed with all results."""


def _collected_again(finished: Finished) -> Verdict:
    """Recompute ``results.json`` and compare."""
    results, out = finished.results, finished.out
    failed = {run.key: run.why for run in results.failed}
    try:
        planned = _planned(finished)
        if {run.key for run in planned.runs} != failed.keys() | {run.key for run in results.runs}:
            raise CrossferError("this version of crossfer plans other runs for this configuration")
    except (CrossferError, OSError) as error:
        why = f"derived results were not recomputed: {error}"
        return Verdict(RESULTS, (why,), ())
    runs_folder = (out / results.runs[0].folder).parent
    collected = collect(
        finished.experiment, planned, runs_folder, out, failed, results.leakage, results.network
    )
    now, then = collected.results.as_json(), results.as_json()
    # Which version it was, what was asked, and what `_differences` has compared of each run.
    compared = now.keys() - {"crossfer", "config", "runs"}
    found = (_difference(now[key], then[key], key) for key in now if key in compared)
    if difference := next(filter(None, found), None):
        return Verdict(RESULTS, (), (difference,))
    return Verdict(RESULTS, ("derived results verified",), ())


def _difference(now: Any, then: Any, where: str) -> str | None:
    """Return the first difference of two JSON values, or None."""
    if isinstance(now, dict) and isinstance(then, dict):
        inside = ((f"{where}: {key}", now.get(key), then.get(key)) for key in now | then)
    elif isinstance(now, (list, tuple)) and isinstance(then, (list, tuple)):
        both = zip_longest(now, then)
        inside = ((f"{where}: {_called(b, i)}", a, b) for i, (a, b) in enumerate(both))
    else:
        return None if now == then else f"{where} is {now}, not {then}"
    return next(filter(None, (_difference(a, b, name) for name, a, b in inside)), None)


def _called(item: Any, position: int) -> str:
    """Return a description of a list item, or its position."""
    keys = ("name", "strategy", "against", "left_out", "target", "fraction", "seed", "side")
    about = [str(item[k]) for k in keys if k in item] if isinstance(item, dict) else []
    return " ".join(about) or str(position)


def _planned(finished: Finished) -> Plan:
    """Plan an experiment again, on its datasets."""
    source, *targets = finished.datasets
    arithmetic = Arithmetic(**finished.results.runs[0].identity["arithmetic"])  # all have the same
    return plan_all(finished.experiment, source, targets, arithmetic)


def _trained_again(
    finished: Finished, records: Sequence[RunFacts], progress: Progress, workers: Workers
) -> Iterator[tuple[RunFacts, list[str], str]]:
    """Train runs again; yield each with its differences and what was verified."""
    again = _Again(finished)
    runs = {record.key: again.runs[record.key] for record in records if record.key in again.runs}
    progress.planned(list(runs.values()), [])
    events = _Events(runs, progress)
    processes = how_many(
        workers,
        [run.work for run in runs.values()],
        len(runs),
        again.machine,
        max(int(record.machine["threads"]) for record in records),
        devices=finished.experiment.devices,
    )
    failures = carry_out(
        [Task(key) for key in runs],
        lambda: again.work,
        partial(_open_worker, finished.out),
        events,
        processes,
    )
    for record in records:
        if record.key not in runs:
            why = "this configuration has no such run in this version of crossfer"
            yield record, [why], ""
        elif record.key in failures:
            yield record, [f"retraining failed: {failures[record.key].why}"], ""
        else:
            yield record, *events.found[record.key]


def _open_worker(out: Path) -> Work:
    return _Again(Finished(out, load_results(out))).work


class _Events(Events):
    """Translates the events of runs that are trained again, and collects their differences."""

    def __init__(self, runs: Mapping[str, Run], progress: Progress) -> None:
        self.runs, self.progress = runs, progress
        self.found: dict[str, tuple[list[str], str]] = {}

    def started(self, key: str) -> None:
        self.progress.started(self.runs[key])

    def told(self, key: str, what: str, value: Any) -> None:
        if what == STEP:
            self.progress.step(self.runs[key], value)
        elif what == SAID:
            self.progress.said(f"{self.runs[key].label}: {value}")
        elif what == DIFFERENCES:
            self.found[key] = value

    def succeeded(self, key: str) -> None:
        self.progress.ended(self.runs[key], Path())

    def failed(self, key: str, failure: Failure) -> None:
        self.progress.failed(self.runs[key], failure.why)


class _Again:
    """Trains runs of an experiment again, in a temporary folder."""

    def __init__(self, finished: Finished) -> None:
        self.planned = _planned(finished)
        self.runs = {run.key: run for run in self.planned.runs}
        self.records = {record.key: record for record in finished.results.runs}
        self.folders = {key: finished.out / record.folder for key, record in self.records.items()}
        experiment = finished.experiment
        precision = self.planned.runs[0].arithmetic.precision
        self.machine = Machine.of(experiment.device, precision, experiment.deterministic)

    def work(self, key: str, tell: Emit) -> None:
        """Train a run again and report the differences."""
        run, before, record = self.runs[key], self.folders[key], self.records[key]
        measured_on = self.planned.measured_on(run)
        with (
            TemporaryDirectory(prefix="crossfer-verify-") as elsewhere,
            threads_of(int(record.machine["threads"])),
        ):
            for above in _needed(run):
                shutil.copytree(self.folders[above], Path(elsewhere) / f"from-{above}")
            datasets = self.planned.opened
            after = execute(run, Path(elsewhere), datasets, measured_on, self.machine, tell)
            found = [f"retrained: {what}" for what in _other_bits(before, after, measured_on)]
            said = SAME_BITS
            if found:
                now = describe(self.machine) | versions()
                then = {**record.machine, **record.versions}
                for name in sorted(now.keys() & then.keys()):
                    if now[name] != then[name]:
                        found.append(
                            f"{name} was {then[name]} and is now {now[name]}, so bits may differ"
                        )
                other = any(now.get(name) != then.get(name, now.get(name)) for name in ELSEWHERE)
                if other or read_run(before).get("resumed"):
                    beyond, otherwise = _beyond_chance(before, after, measured_on)
                    said = (
                        f"retrained on another system: at most {otherwise:.1%} of a set's "
                        "predictions differ"
                    )
                    found = [*found, *beyond] if beyond else []
        tell(DIFFERENCES, (found, said))


def _other_bits(before: Path, after: Path, measured_on: Sequence[Dataset]) -> Iterator[str]:
    """Yield the differences of two finished runs, in weights and predictions."""
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


def _beyond_chance(
    before: Path, after: Path, measured_on: Sequence[Dataset]
) -> tuple[list[str], float]:
    """Return significant differences of accuracy, and the largest fraction of changed decisions in a set.

    Tested by McNemar's test on the same images, with Bonferroni's correction for the sets.
    """
    sets = [(dataset, split) for dataset in measured_on for split in MEASURED_SPLITS]
    found, shares = [], [0.0]
    for dataset, split in sets:
        old, new = (
            load_answers(folder, parts_of(dataset), split, {}) for folder in (before, after)
        )
        shares.append(float(np.mean(old.decisions != new.decisions)))
        gained, lost = (
            int((x & ~y).sum()) for x, y in ((new.right, old.right), (old.right, new.right))
        )
        if mcnemar(gained, lost) < TOLERANCE / len(sets):
            found.append(
                f"{dataset.name}, {split}: accuracy was {100 * old.right.mean():.2f} % and is now "
                f"{100 * new.right.mean():.2f} %, more than chance explains"
            )
    return found, max(shares)


def _needed(run: Run) -> set[str]:
    """Return the keys of the runs that one depends on, and those that they depend on."""
    return {key for above in run.needed for key in (above.key, *_needed(above))}

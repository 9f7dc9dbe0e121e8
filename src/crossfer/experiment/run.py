"""Run an experiment from configuration to results; resumable, and locked against other processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from crossfer.datasets.folds import in_words
from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.rows import Results
from crossfer.executors import Events, Failure, Task, Work, run_here
from crossfer.executors.slurm import SUBMITTED
from crossfer.experiment.baseline import check_baseline
from crossfer.experiment.clusters import RUNS, Cluster, OnCluster, machine_of
from crossfer.experiment.config import Experiment, check_experiment
from crossfer.experiment.folder import folder_of, record_failure
from crossfer.experiment.leakage import LEAKAGE, look_for_leakage
from crossfer.experiment.names import EXPERIMENT, LOCK
from crossfer.experiment.opening import (
    DATASETS,
    check_data,
    check_model,
    check_paths,
    open_datasets,
)
from crossfer.experiment.plan import Run
from crossfer.experiment.progress import SAID, STEP, Progress
from crossfer.experiment.protocols import Plan, not_in_turn, plan_all
from crossfer.experiment.results import RESULTS, collect, read_results, write_results
from crossfer.experiment.status import planned_arithmetic, write_plan
from crossfer.experiment.tracking import Tracking, tracking_to
from crossfer.experiment.workers import (
    Workers,
    carry_out,
    how_many,
    task_of,
    work_on,
)
from crossfer.files import alone, read_json, write_json
from crossfer.machine import Machine
from crossfer.provenance import versions
from crossfer.run_folder import is_finished, load_run

BEGUN = (LOCK, f"{LOCK}.owner", EXPERIMENT, f"{EXPERIMENT}.partial")
"""Files that the folder of an experiment that has just started may contain."""


BECAUSE_OF = "it starts from "
"""How the reason begins why a run failed because of another one."""


def run_experiment(
    experiment: Experiment,
    out: str | Path,
    progress: Progress | None = None,
    *,
    workers: Workers = 1,
    threads: int | None = None,
    on: Cluster | None = None,
) -> Results:
    """Run or resume an experiment, and write its results.

    Parameters
    ----------
    experiment
        From `load_experiment`, or built in Python.
    out
        The experiment's folder: prepared datasets, runs and results.  With the same folder again, finished
        runs are not repeated, and interrupted or failed ones resume.
    progress
        Receives progress events.
    workers
        Processes that train at the same time; ``"auto"``: see `crossfer.experiment.workers.how_many`. With
        more than one, a script needs ``if __name__ == "__main__":``, since every process imports it.
    threads
        Threads per process; by default one with several processes, PyTorch's setting with a single one.
    on
        The cluster that trains instead of this machine; `workers` and `threads` do not apply then.

    Returns
    -------
    Results
        The content of ``results.json``; `Results.failed` names the runs that failed, and why.

    Raises
    ------
    CrossferError
        If a dataset or the network cannot be used, the deployed network differs from its description,
        another process uses the folder, or every baseline failed.
    OSError
        If the disk is full or not writable; the same call resumes afterwards.
    """
    out, progress = Path(out), progress or Progress()
    check_free(out, "experiment", EXPERIMENT, BEGUN)
    check_paths(experiment)
    machine, arithmetic = machine_of(experiment, on)
    if on:
        on.check()
    tracking = tracking_to(experiment.tracking, experiment.name, out, progress.said)
    with alone_in(out):
        said = check_model(experiment, machine)
        for line in (*said, *not_in_turn(experiment)):
            progress.said(line)
        content = experiment.model_dump(mode="json", by_alias=True)
        if not (out / EXPERIMENT).exists():
            write_json(out / EXPERIMENT, content)
        source, *targets = open_datasets(experiment, out, progress)
        planned = plan_all(experiment, source, targets, arithmetic)
        check_data(experiment, machine, source, targets)
        for name, folds in planned.folds.items():
            progress.said(f"{name}: {in_words(folds)}")
        leakage = look_for_leakage(
            experiment.copies, planned.divisions, out / LEAKAGE, progress.comparing
        )
        # Nothing is refused from here on: what a finished experiment says of itself may be replaced.
        write_json(out / EXPERIMENT, content)
        runs = {run.key: run for run in planned.runs}
        runs_folder = folder_of_runs(experiment, out)
        write_plan(out, runs_folder, [(run.key, run.label) for run in runs.values()], arithmetic)
        finished = [r for r in runs.values() if is_finished(folder_of(r, runs_folder))]
        progress.planned(list(runs.values()), finished)
        _say_versions(finished, runs_folder, progress)
        tasks = [task_of(run) for run in runs.values()]
        elsewhere = partial(open_worker, out.absolute())
        events = _Events(planned, runs_folder, progress, tracking)
        if on:
            away = OnCluster(experiment, planned, out, runs_folder)
            failures = away.carry_out(on, tasks, elsewhere, events)
        else:
            processes = how_many(
                workers,
                [run.work for run in runs.values()],
                len(runs) - len(finished),
                machine,
                threads,
                devices=experiment.devices,
            )
            failures = carry_out(
                tasks,
                lambda: work_on(planned, runs_folder, machine),
                elsewhere,
                events,
                processes,
            )
        failed = {key: _why(failure, runs) for key, failure in failures.items()}
        collected = collect(experiment, planned, runs_folder, out, failed, leakage, said)
        write_results(collected, out)
        tracking.log_results(collected.results)
    return collected.results


def open_worker(out: Path) -> Work:
    """Prepare a worker for the runs of an experiment that another process has started.

    Parameters
    ----------
    out
        The experiment's folder, with its prepared datasets.
    """
    experiment, planned, machine = _begun(out)
    return work_on(planned, folder_of_runs(experiment, out), machine)


def run_one(
    out: str | Path,
    key: str,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Path:
    """Train and measure one run of an experiment that `run_experiment` has started.

    Parameters
    ----------
    out
        The experiment's folder.
    key
        Key of the run; the runs that it starts from must be finished.
    progress
        Receives progress events.
    stopping
        As for `crossfer.experiment.execute.execute`.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    CrossferError
        If there is no such experiment or run, the run cannot start yet, or another version of crossfer
        started the experiment.
    """
    out, progress = Path(out), progress or Progress()
    experiment, planned, machine = _begun(out)
    runs = {run.key: run for run in planned.runs}
    if key not in runs:
        raise CrossferError(f"{key}: not a run of {out}; list them with `crossfer status {out}`")
    run, runs_folder = runs[key], folder_of_runs(experiment, out)
    for other in task_of(run).after:
        if not is_finished(folder_of(runs[other], runs_folder)):
            raise CrossferError(f"{run.label}: waits for {runs[other].label}; run {other} first")
    progress.planned([run], [])
    events = _Events(planned, runs_folder, progress)
    failures = run_here(
        [Task(key)], lambda: work_on(planned, runs_folder, machine, stopping), events
    )
    if key in failures:
        raise CrossferError(f"{run.label} failed: {failures[key].why}")
    return folder_of(run, runs_folder)


def _begun(out: Path) -> tuple[Experiment, Plan, Machine]:
    """Return an experiment that another process has started, with open datasets."""
    if (content := _read(out / EXPERIMENT)) is None:
        raise CrossferError(f"{out}: no experiment in this folder; start one with `crossfer run`")
    experiment = check_experiment(content, str(out / EXPERIMENT))
    arithmetic = planned_arithmetic(out)
    machine = Machine.of(arithmetic.device, arithmetic.precision, experiment.deterministic)
    source, *targets = open_datasets(experiment, out, Progress(), checked=True)
    return experiment, plan_all(experiment, source, targets, arithmetic), machine


def folder_of_runs(experiment: Experiment, out: Path) -> Path:
    """Return the folder of an experiment's runs."""
    return experiment.cache.expanduser() if experiment.cache else out / RUNS


class _Events(Events):
    """Translates an executor's events into progress of runs, and logs finished runs."""

    def __init__(
        self, planned: Plan, runs_folder: Path, progress: Progress, tracking: Tracking | None = None
    ) -> None:
        self.planned, self.runs_folder = planned, runs_folder
        self.progress, self.tracking = progress, tracking
        self.runs = {run.key: run for run in planned.runs}

    def started(self, key: str) -> None:
        self.progress.started(self.runs[key])

    def told(self, key: str, what: str, value: Any) -> None:
        run = self.runs[key]
        if what == STEP:
            self.progress.step(run, value)
        elif what == SAID:
            self.progress.said(f"{run.label}: {value}")
        elif what == SUBMITTED:
            self.progress.submitted(run, value)

    def succeeded(self, key: str) -> None:
        run = self.runs[key]
        folder = folder_of(run, self.runs_folder)
        self.progress.ended(run, folder)
        check_baseline(run, run.source.open(self.planned.datasets), folder)
        if self.tracking:
            self.tracking.log_run(folder)

    def failed(self, key: str, failure: Failure) -> None:
        why = _why(failure, self.runs)
        if not failure.because_of:
            record_failure(self.runs[key], self.runs_folder, why)
        self.progress.failed(self.runs[key], why)


def _why(failure: Failure, runs: Mapping[str, Run]) -> str:
    if failure.because_of:
        return f"{BECAUSE_OF}{runs[failure.because_of].label}, which failed"
    return failure.why


def _say_versions(finished: Sequence[Run], runs_folder: Path, progress: Progress) -> None:
    """Report finished runs of other versions: they are reused, and may differ by rounding."""
    now = versions()
    for run in finished:
        try:
            then = load_run(folder_of(run, runs_folder)).versions
        except CrossferError:
            continue  # this run fails, and says so; the others go on
        other = {name: str(then[name]) for name in ("crossfer", "torch") if then[name] != now[name]}
        if other:
            progress.reused(run, other)


def load_results(folder: str | Path) -> Results:
    """Read the results of a finished experiment.

    Raises
    ------
    CrossferError
        If there are none, they or the configuration are damaged, or they belong to another version or
        configuration.
    """
    file, asked = Path(folder) / RESULTS, _read(Path(folder) / EXPERIMENT)
    if (content := _read(file)) is None:
        raise CrossferError(f"{file}: no results; finish the experiment with `crossfer run` first")
    results = read_results(content, file)
    if asked not in (None, results.config):
        raise CrossferError(
            f"{file}: belongs to another configuration than {EXPERIMENT}; run the experiment again"
        )
    return results


def _read(file: Path) -> Any:
    """Return the content of one of an experiment's JSON files; None if it is not there."""
    try:
        return read_json(file)
    except ValueError as error:
        raise CrossferError(
            f"{file}: damaged ({one_line(error)}); run the experiment again, which writes it anew"
        ) from None


def check_free(out: Path, kind: str, mark: str, begun: Collection[str]) -> None:
    """Refuse a folder with other files than `begun`, unless the file `mark` shows that it is of this kind."""
    if out.is_file():
        raise CrossferError(f"{out}: is a file; name a folder")
    strangers = {file.name for file in out.iterdir()} - set(begun) if out.is_dir() else set()
    if strangers and not (out / mark).is_file():
        raise CrossferError(f"{out}: not empty and contains no {kind}; name another folder")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the lock of a folder; after an error, remove the folder if nothing was written."""

    def taken(owner: str) -> None:
        raise CrossferError(f"{out}: {owner} is using this folder; wait for it, or stop it")

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
    """Remove the folder of an experiment that has just started."""
    with suppress(OSError):
        for name in BEGUN:
            (out / name).unlink(missing_ok=True)
        out.rmdir()

"""The runs of an experiment as tasks: dependencies, execution, number of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

from crossfer.errors import CrossferError
from crossfer.executors import Events, Failure, Open, Task, Work, run_here, run_in_processes
from crossfer.executors.graph import Emit
from crossfer.experiment.execute import execute
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import Plan
from crossfer.machine import Machine, threads_of
from crossfer.processor import available_cores

Workers = int | Literal["auto"]
"""Number of processes that train at the same time; ``"auto"``: see `how_many`."""

WORTH_PROCESSES = 20_000
"""Work (`Run.work`) below which starting processes takes longer than it saves."""


def task_of(run: Run) -> Task:
    """Return the task of a run."""
    return Task(run.key, tuple(other.key for other in run.needed))


def work_on(
    planned: Plan,
    runs_folder: Path,
    machine: Machine,
    stopping: Callable[[], bool] = lambda: False,
) -> Work:
    """Return the function that carries out a planned run, given its key; see `execute`."""
    runs = {run.key: run for run in planned.runs}

    def work(key: str, tell: Emit) -> None:
        run = runs[key]
        measured_on = planned.measured_on(run)
        execute(run, runs_folder, planned.opened, measured_on, machine, tell, stopping)

    return work


class Processes(NamedTuple):
    """How many processes train at the same time, and the threads of each; None: PyTorch's setting."""

    count: int
    threads: int | None = None


def how_many(
    asked: Workers,
    work: Sequence[float],
    left: int,
    machine: Machine,
    threads: int | None = None,
    cores: int | None = None,
    devices: int = 1,
) -> Processes:
    """Return the number of processes that train at the same time, and of their threads.

    On a CPU, two processes with one thread are as fast as one process with two, and are less affected by
    other load, since they do not wait for each other (docs/benchmarks.md).  So ``"auto"`` is a process per
    core, but at most one per run, and one in total for little work or on a GPU.

    The number of threads affects rounding.  So it depends on all runs, finished or not, and an experiment
    that resumes ends in the same bits.

    Parameters
    ----------
    asked
        The user's choice.
    work
        `Run.work` of each run, or chain of runs, that can run in parallel with the others.
    left
        How many of them are not finished.
    machine
        Device and precision.
    threads
        The user's choice of threads per process, if any; otherwise one with several processes.
    cores
        Available cores; by default those that this process may use.
    devices
        Number of devices that train one network; with several, one network is trained at a time.

    Raises
    ------
    CrossferError
        If several processes are asked for, with several devices each.
    """
    if devices > 1 and asked not in ("auto", 1):
        raise CrossferError(
            f"--workers {asked}: has no effect with devices: {devices}, which trains one network "
            "at a time; leave one of them out"
        )
    count = 1
    if devices == 1 and asked != "auto":
        count = asked
    elif devices == 1 and machine.device.type == "cpu" and sum(work) >= WORTH_PROCESSES:
        count = min((cores or available_cores()) // (threads or 1), len(work))
    if count <= 1:
        return Processes(1, threads)
    return Processes(max(1, min(count, left)), threads or 1)


def carry_out(
    tasks: Sequence[Task],
    here: Open,
    elsewhere: Open,
    events: Events,
    processes: Processes,
) -> dict[str, Failure]:
    """Run tasks in this process or in several; return failures by key.

    Parameters
    ----------
    tasks, events
        As for `crossfer.executors.run_in_processes`.
    here
        Prepares this process, which has open datasets.
    elsewhere
        Prepares a new process; picklable.
    processes
        From `how_many`.
    """
    if processes.count > 1:
        return run_in_processes(tasks, elsewhere, events, processes.count, processes.threads or 1)
    with threads_of(processes.threads) if processes.threads else nullcontext():
        return run_here(tasks, here, events)

"""The runs of an experiment as tasks: dependencies, execution, number of workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from lightning_fabric import Fabric

from crossfer.errors import CrossferError
from crossfer.executors import Events, Failure, Open, Task, Work, run_here, run_in_processes
from crossfer.executors.graph import Tell
from crossfer.executors.processes import available_cores
from crossfer.experiment.execute import execute
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import Plan

Workers = int | Literal["auto"]
"""Processes that train at the same time; ``"auto"``: see `how_many`."""

STEP, WAITING = "step", "waiting"
"""What a run tells while it is carried out: images seen, and which process it waits for."""

SECONDS_BETWEEN_STEPS = 0.2
WORTH_PROCESSES = 20_000
"""Full training steps of one image: for less, starting processes takes longer than it saves."""


def task_of(run: Run) -> Task:
    """Return a run as a task that waits for the networks that it starts from and looks back at."""
    needed = [run.parent, run.baseline if run.strategy.looks_back else None]
    return Task(run.key, tuple({other.key: None for other in needed if other}))


def work_on(
    planned: Plan,
    runs_folder: Path,
    fabric: Fabric,
    stopping: Callable[[], bool] = lambda: False,
) -> Work:
    """Return the function that carries out any of the planned runs, by its key; see `execute`."""
    runs = {run.key: run for run in planned.runs}

    def work(key: str, tell: Tell) -> None:
        run = runs[key]
        steps = Steps(tell)
        execute(
            run,
            runs_folder,
            planned.opened,
            planned.measured_on(run),
            fabric,
            steps,
            lambda owner: tell(WAITING, owner),
            stopping,
        )
        steps.tell()

    return work


def how_many(
    asked: Workers,
    work: Sequence[float],
    fabric: Fabric,
    cores: int | None = None,
    devices: int = 1,
) -> int:
    """Return how many processes train at the same time.

    On a CPU two processes of one thread do as much as one process of two, and do not slow down when other
    work comes between: threads of one process wait for each other (docs/benchmarks.md).  So ``"auto"`` is a
    process for each core, unless there is less to share, or too little to be worth it; on a GPU one.

    Parameters
    ----------
    asked
        What the user wants.
    work
        Of each run, or chain of runs, that is not finished and can go on beside the others: `Run.work`.
    fabric
        Where they run.
    cores
        By default those that this process may use.
    devices
        That train one network together: then one trains at a time.

    Raises
    ------
    CrossferError
        If several networks are asked for, of several devices each.
    """
    if devices > 1 and asked not in ("auto", 1):
        raise CrossferError(
            f"--workers {asked}: has no effect with devices: {devices}, which trains one network "
            "at a time; leave one of them out"
        )
    if devices > 1:
        return 1
    if asked != "auto":
        return max(1, asked)
    if fabric.device.type != "cpu" or sum(work) < WORTH_PROCESSES:
        return 1
    return max(1, min(available_cores() if cores is None else cores, len(work)))


def carry_out(
    tasks: Sequence[Task],
    here: Open,
    elsewhere: Open,
    events: Events,
    workers: int,
    threads: int = 1,
) -> dict[str, Failure]:
    """Bring tasks to an end, in this process or in several; return why some failed, by key.

    Parameters
    ----------
    tasks, events, workers, threads
        As for `crossfer.executors.run_in_processes`.
    here
        Makes this process ready, with what it has open.
    elsewhere
        Makes another process ready, which has nothing yet; picklable.
    """
    if workers == 1:
        return run_here(tasks, here, events)
    return run_in_processes(tasks, elsewhere, events, workers, threads)


class Steps:
    """Adds up the images of training steps, and tells of them a few times a second, of the first at once."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._images, self._last = tell, 0, -math.inf

    def __call__(self, images: int) -> None:
        """Count the images of a step."""
        self._images += images
        if time.monotonic() - self._last >= SECONDS_BETWEEN_STEPS:
            self.tell()

    def tell(self) -> None:
        """Tell of those that were not told of yet."""
        if self._images:
            self._tell(STEP, self._images)
        self._images, self._last = 0, time.monotonic()

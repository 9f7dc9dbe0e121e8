"""The runs of an experiment as tasks: what each waits for, how one is carried out, how many at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from lightning_fabric import Fabric

from crossfer.executors import Task, Work
from crossfer.executors.graph import Tell
from crossfer.experiment.execute import execute
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import Plan

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
        steps = _Steps(lambda images: tell(STEP, images))
        execute(
            run,
            runs_folder,
            planned.datasets,
            planned.measured_on(run),
            fabric,
            steps,
            lambda owner: tell(WAITING, owner),
            stopping,
        )
        steps.tell()

    return work


def how_many(
    asked: int | Literal["auto"], runs: Sequence[Run], fabric: Fabric, cores: int | None = None
) -> int:
    """Return how many processes train at the same time.

    On a CPU two processes of one thread do as much as one process of two, and do not slow down when other
    work comes between: threads of one process wait for each other (docs/benchmarks.md).  So ``"auto"`` is a
    process for each core, unless there are fewer runs, or too little work to be worth it; on a GPU one.

    Parameters
    ----------
    asked
        What the user wants.
    runs
        Those that are not finished.
    fabric
        Where they run.
    cores
        By default those that this process may use.
    """
    if asked != "auto":
        return max(1, asked)
    if fabric.device.type != "cpu" or sum(run.work for run in runs) < WORTH_PROCESSES:
        return 1
    return max(1, min(cores or available_cores(), len(runs)))


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Steps:
    """Adds up the images of training steps, and tells of them a few times a second."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._images, self._last = tell, 0, time.monotonic()

    def __call__(self, images: int) -> None:
        self._images += images
        if time.monotonic() - self._last >= SECONDS_BETWEEN_STEPS:
            self.tell()

    def tell(self) -> None:
        if self._images:
            self._tell(self._images)
        self._images, self._last = 0, time.monotonic()

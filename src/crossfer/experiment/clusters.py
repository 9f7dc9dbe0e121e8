"""Carry out the runs of an experiment on SLURM or Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from crossfer.errors import CrossferError
from crossfer.executors import Events, Failure, Open, Slurm, Task, Work, run_on_slurm
from crossfer.executors.copies import Files, marked
from crossfer.executors.graph import done_of
from crossfer.executors.ray import Ray, run_on_ray
from crossfer.experiment.config import Experiment, check_experiment
from crossfer.experiment.execute import is_complete, keeps_weights
from crossfer.experiment.folder import folder_of
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.opening import DATASETS, open_datasets
from crossfer.experiment.plan import Run
from crossfer.experiment.progress import Progress
from crossfer.experiment.protocols import Plan, plan_all
from crossfer.experiment.status import SLURM
from crossfer.experiment.workers import work_on
from crossfer.machine import Machine
from crossfer.memory.file import MEMORY
from crossfer.run_folder import RUN

Cluster = Slurm | Ray
RUNS = "runs"
"""The folder of runs, in the experiment's folder."""


def machine_of(experiment: Experiment, on: Cluster | None) -> tuple[Machine, Arithmetic]:
    """Return the device for checks before anything runs, and the arithmetic of the runs.

    The machine that submits to a cluster often has no GPU itself.

    Raises
    ------
    CrossferError
        If it has none, and the precision has to be chosen by the GPU; or if Ray, which gives a run one GPU,
        is asked for several.
    """
    if isinstance(on, Ray) and experiment.devices > 1:
        raise CrossferError(
            f"devices: {experiment.devices} train one network within a machine, and not on Ray; remove "
            "it, or leave --on out"
        )
    asked = on and (on.gpu or experiment.device == "cuda") and experiment.device in ("auto", "cuda")
    if asked and not torch.cuda.is_available():
        if experiment.precision == "auto":
            raise CrossferError(
                "precision: cannot be chosen on a machine without a GPU; set bf16-mixed or 32-true"
            )
        return Machine.of("cpu", "32-true"), Arithmetic("cuda", experiment.precision)
    machine = Machine.of(experiment.device, experiment.precision, experiment.deterministic)
    return machine, Arithmetic.of(machine)


@dataclass(frozen=True)
class OnCluster:
    """The runs of a prepared experiment, carried out on a cluster.

    Parameters
    ----------
    experiment, planned
        The configuration and the plan.
    out, runs_folder
        Folders of the experiment and of its runs.
    """

    experiment: Experiment
    planned: Plan
    out: Path
    runs_folder: Path

    def carry_out(
        self, on: Cluster, tasks: Sequence[Task], open_: Open, events: Events
    ) -> dict[str, Failure]:
        """Carry out the graph of runs, except those that are complete.

        Parameters
        ----------
        on
            The cluster.
        tasks
            A task for each run.
        open_
            Prepares a worker that sees the experiment's folder.
        events
            Receives events.

        Returns
        -------
        dict
            Failures by key.
        """
        whole = {task.key for task in tasks if self._is_complete(task.key)}
        # A run whose start may get other weights is not complete; one that is only measured keeps its own.
        settled = done_of(tasks, lambda key: key in whole or self._keeps_weights(key))
        complete = {
            task.key for task in tasks if task.key in whole and settled.issuperset(task.after)
        }
        for task in tasks:
            if task.key in complete:
                events.started(task.key)
                events.succeeded(task.key)
        rest = [
            Task(task.key, tuple(key for key in task.after if key not in complete))
            for task in tasks
            if task.key not in complete
        ]
        if not rest:
            return {}
        if isinstance(on, Slurm):
            command = [sys.executable, "-m", "crossfer", "run-one", str(self.out.absolute())]
            folder = self.out.absolute() / SLURM
            return run_on_slurm(rest, command, self._is_complete, events, on, folder)
        gpu = self.planned.runs[0].arithmetic.device == "cuda"
        needed = {task.key: task.after for task in tasks}
        with marked(self.out) as mark:
            return run_on_ray(rest, events, replace(on, gpu=gpu), self._files(needed, open_, mark))

    def _is_complete(self, key: str) -> bool:
        run = self._runs[key]
        return is_complete(folder_of(run, self.runs_folder), self.planned.measured_on(run))

    def _keeps_weights(self, key: str) -> bool:
        return keeps_weights(folder_of(self._runs[key], self.runs_folder))

    @property
    def _runs(self) -> dict[str, Run]:
        return {run.key: run for run in self.planned.runs}

    def _files(self, needed: Mapping[str, Sequence[str]], open_: Open, mark: str) -> Files:
        """Return the files for nodes that do not see ours."""
        folders = {key: folder_of(run, self.runs_folder) for key, run in self._runs.items()}
        places = {key: f"{RUNS}/{folder.name}" for key, folder in folders.items()}
        datasets = {f"{DATASETS}/{i}": data for i, data in enumerate(self.planned.datasets)}
        content = self.experiment.model_dump(mode="json", by_alias=True) | {"cache": None}
        sources = [{"path": place, "name": data.name} for place, data in datasets.items()]
        content |= {"source": sources[0], "targets": sources[1:]}
        arithmetic = self.planned.runs[0].arithmetic
        sent = {place: data.folder for place, data in datasets.items()}
        if file := self.experiment.memory_file:
            content["memory"] = MEMORY
            sent[MEMORY] = file
        return Files(
            root=self.out.absolute(),
            mark=mark,
            open_here=partial(open_in, Path.cwd(), open_),
            open_copy=partial(open_copy, content, arithmetic),
            always=sent,
            needs={
                key: {places[other]: folders[other] for other in (*after, key)}
                for key, after in needed.items()
            },
            makes={key: (places[key], folders[key]) for key in needed},
            last=RUN,
        )


def open_in(folder: Path, open_: Open) -> Work:
    """Prepare a worker in the folder that relative paths of the configuration start from."""
    with suppress(OSError):  # this node need not have it
        os.chdir(folder)
    return open_()


def open_copy(content: Mapping[str, Any], arithmetic: Arithmetic, copy: Path) -> Work:
    """Prepare a worker on a copy of the data, in a folder of its node.

    Parameters
    ----------
    content
        The configuration, with the paths of the datasets in the copy.
    arithmetic
        Arithmetic of the runs.
    copy
        The folder.
    """
    experiment = check_experiment({**content, "data": copy})
    machine = Machine.of(arithmetic.device, arithmetic.precision, experiment.deterministic)
    source, *targets = open_datasets(experiment, copy, Progress())
    return work_on(plan_all(experiment, source, targets, arithmetic), copy / RUNS, machine)

"""Progress of an experiment: one bar with the remaining time, or lines in a log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID

from crossfer.cli.bars import LOG_SECONDS, SECONDS_TO_JUDGE, Bars
from crossfer.cli.remarks import remarks
from crossfer.datasets import Dataset
from crossfer.experiment import Progress as ExperimentProgress
from crossfer.experiment.plan import Run, work_of

ENOUGH_TO_JUDGE = 0.01
"""The last hundredth of all the work, and the last two minutes, say how long the rest takes: less would be a
guess, and longer ago the machine may have been busier."""


class Shown(Bars, ExperimentProgress):
    """Shows bars on a terminal; elsewhere prints a line now and then.  A context manager."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.training: TaskID | None = None
        self.running: dict[str, str] = {}  # labels, by key
        self.work_done: dict[str, float] = {}  # of runs that were not finished before
        self.marks: deque[tuple[float, float]] = deque()  # when, and what share was done
        self.jobs: set[str] = set()
        self.others: list[Mapping[str, str]] = []

    def drawing(self, name: str, done: int, total: int) -> None:
        """Pictures of a stand-in were drawn."""
        self.count(f"draw {name} stand-in", done, total)

    def preparing(self, name: str, done: int, total: int) -> None:
        """Pictures of a dataset were decoded."""
        self.count(f"prepare {name}", done, total)

    def searching(self, strategy: str, done: int, total: int) -> None:
        """Recipes of a strategy were tried."""
        self.count(f"search {strategy}", done, total)

    def comparing(self, done: int, total: int) -> None:
        """Blocks of faces were compared with each other."""
        self.count("compare faces", done, total)

    def prepared(self, dataset: Dataset) -> None:
        """Say what is odd about a dataset that was prepared on the way."""
        for line in remarks(dataset):
            self.say(f"{dataset.name}: {line}")

    def said(self, line: str) -> None:
        """Say it."""
        self.say(line)

    def opened(self, dataset: Dataset) -> None:
        """Say which images belong to no class of the experiment."""
        if left_out := dataset.left_out:
            counts = ", ".join(f"{count:,} {label}" for label, count in left_out.items())
            self.say(f"{dataset.name}: left out, label in no class of this experiment: {counts}")

    def planned(self, runs: list[Run], finished: list[Run]) -> None:
        """Show one bar for all the runs."""
        done = f", {len(finished)} already finished" if finished else ""
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        self.say(f"{count}{done}")
        before = {run.key for run in finished}
        self.work_done = {run.key: 0.0 for run in runs if run.key not in before}
        work = sum(run.work for run in runs if run.key not in before)
        if work:
            self.training = self.bars.add_task("train", total=work)
            self.spoke = -math.inf  # a log says at once that the training has begun

    def reused(self, run: Run, versions: Mapping[str, str]) -> None:
        """Say once which other versions made runs that are reused."""
        if versions not in self.others:
            self.others.append(versions)
            made = ", ".join(f"{name} {version}" for name, version in versions.items())
            self.say(f"{run.label}: trained with {made}; it is reused and may differ by rounding")

    def started(self, run: Run) -> None:
        """Name the run on the bar, beside those that run at the same time; it may begin once more."""
        if run.key in self.work_done:
            self.work_done[run.key] = 0.0
            self.running[run.key] = run.label
            self._show()

    def step(self, run: Run, images: int) -> None:
        """Move the bar on."""
        if run.key in self.work_done:
            done = self.work_done[run.key] + images * work_of(run.strategy)
            self.work_done[run.key] = min(done, run.work)  # `Run.work` is rough
            self._show()
            if not self.marks:  # what an interrupted training had done comes first, at once
                self.marks.append((time.monotonic(), self._share()))
            self._say_remaining()

    def ended(self, run: Run, folder: Path) -> None:
        """Close the run's share of the bar, whatever of it was not counted step by step."""
        if run.key in self.work_done:
            self.work_done[run.key] = run.work
            self._show()
            self._say_remaining()
            self.running.pop(run.key, None)

    def submitted(self, run: Run, job: str) -> None:
        """Name each job once."""
        if job not in self.jobs:
            self.jobs.add(job)
            self.say(f"SLURM job {job}: {run.label}, …")

    def failed(self, run: Run, why: str) -> None:
        """Say why at once; the others go on."""
        self.say(f"{run.label} failed: {why}")
        self.ended(run, Path())

    def _show(self) -> None:
        """Bring the bar up to date."""
        if self.training is not None:
            self.bars.update(
                self.training,
                description=f"train {' | '.join(self.running.values())}",
                completed=sum(self.work_done.values()),
            )

    def _say_remaining(self) -> None:
        now = time.monotonic()
        if self.console.is_terminal or self.training is None or now - self.spoke < LOG_SECONDS:
            return
        self.spoke = now
        share, label = self._share(), " | ".join(self.running.values())
        remaining = self._remaining(now, share)
        left = "" if remaining is None else ", {}:{:02d} left".format(*divmod(round(remaining), 60))
        self.say(f"{share:4.0%}{left}: {label}")

    def _remaining(self, now: float, share: float) -> float | None:
        """Return the seconds that are left, once enough is done to judge by."""
        marks = self.marks
        marks.append((now, share))
        while len(marks) > 2 and _enough(now - marks[1][0], share - marks[1][1]):
            marks.popleft()
        seconds, done = now - marks[0][0], share - marks[0][1]
        return seconds * (1 - share) / done if done >= ENOUGH_TO_JUDGE else None

    def _share(self) -> float:
        """Return how much of all the work is done: 0–1."""
        task = next(task for task in self.bars.tasks if task.id == self.training)
        return task.completed / (task.total or 1)


def _enough(seconds: float, done: float) -> bool:
    """Tell whether the last of the work says how long the rest takes, without what was before it."""
    return seconds >= SECONDS_TO_JUDGE and done >= ENOUGH_TO_JUDGE

"""Progress callbacks of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crossfer.datasets.dataset import Dataset
from crossfer.experiment.plan import Run


class Progress:
    """Told how an experiment goes on; this one says nothing."""

    def preparing(self, name: str, done: int, total: int) -> None:
        """Pictures of a dataset were decoded."""

    def comparing(self, done: int, total: int) -> None:
        """Blocks of faces were compared with each other, to find copies."""

    def prepared(self, dataset: Dataset) -> None:
        """A raw dataset was prepared on the way."""

    def tried(self, said: list[str]) -> None:
        """The network works; what was found about it, a line each."""

    def opened(self, dataset: Dataset) -> None:
        """A dataset is there, with the classes of the experiment."""

    def divided(self, name: str, how: str) -> None:
        """A target is measured by folds."""

    def planned(self, runs: list[Run], finished: list[Run]) -> None:
        """All runs are known, and those that were finished before."""

    def reused(self, run: Run, versions: Mapping[str, str]) -> None:
        """A run that was finished before was made by other versions of these packages."""

    def started(self, run: Run) -> None:
        """A run begins, or goes on, perhaps in another process; several may at the same time."""

    def submitted(self, run: Run, job: str) -> None:
        """A run stands in a cluster's queue, as part of this job."""

    def waiting(self, run: Run, owner: str) -> None:
        """Another experiment, in another process, trains the same run just now."""

    def step(self, run: Run, images: int) -> None:
        """A run's training has seen that many more images."""

    def ended(self, run: Run, folder: Path) -> None:
        """A run is finished and measured."""

    def failed(self, run: Run, why: str) -> None:
        """A run failed, or cannot begin."""

    def untracked(self, why: str) -> None:
        """The experiment is no longer logged; its runs go on."""

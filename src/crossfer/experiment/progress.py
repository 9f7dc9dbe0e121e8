"""Progress callbacks of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crossfer.datasets.dataset import Dataset
from crossfer.experiment.plan import Run


class Progress:
    """Receives the events of an experiment; this class ignores them."""

    def preparing(self, name: str, done: int, total: int) -> None:
        """Pictures of a dataset were decoded."""

    def comparing(self, done: int, total: int) -> None:
        """Blocks of faces were compared with each other, to find copies."""

    def prepared(self, dataset: Dataset) -> None:
        """A raw dataset was prepared on the way."""

    def tried(self, said: list[str]) -> None:
        """The network was checked; the findings, a line each."""

    def opened(self, dataset: Dataset) -> None:
        """A dataset was opened with the classes of the experiment."""

    def divided(self, name: str, how: str) -> None:
        """A target is measured by folds, or a source was divided."""

    def planned(self, runs: list[Run], finished: list[Run]) -> None:
        """The runs are planned; some were finished before."""

    def reused(self, run: Run, versions: Mapping[str, str]) -> None:
        """A finished run was made by other versions of these packages."""

    def started(self, run: Run) -> None:
        """A run starts or resumes, perhaps in another process; several may run at the same time."""

    def submitted(self, run: Run, job: str) -> None:
        """A run was submitted to a cluster, as part of this job."""

    def waiting(self, run: Run, owner: str) -> None:
        """Another process is training the same run."""

    def noted(self, run: Run, what: str) -> None:
        """A run is trained again, or its checkpoint is not used as usual; why, in a line."""

    def step(self, run: Run, images: int) -> None:
        """A run was trained on that many more images."""

    def ended(self, run: Run, folder: Path) -> None:
        """A run is finished and measured."""

    def failed(self, run: Run, why: str) -> None:
        """A run failed, or cannot start."""

    def untracked(self, why: str) -> None:
        """The experiment is no longer logged; its runs continue."""

"""Progress of an experiment: the events of a run, and callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from crossfer.datasets.dataset import Dataset
from crossfer.executors.graph import Emit
from crossfer.experiment.plan import Run

STEP, SAID = "step", "said"
"""Events of a run: the images of training steps; what is unusual about it, in a line."""

SECONDS_BETWEEN_STEPS = 0.2


class Progress:
    """Receives the events of an experiment; this class ignores them."""

    def preparing(self, name: str, done: int, total: int) -> None:
        """Pictures of a dataset were decoded."""

    def comparing(self, done: int, total: int) -> None:
        """Blocks of faces were compared with each other, to find copies."""

    def prepared(self, dataset: Dataset) -> None:
        """A raw dataset was prepared on the way."""

    def said(self, line: str) -> None:
        """Something is worth knowing: of the network, of a dataset, of a run or of the log."""

    def opened(self, dataset: Dataset) -> None:
        """A dataset was opened with the classes of the experiment."""

    def planned(self, runs: list[Run], finished: list[Run]) -> None:
        """The runs are planned; some were finished before."""

    def reused(self, run: Run, versions: Mapping[str, str]) -> None:
        """A finished run was made by other versions of these packages."""

    def started(self, run: Run) -> None:
        """A run starts or resumes, perhaps in another process; several may run at the same time."""

    def submitted(self, run: Run, job: str) -> None:
        """A run was submitted to a cluster, as part of this job."""

    def step(self, run: Run, images: int) -> None:
        """A run was trained on that many more images."""

    def ended(self, run: Run, folder: Path) -> None:
        """A run is finished and measured."""

    def failed(self, run: Run, why: str) -> None:
        """A run failed, or cannot start."""


class Steps:
    """Accumulates the images of training steps and reports them a few times a second."""

    def __init__(self, tell: Emit) -> None:
        self._tell, self._images, self._last = tell, 0, -math.inf

    def __call__(self, images: int) -> None:
        """Add the images of a step."""
        self._images += images
        if time.monotonic() - self._last >= SECONDS_BETWEEN_STEPS:
            self.tell()

    def tell(self) -> None:
        """Report the images that were not reported yet."""
        if self._images:
            self._tell(STEP, self._images)
        self._images, self._last = 0, time.monotonic()

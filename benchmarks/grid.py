"""The study's whole grid: 25 trainings on data of its sizes, and what it costs to measure them.

    python benchmarks/grid.py [--data data/fer2013] [--epochs 30]

The source is FER2013 where it is at hand, and noise of its size otherwise; in the place of JAFFE, TFEID and
MUG stands noise of the sizes of Table I, since a step takes as long whatever it shows.  Everything an
experiment does is in the time: training, checkpoints, predictions for all validation and test sets, files,
intervals.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from crossfer import in_memory, prepare, run_experiment
from crossfer.datasets import SPLITS, Preparation
from crossfer.experiment import Progress, check_experiment
from crossfer.experiment.plan import Run
from crossfer.machine import Machine, describe

TABLE_I = {
    "FER": (28_709, 3_589, 3_589),
    "JAFFE": (131, 15, 67),
    "TFEID": (405, 47, 58),
    "MUG": (5_877, 741, 734),
}
"""Images to train, to validate and to test on; FER2013 has one fewer than the paper says."""


def noise(name: str, folder: Path) -> Path:
    """Prepare noise of the size of a dataset."""
    rng = np.random.default_rng(0)
    parts = {
        split: (list(rng.integers(0, 256, (count, 48, 48), np.uint8)), rng.integers(0, 7, count))
        for split, count in zip(SPLITS, TABLE_I[name], strict=True)
    }
    prepare(in_memory(parts, name=name), folder / name, Preparation(faces="cropped"))
    return folder / name


class Said(Progress):
    """Prints when a training begins."""

    def started(self, run: Run) -> None:
        """Name it."""
        print(f"{time.strftime('%H:%M:%S')} {run.label}", flush=True)


def main() -> None:
    """Run the grid and print what took how long."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="FER2013, prepared; noise otherwise")
    parser.add_argument("--epochs", type=int, default=30)
    asked = parser.parse_args()
    print(describe(Machine.of()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = [noise(target, folder) for target in ("JAFFE", "TFEID", "MUG")]
        experiment = check_experiment(
            {
                "name": "grid",
                "source": (asked.data or noise("FER", folder)).resolve(),
                "targets": targets,
                "strategies": ["BL", "FC", "FC+CL", "RE", "FU"],
                "recipes": {"default": {"epochs": asked.epochs}},
                "copies": "ignore",
            }
        )
        began = time.perf_counter()
        results = run_experiment(experiment, folder / "out", Said())
        whole = time.perf_counter() - began
    seconds: dict[str, float] = defaultdict(float)
    for run in results.runs:
        seconds[run.strategy] += run.cost.seconds
    measuring = sum(run.cost.evaluation_seconds for run in results.runs)
    print(f"{len(results.runs)} trainings of {asked.epochs} epochs: {whole:.0f} s in all")
    for strategy, spent in seconds.items():
        print(f"  {strategy:6} {spent:8.1f} s")
    print(f"  measuring {measuring:.1f} s, {measuring / whole:.1%}")


if __name__ == "__main__":
    main()

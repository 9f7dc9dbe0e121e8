"""Strategies on other shifts of FER2013: more of the same faces, blurred faces, and noisy ones.

    python benchmarks/shifts.py --data data/fer2013 --out runs/shifts [--strategies BL FU GFR] [--workers 2]
    python benchmarks/strategies.py runs/shifts/results-same-blurred

The source is 6,000 of FER2013's training images.  The targets are others: 6,000 as they are (``same``), with
2,500 to test on; 2,000 ``blurred`` (σ 1.5 pixels), at 60 % of their contrast and with noise (deviation 12),
with 1,500 to test on; and as many ``noisy`` (deviation 25).  A quarter of the study's width.  Stopped, the
same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer import in_memory, prepare, run_experiment
from crossfer.datasets import Preparation, open_dataset
from crossfer.experiment import check_experiment
from grid import Said

STRATEGIES = ["BL", "FU", "MIX+KD", "MIX", "RIDGE+RP", "GFR", "GFR+WiSE", "FC"]
RECIPE = {"epochs": 22}
"""Of BL and FU: FU sees twice as many images."""


def blurred(faces: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return faces (N, 48, 48) out of focus, in bad light, from a noisy camera."""
    soft = np.stack([cv2.GaussianBlur(face, (0, 0), 1.5) for face in faces]).astype(np.float64)
    worse = 127.5 + 0.6 * (soft - 127.5) + rng.normal(0, 12, soft.shape)
    return worse.clip(0, 255).astype(np.uint8)


def noisy(faces: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return faces (N, 48, 48) from a noisy camera."""
    return (faces + rng.normal(0, 25, faces.shape)).clip(0, 255).astype(np.uint8)


def draw(data: Path, out: Path) -> dict[str, Path]:
    """Prepare the source and the targets, unless they are there; return their folders."""
    fer, rng = open_dataset(data), np.random.default_rng(0)
    rows = rng.permutation(fer.rows("training"))
    test, validation = fer.rows("test"), rng.permutation(fer.rows("validation"))
    plan = {
        "source": (rows[:6000], validation[:1500], test),
        "same": (rows[6000:12000], validation[1500:2500], rows[12000:14500]),
        "blurred": (rows[15000:17000], validation[2500:3250], rows[17000:18500]),
        "noisy": (rows[19000:21000], validation[3250:], rows[21000:22500]),
    }
    folders, camera = {name: out / name for name in plan}, np.random.default_rng(1)
    for name, splits in plan.items():
        if folders[name].exists():
            continue
        parts = {}
        for split, chosen in zip(("training", "validation", "test"), splits, strict=True):
            faces = np.asarray(fer.images[chosen])
            if name == "blurred":
                faces = blurred(faces, rng)
            elif name == "noisy":
                faces = noisy(faces, camera)
            parts[split] = (list(faces), fer.labels[chosen])
        prepare(in_memory(parts, name=name), folders[name], Preparation(faces="cropped"))
    return folders


def main() -> None:
    """Draw, run, and say where the results are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="FER2013, prepared")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=["same", "blurred"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    folders = draw(given.data, given.out.resolve())
    experiment = check_experiment(
        {
            "name": "other shifts of FER2013",
            "source": folders["source"],
            "targets": [folders[name] for name in given.targets],
            "model": {"width": 0.25},
            "seeds": given.seeds,
            "fractions": [1.0],
            "strategies": given.strategies,
            "recipes": {name: RECIPE for name in ("BL", "FU") if name in given.strategies},
            "copies": "ignore",
            "cache": given.out.resolve() / "runs",
        }
    )
    results = given.out / f"results-{'-'.join(given.targets)}"
    run_experiment(experiment, results, Said(), workers=given.workers)
    print(results)


if __name__ == "__main__":
    main()

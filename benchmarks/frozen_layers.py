"""What it saves that frozen layers calculate once: an epoch with and without.

    python benchmarks/frozen_layers.py [--data data/ck48] [--images 131 405] [--rounds 3]

The study's network, batches of 32, as the fine-tunings have them.  *Without*, every epoch draws new versions
and sends them through the frozen layers.  *With*, it shows one of ``--views`` versions; reported are an epoch
after all versions were shown, and the whole training, what is calculated once included.  Ratios are medians
over rounds in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from crossfer.adapt import untrained
from crossfer.datasets import open_dataset
from crossfer.models import study_cnn, train_only
from crossfer.strategies import LAYERS
from crossfer.training import Faces, Recipe, machine, train
from crossfer.training.machine import describe

BATCH, EPOCHS = 32, 30


def faces(data: Path | None, count: int) -> Faces:
    """Return so many training faces of a prepared dataset, by chance; noise where there is none."""
    rng = np.random.default_rng(0)
    if data:
        dataset = open_dataset(data)
        rows = np.sort(rng.permutation(dataset.rows("training"))[:count])
        return Faces.from_numpy(dataset.images, dataset.labels, dataset.classes, rows)
    images = torch.from_numpy(rng.integers(0, 256, (count, 48, 48), np.uint8))
    return Faces(images, torch.arange(count) % 7)


def seconds(layers: str, shown: Faces, recipe: Recipe, reuse: bool) -> tuple[float, float]:
    """Return how long an epoch takes, the median of the last half, and how long an epoch on average."""
    model = untrained(study_cnn, 0)
    train_only(model, LAYERS[layers](model))
    began = time.perf_counter()
    history = train(model, shown, {}, recipe, 0, machine(), keep="last", reuse=reuse).history
    average = (time.perf_counter() - began) / len(history)
    return statistics.median(row["seconds"] for row in history[len(history) // 2 :]), average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a prepared dataset; noise otherwise")
    parser.add_argument("--images", type=int, nargs="+", default=[131, 405])
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with_views = Recipe(epochs=EPOCHS, batch_size=BATCH, views=asked.views)
    without = Recipe(epochs=4, batch_size=BATCH)
    print(describe(machine()))
    print("| trains | images | an epoch without | with | faster by | the whole training |")
    print("|---|---|---|---|---|---|")
    for layers in ("head", "FC", "FC+CL"):
        for count in asked.images:
            shown = faces(asked.data, count)
            rounds = [
                (
                    seconds(layers, shown, without, reuse=False)[0],
                    *seconds(layers, shown, with_views, reuse=True),
                )
                for _ in range(asked.rounds)
            ]
            anew, kept, _ = (statistics.median(column) for column in zip(*rounds, strict=True))
            epoch = statistics.median(a / k for a, k, _ in rounds)
            whole = statistics.median(a / average for a, _, average in rounds)
            print(
                f"| {layers} | {len(shown)} | {anew:.3f} s | {kept:.3f} s | {epoch:.1f}× | {whole:.1f}× |",
                flush=True,
            )


if __name__ == "__main__":
    main()

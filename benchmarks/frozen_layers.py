"""What it saves that frozen layers calculate once: an epoch with and without.

    python benchmarks/frozen_layers.py [--data data/ck48] [--images 131 405] [--batch 32 128] [--rounds 3]
    python benchmarks/frozen_layers.py --network timm:resnet18 --images 64 --batch 32 --rounds 1

The study's network, or any other on noise of its own size, as the fine-tunings train it.  Beside each other,
in turn: an epoch in which *every layer* trains (RE); one in which the layers before the named ones are frozen
but calculate *anew* what they make of every image; and one in which that is *reused* (one of ``--views``
versions of every image is shown, after all of them were shown once).  The last column is a whole training of
``--epochs``, with what is calculated once.  Ratios are medians over rounds: to every layer, and to anew.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from crossfer.adaptation import untrained
from crossfer.datasets import open_dataset
from crossfer.machine import Machine, describe
from crossfer.networks import NetworkConfig
from crossfer.training import Faces, Recipe, train

EPOCHS = 30
TRAINED = ("head", "FC", "FC+CL")


def faces(data: Path | None, count: int, network: NetworkConfig) -> Faces:
    """Return so many training faces of a prepared dataset, by chance; noise where there is none."""
    rng = np.random.default_rng(0)
    if data:
        dataset = open_dataset(data)
        rows = np.sort(rng.permutation(dataset.rows("training"))[:count])
        return Faces.from_numpy(
            dataset.images, dataset.labels, dataset.classes, rows, len(dataset.class_set)
        )
    shape = network.build().preprocessing.image_shape
    images = torch.from_numpy(rng.integers(0, 256, (count, *shape), np.uint8))
    return Faces(images, torch.arange(count) % 7)


def seconds(
    network: NetworkConfig, layers: str, shown: Faces, recipe: Recipe, reuse: bool
) -> tuple[float, float]:
    """Return how long an epoch takes, the median of the last half, and how long an epoch on average."""
    model = untrained(network.build, 0)
    model.train_only(layers)
    began = time.perf_counter()
    history = train(model, shown, {}, recipe, 0, Machine.of(), keep="last", reuse=reuse).history
    average = (time.perf_counter() - began) / len(history)
    return statistics.median(row["seconds"] for row in history[len(history) // 2 :]), average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a prepared dataset; noise otherwise")
    parser.add_argument("--images", type=int, nargs="+", default=[131, 405])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="study", help="study, timm:NAME, torchvision:NAME, …")
    parser.add_argument("--trained", nargs="+", default=TRAINED, choices=TRAINED)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the whole training")
    parser.add_argument("--few", type=int, default=6, help="epochs that are timed otherwise")
    asked = parser.parse_args()
    network = NetworkConfig(network=asked.network)
    print(describe(Machine.of()))
    print("| batch | images | trains | every layer | anew | reused | faster by | whole training |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for batch, count in itertools.product(asked.batch, asked.images):
        shown = faces(asked.data, count, network)
        few = Recipe(epochs=asked.few, batch_size=batch)
        reused = Recipe(epochs=asked.epochs, batch_size=batch, views=asked.views)
        rounds: dict[str, list[tuple[float, ...]]] = {layers: [] for layers in asked.trained}
        for _ in range(asked.rounds):
            every, _ = seconds(network, "all", shown, few, reuse=False)
            for layers in asked.trained:
                anew, _ = seconds(network, layers, shown, few, reuse=False)
                rounds[layers].append(
                    (every, anew, *seconds(network, layers, shown, reused, reuse=True))
                )
        for layers, found in rounds.items():
            every, anew, epoch, _ = (
                1000 * statistics.median(column) for column in zip(*found, strict=True)
            )
            times = [statistics.median(one[number] / one[2] for one in found) for number in (0, 1)]
            whole = [statistics.median(one[number] / one[3] for one in found) for number in (0, 1)]
            print(
                f"| {batch} | {len(shown)} | {layers} | {every:.0f} ms | {anew:.0f} ms | {epoch:.1f} ms "
                f"| {times[0]:.1f}×, {times[1]:.1f}× | {whole[0]:.1f}×, {whole[1]:.1f}× |",
                flush=True,
            )


if __name__ == "__main__":
    main()

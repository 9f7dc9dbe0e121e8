"""Fine-tune every layer, and measure with batch statistics as the training left them, and estimated anew.

    python benchmarks/batch_statistics.py runs/shifts/out/runs/BL-* --source data/fer2013 --target data/CK+48

Each network is trained as it was built (momentum 0.1) and with a momentum of 0.01; the last epoch is kept.
The weights are the same either way.  Accuracy is that on the source's test set and on the target's validation
and test sets, limited to the target's classes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from crossfer.adaptation import adapt
from crossfer.datasets import Dataset, open_dataset
from crossfer.experiment.execute import load_network
from crossfer.loading import faces_of
from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.strategies import STRATEGIES
from crossfer.training import Faces, predict, trainer
from crossfer.training.statistics import batch_norms

RE = STRATEGIES["RE"]
TRAININGS = ((200, 5), (200, 10), (None, 30))
"""Images of the target (None: all) and epochs."""


@contextmanager
def left_as_they_ran() -> Iterator[None]:
    """Leave batch statistics as the training left them."""
    with patch.object(trainer, "renew_statistics", lambda network, *_: network.eval()):
        yield


def accuracy(model: Classifier, images: Faces, machine: Machine) -> float:
    """Return the accuracy in per cent, limited to the classes that the labels distinguish."""
    answers = predict(model, images.images, machine)
    if images.known is not None:
        answers = answers.masked_fill(~images.known, -1)
    return 100 * float((answers.argmax(1) == images.labels).float().mean())


def measured(
    folder: Path, source: Dataset, target: Dataset, seed: int
) -> Iterator[tuple[Any, Any]]:
    """Yield what was trained, and the accuracies of one network."""
    machine, model = Machine.of("cpu"), load_network(folder)
    rows = np.random.default_rng(seed).permutation(target.rows("training"))
    tests = [
        faces_of(source, source.rows("test")),
        faces_of(target, np.concatenate([target.rows("validation"), target.rows("test")])),
    ]
    for momentum in (0.1, 0.01):
        for norm in batch_norms(model.network).values():
            norm.momentum = momentum
        for count, epochs in TRAININGS:
            shown = {"target": faces_of(target, rows[:count])}
            recipe = replace(RE.default_recipe(), epochs=epochs)
            told = (RE, model, model, shown, {}, recipe, seed, machine)
            with left_as_they_ran():
                ran = adapt(*told, keep="last").model
            found = [accuracy(ran, each, machine) for each in tests]
            yield (count or len(rows), epochs, f"momentum {momentum}, as it ran"), found
            anew = adapt(*told, keep="last").model
            found = [accuracy(anew, each, machine) for each in tests]
            yield (count or len(rows), epochs, f"momentum {momentum}, estimated anew"), found


def main() -> None:
    """Measure every network, and print the means over them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", type=Path, nargs="+", help="folders of finished runs of BL")
    parser.add_argument("--source", type=Path, required=True, help="prepared")
    parser.add_argument("--target", type=Path, required=True, help="prepared")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, target = open_dataset(given.source), open_dataset(given.target)
    found = defaultdict(list)
    for seed, folder in enumerate(given.networks):
        for what, values in measured(folder, source, target, seed):
            found[what].append(values)
            print(folder.name, *what, *(f"{value:.1f}" for value in values), flush=True)
    for what, values in found.items():
        means = np.mean(values, 0)
        print(f"mean of {len(values)}:", *what, *(f"{value:.1f}" for value in means))


if __name__ == "__main__":
    main()

"""How long the study's network takes to an accuracy on the source's validation set.

    python benchmarks/time_to_accuracy.py data/fer2013 [--accuracy 0.64 0.66] [--seed 0]

Trains the baseline by its default recipe, on a GPU where there is one, and says now and then how it goes.
What an experiment recorded can be read instead of trained: ``--history runs/…/history.csv``.  The time is
that of training and validation; opening the dataset is not in it.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from crossfer.adaptation import untrained
from crossfer.datasets import open_dataset
from crossfer.loading import faces_of
from crossfer.machine import Machine, describe
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Recipe, State, train
from crossfer.training.trainer import Row

SECONDS_BETWEEN = 5.0
"""How often it is asked how the training goes."""


def trained(data: Path, recipe: Recipe, seed: int) -> list[Row]:
    """Train a baseline, saying how it goes; return its history."""
    dataset, machine = open_dataset(data), Machine.of()
    print(describe(machine), flush=True)
    training, validation = (
        faces_of(dataset, dataset.rows(split)) for split in ("training", "validation")
    )
    told, asked = 0, time.monotonic()

    def tell(standing: Callable[[], State]) -> None:
        nonlocal told, asked
        if time.monotonic() - asked < SECONDS_BETWEEN:
            return  # to ask brings numbers from the device
        history, asked = standing().history, time.monotonic()
        if len(history) > told:
            told = len(history)
            row, seconds = history[-1], sum(row["seconds"] for row in history)
            print(f"epoch {told}: {row['source_accuracy']:.2%}, {seconds:.1f} s", flush=True)

    model = untrained(lambda: Classifier(study_cnn()), seed)
    sides = {"source": validation}
    return train(model, training, sides, recipe, seed, machine, on_state=tell).history


def recorded(history: Path) -> list[Row]:
    """Read the history of a finished run."""
    with history.open(encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def reached(history: Sequence[Row], accuracy: float) -> tuple[float, int] | None:
    """Return the seconds and the epochs after which an accuracy was first measured."""
    seconds = 0.0
    for row in history:
        seconds += row["seconds"]
        if row["source_accuracy"] >= accuracy:
            return seconds, round(row["epoch"])
    return None


def lines(history: Sequence[Row], accuracies: Sequence[float]) -> Iterator[str]:
    """Yield what was found."""
    epoch = statistics.median(row["seconds"] for row in history)
    best = max(row["source_accuracy"] for row in history)
    yield f"an epoch, validation included: {epoch:.2f} s; {len(history)} epochs; best {best:.2%}"
    for accuracy in accuracies:
        found = reached(history, accuracy)
        when = f"{found[0]:.1f} s, {found[1]} epochs" if found else "not reached"
        yield f"{accuracy:.0%} on the validation set: {when}"


def main() -> None:
    """Train or read, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("data", type=Path, nargs="?", help="a prepared dataset")
    what.add_argument("--history", type=Path, help="a finished baseline's history.csv")
    parser.add_argument("--accuracy", type=float, nargs="+", default=[0.64, 0.66])
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    history = (
        recorded(asked.history)
        if asked.history
        else trained(asked.data, Recipe(epochs=asked.epochs), asked.seed)
    )
    print("\n".join(lines(history, asked.accuracy)))


if __name__ == "__main__":
    main()

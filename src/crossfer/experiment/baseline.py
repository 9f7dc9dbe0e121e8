"""Check the deployed model: accuracy, class order, expected accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError
from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.mistaken import mistaken_order
from crossfer.experiment.folder import load_answers, parts_of
from crossfer.experiment.plan import Run

ABOVE_CHANCE = 5.0
"""Points above the most frequent class that the interval of a baseline's accuracy must reach."""
FAR = 3.0
"""Tolerated difference from the expected accuracy, in points, outside the interval."""


def check_baseline(run: Run, source: Dataset, folder: Path) -> None:
    """Refuse a deployed model that seems to be read wrongly.

    Its class order and accuracy are checked on the source's validation set, `NetworkConfig.expect` on the
    test set.

    Parameters
    ----------
    run
        The run of the baseline, finished in `folder`.
    source
        The source.

    Raises
    ------
    CrossferError
        If another class order is far more accurate, or the accuracy is near chance or far from `expect`.
    """
    if run.strategy.start != "deployed":
        return
    names, parts = run.classes.names, parts_of(source)
    new = [names.index(name) for name in run.network.unknown(run.classes)]
    validation = load_answers(folder, parts, "validation", {}, new)
    labels, decisions = validation.labels, validation.decisions
    if order := mistaken_order(labels, decisions, len(names)):
        pairs = [f"{names[said]} for {names[i]}" for i, said in enumerate(order) if said != i]
        theirs = run.network.outputs or names
        better = f"; its outputs may be {', '.join(_renamed(names, theirs, order))}"
        raise CrossferError(
            f"model.classes: the order seems wrong: on {source.name} the network predicts "
            f"{', '.join(pairs)}" + (better if set(names) & set(theirs) else "")
        )
    right, count = int((labels == decisions).sum()), len(labels)
    frequent = 100 * int(np.bincount(labels).max()) / count
    if wilson_interval(right, count)[1] < frequent + ABOVE_CHANCE:
        raise CrossferError(
            f"model: the deployed network has {100 * right / count:.1f} % on {source.name}'s "
            f"validation set, near chance ({frequent:.1f} %); check its classes, normalisation, "
            "colour order and framing"
        )
    if run.network.expect is None:
        return
    test = load_answers(folder, parts, "test", {}, new)
    right, count, wanted = int(test.right.sum()), len(test.labels), 100 * run.network.expect
    low, high = wilson_interval(right, count)
    if not low <= wanted <= high and abs(100 * right / count - wanted) > FAR:
        raise CrossferError(
            f"model.expect: the deployed network has {100 * right / count:.1f} % ({low:.1f} to "
            f"{high:.1f}) on {source.name}'s test set, not {wanted:g} %; check its classes, "
            "normalisation, colour order and framing"
        )


def _renamed(names: Sequence[str], theirs: Sequence[str], order: Sequence[int]) -> list[str]:
    """Return the names of a network's outputs in another class order."""
    true = {names[said]: names[meant] for meant, said in enumerate(order)}
    return [true.get(name, name) for name in theirs]

"""Check a classifier on its source: classes without an image, class order, accuracy."""

from __future__ import annotations

import numpy as np

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import Split
from crossfer.deploy.models import Model
from crossfer.errors import CrossferError
from crossfer.evaluation.metrics import decide
from crossfer.evaluation.mistaken import misread, unexpected

CHECKED: tuple[Split, ...] = ("validation", "test", "training")
"""The first of these splits that has an image is checked."""


def classes_without_image(source: Dataset) -> tuple[str, ...]:
    """Return the names of the classes of which a dataset has no image in any split."""
    names = source.class_set.names
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(names))
    return tuple(name for name, count in zip(names, counts, strict=True) if not count)


def check_classes(model: Model, source: Dataset) -> None:
    """Refuse a source that lacks most of a classifier's classes: its labels have other names.

    Raises
    ------
    CrossferError
        If it has no image of more than half of them.
    """
    lacking, names = classes_without_image(source), source.class_set.names
    if 2 * len(lacking) > len(names):
        raise CrossferError(
            f"{source.folder}: no image of {', '.join(lacking)}, {len(lacking)} of the {len(names)} "
            f"classes of {model.name}; its labels are {', '.join(source.card['classes'])}; map them "
            "with --label LABEL=CLASS, or correct `classes:` of the model"
        )


def misread_on(model: Model, source: Dataset) -> str | None:
    """Say how a classifier seems to be read wrongly, by its answers on its source; None: it does not."""
    split = next((split for split in CHECKED if len(source.rows(split))), None)
    if split is None:
        raise CrossferError(
            f"{source.folder}: no image of one of {', '.join(source.class_set.names)}; name the dataset "
            "that the model was trained on"
        )
    rows = source.rows(split)
    decisions = decide(model.answers(source, rows), source.classes)
    names = source.class_set.names
    return misread(source.labels[rows], decisions, names, f"{source.name}'s {split} set")


def check_expected(model: Model, source: Dataset) -> None:
    """Refuse a classifier whose accuracy on its source's test set is not as its description expects.

    Raises
    ------
    CrossferError
        If it is far from `Model.expect`.
    """
    rows = source.rows("test")
    if model.expect is None or not len(rows):
        return
    right = decide(model.answers(source, rows), source.classes) == source.labels[rows]
    if problem := unexpected(right, model.expect, f"{source.name}'s test set"):
        raise CrossferError(f"{model.name}: expect: {problem}")


def left_out(dataset: Dataset, split: Split) -> dict[str, int]:
    """Count the images of a split whose label belongs to no class, by label."""
    everything = dataset.with_own_classes()
    rows = everything.rows(split)
    rows = rows[dataset.labels[rows] < 0]
    labels = everything.samples.column("label").take(rows).to_pylist()
    return {name: labels.count(name) for name in sorted(set(labels))}


def unchecked(model: Model, source: Dataset | None = None) -> list[str]:
    """Say that a described accuracy is not checked, where there is no test image of the source."""
    if model.expect is None or (source is not None and len(source.rows("test"))):
        return []
    why = "it is the accuracy on its source's test set"
    if source is not None:
        why = f"{source.name} has no test image of its classes"
    return [f"{model.name}: expect: is not checked here: {why}"]

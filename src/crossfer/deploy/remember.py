"""Summarise the source of a classifier in a memory file."""

from __future__ import annotations

from crossfer.datasets.dataset import Dataset
from crossfer.deploy.checks import check_classes, check_expected, misread_on
from crossfer.deploy.models import Model
from crossfer.errors import CrossferError
from crossfer.loading import faces_of
from crossfer.machine import Machine
from crossfer.memory.file import MAX_MB, Memory
from crossfer.progress import OnProgress, silent


def remember(
    model: Model, source: Dataset, max_mb: float = MAX_MB, progress: OnProgress = silent
) -> Memory:
    """Compute the memory of a source, whose images may be deleted afterwards.

    Parameters
    ----------
    model
        The classifier.
    source
        The dataset that it was trained on, with the classifier's classes.
    max_mb
        Maximum size of the file, in millions of bytes.
    progress
        Called with the numbers of images done and in total.

    Raises
    ------
    CrossferError
        If the classifier gives no features, or seems to be read wrongly: most of its classes have no image,
        another class order is far more accurate, or its accuracy is near chance or not as expected.
    """
    classifier = model.pytorch
    model.check(source)
    check_classes(model, source)
    rows = source.rows("training")
    if not len(rows):
        raise CrossferError(
            f"{source.folder}: no training image with a class of the model; name another dataset"
        )
    if problem := misread_on(model, source):
        raise CrossferError(f"{model.name}: {problem}")
    check_expected(model, source)
    return Memory.of(
        classifier,
        faces_of(source, rows),
        Machine.of(),
        max_mb,
        progress,
        faces_of(source, source.rows("validation")),
        source.name,
    )

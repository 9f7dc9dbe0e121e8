"""Check the deployed model: accuracy, class order, expected accuracy."""

from __future__ import annotations

from pathlib import Path

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError
from crossfer.evaluation.mistaken import misread, unexpected
from crossfer.experiment.folder import load_answers, parts_of
from crossfer.experiment.plan import Run


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
    where = f"{source.name}'s validation set"
    outputs = run.network.outputs
    if problem := misread(validation.labels, validation.decisions, names, where, outputs):
        raise CrossferError(f"model: {problem}")
    if run.network.expect is None:
        return
    test = load_answers(folder, parts, "test", {}, new)
    if problem := unexpected(test.right, run.network.expect, f"{source.name}'s test set"):
        raise CrossferError(f"model.expect: {problem}")

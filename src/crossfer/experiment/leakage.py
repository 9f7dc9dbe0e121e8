"""Find test images with copies in a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.duplicates import (
    METHOD,
    group_copies,
    in_training,
    overlaps,
    told_apart,
)
from crossfer.datasets.folds import all_tested
from crossfer.errors import CrossferError
from crossfer.evaluation.rows import Leakage
from crossfer.files import read_json, write_json
from crossfer.progress import OnProgress, silent
from crossfer.validation import adapter

LEAKAGE = "leakage.json"
MANY = 200_000
"""Maximum number of images for ``auto``: the search takes minutes."""


def look_for_leakage(
    copies: str,
    divisions: Sequence[Sequence[Dataset]],
    file: Path,
    progress: OnProgress = silent,
) -> Leakage | None:
    """Find copies among an experiment's datasets; a result for the same datasets is read from `file`.

    Parameters
    ----------
    copies
        ``auto``, ``count``, ``drop`` or ``ignore``: see `crossfer.experiment.Experiment`.
    divisions
        The source and the targets, with the splits of each fold.
    file
        File of the result.
    progress
        Called with the numbers of blocks of pairs done and in total.

    Returns
    -------
    Leakage or None
        None if copies were not searched.

    Raises
    ------
    CrossferError
        If no image of a test set is left.
    """
    datasets = [_whole(each) for each in zip(*divisions, strict=True)]
    images = sum(len(dataset.images) for dataset in datasets)
    # Drawn faces are so similar that nearly all would count as copies.
    unfit = images > MANY or any(dataset.stand_in for dataset in datasets)
    if copies == "ignore" or (copies == "auto" and unfit):
        return None
    asked = {
        "method": METHOD,
        "datasets": [
            [d.name, d.fingerprint, d.class_set.meaning] for division in divisions for d in division
        ],
    }
    content: dict[str, Any] | None = None
    with suppress(OSError, ValueError):  # one that cannot be read is made again
        content = read_json(file)
    if not isinstance(content, dict) or content.get("of") != asked or "copied" not in content:
        content = {"of": asked, **_search(datasets, divisions, progress)}
        write_json(file, content)
    copied: dict[str, list[int]] = content["copied"]
    dropped = copied if copies == "drop" else {}
    for dataset in datasets:
        if dropped.get(dataset.name) and not len(test_rows(dataset, dropped)):
            raise CrossferError(
                f"{dataset.name}: every test image has a copy in a training set, so copies: drop "
                "leaves none; set copies: ignore, or prepare other splits"
            )
    in_training_sets = {name: len(rows) for name, rows in copied.items()}
    told = {**content["found"], "in_training": in_training_sets, "dropped": dropped}
    return adapter(Leakage).validate_python(told)


def _search(
    datasets: Sequence[Dataset], divisions: Sequence[Sequence[Dataset]], progress: OnProgress
) -> dict[str, Any]:
    """Return rows of test images with a copy in training, by dataset, and all overlaps, for JSON."""
    groups = group_copies([dataset.images for dataset in datasets], progress)
    copied = [in_training(division, groups) for division in divisions]
    named = dict(zip(told_apart(datasets), datasets, strict=True))
    return {
        "copied": {
            name: sorted({int(row) for one in copied for row in one[name]}) for name in copied[0]
        },
        "found": {
            "method": METHOD,
            "images": {name: len(dataset.images) for name, dataset in named.items()},
            "subjects": {
                name: dataset.subjects_in_several_splits() for name, dataset in named.items()
            },
            "overlaps": [asdict(one) for one in overlaps(datasets, groups)],
        },
    }


def _whole(divisions: Sequence[Dataset]) -> Dataset:
    """Return a dataset whose test set contains those of all folds."""
    same = len({dataset.fingerprint for dataset in divisions}) == 1
    return divisions[0] if same else all_tested(divisions[0])


def test_rows(dataset: Dataset, dropped: Mapping[str, Sequence[int]]) -> NDArray[np.int64]:
    """Return the rows of the test images that are not dropped, ascending."""
    rows = dataset.rows("test")
    out = [np.isin(own, dropped.get(part.name, [])) for part, own in dataset.divided(rows)]
    return rows[~np.concatenate(out)]

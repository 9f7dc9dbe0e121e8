"""Read the files of a run's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import Split
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.experiment.names import ERROR
from crossfer.experiment.plan import Run
from crossfer.files import write_bytes
from crossfer.networks.classifier import CLASSIFIER_CARD, WEIGHTS
from crossfer.run_folder import (
    FORBIDDEN,
    PREDICTIONS,
    altered,
    is_finished,
    load_predictions,
    read_run,
)

BUNDLE_FILES = (WEIGHTS, CLASSIFIER_CARD)
"""The files of the classifier: a run's folder is a bundle."""
CHECKPOINT = "checkpoint.safetensors"
"""It exists only while a run is unfinished."""

MEASURED_SPLITS: tuple[Split, ...] = ("validation", "test")
"""The splits on which a run is measured."""


def folder_of(run: Run, runs_folder: Path) -> Path:
    """Return the folder of a run, which its key identifies, whatever its name was when it was trained."""
    return next(runs_folder.glob(f"*-{run.key}"), runs_folder / run.folder)


def place_of(folder: Path, out: Path) -> str:
    """Return how files in `out` name a folder: relatively if it is inside, since both are moved together.

    Otherwise absolutely: from elsewhere, or below a symbolic link, a relative path would lead astray.
    """
    for inside, root in ((folder, out), (folder.resolve(), out.resolve())):
        if inside.is_relative_to(root) and ".." not in (found := inside.relative_to(root)).parts:
            return found.as_posix()
    return folder.resolve().as_posix()


def record_failure(run: Run, runs_folder: Path, why: str) -> None:
    """Write why a run failed, unless there is a traceback already."""
    folder = folder_of(run, runs_folder)
    if not (folder / ERROR).exists() and not is_finished(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ERROR, f"{why}\n".encode("utf-8", "backslashreplace"))


def check_weights(folder: Path) -> None:
    """Check that the classifier of a finished run is unchanged.

    Raises
    ------
    CrossferError
        If one of its files is missing, changed, or forbidden to this user.
    """
    for name in BUNDLE_FILES:
        if why := altered(folder, name):
            mend = "delete its folder to train it again"
            if why == FORBIDDEN:
                mend = "change its permissions"
            raise CrossferError(f"{folder / name}: {why}; {mend}")


def changed_start(folder: Path) -> str | None:
    """Return the label of a run from which a finished run started, and whose weights are others now.

    Runs that cannot be read are not looked at, nor is anything in a folder of an earlier version.
    """
    for key, weights in read_run(folder)["starts_from"].items():
        for above in folder.parent.glob(f"*-{key}"):
            with suppress(CrossferError):
                content = read_run(above)
                if content["files"].get(WEIGHTS) != weights:
                    return str(content["label"])
    return None


class Part(NamedTuple):
    """A dataset, or part of a union, as far as predictions depend on it.

    Parameters
    ----------
    name, fingerprint
        Of the dataset.
    classes
        Indices of its classes; decisions are made among them.
    start
        First row of the part in the union.
    """

    name: str
    fingerprint: str
    classes: Sequence[int]
    start: int = 0


def parts_of(dataset: Dataset) -> list[Part]:
    """Return the parts of a dataset: itself, unless it is a union."""
    several = (Part(part.name, part.fingerprint, part.classes) for part in dataset.parts)
    return placed(several, (len(part.samples) for part in dataset.parts))


def placed(parts: Iterable[Part], images: Iterable[int]) -> list[Part]:
    """Return the parts of a union in their places, one after the other, each with so many images."""
    starts = accumulate(images, initial=0)
    return [part._replace(start=start) for part, start in zip(parts, starts, strict=False)]


def load_answers(
    folder: Path,
    parts: Sequence[Part],
    split: Split,
    dropped: Mapping[str, Sequence[int]],
    without: Sequence[int] = (),
) -> Answers:
    """Return the answers of a finished run on a split; each image is decided among its part's classes.

    Parameters
    ----------
    folder
        Folder of the run.
    parts
        Parts of the dataset.
    split
        The split.
    dropped
        For each part, rows that are left out.
    without
        Classes whose images are left out.

    Raises
    ------
    CrossferError
        If the predictions cannot be read, or lack the images.
    """
    return Answers.joined([_load_part(folder, part, split, dropped, without) for part in parts])


def said_by_folds(
    folders: Sequence[Path],
    folds: Sequence[Sequence[Part]],
    split: Split,
    dropped: Mapping[str, Sequence[int]],
    without: Sequence[int] = (),
) -> tuple[Answers, ...]:
    """Return the answers of one seed's networks on a split of a dataset.

    Parameters
    ----------
    folders
        Folder of the run, or of each fold's run.
    folds
        Parts of the dataset for each fold; one element without folds.
    split, dropped, without
        As in `load_answers`.

    Returns
    -------
    tuple
        With folds, the answers of all networks on their own images as one set; otherwise those of each
        network on the same images.
    """
    runs = folders if len(folders) > 1 else [*folders] * len(folds)
    pairs = zip(runs, folds, strict=True) if len(folds) > 1 else ((run, folds[0]) for run in runs)
    said = [load_answers(run, parts, split, dropped, without) for run, parts in pairs]
    return (Answers.pooled(said),) if len(folds) > 1 else tuple(said)


def _load_part(
    folder: Path,
    part: Part,
    split: Split,
    dropped: Mapping[str, Sequence[int]],
    without: Sequence[int],
) -> Answers:
    said = load_predictions(folder, part.fingerprint, split)
    if not len(
        said.rows
    ):  # another experiment on this `cache:` had to make them again, for its own data
        raise CrossferError(
            f"{folder / PREDICTIONS}: has no predictions for {part.name}, {split}; run the experiment again"
        )
    kept = ~np.isin(said.rows, dropped.get(part.name, ())) & ~np.isin(said.labels, without)
    return Answers.of(
        said.labels[kept], said.probabilities[kept], part.classes, said.rows[kept] + part.start
    )

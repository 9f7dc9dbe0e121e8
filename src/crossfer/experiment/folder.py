"""Read the files of a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import ValidationError

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import Split
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.rows import RunFacts
from crossfer.experiment.config import IMAGE_COLUMNS
from crossfer.experiment.names import ERROR, RUN
from crossfer.experiment.plan import Run
from crossfer.files import digest, write_bytes
from crossfer.networks.classifier import CARD, WEIGHTS
from crossfer.validation import adapter, first_place

HISTORY, PREDICTIONS = "history.csv", "predictions.parquet"
BUNDLE = (WEIGHTS, CARD)
"""The files of the classifier: a run's folder is a bundle."""
CHECKPOINT = "checkpoint.safetensors"
"""It exists only while a run is unfinished."""

RUN_KEYS = tuple(field.name for field in fields(RunFacts) if field.name != "folder")
MEASURED_SPLITS: tuple[Split, ...] = ("validation", "test")
"""The splits on which a run is measured."""


def folder_of(run: Run, runs_folder: Path) -> Path:
    """Return the folder of a run, which its key identifies, whatever its name was when it was trained."""
    return next(runs_folder.glob(f"*-{run.key}"), runs_folder / run.folder)


def is_finished(folder: Path) -> bool:
    """Tell whether a run folder is complete."""
    return (folder / RUN).is_file()


def read_run(folder: Path) -> dict[str, Any]:
    """Return the whole content of a finished run's ``run.json``.

    Raises
    ------
    CrossferError
        If it is damaged.
    """
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if missing := [key for key in RUN_KEYS if key not in content]:
            raise KeyError(missing[0])
        return {**content, "files": dict(content["files"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CrossferError(f"{folder / RUN}: damaged ({error!r}); delete the folder") from None


def load_run(folder: Path) -> RunFacts:
    """Return the facts of a finished run.

    Raises
    ------
    CrossferError
        If its ``run.json`` is damaged.
    """
    content = read_run(folder)
    try:
        return adapter(RunFacts).validate_python({key: content[key] for key in RUN_KEYS})
    except ValidationError as error:
        raise CrossferError(
            f"{folder / RUN}: damaged ({first_place(error)}); delete the folder"
        ) from None


def record_failure(run: Run, runs_folder: Path, why: str) -> None:
    """Write why a run failed, unless there is a traceback already."""
    folder = folder_of(run, runs_folder)
    if not (folder / ERROR).exists() and not is_finished(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ERROR, f"{why}\n".encode("utf-8", "backslashreplace"))


def altered(folder: Path, name: str) -> str | None:
    """Return what is wrong with a file of a finished run; None if it is unchanged."""
    recorded = read_run(folder)["files"].get(name)
    try:
        if digest(folder / name) == recorded:
            return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"changed or damaged since it was written (SHA-256 differs from {RUN})"


def check_weights(folder: Path) -> None:
    """Check that the classifier of a finished run is unchanged.

    Raises
    ------
    CrossferError
        If one of its files is missing or changed.
    """
    for name in BUNDLE:
        if why := altered(folder, name):
            raise CrossferError(f"{folder / name}: {why}; delete its folder to train it again")


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
    found, start = [], 0
    for part in dataset.parts:
        found.append(Part(part.name, part.fingerprint, part.classes, start))
        start += len(part.samples)
    return found


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
        If the predictions cannot be read.
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
    kept = ~np.isin(said.rows, dropped.get(part.name, ())) & ~np.isin(said.labels, without)
    return Answers.of(
        said.labels[kept], said.probabilities[kept], part.classes, said.rows[kept] + part.start
    )


class Predictions(NamedTuple):
    """Predictions for one split: `rows` and `labels` int64 (N,), `probabilities` float32 (N, C)."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def load_predictions(folder: Path, fingerprint: str, split: Split) -> Predictions:
    """Return the predictions of a finished run for a split of the dataset with this fingerprint."""
    try:
        table = pa.parquet.read_table(
            folder / PREDICTIONS,
            filters=[("fingerprint", "=", fingerprint), ("split", "=", split)],
        )
        classes = [name for name in table.column_names if name not in IMAGE_COLUMNS]
        return Predictions(
            table.column("row").to_numpy(),
            table.column("label").to_numpy().astype(np.int64),
            np.column_stack([table.column(name).to_numpy() for name in classes]),
        )
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise CrossferError(f"{folder / PREDICTIONS}: cannot be read ({error})") from None

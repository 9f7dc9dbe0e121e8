"""What the folder of a run holds: written by `crossfer.experiment.execute`, read by all that follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from crossfer.datasets.record import Split
from crossfer.errors import CrossferError
from crossfer.experiment.plan import Run
from crossfer.files import digest
from crossfer.networks.classifier import CARD, WEIGHTS

RUN, HISTORY, PREDICTIONS = "run.json", "history.csv", "predictions.parquet"
BUNDLE = (WEIGHTS, CARD)
"""The files of the classifier: a run's folder is a bundle, too."""
CHECKPOINT, ERROR = "checkpoint.safetensors", "error.txt"
"""What lies there only while a run is unfinished, or after it failed."""

RUN_KEYS = (
    "key",
    "label",
    "strategy",
    "about",
    "target",
    "fraction",
    "seed",
    "identity",
    "kept_epoch",
    "merged",
    "training_images",
    "parameters",
    "trained_parameters",
    "cost",
    "machine",
    "versions",
)
SAID_OF = ("dataset", "fingerprint", "split", "row", "label")
"""The columns of predictions that say which image it is; every other is a class, with its probabilities."""

MEASURED_SPLITS: tuple[Split, ...] = ("validation", "test")
"""Of every dataset that a run is measured on."""


def folder_of(run: Run, runs_folder: Path) -> Path:
    """Return where a run lies, under whatever name it was trained: its key identifies it."""
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


def load_run(folder: Path) -> dict[str, Any]:
    """Return what a finished run says of itself."""
    content = read_run(folder)
    return {key: content[key] for key in RUN_KEYS}


def altered(folder: Path, name: str) -> str | None:
    """Say what is wrong with a file of a finished run; None if it is the one that was written."""
    recorded = read_run(folder)["files"].get(name)
    try:
        if digest(folder / name) == recorded:
            return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"changed or damaged since it was written (another SHA-256 than in {RUN})"


def check_weights(folder: Path) -> None:
    """Make sure that a finished run's classifier is the one that it wrote.

    Raises
    ------
    CrossferError
        If one of its files is missing, or another.
    """
    for name in BUNDLE:
        if why := altered(folder, name):
            raise CrossferError(
                f"{folder / name}: {why}; delete its folder, and it is trained again"
            )


class Predictions(NamedTuple):
    """What a network said about a set: `rows` of the dataset, `labels`, int64 (N,); float32 (N, classes)."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def without(self, rows: Sequence[int]) -> Predictions:
        """Leave some rows of the dataset out."""
        kept = ~np.isin(self.rows, rows)
        return Predictions(self.rows[kept], self.labels[kept], self.probabilities[kept])


def load_predictions(folder: Path, fingerprint: str, split: str) -> Predictions:
    """Return what a finished run's network said about a set of the dataset with this fingerprint."""
    try:
        table = pa.parquet.read_table(
            folder / PREDICTIONS,
            filters=[("fingerprint", "=", fingerprint), ("split", "=", split)],
        )
    except (OSError, pa.ArrowException) as error:
        raise CrossferError(f"{folder / PREDICTIONS}: cannot be read ({error})") from None
    classes = [name for name in table.column_names if name not in SAID_OF]
    probabilities = np.column_stack([table.column(name).to_numpy() for name in classes])
    return Predictions(
        table.column("row").to_numpy(),
        table.column("label").to_numpy().astype(np.int64),
        probabilities,
    )

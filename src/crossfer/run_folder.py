"""The files of a run's folder, which is a bundle with predictions beside it, and how they are read.

They are below `crossfer.experiment`, which writes them: `crossfer.deploy` reads them, too.
"""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import ValidationError

from crossfer.datasets.record import Split
from crossfer.errors import CrossferError
from crossfer.evaluation.rows import RunFacts
from crossfer.files import digest
from crossfer.validation import adapter, first_place

RUN = "run.json"
"""Written last: a folder that contains it is finished."""
HISTORY, PREDICTIONS = "history.csv", "predictions.parquet"
IMAGE_COLUMNS = ("dataset", "fingerprint", "split", "row", "label")
"""The columns of predictions that identify an image; a column for each class follows, with its name."""

FORBIDDEN = "this user may not read it"
"""What is wrong with a file that may well be undamaged."""

RUN_KEYS = tuple(field.name for field in fields(RunFacts) if field.name != "folder")


def is_finished(folder: Path) -> bool:
    """Tell whether a run folder is complete."""
    return (folder / RUN).is_file()


def read_run(folder: Path) -> dict[str, Any]:
    """Return the whole content of a finished run's ``run.json``.

    Raises
    ------
    CrossferError
        If it is not there, or damaged.
    """
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if missing := [key for key in (*RUN_KEYS, "files") if key not in content]:
            raise KeyError(missing[0])
        found = {name: dict(content.get(name, {})) for name in ("files", "starts_from")}
        return {**content, **found}
    except PermissionError:
        raise CrossferError(f"{folder / RUN}: {FORBIDDEN}; change its permissions") from None
    except FileNotFoundError:
        raise CrossferError(
            f"{folder / RUN}: not there; restore it, or run the experiment again"
        ) from None
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


def read_history(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's training curves."""
    with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def altered(folder: Path, name: str) -> str | None:
    """Return what is wrong with a file of a finished run; None if it is unchanged."""
    recorded = read_run(folder)["files"].get(name)
    try:
        if digest(folder / name) == recorded:
            return None
    except PermissionError:
        return FORBIDDEN
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"changed or damaged since it was written (SHA-256 differs from {RUN})"


class Predictions(NamedTuple):
    """Predictions for one split of a dataset.

    `rows` and `labels` are int64 (N,), `probabilities` float32 (N, C) in the order of `classes`.
    """

    dataset: str
    classes: tuple[str, ...]
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
            " and ".join(table.column("dataset").unique().to_pylist()),
            tuple(classes),
            table.column("row").to_numpy(),
            table.column("label").to_numpy().astype(np.int64),
            np.column_stack([table.column(name).to_numpy() for name in classes]),
        )
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise CrossferError(f"{folder / PREDICTIONS}: cannot be read ({error})") from None

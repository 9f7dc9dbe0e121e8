"""A contact sheet of a prepared dataset, to check by eye that faces were found and aligned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.pictures import data_uri
from crossfer.datasets.record import Split
from crossfer.files import write_bytes
from crossfer.templates import environment

LOOK = "look.html"
DOUBTFUL = {
    "several": "several faces; the largest central one",
    "turned": "upside down; rotated",
    "box": "no face found in the dataset's box",
    "centre": "no face found; the centre used",
}
"""Ways a face came about that somebody should look at."""
UNSURE = 0.9
"""Below this score of the detector's a face is doubtful too."""


@dataclass(frozen=True)
class _Shown:
    """A face on the sheet: a PNG as text, where it came from, and what is doubtful about it."""

    png: str
    origin: str
    doubt: str


def doubts(dataset: Dataset) -> list[str]:
    """Say for every face of a dataset what is doubtful about it; nothing for most."""
    found = dataset.samples.column("found").to_pylist()
    scores = dataset.samples.column("score").to_pylist()
    return [
        DOUBTFUL.get(how) or (f"low detection score ({score:.2f})" if score < UNSURE else "")
        for how, score in zip(found, scores, strict=True)
    ]


def write_look(
    dataset: Dataset,
    file: str | Path | None = None,
    *,
    per_class: int = 40,
    split: Split | None = None,
    only_doubtful: bool = False,
    seed: int = 0,
) -> Path:
    """Write a grid of prepared faces per class as one local HTML file, doubtful ones marked and first.

    Parameters
    ----------
    dataset
        A prepared dataset.
    file
        By default ``look.html`` in the dataset's folder.  It shows faces: do not publish it.
    per_class
        Number of faces per class; doubtful ones first, then a random selection.
    split
        Only faces of this split.
    only_doubtful
        Only doubtful faces.
    seed
        Seed of the selection.

    Returns
    -------
    Path
        The file.
    """
    file = Path(file) if file else dataset.folder / LOOK
    dataset = dataset.with_own_classes()
    origins = dataset.samples.column("origin").to_pylist()
    doubt = np.array(doubts(dataset), dtype=object)
    doubtful = doubt != ""
    labels, splits = (np.array(dataset.samples.column(c).to_pylist()) for c in ("label", "split"))
    rows = np.flatnonzero(splits == split) if split else np.arange(len(dataset.images))
    generator = np.random.default_rng(seed)
    classes = []
    for name in dict.fromkeys([*dataset.class_set.names, *labels]):  # unlabelled ones too
        of_class = generator.permutation(rows[labels[rows] == name])
        if only_doubtful:
            of_class = of_class[doubtful[of_class]]
        first = of_class[np.argsort(~doubtful[of_class], kind="stable")][:per_class]
        faces = [_Shown(data_uri(dataset.images[row]), origins[row], doubt[row]) for row in first]
        if faces:
            classes.append((name, len(of_class), int(doubtful[of_class].sum()), faces))
    template = environment("crossfer.datasets").get_template("look.html.j2")
    page = template.render(
        dataset=dataset,
        split=split,
        classes=classes,
        faces=dataset.card["faces"],
        images=len(rows),
        doubtful=int(doubtful[rows].sum()),
        sheet=_average(dataset.images, rows),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, page.encode())
    return file


def _average(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> str:
    """Return the mean of at most 2,000 faces: well-framed faces average to a face."""
    some = rows[:: max(1, len(rows) // 2000)]
    return data_uri(images[some].mean(0).round().astype(np.uint8)) if len(some) else ""

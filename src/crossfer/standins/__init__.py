"""Stand-in datasets: faces drawn by code, so that everything can be tried with no download.

Four stand-ins are written in the official raw layouts of FER2013 (the source, in the wild), JAFFE,
TFEID and MUG (the targets, three laboratories). They show no real person and nothing of the real
datasets; numbers measured on them say nothing about those.

Examples
--------
>>> write("jaffe", Path("raw/jaffe-standin"))  # doctest: +SKIP
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from crossfer.classes import FER7
from crossfer.errors import CrossferError
from crossfer.files import place_folder
from crossfer.progress import OnProgress, silent

from .layouts import (
    NOTICE,
    portrait,
    write_fer2013,
    write_jaffe,
    write_mug,
    write_tfeid,
)
from .worlds import WORLDS

__all__ = ["STANDINS", "contact_sheet", "write"]

STANDINS: dict[str, Callable[..., None]] = {
    "fer2013": write_fer2013,
    "jaffe": write_jaffe,
    "tfeid": write_tfeid,
    "mug": write_mug,
}
"""What writes each stand-in: ``writer(folder, progress, images)``."""


def write(
    name: str, folder: Path, images: int | None = None, progress: OnProgress = silent
) -> Path:
    """Write a stand-in dataset, or nothing at all if that fails: always the same bytes.

    Parameters
    ----------
    name
        A key of `STANDINS`.
    folder
        Where to; must not exist yet, or be empty.
    images
        How many images (sequences for ``"mug"``); the stand-in's own size when left out.
    progress
        Told how many of how many are drawn.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CrossferError
        If there is no such stand-in, or the folder already holds something.
    """
    if name not in STANDINS:
        raise CrossferError(f"{name!r}: no such stand-in; choose among {', '.join(STANDINS)}")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CrossferError(f"{folder}: already exists; name another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        size = {} if images is None else {"images": images}
        STANDINS[name](beside, progress, **size)
        (beside / "STAND-IN.txt").write_text(NOTICE.format(name=name.upper()), "utf-8")
        place_folder(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def contact_sheet() -> np.ndarray:
    """Show every world and every emotion in one picture.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8 RGB: four rows of worlds, seven columns of emotions, titled.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.4), dpi=110, layout="constrained", facecolor="white")
    figure.suptitle("Drawn stand-ins: no real person, no real dataset", fontsize=15)
    cells = figure.subplots(len(WORLDS), len(FER7))
    for row, world in zip(cells, WORLDS, strict=True):
        for label, (cell, emotion) in enumerate(zip(row, FER7, strict=True)):
            picture = portrait(world, label, label)
            side = min(picture.shape[:2])
            top, left = ((length - side) // 2 for length in picture.shape[:2])
            square = picture[top : top + side, left : left + side]
            cell.imshow(square, cmap="gray", vmin=0, vmax=255)
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if world is WORLDS[0]:
                cell.set_title(emotion, fontsize=13)
        title, _, where = world.title.partition(" (")
        row[0].set_ylabel(f"{title}\n({where}", fontsize=11)
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    return np.asarray(drawn.buffer_rgba())[..., :3].copy()

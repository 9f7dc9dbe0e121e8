"""The whole study on stand-ins: drawn faces, nothing to download, a few minutes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from crossfer.experiment import Experiment, Progress, check_experiment, run_experiment
from crossfer.report import write_report
from crossfer.standins import STANDINS, contact_sheet, write

TARGETS = ("jaffe", "tfeid", "mug")
FROM_SCRATCH = {"epochs": 24, "batch_size": 32, "learning_rate": 0.03, "label_smoothing": 0.0}
"""Two thousand faces are few: smaller and bolder steps than the default's, until little is left to learn."""


def demo_experiment(raw: Path) -> Experiment:
    """Return the study's configuration on stand-ins, with a network of a quarter of the width."""
    return check_experiment(
        {
            "name": "The study on stand-ins",
            "data": raw,
            "source": "fer2013",
            "targets": list(TARGETS),
            "model": {"width": 0.25},
            "recipes": {"default": {"epochs": 16}, "BL": FROM_SCRATCH, "FU": FROM_SCRATCH},
        }
    )


def run_demo(
    out: Path,
    progress: Progress,
    drawing: Callable[[str, int, int], None] = lambda name, done, total: None,
    workers: int | Literal["auto"] = 1,
) -> Path:
    """Draw the stand-ins, run the study on them and write the report.

    Parameters
    ----------
    out
        The folder for everything; started again, what is finished is not repeated.
    progress
        Told how the experiment goes on.
    drawing
        Told which stand-in is being drawn, and how many of how many pictures are done.
    workers
        Processes that train at the same time, see `crossfer.run_experiment`.

    Returns
    -------
    Path
        The report.
    """
    raw = out / "stand-ins"
    for name in STANDINS:
        if not (raw / name).exists():
            write(name, raw / name, progress=lambda *done, name=name: drawing(name, *done))
    folder = out / "experiment"
    results = run_experiment(demo_experiment(raw), folder, progress, workers=workers)
    return write_report(results, folder, _png_of_contact_sheet())


def _png_of_contact_sheet() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(contact_sheet()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

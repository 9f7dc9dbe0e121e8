"""The study on drawn stand-in faces: no download, a few minutes."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from crossfer.experiment import Experiment, Progress, check_experiment, run_experiment
from crossfer.report import write_report
from crossfer.standins import contact_sheet, write

SIZES = {"fer2013": 1200, "jaffe": 140, "tfeid": 140, "mug": 36}
"""Number of pictures of each stand-in (of video sequences for MUG), enough to show the study's findings."""

FROM_SCRATCH = {
    "epochs": 16,
    "batch_size": 16,
    "learning_rate": 0.03,
    "warmup": 0.1,
    "label_smoothing": 0.0,
    "augmentation": {"shift": 0.04},
}
"""For a thousand faces: smaller batches and a larger learning rate than the default."""

LONGER: dict[str, Any] = {**FROM_SCRATCH, "epochs": 24}
"""Half as many epochs again, for FU, which trains on two datasets.  ``benchmarks/demo.py`` checks whether the
baseline would gain from it, too.
"""

MIXED = {"epochs": 12, "learning_rate": 0.01}
"""An epoch shows four images for one of the target.  With distillation a learning rate of 0.03 diverges."""

FINE_TUNING = {"epochs": 24, "batch_size": 16, "learning_rate": 0.03, "label_smoothing": 0.0}

SHARES = [6, 1, 3]
"""Proportions of training, validation and test set; the test set is larger than in the study."""


def demo_experiment(raw: Path) -> Experiment:
    """Return the study's configuration on stand-ins, with a network of an eighth of the width.

    It needs fewer epochs for a thousand faces than one of a quarter of the width, and its 8 and 16 channels
    fit a processor's vectors.
    """
    return check_experiment(
        {
            "name": "The study on stand-ins",
            "data": raw,
            "source": "fer2013",
            "targets": [{"path": name, "sizes": SHARES} for name in SIZES if name != "fer2013"],
            "model": {"width": 0.125},
            "fractions": [1.0],
            "recipes": {
                "default": FINE_TUNING,
                "BL": FROM_SCRATCH,
                "FU": LONGER,
                "MIX+KD": MIXED,
            },
        }
    )


def draw(
    raw: Path, progress: Callable[[str, int, int], None] = lambda name, done, total: None
) -> None:
    """Draw the demo's stand-ins; existing ones are kept.

    Parameters
    ----------
    raw
        The folder for them.
    progress
        Called with the name of a stand-in and the numbers of pictures done and in total.
    """
    for name, images in SIZES.items():
        if not (raw / name).exists():
            write(name, raw / name, images, partial(progress, name))


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
        The folder for all files; a second call resumes.
    progress
        Receives the events of the experiment.
    drawing
        Called with the name of a stand-in and the numbers of pictures done and in total.
    workers
        Number of processes that train at the same time, see `crossfer.run_experiment`.

    Returns
    -------
    Path
        The path of the report.
    """
    raw, folder = out / "stand-ins", out / "experiment"
    draw(raw, drawing)
    results = run_experiment(demo_experiment(raw), folder, progress, workers=workers)
    return write_report(results, folder, _png_of_contact_sheet())


def _png_of_contact_sheet() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(contact_sheet()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

"""The command `remember`: write a memory file for a source."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console, out_console
from crossfer.cli.options import LabelOption, check_finite, check_outputs, pairs_of
from crossfer.cli.output import say, say_left_out
from crossfer.errors import CrossferError

if TYPE_CHECKING:
    from crossfer.memory.file import Memory

command = partial(app.command, rich_help_panel="Experiments")


@command()
def remember(
    model: Annotated[
        Path, typer.Argument(help="A run, a bundle, or a YAML file with the keys of model:.")
    ],
    source: Annotated[Path, typer.Argument(help="The prepared dataset that it was trained on.")],
    out: Annotated[Path, typer.Option(help="The file to write, e.g. memory.safetensors.")],
    max_mb: Annotated[float, typer.Option(help="Maximum size in megabytes.")] = 5.0,
    label: LabelOption = None,
) -> None:
    """Summarise the images of a source in a small memory file, so that they can be deleted.

    The file contains statistics of features and no image; docs/memory.md describes what it can reveal.
    Strategies that need "statistics" (`crossfer strategies`) use it if an experiment names it as memory:,
    together with its model:. `crossfer assess --memory` uses it instead of the source's images. Each
    baseline of an experiment writes one in its folder.

    Example:  crossfer remember deployed/ data/fer2013 --out memory.safetensors --max-mb 5
    """
    from crossfer.cli.bars import Bars
    from crossfer.datasets import open_dataset
    from crossfer.deploy.checks import classes_without_image, unchecked
    from crossfer.deploy.compare import check_labels, class_set_of
    from crossfer.deploy.models import open_model
    from crossfer.deploy.remember import remember as run

    check_finite({"--max-mb": max_mb})
    check_outputs({"--out": out}, [model, source])
    if out.exists():
        raise CrossferError(f"--out {out}: already exists; name another file, or remove it")
    opened = open_model(model)
    dataset, labels = open_dataset(source).check(), pairs_of("--label", label or [])
    check_labels(labels, [dataset])
    dataset = dataset.with_classes(class_set_of(opened.classes, labels, opened))
    with Bars(error_console) as bars:
        memory = run(opened, dataset, max_mb, partial(bars.count, "remember"))
    out.parent.mkdir(parents=True, exist_ok=True)
    say_left_out(dataset.left_out, dataset.name)
    if lacking := classes_without_image(dataset):
        say(f"{dataset.name}: no image of {', '.join(lacking)}.")
    for note in unchecked(opened, dataset):
        say(f"{note}.")
    _say(memory, memory.save(out).stat().st_size, dataset.name)
    say(f"written: {out}")


def _say(memory: Memory, size: int, source: str) -> None:
    """Print what the memory file of a source contains, which has a size in bytes, and what it lacks."""
    from crossfer.memory.statistics import PER_DIRECTION

    classes = zip(memory.classes, memory.counts.tolist(), memory.known, strict=True)
    for name in sorted(name for name, count, known in classes if known and not count):
        out_console.print(f"{name}: fewer than 10 images, so the file has no statistics of it")
    features, images = memory.moments.sums.shape[1], int(memory.counts.sum())
    if images < PER_DIRECTION * features:
        say(
            f"{images} images for the moments of {features} features: the file can reveal which "
            "images were used (docs/memory.md)"
        )
    out_console.print(
        f"{images} images in {size / 1e6:.2f} MB: Gaussians of rank "
        f"{_span(memory.gaussians.ranks)}, moments of {features} features and of "
        f"{memory.projected.sums.shape[1]} random projections of them"
    )
    if memory.calibration:
        right = memory.calibration.right
        say(
            f"right on {100 * right.mean():.1f} % of {len(right):,} validation images; compare this with "
            "the accuracy that you know of the model"
        )
    else:
        say(
            f"{source} has fewer than 20 validation images: the file does not do for crossfer assess"
        )


def _span(numbers: list[int]) -> str:
    """Say the smallest and the largest of some numbers."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low}" if low == high else f"{low} to {high}"

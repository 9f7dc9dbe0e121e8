"""The command `remember`: write a memory file for a source."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from crossfer.cli.application import app, error_console, out_console
from crossfer.cli.options import check_finite, pairs_of
from crossfer.errors import CrossferError

command = partial(app.command, rich_help_panel="Experiments")


@command()
def remember(
    model: Annotated[
        Path, typer.Argument(help="A run, a bundle, or a YAML file with the keys of model:.")
    ],
    source: Annotated[Path, typer.Argument(help="The prepared dataset that it was trained on.")],
    out: Annotated[Path, typer.Option(help="The file to write, e.g. memory.safetensors.")],
    max_mb: Annotated[float, typer.Option(help="Maximum size in megabytes.")] = 5.0,
    label: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=CLASS: assign a dataset's label to a class. Repeatable."),
    ] = None,
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
    from crossfer.deploy.compare import class_set_of
    from crossfer.deploy.models import open_model
    from crossfer.deploy.pytorch import TorchEngine
    from crossfer.experiment.execute import faces
    from crossfer.memory.file import Memory
    from crossfer.memory.statistics import PER_DIRECTION
    from crossfer.training import machine

    check_finite({"--max-mb": max_mb})
    opened = open_model(model)
    if not isinstance(opened.engine, TorchEngine):
        raise CrossferError(
            f"{model}: a {opened.kind} gives no features; name the bundle or run that it was "
            "exported from"
        )
    classifier = opened.engine.classifier
    dataset = open_dataset(source)
    dataset.check()
    dataset = dataset.with_classes(
        class_set_of(opened.classes, pairs_of("--label", label or []), opened)
    )
    if dataset.images.shape[1:] != opened.shape:
        read, found = (
            "×".join(map(str, shape)) for shape in (opened.shape, dataset.images.shape[1:])
        )
        raise CrossferError(
            f"{source}: its faces are {found}, but the model reads {read}; prepare the dataset "
            "again"
        )
    rows = dataset.rows("training")
    if not len(rows):
        raise CrossferError(
            f"{source}: no training image with a class of the model; name another dataset"
        )
    with Bars(error_console) as bars:
        memory = Memory.of(
            classifier,
            faces(dataset, rows),
            machine(),
            max_mb,
            partial(bars.count, "remember"),
            faces(dataset, dataset.rows("validation")),
            dataset.name,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    size = memory.save(out).stat().st_size
    few = [name for name, n in zip(memory.classes, memory.counts.tolist(), strict=True) if not n]
    known = [name for name, is_there in zip(memory.classes, memory.known, strict=True) if is_there]
    for name in sorted(set(few) & set(known)):
        out_console.print(f"{name}: fewer than 10 images, so the file has no statistics of it")
    features, images = memory.moments.sums.shape[1], int(memory.counts.sum())
    if images < PER_DIRECTION * features:
        out_console.print(
            f"{images} images for the moments of {features} features: the file can reveal which "
            "images were used (docs/memory.md)",
            soft_wrap=True,
        )
    out_console.print(
        f"{images} images in {size / 1e6:.2f} MB: Gaussians of rank "
        f"{memory.gaussians.factor.shape[1]}, moments of {features} features and of "
        f"{memory.projected.sums.shape[1]} random projections of them"
    )
    if not memory.calibration:
        out_console.print(
            f"{dataset.name} has fewer than 20 validation images: the file does not do for crossfer assess",
            soft_wrap=True,
        )
    out_console.print(f"written: {out}", soft_wrap=True)

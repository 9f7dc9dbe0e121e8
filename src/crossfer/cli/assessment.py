"""The command `assess`: estimate accuracy on unlabelled faces before any update."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console, out_console
from crossfer.cli.options import AnyModel, CroppedOption, LabelOption, check_outputs, pairs_of
from crossfer.cli.output import say, say_left_out, table_of

if TYPE_CHECKING:
    from crossfer.evaluation.assessing import Assessed

command = partial(app.command, rich_help_panel="Decisions")


@command()
def assess(
    model: AnyModel,
    dataset: Annotated[
        Path,
        typer.Argument(help="The new faces: a prepared dataset, or a folder of pictures."),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            help=(
                "The prepared dataset that MODEL was trained on. Its validation faces calibrate "
                "the estimates. A run has its own predictions for them."
            )
        ),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="The source's memory file (crossfer remember), instead of --source."),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help=(
                "Also compute a learning curve: train the last layer on more and more of "
                "DATASET's labels."
            ),
        ),
    ] = False,
    label: LabelOption = None,
    cropped: CroppedOption = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this JSON file.")
    ] = None,
) -> None:
    """Estimate whether an update is needed: the accuracy on faces without labels, and drift.

    Compares confidence on the new faces with that on the source's validation faces, whose labels are
    known. Also compares pixels, features and predictions. docs/assess.md shows how accurate such
    estimates were.

    Example:  crossfer assess runs/mine/runs/BL-seed0-… photos/ --source data/fer2013 --json assessed.json
    """
    from crossfer.cli.bars import Bars
    from crossfer.datasets import open_dataset
    from crossfer.datasets.dataset import is_prepared
    from crossfer.datasets.detector import NO_FACE
    from crossfer.deploy.assess import assess as run
    from crossfer.deploy.assess import of_memory, of_run, of_source, opened, pictures_left_out
    from crossfer.deploy.checks import unchecked
    from crossfer.deploy.compare import check_labels, class_set_of
    from crossfer.deploy.models import open_model
    from crossfer.errors import CrossferError, some_of
    from crossfer.files import write_json

    if cropped and is_prepared(dataset):
        raise CrossferError(
            f"--cropped: {dataset} is a prepared dataset, so this has no effect; leave it out"
        )
    if labels and dataset.exists() and not is_prepared(dataset):
        raise CrossferError(
            f"--labels: {dataset} holds no labels; label the photographs (`crossfer label`), prepare "
            "them (`crossfer prepare`), then name the dataset"
        )
    check_outputs({"--json": as_json}, [model, dataset, *filter(None, (source, memory))])
    if source and memory:
        raise CrossferError("--source and --memory: both describe the source; leave one out")
    opened_model = open_model(model)
    asked = pairs_of("--label", label or [])
    class_set = class_set_of(opened_model.classes, asked, opened_model)
    sources = [open_dataset(source).check()] if source else []
    if sources:
        known = of_source(opened_model, sources[0], class_set)
    else:
        known = of_memory(opened_model, memory) if memory else of_run(model, opened_model)
    notes: list[str] = []
    with Bars(error_console) as bars:
        finding = partial(bars.count, "faces")
        with opened(dataset, opened_model, cropped, finding, notes.append) as faces:
            check_labels(asked, [*sources, faces])
            left_out = {} if is_prepared(dataset) else pictures_left_out(faces)
            found = run(
                opened_model,
                faces,
                known,
                class_set,
                curve=labels,
                progress=partial(bars.count, "labels"),
            )
    _say(found)
    of = sources[0].with_classes(class_set) if sources else None
    for note in unchecked(opened_model, of):
        say(f"{note}.")
    for reason, names in left_out.items():
        hint = "; if they are cut-out faces, add --cropped" if reason == NO_FACE else ""
        say(f"Pictures left out, {reason}: {len(names):,} (first: {some_of(names, 3)}){hint}.")
    for note in notes:
        say(note)
    if as_json:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        write_json(as_json, found.as_json())
        say(f"written: {as_json}")


def _say(found: Assessed) -> None:
    """Print an assessment: the answer first."""
    from crossfer.report.assessed import answer, curve, measured

    if found.warning:
        say(f"WARNING: {found.warning}")
    for number, sentence in enumerate(answer(found)):
        say(sentence, "" if number else "bold")
    table = table_of("accuracy, %", "", "95 % interval")
    for estimate in found.estimates:
        low, high = estimate.interval
        table.add_row(
            f"{found.dataset}, estimated ({estimate.method})",
            f"{estimate.accuracy:.1f}",
            f"{low:.1f}–{high:.1f}",
        )
    out_console.print(table)
    say(f"{found.source}, validation: {measured(found.known)}")
    say_left_out(found.source_left_out, found.source)
    if found.source_lacks:
        say(f"{found.source}: no image of {', '.join(found.source_lacks)}.")
    if found.truth:
        say(f"{found.dataset}, by its labels: {measured(found.truth)}")
    people = f" of {found.people:,} people" if found.people else ""
    say(f"{found.dataset}: {found.images:,} faces{people}.")
    say_left_out(found.left_out)
    if found.inputs:
        table = table_of("pixels", found.source, found.dataset, "standard deviations")
        for one in found.inputs:
            table.add_row(
                one.measure, f"{one.source:.3f}", f"{one.new:.3f}", f"{one.deviations:+.2f}"
            )
        out_console.print(table)
    if found.features:
        low, high = found.features.interval
        say(
            f"Features: their mean lies {found.features.deviations:.2f} ({low:.2f}–{high:.2f}) standard "
            "deviations from the source's."
        )
    elif not found.inputs:
        say("Add --source or --memory to compare pixels and features.")
    table = table_of("answered, %", found.source, found.dataset)
    for share in found.classes:
        table.add_row(share.name, f"{share.source:.1f}", f"{share.new:.1f}")
    out_console.print(table)
    if found.curve:
        table = table_of(
            "labels", "people", "accuracy here", "range of draws", "change on the source"
        )
        for point in found.curve:
            table.add_row(
                f"{point.images:.0f}",
                f"{point.people:.0f}" if point.people else "",
                f"{point.accuracy:.1f}",
                f"{point.lowest:.1f}–{point.highest:.1f}",
                f"{point.source_change:+.1f}",
            )
        out_console.print(table)
        say(curve(found))

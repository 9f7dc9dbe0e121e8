"""Commands for a classifier in use: predict and export."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console
from crossfer.cli.options import (
    SMOOTH,
    AnyModel,
    CroppedOption,
    MirrorOption,
    SmallestOption,
    VariantOption,
    check_cropped,
)
from crossfer.cli.output import say, say_left_out
from crossfer.errors import CrossferError
from crossfer.framing import SMALLEST

if TYPE_CHECKING:
    from crossfer.deploy.output import Counted
    from crossfer.deploy.rows import RowBatch

command = partial(app.command, rich_help_panel="Use")


@command()
def predict(
    model: AnyModel,
    paths: Annotated[list[Path], typer.Argument(help="Pictures, videos, folders and archives.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet.")
    ] = None,
    smooth: Annotated[
        float,
        typer.Option(min=0, help="In videos, average over this many seconds; 0: no averaging."),
    ] = SMOOTH,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of a video to use; default all.")
    ] = None,
    cropped: CroppedOption = False,
    smallest: SmallestOption = SMALLEST,
    variant: VariantOption = "fp32",
    mirror: MirrorOption = False,
) -> None:
    """Detect and classify every face in pictures and videos.

    Faces are tracked through the frames of a video. Without --out the results are printed. With it they are
    written to a table; run the same command again to resume after an interruption.

    Example:  crossfer predict exported photos/ clip.mp4 --out faces.csv
    """
    from crossfer.cli.bars import Bars
    from crossfer.deploy import load

    check_cropped(cropped, smallest)
    predictor = load(model, variant, smallest, mirror)  # opens the network while it imports OpenCV

    from crossfer.deploy.output import Counted, table
    from crossfer.deploy.predictor import PredictOptions
    from crossfer.deploy.sources import sources_in

    how = PredictOptions(cropped, smooth, fps)
    with sources_in(paths) as sources:
        for note in (*(() if cropped else predictor.notes), *predictor.unchecked):
            say(note)
        if out is None:
            counted = Counted()
            for part in predictor.parts(sources.found, how):
                counted.add(part)
                _say(part, predictor.classes)
        else:
            about = {"model": predictor.engine.identity, "smallest": smallest, **vars(how)}
            about["classes"] = list(predictor.classes)
            about["paths"] = [os.fspath(path) for path in paths]
            with Bars(error_console) as bars, table(out, predictor.classes, about) as rows:
                left = [source for source in sources.found if source.name not in rows.done]
                if rows.done:
                    error_console.print(f"resuming: {len(rows.done):,} already done")
                for part in predictor.parts(left, how, partial(bars.count, "predict")):
                    rows.add(part)
                counted = rows.counted
            say(f"written: {out}")
    _say_counted(counted, sources.note(), cropped)
    video = any(source.is_video for source in sources.found)
    for option, given in {"--fps": fps is not None, "--smooth": smooth != SMOOTH}.items():
        if given and not video:
            say(f"{option}: there is no video, so it had no effect")
    if counted.sources and not counted.faces and counted.unreadable.total() == counted.sources:
        raise CrossferError(
            f"none of {counted.sources:,} pictures and videos could be read and answered"
        )


def _say(part: RowBatch, classes: tuple[str, ...]) -> None:
    """Print what there is in a picture, or in some frames of a video."""
    for row in part.rows:
        place = row.source if row.seconds is None else f"{row.source} {row.seconds:.2f} s"
        if row.seen is None:
            say(f"{place}: {row.problem}")
            continue
        order = row.seen.probabilities.argsort()[::-1][:3]
        said = ", ".join(f"{classes[i]} {row.seen.probabilities[i]:.0%}" for i in order)
        left, top, width, height = (round(value) for value in row.seen.box)
        say(f"{place}: face {row.face} at {left},{top} ({width}×{height}): {said}")


def _say_counted(counted: Counted, others: str, cropped: bool) -> None:
    lines = [f"faces: {counted.faces:,}, in pictures and videos: {counted.sources:,}"]
    if counted.without_a_face:
        hint = "" if cropped else " (if they are cut-out faces, add --cropped)"
        lines.append(f"without a face: {counted.without_a_face:,}{hint}")
    lines += [f"not read, {reason}: {count:,}" for reason, count in counted.unreadable.items()]
    lines += [others] if others else []
    for line in lines:
        say(line)


@command()
def export(
    model: Annotated[
        Path,
        typer.Argument(
            help="A bundle or a run; or a YAML or ONNX file, as `crossfer compare` takes."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    half: Annotated[
        bool, typer.Option("--half", help="Also write a variant with 16-bit weights.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write a variant quantised to 8 bits.")
    ] = False,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(help="Prepared dataset whose validation faces calibrate --int8. Repeatable."),
    ] = None,
    measure: Annotated[
        list[Path] | None,
        typer.Option(help="Prepared dataset to measure every variant on. Repeatable."),
    ] = None,
    least_equal: Annotated[
        float | None,
        typer.Option(
            help=(
                "Fraction of faces on which a smaller variant must agree with PyTorch; default "
                "0.99 for --half, 0.95 for --int8."
            )
        ),
    ] = None,
    web: Annotated[
        bool,
        typer.Option("--web", help="Also write a static page that runs in the visitor's browser."),
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="For --web: the unpacked package onnxruntime-web; by default npm fetches it."
        ),
    ] = None,
) -> None:
    """Export a classifier that runs without crossfer: ONNX with preprocessing inside, and a model card.

    Every variant is compared with PyTorch. If one differs, nothing is written.

    Example:  crossfer export runs/mine/runs/KEY --out exported --int8 --calibrate data/mine
    """
    from crossfer.datasets import open_dataset
    from crossfer.deploy.card import Accuracy
    from crossfer.deploy.checks import unchecked
    from crossfer.deploy.export import ExportOptions
    from crossfer.deploy.export import export as write
    from crossfer.deploy.models import open_model
    from crossfer.experiment.finished import results_of, tested
    from crossfer.report.citing import methods
    from crossfer.report.view import shown
    from crossfer.run_folder import is_finished, read_run

    if least_equal is not None and not (half or int8):
        raise CrossferError("--least-equal: only for other variants; add --half or --int8")
    if calibrate and not int8:
        raise CrossferError("--calibrate: only for --int8; add it, or leave this out")
    if runtime and not web:
        raise CrossferError("--runtime: only for the web page; add --web")
    made, lacks, origin = None, "", ""
    try:
        origin = str(read_run(model)["label"]) if is_finished(model) else ""
        made = results_of(model)
        if origin and not made:
            lacks = (
                "no results.json two folders above, as for a run in a cache:; use --measure DATASET"
            )
    except CrossferError as error:
        lacks = str(error)
    if lacks:
        say(f"the card will not contain the experiment's measurements: {lacks}")
    known = tested(made[0], made[1].key) if made else []
    what = ExportOptions(
        half,
        int8,
        [open_dataset(folder) for folder in calibrate or ()],
        [open_dataset(folder) for folder in measure or ()],
        [
            Accuracy(shown(facts), found.images, found.accuracy, found.interval)
            for facts, found in known
            if found.interval
        ],
        [asdict(facts) for facts, _ in known],
        methods(made[0], made[1].strategy) if made else (),
        least_equal,
        str(made[1].machine.get("precision", "")) if made else "",
    )
    fetched: AbstractContextManager[Path | None] = nullcontext()
    if web:
        from crossfer.app.web import found_runtime, write_web

        fetched = found_runtime(runtime)
    with fetched as package:  # before anything is written: it may not be had
        opened = open_model(model)
        classifier = opened.pytorch
        for note in (*opened.notes, *unchecked(opened)):
            say(note)
        written = write(classifier, out, what, origin)
        page = write_web(out, package) if package else None  # pyrefly: ignore[unbound-name]  # only web has one
    for variant, found in written.items():
        accuracies = "".join(f", {a.value:.1f} % on {a.dataset}" for a in found.accuracies)
        say(
            f"{variant}: {found.bytes / 1e6:.1f} MB, {found.milliseconds:.1f} ms a face, probabilities "
            f"within {found.difference:.2g} of PyTorch's, {found.equal:.1%} equal answers{accuracies}"
        )
    for one in written["fp32"].accuracies:
        say_left_out(one.left_out, one.dataset)
    if classifier.outputs != tuple((number,) for number in range(len(classifier.classes))):
        say(f"the outputs are in this order now: {', '.join(classifier.classes)}")
    say(f"written: {out}")
    if page:
        say(f"the page: python -m http.server --directory {quote(str(page))}")

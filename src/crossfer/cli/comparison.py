"""The command that compares two classifiers, whoever trained them."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console, out_console
from crossfer.cli.options import AnyModel, LabelOption, check_outputs, pairs_of
from crossfer.cli.output import say, say_left_out, table_of
from crossfer.errors import CrossferError

if TYPE_CHECKING:
    from crossfer.evaluation.comparing import Compared, OnDataset

command = partial(app.command, rich_help_panel="Decisions")

SHOWN = 200
"""Faces that a page shows at most."""


@command()
def compare(
    old: AnyModel,
    new: Annotated[Path, typer.Argument(help="The classifier to compare it with.")],
    datasets: Annotated[list[Path], typer.Argument(help="Prepared datasets.")],
    split: Annotated[
        str, typer.Option(help="Split to measure on: training, validation or test.")
    ] = "test",
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Also report each group of this column of the sample tables. Repeatable."
        ),
    ] = None,
    new_data: Annotated[
        list[Path] | None,
        typer.Option(
            help=(
                "The same pictures prepared for NEW, if it reads other faces than OLD; one for "
                "each dataset."
            )
        ),
    ] = None,
    label: LabelOption = None,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="NEW averages the probabilities of each face and its mirror image.",
        ),
    ] = False,
    shared: Annotated[
        bool, typer.Option("--shared", help="Only images of classes that both classifiers have.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="Number of timed single faces.")] = 200,
    batch: Annotated[int, typer.Option(help="Number of faces in a timed batch.")] = 32,
    threads: Annotated[int, typer.Option(help="Threads for inference.")] = 1,
    as_json: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write everything to this JSON file, which `crossfer gate` reads."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page, without any face.")] = None,
    flips: Annotated[
        Path | None, typer.Option(help="Write a CSV file of the images that flipped.")
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Show flipped faces on the HTML page.")
    ] = False,
) -> None:
    """Compare two classifiers, whoever trained them: accuracy, flips, classes, groups, latency and size.

    Tests whether they differ on these images and whether they would for other people. The exit status is
    0 whatever the result; pass the JSON to `crossfer gate` to decide.

    Example:  crossfer compare deployed.yaml exported data/mine --json comparison.json --html comparison.html
    """
    from crossfer.cli.bars import Bars
    from crossfer.datasets import SPLITS, open_dataset
    from crossfer.deploy.compare import CompareOptions, write_flips
    from crossfer.deploy.compare import compare as run
    from crossfer.deploy.models import open_model
    from crossfer.files import write_json
    from crossfer.report.compared import write_page

    if split not in SPLITS:
        raise CrossferError(f"--split {split}: choose {', '.join(SPLITS)}")
    if pictures and html is None:
        raise CrossferError("--pictures: needs the HTML page; name it with --html")
    if new_data and len(new_data) != len(datasets):
        raise CrossferError(
            f"--new-data: {len(new_data)} given for {len(datasets)} datasets; give one for each"
        )
    outputs = {"--json": as_json, "--html": html, "--flips": flips}
    check_outputs(outputs, [old, new, *datasets, *(new_data or ())])
    how = CompareOptions(
        split,
        tuple(dict.fromkeys(by or ())),
        pairs_of("--label", label or []),
        shared,
        rounds,
        batch,
        threads,
    )
    models = [open_model(path, threads) for path in (old, new)]
    if mirror:
        models[1] = models[1].mirrored
    for_old = [open_dataset(folder).check() for folder in datasets]
    for_new = [open_dataset(folder).check() for folder in new_data or ()] or for_old
    pairs = list(zip(for_old, for_new, strict=True))
    with Bars(error_console) as bars:
        comparison = run(models[0], models[1], pairs, how, partial(bars.count, "compare"))
    _say(comparison.found)
    written = [file for file in outputs.values() if file]
    for file in written:
        file.parent.mkdir(parents=True, exist_ok=True)
    if as_json:
        write_json(as_json, comparison.found.as_json())
    if flips:
        write_flips(comparison.flips(), flips)
    if html:
        shown = islice(comparison.flips(), SHOWN) if pictures else ()
        faces = [("won" if f.won else "lost", f.image, f.pixels) for f in shown]
        write_page(comparison.found, html, faces)
    for file in written:
        say(f"written: {file}")


def _say(found: Compared) -> None:
    """Print a comparison: what matters first."""
    from statistics import median  # takes 10 ms to import

    for who, network in (("old", found.old), ("new", found.new)):
        say(f"{who}: {network.name} ({network.kind})")
    for note in found.notes:
        say(f"{note}.")
    for one in found.datasets:
        _say_dataset(found, one)
    times = found.latency
    table = table_of("", "old", "new", "new / old")
    for name, old, new, ratio, span in (
        ("one face, ms", times.old, times.new, times.ratio, times.ratio_interval),
        (
            f"batch of {times.batch}, ms",
            times.old_batch,
            times.new_batch,
            times.batch_ratio,
            times.batch_ratio_interval,
        ),
    ):
        table.add_row(
            name,
            f"{median(old):.2f}",
            f"{median(new):.2f}",
            f"{ratio:.2f} ({span[0]:.2f}–{span[1]:.2f})",
        )
    networks = (found.old, found.new)
    table.add_row(
        "file, MB", *(f"{n.bytes / 1e6:.1f}" for n in networks), f"{found.size_ratio:.2f}"
    )
    table.add_row(
        "parameters", *("–" if n.parameters is None else f"{n.parameters:,}" for n in networks), ""
    )
    out_console.print(table)
    say(
        f"Measured alternately, {len(times.old)} faces and {len(times.old_batch)} batches; "
        f"threads: {times.threads}; {times.processor}."
    )


def _say_dataset(found: Compared, one: OnDataset) -> None:
    from crossfer.report.compared import answer, measures, questions, warnings
    from crossfer.report.view import signed, span
    from crossfer.report.words import STAND_IN, sureness

    say(f"\n{one.title}, {one.split} split", "bold")
    say(answer(one))
    for warning in warnings(one, found.classes):
        say(f"WARNING: {warning}")
    if one.stand_in:
        say(STAND_IN)
    table = table_of("", "old", "new", "change")
    for name, old, new, change in measures(one):
        table.add_row(
            name,
            *(f"{value:.1f} ({low:.1f}–{high:.1f})" for value, (low, high) in (old, new)),
            f"{signed(change[0])} ({span(change[1])})",
        )
    out_console.print(table)
    for text in questions(one):
        say(text)
    say_left_out(one.left_out)
    table = table_of("class", "images", "old", "new", "change", "won : lost")
    for i, name in enumerate(found.classes):
        if change_ := one.change.classes[i]:
            recalls = (
                "lacks this class" if name not in network.classes else f"{recall:.1f}"
                for network, recall in (
                    (found.old, one.old.recall[i]),
                    (found.new, one.new.recall[i]),
                )
            )
            flips = one.change.flips
            table.add_row(
                name,
                f"{change_.images:,}",
                *recalls,
                f"{signed(change_.points)} ({span(change_.interval)})",
                f"{flips.positive[i]:.0f} : {flips.negative[i]:.0f}",
            )
    out_console.print(table)
    if one.groups:
        table = table_of("group", "images", "old", "new", "change", "significance")
        for group in one.groups:
            pair = group.difference.paired
            table.add_row(
                f"{group.column} = {group.value}",
                f"{group.images:,}",
                f"{group.old:.1f}",
                f"{group.new:.1f}",
                f"{signed(pair.difference)} ({span(pair.interval)})",
                sureness(group.difference),
            )
        out_console.print(table)

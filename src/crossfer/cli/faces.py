"""Commands for faces: from raw files to a prepared dataset, and a look at what is in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, out_console
from crossfer.cli.options import check_outputs, labels_of, numbers_of, pairs_of, ray_of, splits_of
from crossfer.cli.output import say
from crossfer.errors import CrossferError

command = partial(app.command, rich_help_panel="Faces")


@command()
def prepare(
    path: Annotated[
        Path,
        typer.Argument(help="The raw files, as distributed: a file, a folder or an archive."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create for the prepared dataset.")],
    reader: Annotated[
        str | None,
        typer.Option("--as", help="Read it as this dataset instead of detecting the layout."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset in tables.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="THEIRS=OURS renames a label; THEIRS= leaves it out. Repeatable."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Meaning of numeric labels: fer2013, rafdb, affectnet, alphabetical, …"),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="The dataset's labels, e.g. angry,happy,neutral; default: those that occur."
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Regular expression that finds the subject in a path; '' for none."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a table: path=, label=, subject= or split=COLUMN. Repeatable."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the paths in a table are relative to.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="NAME=training|validation|test: meaning of a folder or value."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything", help="Include what is left out by default, such as turned heads."
        ),
    ] = False,
    faces: Annotated[
        Literal["auto", "find", "cropped"],
        typer.Option(
            help="find: detect and align each face; cropped: use pictures as cut-out faces."
        ),
    ] = "auto",
    no_face: Annotated[
        Literal["keep", "drop", "refuse"],
        typer.Option(
            help="If no face is found: keep the centre or the dataset's box, drop the picture, or stop "
            "with an error."
        ),
    ] = "keep",
    side: Annotated[int, typer.Option(help="Side of the prepared faces in pixels.")] = 48,
    colour: Annotated[bool, typer.Option("--colour", help="Keep colours (default: gray).")] = False,
    eyes: Annotated[
        str | None,
        typer.Option(help="Distance and height of the eyes, as fractions of the side."),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            help="If no face is found: side of the centred square, as a fraction of the picture."
        ),
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Sizes of training, validation and test set, e.g. 70,10,20.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Reach these sizes exactly, even if subjects are then in two splits."
        ),
    ] = False,
    ignore_splits: Annotated[
        bool, typer.Option("--ignore-splits", help="Ignore the files' splits and divide again.")
    ] = False,
    test_share: Annotated[
        float | None,
        typer.Option(help="Fraction of training to use as a test set, if the files have none."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the division into splits.")] = 0,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace a prepared dataset; known faces keep their split."),
    ] = False,
    new_split: Annotated[
        bool, typer.Option("--new-split", help="With --replace: divide all faces again.")
    ] = False,
    on: Annotated[
        str,
        typer.Option(
            help=(
                "Where to detect faces: here, ray (on this machine), or a Ray cluster's HOST:PORT "
                "or ray://HOST:PORT, without a shared folder."
            )
        ),
    ] = "here",
) -> None:
    """Turn raw files into a prepared dataset: faces of 48×48, a sample table and a card.

    The layout is detected, and faces in photographs are detected and aligned on the eyes. Archives (.zip,
    .tar.gz, …) need not be unpacked. Run the same command again to resume after an interruption.

    Example:  crossfer prepare raw/fer2013.csv --out data/fer2013

    A folder per class, with other class names and the subject at the start of each file name:

    crossfer prepare raw/mine --out data/mine --label joyful=happy --subject '/([^_]+)_'
    """
    from crossfer.cli.progress import Shown
    from crossfer.cli.remarks import remarks
    from crossfer.datasets import Preparation
    from crossfer.datasets import prepare as prepare_dataset
    from crossfer.datasets.dataset import is_prepared
    from crossfer.datasets.record import SPLITS

    how = Preparation(
        reader=reader,
        labels=labels_of(label or []),
        order=order,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        subject=subject,
        columns=pairs_of("--column", column or []),
        root=root,
        splits=splits_of(split or []),
        everything=everything,
        faces=faces,
        no_face=no_face,
        side=side,
        channels=3 if colour else 1,
        eyes=numbers_of("--eyes", eyes, (0.4, 0.4)) or Preparation.eyes,
        crop=crop,
        sizes=numbers_of("--sizes", sizes, (70, 10, 20)),
        exact=exact,
        ignore_splits=ignore_splits,
        test_share=test_share,
        seed=seed,
    )
    if new_split and not replace:
        raise CrossferError("--new-split: only for an existing dataset; add --replace")
    was_there = is_prepared(out)
    with Shown(out_console) as shown:
        dataset = prepare_dataset(
            path,
            out,
            how,
            name=name,
            replace=replace,
            new_split=new_split,
            progress=partial(shown.preparing, path.name),
            on=None if on == "here" else ray_of(on),
        )
    card = dataset.card
    say(f"{card['title']}: {card['recognised']}")
    by_split = dataset.with_own_classes().counts()
    table = Table("split", *by_split["training"], "all", box=box.SIMPLE_HEAD)
    for part, counts in by_split.items():
        numbers = [f"{count:,}" for count in (*counts.values(), sum(counts.values()))]
        table.add_row(part, *numbers)
    out_console.print(table)
    waiting = {split: len(dataset.unlabelled(split)) for split in SPLITS}
    if unlabelled := sum(waiting.values()):
        aside = unlabelled - waiting["training"]
        say(
            f"unlabelled: {unlabelled:,}, for strategies that need no labels"
            + (f"; the {aside:,} in other splits for `crossfer assess` alone" if aside else "")
        )
    for line in remarks(dataset):
        say(line)
    if replace and not was_there:
        say("--replace: there was no dataset to replace")
    say(f"prepared {card['images']:,} faces in {out}")
    say(f"show them:  crossfer look {quote(str(out))}")


@command()
def look(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default look.html in the dataset.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Number of faces per class.")] = 40,
    split: Annotated[
        Literal["training", "validation", "test"] | None, typer.Option(help="Only this split.")
    ] = None,
    doubtful: Annotated[bool, typer.Option("--doubtful", help="Only doubtful faces.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the selection.")] = 0,
) -> None:
    """Write a local page with prepared faces by class, doubtful ones marked. Do not publish it.

    Example:  crossfer look data/jaffe
    """
    from crossfer.datasets import open_dataset, write_look

    own = [file for file in dataset.glob("*") if file.suffix != ".html"]
    check_outputs({"--out": out}, own)
    page = write_look(
        open_dataset(dataset),
        out,
        per_class=per_class,
        split=split,
        only_doubtful=doubtful,
        seed=seed,
    )
    say(str(page.resolve()))


@command()
def datasets() -> None:
    """List the named datasets with size, licence, source and expected layout.

    Example:  crossfer datasets
    """
    from crossfer.datasets import READERS

    for reader in READERS.values():
        say(f"{reader.name}  {reader.title}", "bold")
        for key in ("size", "licence", "access", "layout", "citation"):
            if value := getattr(reader, key):
                say(f"    {key + ':':<10}{value}")

"""Commands for faces: from raw files to a prepared dataset, and a look at what is in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, out_console
from crossfer.cli.options import labels_of, numbers_of, pairs_of, ray_of, splits_of
from crossfer.errors import CrossferError

command = partial(app.command, rich_help_panel="Faces")


@command()
def prepare(
    path: Annotated[Path, typer.Argument(help="The files as the dataset's authors ship them.")],
    out: Annotated[Path, typer.Option(help="Folder to make: the prepared dataset.")],
    reader: Annotated[
        str | None, typer.Option("--as", help="Which dataset it is, instead of finding out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it in tables.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="THEIRS=OURS maps a class; THEIRS= leaves it out. Repeat at will."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="What numbers mean that are labels: fer2013, rafdb, affectnet, alphabetical, …"
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="The labels it tells apart, e.g. angry,happy,neutral; by default those that occur."
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Regular expression that finds the subject in a path; '' for none."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table: path=, label=, subject= or split=COLUMN. Repeat at will."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder from which the paths in a table start.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="NAME=training|validation|test: what a folder or value means."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="Also what is left out by default, as turned heads."),
    ] = False,
    faces: Annotated[
        Literal["auto", "find", "cropped"],
        typer.Option(
            help="find aligns each face on its eyes; cropped takes pictures as the faces they are."
        ),
    ] = "auto",
    no_face: Annotated[
        Literal["keep", "drop", "refuse"],
        typer.Option(help="Where no face is found: keep the centre, drop it, or refuse them all."),
    ] = "keep",
    side: Annotated[int, typer.Option(help="Side of the prepared faces in pixels.")] = 48,
    colour: Annotated[bool, typer.Option("--colour", help="Keep colours.")] = False,
    eyes: Annotated[
        str | None,
        typer.Option(help="Distance and height of the eyes, as shares of the side."),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(help="Where no face is found: the centred square, as a share of the picture."),
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Training, validation and test, e.g. 70,10,20.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Reach these sizes to the image, at the price of subjects."),
    ] = False,
    ignore_splits: Annotated[
        bool, typer.Option("--ignore-splits", help="Divide anew what comes in splits.")
    ] = False,
    test_share: Annotated[
        float | None,
        typer.Option(help="Cut a test set from training, where the files come without one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace an older prepared dataset; its faces keep their split."
        ),
    ] = False,
    new_split: Annotated[
        bool, typer.Option("--new-split", help="With --replace: divide all faces anew.")
    ] = False,
    on: Annotated[
        str,
        typer.Option(
            help="Where faces are found: here, ray (on this machine), or a Ray cluster's HOST:PORT or "
            "ray://HOST:PORT, whose nodes need not see the files."
        ),
    ] = "here",
) -> None:
    """Turn raw files into a prepared dataset: faces of 48×48, a sample table and a card.

    The layout is recognised; faces in photographs are found and aligned on the eyes.  Archives (.zip,
    .tar.gz, …) are read as they are.  Interrupted, the same command goes on where it stopped.

    Example:  crossfer prepare raw/fer2013.csv --out data/fer2013

    A folder per class, with class names of its own and the subject in front of every file's name:

    crossfer prepare raw/mine --out data/mine --label joyful=happy --subject '/([^_]+)_'
    """
    from crossfer.cli.oddities import oddities
    from crossfer.cli.progress import Shown
    from crossfer.datasets import Preparation
    from crossfer.datasets import prepare as prepare_dataset

    how = Preparation(
        reader=reader,
        labels=labels_of(label or []),
        order=order,
        classes=[name.strip() for name in classes.split(",")] if classes else None,
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
        raise CrossferError("--new-split: goes with --replace, for a dataset that is there already")
    with Shown(out_console) as shown:
        dataset = prepare_dataset(
            path,
            out,
            how,
            name=name,
            replace=replace,
            new_split=new_split,
            progress=lambda done, total: shown.preparing(path.name, done, total),
            on=None if on == "here" else ray_of(on),
        )
    card = dataset.card
    out_console.print(f"{card['title']}: {card['recognised']}", soft_wrap=True)
    by_split = dataset.with_own_classes().counts()
    table = Table("split", *by_split["training"], "all", box=box.SIMPLE_HEAD)
    for part, counts in by_split.items():
        numbers = [f"{count:,}" for count in (*counts.values(), sum(counts.values()))]
        table.add_row(part, *numbers)
    out_console.print(table)
    for line in oddities(dataset):
        out_console.print(line, soft_wrap=True)
    out_console.print(f"prepared {card['images']:,} faces in {out}", soft_wrap=True)
    out_console.print(f"see them:  crossfer look {out}", soft_wrap=True)


@command()
def look(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; by default look.html in the dataset.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Faces of each class.")] = 40,
    split: Annotated[
        Literal["training", "validation", "test"] | None, typer.Option(help="Only this split.")
    ] = None,
    doubtful: Annotated[bool, typer.Option("--doubtful", help="Only the doubtful ones.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows others.")] = 0,
) -> None:
    """Show prepared faces, class by class, the doubtful ones marked: a local page for your eyes only.

    Example:  crossfer look data/jaffe
    """
    from crossfer.datasets import open_dataset, write_look

    page = write_look(
        open_dataset(dataset),
        out,
        per_class=per_class,
        split=split,
        only_doubtful=doubtful,
        seed=seed,
    )
    out_console.print(str(page.resolve()), soft_wrap=True)


@command()
def datasets() -> None:
    """List the datasets that can be read: size, licence, how to get them, the layout expected.

    Example:  crossfer datasets
    """
    from crossfer.datasets import READERS

    for reader in READERS.values():
        out_console.print(f"{reader.name}  {reader.title}", style="bold", soft_wrap=True)
        for key in ("size", "licence", "access", "layout", "citation"):
            if value := getattr(reader, key):
                out_console.print(f"    {key + ':':<10}{value}", soft_wrap=True)

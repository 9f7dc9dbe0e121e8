"""The command that labels new faces with the old model's help."""

from __future__ import annotations

import getpass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from crossfer.cli.application import app, error_console
from crossfer.cli.browser import PORT, Browser, Port, show
from crossfer.cli.options import SmallestOption, VariantOption, check_cropped
from crossfer.cli.output import say
from crossfer.errors import CrossferError, legible
from crossfer.framing import SMALLEST, Framing

if TYPE_CHECKING:
    from crossfer.deploy.predictor import Predictor
    from crossfer.labelling import Session

command = partial(app.command, rich_help_panel="Faces")


@command()
def label(
    photos: Annotated[Path, typer.Argument(help="The folder of your photos.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help=(
                "The old model, which suggests labels: an exported classifier, a bundle or a run."
            )
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the labels; default PHOTOS-labels beside the photos."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Name of the annotator; default your user name.")
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            help=(
                "Order of the faces. uncertainty: least certain first; balance: classes with few "
                "labels first (needs --model); files: by file name."
            )
        ),
    ] = "uncertainty",
    blind: Annotated[
        bool, typer.Option("--blind", help="Do not show the model's suggestions.")
    ] = False,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Classes without --model: fer7, fer8, … or names, e.g. bored,awake,asleep."
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="A class that the model lacks. Repeatable."),
    ] = None,
    cropped: Annotated[
        bool, typer.Option("--cropped", help="The photos are cut-out faces: do not detect any.")
    ] = False,
    smallest: SmallestOption = SMALLEST,
    variant: VariantOption = "fp32",
    port: Port = PORT,
    browser: Browser = False,
    table: Annotated[
        bool, typer.Option("--table", help="Only write the table of labels and a summary.")
    ] = False,
) -> None:
    """Label the faces of a folder of photos in the browser, one key per face, with the old model's
    suggestions.

    Every label is saved immediately; stop and resume at any time. Two annotators use two names (--by), also
    at the same time, and see their agreement. The result is a table that `crossfer prepare` reads.

    Example:  crossfer label photos/ --model runs/mine/runs/KEY --order balance --by ann
    """
    from crossfer.cli.bars import Bars
    from crossfer.labelling import FACES, Gallery, LabelOptions, Session, describer
    from crossfer.labelling.queue import check_order

    folder = out or photos.resolve().with_name(f"{photos.resolve().name}-labels")
    if folder.resolve().is_relative_to(photos.resolve()):
        raise CrossferError(
            f"--out {folder}: is inside the folder of photos; name a folder outside"
        )
    if order == "balance" and model is None:
        raise CrossferError("--order balance: needs the classes that a model suggests; add --model")
    check_cropped(cropped, smallest)
    if model is None and (blind or variant != "fp32"):
        raise CrossferError(
            f"{'--blind' if blind else '--variant'}: only with --model; add it, or leave this out"
        )
    who = by or ("nobody" if table else _user())
    how = LabelOptions(who, check_order(order), blind, tuple(also or ()))
    if table:
        page = {"--order": order != "uncertainty", "--blind": blind, "--port": port != PORT}
        page |= {"--open": browser, "--by": by is not None, "--also": bool(also)}
        for option, given in page.items():
            if given:
                raise CrossferError(f"{option}: --table opens no page; leave one of the two out")
    else:
        from crossfer.app.server import listen

        listen(port).close()  # before the faces are looked for, which may take long
    predictor = _predictor(model, classes, smallest, variant)
    for note in predictor.unchecked:
        say(note)
    gallery = Gallery(photos, folder / FACES, predictor, cropped)
    session = Session(folder, gallery, how, describer(cropped))
    with Bars(error_console) as bars:
        session.refresh(partial(bars.count, "find faces"))
    _say_found(session)
    if not table:
        from crossfer.app.labelling import label_pages

        show(label_pages(session), port, browser)
        session.refresh()
    _say_labels(session)
    session.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user has no name
        raise CrossferError("your user has no name; give one with --by NAME") from None


def _predictor(model: Path | None, classes: str | None, smallest: float, variant: str) -> Predictor:
    from crossfer.classes import PRESETS, ClassSet
    from crossfer.deploy import load
    from crossfer.deploy.predictor import Predictor
    from crossfer.labelling import Unguided

    if model is None:
        named = "fer7" if classes is None else classes
        class_set = ClassSet.of(named if named in PRESETS else named.split(","))
        return Predictor(Unguided(class_set.names), smallest)
    if classes is not None:
        raise CrossferError(
            "--classes: the model has its own classes; leave it out, or add a class with --also "
            "NAME"
        )
    return load(model, variant, smallest)


def _say_found(session: Session) -> None:
    gallery = session.gallery
    lines = [f"faces: {len(gallery.faces):,}", *session.notes]
    for reason in dict.fromkeys(gallery.problems.values()):
        names = [name for name, why in gallery.problems.items() if why == reason]
        lines.append(f"photos left out, {reason}: {len(names):,} (first: {legible(names[0])})")
    if gallery.others:
        lines.append(f"not pictures, skipped: {gallery.others:,}")
    if session.unknown:
        lines.append(f"labels of missing faces, kept in the journals: {session.unknown:,}")
    for line in lines:
        say(line)
    if not gallery.faces and not gallery.problems:
        raise CrossferError(
            f"{gallery.folder}: contains no picture; name the folder of your photos"
        )
    if not gallery.faces:
        hint = "" if gallery.cropped else "; if they are cut-out faces, add --cropped"
        raise CrossferError(f"{gallery.folder}: no face found in any photo{hint}")


def framing_options(framing: Framing) -> str:
    """Return the options with which `prepare` makes faces as a model reads them; empty by default."""
    usual, found = Framing(), ""
    if framing.side != usual.side:
        found += f" --side {framing.side}"
    if framing.channels == 3:
        found += " --colour"
    eyes = framing.eye_distance, framing.eye_height
    if eyes != (usual.eye_distance, usual.eye_height):
        found += f" --eyes {eyes[0]:g},{eyes[1]:g}"
    return found


def _say_labels(session: Session) -> None:
    file, labels = session.write_manifest(), session.labels()
    people = {row["subject"] for row in labels.rows if row["subject"]}
    lines = [f"labels: {len(labels.rows):,}, of {len(people):,} named people, in {file}"]
    for count, what in (
        (len(labels.disputed), "annotators disagree; left out until resolved"),
        (labels.not_faces, "not a face"),
        (labels.skipped, "skipped"),
        (labels.waiting, "waiting"),
    ):
        if count:
            lines.append(f"{what}: {count:,}")
    for pair in session.agreements():
        kappa = pair.kappa
        if kappa.value is not None and kappa.interval is not None:
            low, high = kappa.interval
            lines.append(
                f"{' and '.join(pair.people)}: Cohen's kappa {kappa.value:.2f} ({low:.2f} to {high:.2f}), "
                f"{kappa.same:,} of {kappa.faces:,} answers the same"
            )
    if labels.rows:
        how = " --faces cropped" if session.gallery.cropped else ""
        how += framing_options(session.gallery.predictor.engine.framing)
        out = Path("data") / session.gallery.folder.name
        lines.append(f"next: crossfer prepare {quote(str(file))} --out {quote(str(out))}{how}")
    for line in lines:
        say(line)

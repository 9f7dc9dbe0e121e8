"""The command that audits datasets for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, error_console, out_console
from crossfer.cli.options import JsonOption, check_outputs
from crossfer.cli.output import say, say_json, table_of
from crossfer.errors import CrossferError, legible

if TYPE_CHECKING:
    from crossfer.datasets import Dataset
    from crossfer.datasets.audit import DatasetAudit
    from crossfer.evaluation.rows import Overlap
    from crossfer.progress import OnProgress

command = partial(app.command, rich_help_panel="Faces")


@command()
def audit(
    datasets: Annotated[list[Path], typer.Argument(help="Prepared or raw datasets.")],
    as_json: JsonOption = False,
    page: Annotated[
        Path | None, typer.Option(help="Also write an HTML page, without any face.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help=("Exit with status 1 if images or subjects leak between splits.")
        ),
    ] = False,
) -> None:
    """Report what a reviewer asks about a dataset: clean splits, their sizes, subjects and classes.

    Lists copies and subjects across splits, class counts, contradicting labels, test images with copies
    in training, and which data were used for selection. Several datasets are also compared with each
    other. A raw dataset is first prepared in a temporary folder.

    Example:  crossfer audit data/fer2013 --page fer2013-audit.html
    """
    from tempfile import TemporaryDirectory

    from crossfer.cli.progress import Shown
    from crossfer.datasets import open_dataset
    from crossfer.datasets.audit import SELECTION, write_page
    from crossfer.datasets.audit import as_json as plain
    from crossfer.datasets.audit import audit as ask
    from crossfer.datasets.dataset import is_prepared

    for number, path in enumerate(datasets):
        if path.resolve() in [other.resolve() for other in datasets[:number]]:
            raise CrossferError(f"{path}: given twice; remove one")
    check_outputs({"--page": page}, datasets)
    # Windows deletes no file that is in use, as prepared datasets are.
    prepared = TemporaryDirectory(prefix="crossfer-audit-", ignore_cleanup_errors=True)
    with prepared as elsewhere, Shown(error_console) as shown:
        opened = [
            open_dataset(path)
            if is_prepared(path)
            else _prepared(path, Path(elsewhere) / str(number), partial(shown.preparing, path.name))
            for number, path in enumerate(datasets)
        ]
        found = ask(opened, shown.comparing)
        for path, dataset in zip(datasets, opened, strict=True):
            if not is_prepared(path):
                _say_prepared(path, dataset)
    if page:
        write_page(found, page)
    if as_json:
        say_json(plain(found))
    else:
        for one in found.datasets:
            _say(one)
        _say_copies(found.overlaps)
        say(SELECTION)
        if page:
            say(f"page: {page.resolve()}")
    if strict and found.leaks:
        raise typer.Exit(1)


def _prepared(path: Path, out: Path, progress: OnProgress) -> Dataset:
    """Prepare a raw dataset; options that an error names are those of another command."""
    from crossfer.datasets import prepare

    try:
        return prepare(path, out, progress=progress)
    except CrossferError as error:
        if " --" not in str(error):
            raise
        first = f"prepare it first, with the option: crossfer prepare {quote(str(path))}"
        raise CrossferError(f"{error}; {first}") from None


def _say_prepared(path: Path, dataset: Dataset) -> None:
    """Print how a raw dataset was prepared, beside the audit, which may be JSON."""
    from crossfer.cli.remarks import remarks

    first = "prepared temporarily; for other options prepare it first: crossfer prepare"
    for line in (
        f"{path}: {first} {quote(str(path))}",
        *(f"  {line}" for line in remarks(dataset, kept=False)),
    ):
        error_console.print(legible(line), soft_wrap=True)


def _say(one: DatasetAudit) -> None:
    """Print the audit of one dataset, its findings first."""
    say(f"{one.name}: {one.title}", "bold")
    for finding in one.findings or ("No findings.",):
        say(f"  {finding}")
    table = table_of("", *(part.split for part in one.splits), padding=(0, 1))
    rows = {
        "images": [f"{part.images:,}" for part in one.splits],
        "people": ["not known" if p.subjects is None else f"{p.subjects:,}" for p in one.splits],
        **{
            name: [f"{part.classes[name]:,}" for part in one.splits]
            for name in one.splits[0].classes
        },
        "also in training": ["–", *(f"{part.also_in_training:,}" for part in one.splits[1:])],
        "copies within": [f"{part.copies_within:,}" for part in one.splits],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    out_console.print(table)
    say(f"  Split: {one.divided}.")


def _say_copies(overlaps: Sequence[Overlap]) -> None:
    """Print which places share images, with an example of each."""
    if not overlaps:
        return
    table = Table("images of", "also in", box=box.SIMPLE_HEAD)
    for column in ("of", "exact", "near", "other label"):
        table.add_column(column, justify="right")
    for one in overlaps:
        places = (f"{place.dataset} {place.split}" for place in (one.second, one.first))
        numbers = (one.images, one.exact, one.near, one.relabelled)
        table.add_row(*places, *(f"{number:,}" for number in numbers))
    out_console.print(table)
    for one in overlaps:
        first, second = one.examples[0].origins
        say(f"e.g. {second} = {first}")

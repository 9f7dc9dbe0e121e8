"""Print results: lines, tables and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer
from rich import box
from rich.padding import PaddingDimensions
from rich.table import Table

from crossfer.cli.application import out_console
from crossfer.errors import legible


def say(text: str, style: str = "") -> None:
    """Print a line; only the terminal wraps it, so that a path in it can be copied.

    Of a file name that is not UTF-8, what no terminal can show is escaped, as are control characters.
    """
    out_console.print(legible(text), style=style, soft_wrap=True)


def say_json(content: Any) -> None:
    """Print what JSON can hold."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def table_of(*columns: str, padding: PaddingDimensions = (0, 1, 0, 0)) -> Table:
    """Return an empty table: words in the first column, numbers in the others, aligned to the right."""
    made = Table(*columns, box=box.SIMPLE_HEAD, padding=padding)
    for column in made.columns[1:]:
        column.justify = "right"
    return made


def say_left_out(counts: Mapping[str, int], name: str = "") -> None:
    """Print the number of images of a dataset whose label is in no class, by label."""
    if counts:
        listed = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        left_out = "left out, label in no class"
        say(f"{name}: {left_out}: {listed}." if name else f"{left_out.capitalize()}: {listed}.")

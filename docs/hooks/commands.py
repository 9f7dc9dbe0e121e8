"""Writes the page of the commands from the code: what `crossfer --help` says, command by command."""

import re
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from crossfer.cli import app

PLACE = "<!-- commands -->"


def commands() -> str:
    """Return the documentation of every command, as Markdown."""
    group = get_command(app)
    context = typer.Context(group, info_name="crossfer")
    text = "\n".join(
        get_docs_for_click(obj=command, ctx=context, indent=1, name=name, call_prefix="crossfer")
        for name, command in group.commands.items()
    )
    return re.sub(
        r"\[/?bold\]|\[/\]", "", re.sub(r"^Example:  (.+)$", r"```sh\n\1\n```", text, flags=re.M)
    )


def on_page_markdown(markdown: str, **page: Any) -> str:
    """Put the commands where the page says (an event of MkDocs)."""
    return markdown.replace(PLACE, commands()) if PLACE in markdown else markdown

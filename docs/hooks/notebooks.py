"""Writes each tutorial as a notebook, too: its blocks are the cells, in the same order."""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = "tutorials/"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook(markdown: str) -> dict[str, Any]:
    """Return a tutorial in Jupyter's format: prose between its blocks, and the blocks as cells.

    A block with a title is written to the file of that name; one of the shell runs there.
    """
    cells, start = [], 0
    for block in BLOCK.finditer(markdown):
        cells.append(_cell("markdown", markdown[start : block.start()]))
        language, title, code = block.groups()
        magic = f"%%writefile {title}\n" if title else "%%bash\n" if language == "sh" else ""
        cells.append(_cell("code", magic + code))
        start = block.end()
    cells.append(_cell("markdown", markdown[start:]))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    full = [cell for cell in cells if cell["source"]]
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": {"kernelspec": kernel}, "cells": full}


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": text.strip("\n")}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Write the notebook beside the page, and name it there (an event of MkDocs)."""
    if not page.file.src_uri.startswith(FOLDER):
        return markdown
    name = Path(page.file.src_uri).with_suffix(".ipynb").name
    out = Path(config.site_dir) / FOLDER / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(notebook(markdown), indent=1, ensure_ascii=False), encoding="utf-8")
    heading, rest = markdown.split("\n", 1)
    link = f'<a href="{name}" download>Download this page as a notebook</a>'
    return f"{heading}\n\n{link}\n{rest}"

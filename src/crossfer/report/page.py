"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jinja2

from crossfer.report import charts, tables, view, words
from crossfer.report.citing import cited
from crossfer.report.figures import inline
from crossfer.terms import BL, SIDES


def render(
    asked: view.View, folder: Path, figure: bytes, contact_sheet: bytes | None = None
) -> str:
    """Write the page.

    Parameters
    ----------
    asked
        The results.
    folder
        The experiment's folder, where the runs' ``history.csv`` may lie.
    figure
        Fig. 6 as SVG.
    contact_sheet
        PNG of the drawn stand-ins, if any.

    Returns
    -------
    str
        HTML; whatever comes from the data is escaped.
    """
    found = words.answers(asked)
    places = ("data", "cache")
    config = {key: value for key, value in asked.results.config.items() if key not in places}
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            v=asked,
            BL=BL,
            SIDES=SIDES,
            results=asked.results,
            answers=found,
            words=words,
            tables=tables,
            headline=words.headline(found),
            tradeoffs=charts.tradeoffs(asked),
            curves=charts.curves(asked, folder),
            fig6=inline(figure),
            bibtex=cited(asked.results),
            config=json.dumps(config, indent=2, ensure_ascii=False),
            contact_sheet=base64.b64encode(contact_sheet).decode() if contact_sheet else None,
        )
    )


def environment() -> jinja2.Environment:
    """Return what templates of pages are read with: whatever comes from the data is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("crossfer.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name in (
        "signed",
        "number",
        "percent",
        "duration",
        "listed",
        "shown",
        "known",
        "span",
        "surprise",
        "unbroken",
    ):
        found.filters[name] = getattr(view, name)
    return found

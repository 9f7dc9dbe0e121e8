"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jinja2

from crossfer.evaluation.suggested import in_words
from crossfer.report import advice, charts, tables, view, words
from crossfer.report.citing import cited
from crossfer.report.figures import inline
from crossfer.templates import environment
from crossfer.terms import BL, SIDES

FILTERS = (
    *(view.signed, view.number, view.mean, view.percent, view.duration, view.listed),
    *(view.shown, view.known, view.span, view.surprise, view.unbroken),
)


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
    found = advice.answers(asked)
    places = ("data", "cache")
    config = {key: value for key, value in asked.results.config.items() if key not in places}
    return template("page.html.j2").render(
        v=asked,
        BL=BL,
        SIDES=SIDES,
        results=asked.results,
        answers=found,
        words=words,
        suggested=in_words,
        tables=tables,
        headline=advice.headline(found),
        tradeoffs=charts.tradeoffs(asked),
        curves=charts.curves(asked, folder),
        fig6=inline(figure),
        bibtex=cited(asked.results),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        contact_sheet=base64.b64encode(contact_sheet).decode() if contact_sheet else None,
    )


def template(name: str) -> jinja2.Template:
    """Read a template of this package, which may write numbers as `crossfer.report.view` does."""
    found = environment("crossfer.report")
    found.filters |= {filter_.__name__: filter_ for filter_ in FILTERS}
    return found.get_template(name)

"""Results → Fig. 6 and an HTML report, from results only."""

from __future__ import annotations

from pathlib import Path

from crossfer.evaluation.rows import Recommendation, Results
from crossfer.files import write_bytes
from crossfer.report import advice, words
from crossfer.report.figures import fig6
from crossfer.report.page import render
from crossfer.report.view import View, shown

REPORT, FIGURES = "report.html", "figures"


def write_report(results: Results, folder: str | Path, contact_sheet: bytes | None = None) -> Path:
    """Write ``report.html``, ``figures/fig6.png`` and ``figures/fig6.svg``.

    Parameters
    ----------
    results
        The results of an experiment.
    folder
        The experiment's folder; training curves are drawn if its runs' histories are there.
    contact_sheet
        PNG of the drawn stand-ins, for the demo; an earlier one is reused.

    Returns
    -------
    Path
        The report.
    """
    view, folder = View(results), Path(folder)
    png, svg = fig6(view)
    sheet = folder / FIGURES / "stand-ins.png"
    if contact_sheet is not None:
        _write(sheet, contact_sheet)
    elif sheet.is_file():
        contact_sheet = sheet.read_bytes()
    page = render(view, folder, svg, contact_sheet)
    _write(folder / FIGURES / "fig6.png", png)
    _write(folder / FIGURES / "fig6.svg", svg)
    return _write(folder / REPORT, page.encode("utf-8"))


def answers(results: Results) -> list[str]:
    """Return the answer for each target, what diverged or failed, and what stand-ins are worth."""
    view = View(results)
    several = len(view.targets) > 1
    sentences = [
        f"{answer.target}: {answer.sentence}"
        if several and answer.verdict == "none"  # the others name their target
        else answer.sentence
        for answer in advice.answers(view)
    ]
    for target in view.targets:
        sentences += [f"{shown(target)}: {why}" for why in words.diverged(view, target.name)]
    about = [words.averaged_over(view), words.STAND_IN if results.stand_in else ""]
    return [*sentences, *filter(None, about)]


def copied(results: Results) -> list[str]:
    """Say of which datasets test images also stand in a training set; empty where none does."""
    found = results.leakage is not None and any(results.leakage.in_training.values())
    return words.copies(View(results)) if found else []


def averaged_over(results: Results) -> str:
    """Say which seeds are compared, and what is left out, where runs failed; empty where none did."""
    return words.averaged_over(View(results))


def explain(results: Results, choice: Recommendation) -> list[str]:
    """Return why `crossfer.evaluation.decision.recommend` chose so, and what was given up, in sentences."""
    return advice.explain(View(results), choice)


def shipped(results: Results, run: str, folder: str | Path = "") -> str:
    """Name the bundle with a run's network, below the experiment's folder."""
    return advice.shipped(View(results), run, str(folder))


def _write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, content)
    return file

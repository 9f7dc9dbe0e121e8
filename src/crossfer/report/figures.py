"""The study's Fig. 6: accuracy on both test sets, a panel a target, drawn with Matplotlib."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from crossfer.evaluation.rows import DatasetFacts
from crossfer.report.view import View, percent, shown
from crossfer.terms import BL, Side

INK, RULE, PAPER = "#1d1d1f", "#d8d4cb", "#fffffe"
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "crossfer",
}
GAP, WIDTH = 0.7, 0.86
"""Of the gap between a panel's halves, and of a strategy's bars; its slot is 1 wide."""

BEHIND = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
VALUE = 0.29
"""Width of a printed value, in inches."""


def fig6(view: View) -> tuple[bytes, bytes]:
    """Draw Fig. 6.

    Returns
    -------
    tuple of bytes
        The picture as PNG and as SVG; the same results always give the same bytes.
    """
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = _draw(view)
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=180, facecolor=PAPER, metadata={"Software": None})
        about = {"Title": "Fig. 6: accuracy on both test sets", "Date": None, "Creator": None}
        figure.savefig(svg, format="svg", facecolor=PAPER, metadata=about)
    return png.getvalue(), svg.getvalue()


def inline(svg: bytes) -> str:
    """Make an SVG fit into the page: no prologue, the page's own colours for text and lines."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = text.replace("<svg ", '<svg role="img" aria-labelledby="fig6-caption" ', 1)
    for own, theirs in ((INK, "currentColor"), (RULE, "var(--rule)"), (PAPER, "var(--paper)")):
        text = text.replace(own, theirs)
    return text


def _draw(view: View) -> Figure:
    height = 2.75 * len(view.targets) + 1.0
    figure = Figure(figsize=(_width(view), height))
    panels = figure.subplots(len(view.targets), 1, squeeze=False)[:, 0]
    inch = 1 / height
    figure.subplots_adjust(0.05, 0.45 * inch, 0.995, 1 - 1.25 * inch, hspace=0.42)
    for axes, target in zip(panels, view.targets, strict=True):
        _panel(axes, view, target)
    title = "Accuracy on both test sets, in per cent"
    if view.stand_in:
        title += " · drawn stand-ins, not real faces"
    figure.text(0.01, 1 - 0.12 * inch, title, va="top", fontsize=12, fontweight="bold")
    figure.legend(
        handles=_legend(view),
        loc="upper left",
        bbox_to_anchor=(0.003, 1 - 0.36 * inch),
        ncols=len(view.fractions) + 2,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.8,
    )
    return figure


def _slots(view: View) -> float:
    return 2 * len(view.names) + GAP


def _width(view: View) -> float:
    return max(10.0, 0.85 * _slots(view))


def _panel(axes: Axes, view: View, target: DatasetFacts) -> None:
    axes.set_ylim(0, 112)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["left", "top", "right"]].set_visible(False)
    half = len(view.names)
    ticks = []
    sides: tuple[tuple[Side, DatasetFacts, float], ...] = (
        ("target", target, 0.0),
        ("source", view.source, half + GAP),
    )
    for side, dataset, left in sides:
        ticks += [left + i + 0.5 for i in range(half)]
        axes.text(left, 118, _header(view, target, dataset, side), va="bottom", fontweight="bold")
        for i, name in enumerate(view.names):
            _bars(axes, view, target, side, name, left + i + 0.5)
        level = view.before(target.name).on(side).test.accuracy
        axes.plot([left, left + half], [level, level], color=INK, lw=0.8, dashes=(4, 3))
    axes.set_xticks(ticks, view.names * 2)
    axes.set_xlim(-0.1, _slots(view) + 0.1)


def _bars(
    axes: Axes, view: View, target: DatasetFacts, side: Side, name: str, centre: float
) -> None:
    fractions = [None] if name == BL else view.fractions
    width = WIDTH / max(len(view.fractions), 2)
    for i, fraction in enumerate(fractions):
        row = view.averaged(target.name, name, fraction)
        if row is None:  # its runs failed
            continue
        test = row.on(side).test
        value, (low, high) = test.accuracy, test.interval or (test.accuracy, test.accuracy)
        x = centre + (i - (len(fractions) - 1) / 2) * width
        alpha = 1.0 if fraction is None else _strength(view, fraction)
        axes.bar(x, value, width * 0.94, color=PAPER)  # so that the grid does not shine through
        axes.bar(x, value, width * 0.94, color=view.colours[name], alpha=alpha, linewidth=0)
        axes.plot([x, x], [low, high], color=INK, lw=0.9)
        narrow = width * _width(view) / _slots(view) < VALUE
        label, turned = (f"{value:.0f}", 90) if narrow else (f"{value:.1f}", 0)
        y = high + (4 if narrow else 1.5)
        axes.text(x, y, label, ha="center", va="bottom", fontsize=8, rotation=turned, bbox=BEHIND)


def _strength(view: View, fraction: float) -> float:
    """Draw smaller fractions paler."""
    rank, last = view.fractions.index(fraction), len(view.fractions) - 1
    return 0.4 + 0.6 * rank / last if last else 1.0


def _header(view: View, target: DatasetFacts, dataset: DatasetFacts, side: Side) -> str:
    text = f"{shown(dataset)} test set · {view.test_images(target.name, side):,} images"
    if view.missing(dataset):
        text += f" · {len(dataset.classes)} of {len(view.classes)} classes"
    return text if side == "source" else f"{text} (target)"


def _legend(view: View) -> list[Patch | Line2D]:
    grey = "#6b6f76"
    shares = [
        Patch(color=grey, alpha=_strength(view, fraction), lw=0, label=percent(fraction))
        for fraction in view.fractions
    ]
    if shares:
        shares[-1].set_label(f"{percent(view.fractions[-1])} of the target training set")
    level = Line2D([], [], color=INK, lw=0.8, dashes=(4, 3), label="level of BL")
    whisker = Line2D([], [], color=INK, lw=0, marker="|", ms=9, label=f"{percent(0.95)} interval")
    return [*shares, level, whisker]

"""Geometry of the report's inline SVG charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfer.evaluation.rows import DatasetFacts, Result
from crossfer.report.view import View, number, percent, shown, signed
from crossfer.run_folder import HISTORY, read_history
from crossfer.terms import BL, SIDES

WIDTH, HEIGHT, EDGE = 340.0, 290.0, 34.0
MOST_NAMED = 8
"""Of so many strategies all are named, with lines and whiskers; of more, only the best are named."""

LINE, GLYPH, DOT = 14.0, 7.5, 6.0
"""Height of a line of text, width of a letter and radius of a mark, in the picture's units."""

PLACES = (
    *((9, 4, "start"), (-9, 4, "end"), (9, -6, "start"), (9, 15, "start"), (-9, -6, "end")),
    *((-9, 15, "end"), (0, -9, "middle"), (0, 19, "middle")),
)
"""Where a label can stand, from its mark: to the right, down, and which of its ends; the best first."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@dataclass
class Mark:
    """One network in the trade-off picture; `label` stands at (`lx`, `ly`), `whiskers` are an SVG path."""

    x: float
    y: float
    strategy: str
    colour: str
    tip: str
    label: str = ""
    lx: float = 0.0
    ly: float = 0.0
    anchor: str = "start"
    whiskers: str = ""
    cut: bool = False
    """Whether a whisker ends at the frame, with an arrowhead, and the interval goes on."""


@dataclass
class Tradeoff:
    """Source against target for one target: marks, paths of the named ones, the front, the axes' ticks."""

    target: str
    origin: tuple[float, float]
    marks: list[Mark]
    paths: list[tuple[str, str]]
    front: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


@dataclass
class Curve:
    """The validation accuracy of one training, epoch by epoch; a line a validated side."""

    strategy: str
    epochs: int
    kept: tuple[float, float] | None
    lines: dict[str, str]


def tradeoffs(view: View) -> list[Tradeoff]:
    """Return the trade-off picture of every target, all on the same axes."""
    rows = view.results.summary
    x_axis = _axis([row.memory_integrity.points for row in rows])
    y_axis = _axis([row.gain.points for row in rows])
    return [_tradeoff(view, target, rows, x_axis, y_axis) for target in view.targets]


def curves(view: View, folder: Path) -> list[tuple[str, list[Curve]]]:
    """Return the training curves of every target at its largest fraction, first seed.

    Runs whose ``history.csv`` does not lie beside the report are left out.
    """
    found = []
    for target in view.targets:
        rows = view.most(target.name, view.names)
        curves = [_curve(view, row, folder) for row in rows if row.seeds[0] == view.seeds[0]]
        drawn = [curve for curve in curves if curve]
        if drawn:
            found.append((shown(target), drawn))
    return found


def _axis(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lowest value, highest value and step of an axis that shows zero and all values."""
    low, high = min([-4.0, *values]), max([4.0, *values])
    step = next(s for s in (2, 5, 10, 20, 50) if (high - low) / s <= 7)
    pad = 0.07 * (high - low)
    return low - pad, high + pad, step


def _tradeoff(
    view: View,
    target: DatasetFacts,
    rows: Sequence[Result],
    x_axis: tuple[float, float, float],
    y_axis: tuple[float, float, float],
) -> Tradeoff:
    def x(value: float) -> float:
        return round(EDGE + (value - x_axis[0]) / (x_axis[1] - x_axis[0]) * (WIDTH - EDGE), 1)

    def y(value: float) -> float:
        return round((HEIGHT - EDGE) * (1 - (value - y_axis[0]) / (y_axis[1] - y_axis[0])), 1)

    marks, paths = [], []
    on_front: dict[str, Mark] = {}
    choice, largest = view.recommended(target.name), view.largest(target.name)
    named = {BL, choice.strategy, *choice.front}
    measured = {choice.strategy} - {BL}
    if len(view.names) <= MOST_NAMED:
        named.update(view.names)
        measured.update(choice.front)
    for name in view.names:
        own = [r for r in rows if (r.target, r.strategy) == (target.name, name)]
        own.sort(key=lambda row: row.fraction or 0)
        points = [(x(row.memory_integrity.points), y(row.gain.points)) for row in own]
        for row, point in zip(own, points, strict=True):
            mark = Mark(*point, name, view.colours[name], _tip(view, target, row))
            at_most = row.fraction in (None, largest)
            if at_most:
                mark.label = name if name in named else ""
                if name in choice.front:
                    on_front[name] = mark
            marks.append(mark)
            across, along = row.memory_integrity.interval, row.gain.interval
            if at_most and name in measured and across and along:
                ends = (*map(x, across), *map(y, along))
                mark.whiskers, mark.cut = _whiskers(*point, *ends)
        if name != BL and points and (len(points) > 1 or len(view.names) <= MOST_NAMED):
            path = [(x(0), y(0)), *points]
            paths.append((view.colours[name], " ".join(f"{a},{b}" for a, b in path)))
    _place_labels(marks)
    ticks = [
        [(scale(value), signed(value, 0)) for value in _ticks(axis)]
        for scale, axis in ((x, x_axis), (y, y_axis))
    ]
    front = " ".join(f"{on_front[n].x},{on_front[n].y}" for n in choice.front if n in on_front)
    return Tradeoff(shown(target), (x(0), y(0)), marks, paths, front, *ticks)


def _ticks(axis: tuple[float, float, float]) -> list[float]:
    low, high, step = axis
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _whiskers(
    x: float, y: float, left: float, right: float, low: float, high: float
) -> tuple[str, bool]:
    """Return the path of a mark's intervals, and whether it is cut off at the frame."""
    path, cut = [], False
    for end, edge, line, arrow in (
        (left, EDGE, f"M{x} {y}H{{}}", "m4-3l-4 3l4 3"),
        (right, WIDTH, f"M{x} {y}H{{}}", "m-4-3l4 3l-4 3"),
        (low, HEIGHT - EDGE, f"M{x} {y}V{{}}", "m-3-4l3 4l3-4"),
        (high, 0.0, f"M{x} {y}V{{}}", "m-3 4l3-4l3 4"),
    ):
        beyond = end < edge if edge in (EDGE, 0.0) else end > edge
        path.append(line.format(edge if beyond else end) + (arrow if beyond else ""))
        cut = cut or beyond
    return "".join(path), cut


def _place_labels(marks: Sequence[Mark]) -> None:
    """Put each label beside its mark, inside the frame, where it covers least of the others."""
    taken = [(mark.x - DOT, mark.y - DOT, mark.x + DOT, mark.y + DOT) for mark in marks]
    for mark in sorted((mark for mark in marks if mark.label), key=lambda mark: mark.y):
        boxes = {place: _box(mark, *place) for place in PLACES}
        covered = {place: _covered(box, taken) for place, box in boxes.items()}
        best = min(PLACES, key=covered.__getitem__)
        mark.lx, mark.ly, mark.anchor = mark.x + best[0], mark.y + best[1], best[2]
        taken.append(boxes[best])


def _box(mark: Mark, across: float, down: float, anchor: str) -> Box:
    width = GLYPH * len(mark.label)
    left = mark.x + across - {"start": 0, "middle": width / 2, "end": width}[anchor]
    bottom = mark.y + down + 2
    return left, bottom - LINE, left + width, bottom


def _covered(box: Box, others: Sequence[Box]) -> tuple[float, float]:
    """Return the area of a box outside the frame, and the area that it shares with others."""
    inside = _common(box, (EDGE, 0, WIDTH, HEIGHT - EDGE))
    outside = round((box[2] - box[0]) * (box[3] - box[1]) - inside, 6)
    return outside, sum(_common(box, other) for other in others)


def _common(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _tip(view: View, target: DatasetFacts, row: Result) -> str:
    share = "" if row.fraction is None else f", {percent(row.fraction)} of the training set"
    sides = (
        f"{shown(dataset)}: {number(row.on(side).test.accuracy)} % "
        f"({signed(row.change(side).points)} points)"
        for side, dataset in zip(SIDES, (view.source, target), strict=True)
    )
    return f"{row.strategy}{share}. {'; '.join(sides)}"


def _curve(view: View, row: Result, folder: Path) -> Curve | None:
    """Return the curve of a row's first seed."""
    run = view.runs[row.runs[0]]
    if not (folder / run.folder / HISTORY).is_file():
        return None
    history = read_history(folder / run.folder)
    if len(history) < 2:
        return None

    def point(epoch: int, accuracy: str) -> tuple[float, float]:
        return round(100 * epoch / (len(history) - 1), 1), round(60 * (1 - float(accuracy)), 1)

    lines: dict[str, str] = {}
    kept = None
    for side in SIDES:
        values = [epoch.get(f"{side}_accuracy") or "" for epoch in history]
        if all(values):
            points = [point(epoch, value) for epoch, value in enumerate(values)]
            lines[side] = " ".join(f"{a},{b}" for a, b in points)
            kept = points[min(run.kept_epoch, len(points)) - 1]
    return Curve(row.strategy, len(history), kept, lines) if lines else None

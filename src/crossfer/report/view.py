"""Questions that every part of the report asks of the content of ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from crossfer.evaluation.decision import comparable

Row = dict[str, Any]

COLOURS = {"BL": "#8b8f98", "FC": "#e69f00", "FC+CL": "#d55e00", "RE": "#cc79a7", "FU": "#0072b2"}
"""Okabe and Ito's palette, which colour-blind readers can tell apart; the baseline stays grey."""

MORE_COLOURS = ("#009e73", "#56b4e9", "#7a5195", "#9c755f", "#b8a100")


class View:
    """The content of ``results.json``, with short names for what is asked often.

    Parameters
    ----------
    results
        As `crossfer.experiment` writes it.
    """

    def __init__(self, results: Row) -> None:
        self.results = results
        self.emotions: list[str] = list(results["classes"])
        self.source: Row = next(d for d in results["datasets"] if d["role"] == "source")
        self.targets: list[Row] = [d for d in results["datasets"] if d["role"] == "target"]
        self.alone: list[Row] = [target for target in self.targets if "parts" not in target]
        self.runs: dict[str, Row] = {run["key"]: run for run in results["runs"]}
        self.strategies: list[Row] = list(results["strategies"])
        self.names: list[str] = [strategy["name"] for strategy in self.strategies]
        self.adapted: list[str] = [name for name in self.names if name != "BL"]
        self.stand_in: bool = bool(results["stand_in"])
        self.failed: list[Row] = list(results["failed"])

    @cached_property
    def fractions(self) -> list[float]:
        """The shares of the target training set that were measured, ascending."""
        found = {row["fraction"] for row in self.results["summary"]}
        return sorted(fraction for fraction in found if fraction is not None)

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of all runs, ascending."""
        return sorted({row["seed"] for row in self.results["results"]})

    @cached_property
    def colours(self) -> dict[str, str]:
        """A colour for each strategy."""
        more = [name for name in self.names if name not in COLOURS]
        own = {name: MORE_COLOURS[i % len(MORE_COLOURS)] for i, name in enumerate(more)}
        return COLOURS | own

    def shown(self, name: str) -> str:
        """Return a dataset's name for people."""
        return shown(next(d for d in (self.source, *self.targets) if d["name"] == name))

    def about(self, strategy: str) -> str:
        """What a strategy does, in words."""
        return next((str(s["about"]) for s in self.strategies if s["name"] == strategy), "")

    def largest(self, target: str) -> float | None:
        """Return the largest share of a target's training set that was measured; None if none was."""
        rows = comparable(self.results["summary"], target)
        return next((row["fraction"] for row in rows if row["fraction"] is not None), None)

    def before(self, target: str) -> Row:
        """Return the baseline's mean over seeds."""
        return self._chosen("summary", target, "BL", None)[0]

    def averaged(self, target: str, strategy: str, fraction: float | None) -> Row | None:
        """Return a strategy's mean over seeds at a fraction; the baseline's at any."""
        return next(iter(self._chosen("summary", target, strategy, fraction)), None)

    def measured(self, target: str, strategy: str, fraction: float | None) -> list[Row]:
        """Return the single results behind `averaged`, one a seed."""
        return self._chosen("results", target, strategy, fraction)

    def measured_most(self, target: str, strategy: str) -> list[Row]:
        """Return a strategy's single results at the largest share of a target."""
        return self.measured(target, strategy, self.largest(target))

    def recommended(self, target: str) -> Row:
        """Return the recommendation for a target."""
        return next(r for r in self.results["recommendations"] if r["target"] == target)

    def target(self, name: str) -> Row:
        """Return a target by its name."""
        return next(target for target in self.targets if target["name"] == name)

    def test_images(self, target: str, side: str) -> int:
        """Return how many test images there are on a side (``"source"`` or ``"target"``)."""
        rows = [row for row in self.results["results"] if row["target"] == target]
        return int(rows[0][f"{side}_test"]["images"]) if rows else 0

    def missing(self, dataset: Row) -> list[str]:
        """Return the classes that a dataset does not have."""
        return [emotion for emotion in self.emotions if emotion not in dataset["classes"]]

    def _chosen(self, part: str, target: str, strategy: str, fraction: float | None) -> list[Row]:
        asked = (target, strategy)
        return [
            row
            for row in self.results[part]
            if (row["target"], row["strategy"]) == asked and row["fraction"] in (None, fraction)
        ]


def shown(dataset: Row) -> str:
    """Return a dataset's name as its title writes it: ``JAFFE`` for ``jaffe``; a stand-in says so."""
    name, title = str(dataset["name"]), str(dataset["title"]).split(",")[0]
    same = title.casefold().replace("+", "") == name.casefold().replace("+", "")
    return (title if same else name) + (" stand-in" if dataset["stand_in"] else "")


def unbroken(text: str) -> str:
    """Let no line end at a hyphen: a name keeps together."""
    return text.replace("-", "\N{NON-BREAKING HYPHEN}")


def known(value: float | None) -> bool:
    """Tell whether a number was measured."""
    return value is not None and not math.isnan(value)


def signed(value: float | None, digits: int = 1) -> str:
    """Write a change in points: ``+40.3``, ``−21.0``, ``0.0``; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"
    return sign + text


def number(value: float | None, digits: int = 1) -> str:
    """Write a number; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def span(interval: Sequence[float] | None) -> str:
    """Write an interval of a change: ``−0.5 to +1.3``; a dash where there is none."""
    return "–" if interval is None else " to ".join(signed(end) for end in interval)


def surprise(p: float) -> str:
    """Write a p-value: ``0.03``, ``0.004``, ``< 0.001``."""
    if p < 0.001:
        return "<\N{NO-BREAK SPACE}0.001"
    return f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def percent(fraction: float | None) -> str:
    """Write a share: ``50 %``."""
    return "–" if fraction is None else f"{100 * fraction:g}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Write a time as people say it: ``0.4 s``, ``45 s``, ``18 min``, ``2.5 h``."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 99.5:
        text = f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    else:
        minutes = seconds / 60
        text = f"{minutes:.0f} min" if minutes < 99.5 else f"{minutes / 60:.1f} h"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def listed(words: Sequence[str]) -> str:
    """Join words as people do: ``a, b and c``."""
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

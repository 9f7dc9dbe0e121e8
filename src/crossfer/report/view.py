"""Queries on an experiment's results, shared by all parts of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from crossfer.evaluation.decision import comparable
from crossfer.evaluation.rows import Chain, DatasetFacts, Interval, Recommendation, Result, Results
from crossfer.evaluation.summary import seeds_in_common
from crossfer.terms import BL, Side

COLOURS = {BL: "#8b8f98", "FC": "#e69f00", "FC+CL": "#d55e00", "RE": "#cc79a7", "FU": "#0072b2"}
"""Okabe and Ito's palette, which colour-blind readers can tell apart; the baseline stays grey."""

MORE_COLOURS = ("#009e73", "#56b4e9", "#7a5195", "#9c755f", "#b8a100")


class View:
    """Queries on the results of an experiment."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.classes = results.classes
        self.source = results.source
        self.targets = results.targets
        self.alone = [target for target in results.targets if not target.parts]
        self.runs = {run.key: run for run in results.runs}
        self.strategies = results.strategies
        self.names = [strategy.name for strategy in results.strategies]
        self.adapted = [name for name in self.names if name != BL]
        self.stand_in = results.stand_in
        self.failed = results.failed

    @cached_property
    def fractions(self) -> list[float]:
        """The shares of the target training set that were measured, ascending."""
        return sorted({row.fraction for row in self.results.summary if row.fraction is not None})

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of all runs, ascending."""
        return sorted({seed for row in self.results.summary for seed in row.seeds})

    def seeds_of(self, target: str) -> list[int]:
        """Return the seeds of a target's means, ascending."""
        rows = self.results.summary
        return sorted({seed for row in rows if row.target == target for seed in row.seeds})

    @cached_property
    def in_turn(self) -> dict[str, list[Chain]]:
        """Each strategy's chains, all of the same seeds: what lacks one, since a run failed, is left out."""
        every = {
            name: [chain for chain in self.results.in_turn if chain.strategy == name]
            for name in self.names
        }
        seeds = {name: {chain.seed for chain in own} for name, own in every.items() if own}
        shared = seeds_in_common(seeds.values()) if seeds else set()
        return {
            name: [chain for chain in every[name] if chain.seed in shared]
            for name, own in seeds.items()
            if shared <= own
        }

    @property
    def seeds_in_turn(self) -> list[int]:
        """The seeds of these chains, ascending; empty where no targets were learnt in turn."""
        return sorted({chain.seed for own in self.in_turn.values() for chain in own})

    @cached_property
    def colours(self) -> dict[str, str]:
        """A colour for each strategy."""
        more = [name for name in self.names if name not in COLOURS]
        own = {name: MORE_COLOURS[i % len(MORE_COLOURS)] for i, name in enumerate(more)}
        return COLOURS | own

    def dataset(self, name: str) -> DatasetFacts:
        """Return a dataset by its name."""
        return next(d for d in self.results.datasets if d.name == name)

    def shown(self, name: str) -> str:
        """Return a dataset's name for people."""
        return shown(self.dataset(name))

    def about(self, strategy: str) -> str:
        """Return what a strategy does, in words."""
        return next((s.about for s in self.strategies if s.name == strategy), "")

    def largest(self, target: str) -> float | None:
        """Return the largest share of a target's training set that was measured; None if none was."""
        rows = comparable(self.results.summary, target)
        return next((row.fraction for row in rows if row.fraction is not None), None)

    def before(self, target: str) -> Result:
        """Return the baseline's mean over seeds."""
        return _chosen(self.results.summary, target, BL, None)[0]

    def baselines(self, target: str) -> list[Result]:
        """Return the baselines, one for each seed."""
        return _chosen(self.results.results, target, BL, None)

    def averaged(self, target: str, strategy: str, fraction: float | None) -> Result | None:
        """Return a strategy's mean over seeds at a fraction; the baseline's at any."""
        return next(iter(_chosen(self.results.summary, target, strategy, fraction)), None)

    def most(self, target: str, strategies: Sequence[str]) -> list[Result]:
        """Return strategies' means over seeds at the largest share of a target, where there are any."""
        largest = self.largest(target)
        rows = [self.averaged(target, name, largest) for name in strategies]
        return [row for row in rows if row]

    def recommended(self, target: str) -> Recommendation:
        """Return the recommendation for a target."""
        return next(r for r in self.results.recommendations if r.target == target)

    def test_images(self, target: str, side: Side) -> int:
        """Return how many test images there are on a side."""
        return self.before(target).on(side).test.images

    def missing(self, dataset: DatasetFacts) -> list[str]:
        """Return the classes that a dataset does not have."""
        return [name for name in self.classes if name not in dataset.classes]


def _chosen(
    rows: Sequence[Result], target: str, strategy: str, fraction: float | None
) -> list[Result]:
    asked = (target, strategy)
    return [
        row
        for row in rows
        if (row.target, row.strategy) == asked and row.fraction in (None, fraction)
    ]


def shown(dataset: DatasetFacts) -> str:
    """Return a dataset's name as its title writes it: ``JAFFE`` for ``jaffe``; a stand-in says so."""
    name, title = dataset.name, dataset.title.split(",")[0]
    same = title.casefold().replace("+", "") == name.casefold().replace("+", "")
    return (title if same else name) + (" stand-in" if dataset.stand_in else "")


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


def mean(value: float) -> str:
    """Write a mean of counts: whole where it is, otherwise with a decimal."""
    return number(value, 0 if value == round(value) else 1)


def span(interval: Interval | None) -> str:
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


def people(count: int | None) -> str:
    """Write a number of people: ``1 person``, ``12 people``."""
    return "1 person" if count == 1 else f"{count} people"


def listed(words: Sequence[str]) -> str:
    """Join words as people do: ``a, b and c``."""
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

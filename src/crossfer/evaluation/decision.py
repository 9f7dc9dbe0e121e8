"""Recommend a strategy, and one of its networks: pure functions of rows.

Both are selected on validation data only; test results are reported and do not affect the choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from crossfer.evaluation.evidence import Evidence
from crossfer.evaluation.intervals import count_people
from crossfer.evaluation.rows import Ahead, Recommendation, Result, StrategyFacts
from crossfer.selection import Lead, first_not_worse, lead
from crossfer.terms import BL, PAST_DATA, SIDES, PastData, Side

KEPT = 1.0
"""Maximum loss on the source's validation set that does not count as forgetting, in points."""
ROUNDING = 1e-9
"""By how much a loss may exceed its limit, in points: accuracies are sums of rounded numbers."""


@dataclass(frozen=True)
class Constraints:
    """Constraints of a user; by default none.

    Parameters
    ----------
    max_source_drop
        Maximum loss on the source's validation set, in points.  None: `KEPT`, or unlimited if no strategy
        within this limit gains anything.
    past_data
        What is available of the source: one of `PAST_DATA`.
    exemplars
        Available images per class, if ``past_data`` is ``"some per class"``.
    budget
        Maximum training time after the baseline, in seconds.
    """

    max_source_drop: float | None = None
    past_data: PastData = "all source"
    exemplars: int | None = None
    budget: float | None = None

    def objections(self, row: Result, baseline: Result, strategy: StrategyFacts) -> list[str]:
        """Return the reasons that exclude a strategy; empty if it is allowed."""
        found = []
        if PAST_DATA.index(strategy.past_data) > PAST_DATA.index(self.past_data) or (
            strategy.past_data == self.past_data == "some per class"
            and self.exemplars is not None
            and (strategy.exemplars or 0) > self.exemplars
        ):
            found.append(_needs(strategy))
        drop = baseline.on_source.validation.accuracy - row.on_source.validation.accuracy
        if self.max_source_drop is not None and drop > self.max_source_drop + ROUNDING:
            found.append(f"loses {drop:.1f} points on the source's validation set")
        if self.budget is not None and row.cost.seconds > self.budget:
            digits = 1 if row.cost.seconds < 10 else 0
            found.append(f"takes {row.cost.seconds:.{digits}f} s")
        return found


def recommend(
    results: Sequence[Result],
    summary: Sequence[Result],
    strategies: Iterable[StrategyFacts],
    ahead: Iterable[Ahead],
    constraints: Constraints = Constraints(),  # noqa: B008  (it is frozen)
) -> list[Recommendation]:
    """Recommend a strategy and a network for each target, by validation accuracy only.

    Among the allowed strategies, at the largest fraction, the one with the highest target accuracy is
    recommended, unless the baseline is not shown to be worse (`crossfer.selection`); then the baseline
    is.  In that case, and without a limit on the loss on the source, the same is repeated for the mean of
    source and target accuracy.  Ties are broken by the accuracy on the source, then by time; the baseline
    takes no time.

    Parameters
    ----------
    results
        Rows of single networks.
    summary
        Means over seeds: `crossfer.evaluation.summary.by_strategy`.
    strategies
        Facts about the strategies.
    ahead
        Paired differences on the validation sets: `leads`.
    constraints
        Which strategies are allowed.
    """
    known = {strategy.name: strategy for strategy in strategies}
    ahead = list(ahead)
    asked = constraints.max_source_drop
    found = []
    for target in dict.fromkeys(row.target for row in summary):
        rows, own = comparable(summary, target), [one for one in ahead if one.target == target]
        limit = KEPT if asked is None else asked
        choice = _choose(rows, known, own, replace(constraints, max_source_drop=limit))
        if asked is None and choice.row.strategy == BL:
            choice = _choose(rows, known, own, constraints)
        row = choice.row
        shipped = to_ship(row, results)
        found.append(
            Recommendation(
                target=target,
                strategy=row.strategy,
                fraction=row.fraction,
                seed=shipped.seeds[0],
                run=shipped.runs[0],
                validation_balance=row.balance,
                best=choice.best.strategy,
                behind=100 * choice.behind.difference,
                behind_error=100 * choice.behind.error,
                memory_integrity=row.memory_integrity.points,
                gain=row.gain.points,
                limit=choice.limit,
                ruled_out=choice.ruled_out,
                front=tuple(on_front.strategy for on_front in front(rows)),
            )
        )
    return found


def to_ship(row: Result, results: Iterable[Result]) -> Result:
    """Return the network of a mean row with the best mean of both validation accuracies."""
    same = (row.target, row.fraction, row.strategy)
    own = [one for one in results if (one.target, one.fraction, one.strategy) == same]
    own = [one for one in own if one.seeds[0] in row.seeds]
    return max(own, key=lambda one: one.balance)


def leads(summary: Sequence[Result], validation: Evidence) -> list[Ahead]:
    """Compare every two candidate strategies on both validation sets.

    Accuracies are compared, not losses, since strategies differ in the confidence of their networks.
    """
    found = []
    for target in dict.fromkeys(row.target for row in summary):
        for one, other in combinations(comparable(summary, target), 2):
            for side in SIDES:
                name: str = side
                subjects = validation.subjects[target, side]
                mine, theirs = (validation.right(row, side).mean(0) for row in (one, other))
                ahead = lead({name: mine}, {name: theirs}, {name: subjects})
                found.append(
                    Ahead(
                        target=target,
                        side=side,
                        strategy=one.strategy,
                        against=other.strategy,
                        points=100 * ahead.difference,
                        error=100 * ahead.error,
                        images=len(mine),
                        people=count_people(subjects),
                    )
                )
    return found


class _Choice(NamedTuple):
    row: Result
    best: Result
    behind: Lead
    limit: float | None
    ruled_out: dict[str, tuple[str, ...]]


def _choose(
    rows: Sequence[Result],
    strategies: Mapping[str, StrategyFacts],
    ahead: Sequence[Ahead],
    constraints: Constraints,
) -> _Choice:
    """Select among the rows of one target: by target accuracy if the loss is limited, else by both sides."""
    baseline = next(row for row in rows if row.strategy == BL)
    objections = {
        row.strategy: tuple(constraints.objections(row, baseline, strategies[row.strategy]))
        for row in rows
        if row is not baseline
    }
    limit = constraints.max_source_drop

    def rank(row: Result) -> tuple[float, ...]:
        more = 0 if row is baseline else row.cost.seconds  # what the baseline took is spent
        return merit(row, limit), row.on_source.validation.accuracy, -more

    best = max((row for row in rows if not objections.get(row.strategy)), key=rank)
    sides: tuple[Side, ...] = SIDES if limit is None else ("target",)
    row = first_not_worse([baseline, best], lambda row: _behind(row, best, sides, ahead).shown)
    behind = _behind(row, best, sides, ahead)
    return _Choice(row, best, behind, limit, {name: why for name, why in objections.items() if why})


def _behind(row: Result, best: Result, sides: Sequence[Side], ahead: Iterable[Ahead]) -> Lead:
    """Return the difference of a strategy from the best on these validation sets, each counting the same."""
    if row is best:
        return Lead(0.0, 0.0)
    signs = {(best.strategy, row.strategy): 1, (row.strategy, best.strategy): -1}
    found = [
        (sign * one.points, one.error)
        for one in ahead
        if one.side in sides and (sign := signs.get((one.strategy, one.against)))
    ]
    points, errors = np.transpose(found) / 100
    return Lead(float(points.mean()), float(np.sqrt((errors**2).sum())) / len(errors))


def merit(row: Result, limit: float | None) -> float:
    """Return the objective: the validation accuracy on the target or, without a limit, on both sides."""
    return row.balance if limit is None else row.on_target.validation.accuracy


def comparable(summary: Sequence[Result], target: str) -> list[Result]:
    """Return the candidate rows of one target: the baseline, and the largest fraction."""
    rows = [row for row in summary if row.target == target]
    largest = max((row.fraction for row in rows if row.fraction is not None), default=None)
    return [row for row in rows if row.fraction in (None, largest)]


def front(rows: Sequence[Result]) -> list[Result]:
    """Return the Pareto front of source and target test accuracy, the best on the source first."""

    def sides(row: Result) -> tuple[float, float]:
        return row.on_source.test.accuracy, row.on_target.test.accuracy

    def beaten(row: Result) -> bool:
        source, target = sides(row)
        return any(
            other[0] >= source and other[1] >= target and other != (source, target)
            for other in map(sides, rows)
        )

    return sorted((row for row in rows if not beaten(row)), key=sides, reverse=True)


def past_data_in_words(past_data: PastData, exemplars: int | None) -> str:
    """Return a level of past data as text, with the number of images per class if that is limited."""
    return f"{exemplars} per class" if past_data == "some per class" else past_data


def _needs(strategy: StrategyFacts) -> str:
    what: dict[PastData, str] = {
        "statistics": "a memory file of the source's images",
        "some per class": f"{strategy.exemplars} source images a class",
        "all source": "all of the source's images",
    }
    return f"needs {what[strategy.past_data]}"

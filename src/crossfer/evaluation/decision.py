"""Which strategy to use, and whether it may be shipped: pure functions on the rows of a summary.

A strategy is chosen on validation data alone; its test figures stand beside and decide nothing.  Whether the
chosen one may be shipped is asked of the test data, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossfer.evaluation.summary import CHANGES, Result, balance

BASELINE = "BL"
PAST_DATA = ("none", "statistics", "some per class", "all source")
"""What may be left of the source, from the least to the most."""

KEPT = 1.0
"""Points on the source's validation set: who loses no more has not forgotten."""


@dataclass(frozen=True)
class Constraints:
    """What a user can afford; the default affords everything.

    Parameters
    ----------
    max_source_drop
        At most so many points lost on the source's validation set, against the baseline.  None: `KEPT`, or,
        where nothing that loses so little gains anything, as many as it takes.
    past_data
        What is left of the source: one of `PAST_DATA`.
    exemplars
        How many images of each class, if ``past_data`` is ``"some per class"``.
    budget
        At most so many seconds of training after the baseline's.
    """

    max_source_drop: float | None = None
    past_data: str = PAST_DATA[-1]
    exemplars: int | None = None
    budget: float | None = None

    def objections(self, row: Result, baseline: Result, strategy: Mapping[str, Any]) -> list[str]:
        """Say why a strategy is out of the question; nothing, if it is not."""
        found = []
        if PAST_DATA.index(strategy["past_data"]) > PAST_DATA.index(self.past_data):
            found.append(_needs(strategy))
        elif strategy["past_data"] == self.past_data == PAST_DATA[2]:
            needed = strategy["exemplars"]
            if self.exemplars is not None and needed > self.exemplars:
                found.append(_needs(strategy))
        drop = accuracy(baseline, "source_validation") - accuracy(row, "source_validation")
        if self.max_source_drop is not None and drop > self.max_source_drop:
            found.append(f"loses {drop:.1f} points on the source's validation set")
        if self.budget is not None and row["seconds"] > self.budget:
            found.append(f"takes {row['seconds']:.0f} s")
        return found


def recommend(
    summary: Sequence[Result],
    strategies: Iterable[Mapping[str, Any]],
    constraints: Constraints = Constraints(),  # noqa: B008  (it is frozen)
) -> list[dict[str, Any]]:
    """Name, for each target, the strategy to use, by validation accuracy alone.

    Among what the constraints allow, at the largest fraction measured, the highest target accuracy wins.
    Keeping the baseline is always allowed; if it wins, and the user has not limited the loss on the source,
    the source and the target count the same: the highest mean of both accuracies wins.  Of equals, the one
    that is better on the source, then the quicker: keeping the baseline costs nothing more.

    Parameters
    ----------
    summary
        Rows of `crossfer.evaluation.summary.by_strategy`.
    strategies
        For each ``name``: ``past_data`` and ``exemplars``.
    constraints
        What is allowed.

    Returns
    -------
    list of dict
        ``target``, ``strategy``, ``fraction``; ``validation_balance``, the mean that it has; its test
        figures ``memory_integrity`` and ``gain``; ``limit``: how much it was allowed to lose, None if
        both sides counted the same; ``ruled_out``: strategies with the reasons why not; ``front``: the
        names of the strategies on the `front`.
    """
    known = {strategy["name"]: strategy for strategy in strategies}
    asked = constraints.max_source_drop
    choices = []
    for target in dict.fromkeys(row["target"] for row in summary):
        rows = comparable(summary, target)
        limit = KEPT if asked is None else asked
        choice = _choose(rows, known, replace(constraints, max_source_drop=limit))
        if asked is None and choice["strategy"] == BASELINE:
            choice = _choose(rows, known, constraints)
        choices.append({"target": target, **choice, "front": [r["strategy"] for r in front(rows)]})
    return choices


def _choose(
    rows: Sequence[Result], strategies: Mapping[str, Mapping[str, Any]], constraints: Constraints
) -> dict[str, Any]:
    """Choose among the rows of one target, for the target if the loss is limited, else for both sides."""
    baseline = next(row for row in rows if row["strategy"] == BASELINE)
    objections = {
        row["strategy"]: constraints.objections(row, baseline, strategies[row["strategy"]])
        for row in rows
        if row is not baseline
    }
    limit = constraints.max_source_drop

    def rank(row: Result) -> tuple[float, ...]:
        more = 0 if row is baseline else row["seconds"]  # what the baseline took is spent
        return merit(row, limit), accuracy(row, "source_validation"), -more

    best = max((row for row in rows if not objections.get(row["strategy"])), key=rank)
    return {
        "strategy": best["strategy"],
        "fraction": best["fraction"],
        "validation_balance": balance(best),
        **{change: best[change] for change in CHANGES},
        "limit": limit,
        "ruled_out": {name: reasons for name, reasons in objections.items() if reasons},
    }


def merit(row: Result, limit: float | None) -> float:
    """Return what is maximised: the validation accuracy of the target, or, unlimited, of both sides."""
    return balance(row) if limit is None else accuracy(row, "target_validation")


def comparable(summary: Sequence[Result], target: str) -> list[Result]:
    """Return the rows of one target that a choice is made of: the baseline, and the largest fraction."""
    rows = [row for row in summary if row["target"] == target]
    largest = max((r["fraction"] for r in rows if r["fraction"] is not None), default=None)
    return [row for row in rows if row["fraction"] in (None, largest)]


def front(rows: Sequence[Result]) -> list[Result]:
    """Return the rows that no other beats: the Pareto front of source and target test accuracy.

    A row is beaten by one that is at least as good on both sides, and better on one.  The best on the
    source comes first.
    """

    def sides(row: Result) -> tuple[float, float]:
        return accuracy(row, "source_test"), accuracy(row, "target_test")

    def beaten(row: Result) -> bool:
        source, target = sides(row)
        return any(
            other[0] >= source and other[1] >= target and other != (source, target)
            for other in map(sides, rows)
        )

    return sorted((row for row in rows if not beaten(row)), key=sides, reverse=True)


@dataclass(frozen=True)
class Criterion:
    """One question of a gate, and the answer.

    Parameters
    ----------
    side
        ``"source"`` or ``"target"``.
    asked
        The change of test accuracy, in points, that has to be exceeded.
    measured
        The change.
    bound
        What the change exceeds with the confidence asked for: its one-sided lower bound.
    """

    side: str
    asked: float
    measured: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the evidence suffices."""
        return self.bound >= self.asked


def gate(
    row: Result, max_source_drop: float, min_target_gain: float, confidence: float = 0.95
) -> list[Criterion]:
    """Ask whether a result may be shipped: it is shown not to forget, and to gain enough.

    Both questions are one-sided tests on paired test answers: non-inferiority on the source with the margin
    `max_source_drop`, superiority by `min_target_gain` on the target.  Both must pass, so that neither
    needs a correction for the other (the intersection-union test: Berger 1982).

    Parameters
    ----------
    row
        Of the summary, with its lower bounds (`crossfer.evaluation.evidence.with_bounds`).
    max_source_drop, min_target_gain
        In points of test accuracy.
    confidence
        One of `crossfer.evaluation.intervals.CONFIDENCES`.

    Raises
    ------
    KeyError
        If no bound is known at this confidence.
    """
    asked = {"memory_integrity": -max_source_drop, "gain": min_target_gain}
    return [
        Criterion(side, asked[change], row[change], row[f"{change}_bounds"][f"{confidence:g}"])
        for change, side in CHANGES.items()
    ]


def accuracy(row: Result, measured: str) -> float:
    """Return an accuracy of a row, such as ``source_validation``, in per cent."""
    return float(row[measured]["accuracy"])


def past_data_in_words(past_data: str, exemplars: int | None) -> str:
    """Return one of `PAST_DATA` for people, with the number of images a class where these are few."""
    return f"{exemplars} per class" if past_data == PAST_DATA[2] else past_data


def _needs(strategy: Mapping[str, Any]) -> str:
    what = {
        "statistics": "statistics of the source's images",
        "some per class": f"{strategy['exemplars']} source images a class",
        "all source": "all of the source's images",
    }
    return f"needs {what[strategy['past_data']]}"

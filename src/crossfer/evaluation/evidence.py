"""How far results can be trusted: intervals for every row, and every comparison of an experiment.

Rows (see `crossfer.evaluation.summary`) hold numbers; this holds who was right about which image behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import (
    Right,
    accuracy_interval,
    change_interval,
    interval,
    lower_bounds,
    resample,
)
from crossfer.evaluation.paired import compare, holm
from crossfer.evaluation.summary import CHANGES, Result, behind_average

SIDES = ("source", "target")
Key = tuple[str, float | None, str, int]
"""Target, fraction, strategy, seed."""


@dataclass(frozen=True)
class Evidence:
    """Who was right about which test image.

    Parameters
    ----------
    answers
        For each network and side, whether it was right about each image of the test set: bool (N,).
    subjects
        For each target and side, who is in each of these images: int64 (N,), or None where not known.
    """

    answers: Mapping[tuple[Key, str], NDArray[np.bool_]]
    subjects: Mapping[tuple[str, str], NDArray[np.int64] | None]

    def right(self, row: Result, side: str) -> Right:
        """Return the answers behind a result or an average: bool (seeds, N)."""
        return self._stack(row, row["fraction"], row["strategy"], side)

    def before(self, row: Result, side: str) -> Right:
        """Return the baseline's, of the same seeds."""
        return self._stack(row, None, "BL", side)

    def _stack(self, row: Result, fraction: float | None, strategy: str, side: str) -> Right:
        seeds = row["seeds"] if "seeds" in row else [row["seed"]]
        keys = [(row["target"], fraction, strategy, seed) for seed in seeds]
        return np.stack([self.answers[key, side] for key in keys])


def with_intervals(rows: Sequence[Result], evidence: Evidence) -> list[Result]:
    """Add 95 % intervals of both test accuracies and both changes to results or averages.

    Validation accuracies have none: strategies and epochs were chosen by them.
    """
    return [row | _intervals(row, evidence) for row in rows]


def with_bounds(summary: Sequence[Result], evidence: Evidence) -> list[Result]:
    """Add both changes' one-sided lower bounds: ``memory_integrity_bounds`` and ``gain_bounds``."""
    return [
        row
        | {
            f"{name}_bounds": lower_bounds(
                row[name],
                resample(
                    evidence.right(row, side),
                    evidence.before(row, side),
                    evidence.subjects[row["target"], side],
                ),
            )
            for name, side in CHANGES.items()
        }
        for row in summary
    ]


def with_mean_intervals(
    averages: Sequence[Result], summary: Sequence[Result], evidence: Evidence
) -> list[Result]:
    """Add 95 % intervals to the means over targets: of these targets, not of all that there might be.

    On the source every target's networks answer the same images: their scores are added before these are
    drawn.  Each target's own images are drawn by themselves.
    """
    return [
        row
        | {
            f"{name}_interval": _mean_interval(
                row[name], behind_average(row, summary), side, evidence
            )
            for name, side in CHANGES.items()
        }
        for row in averages
    ]


def comparisons(summary: Sequence[Result], evidence: Evidence) -> list[Result]:
    """Compare every two strategies that share target and fraction, the baseline included, on both test sets.

    Returns
    -------
    list of dict
        ``target``, ``fraction``, ``side``, ``strategy`` and ``against``; what
        `crossfer.evaluation.paired.compare` says; ``p_holm``, corrected for all comparisons that ask the
        same: has an update changed anything (against the baseline), or, which of two is better?
        Only the seeds that both have count.
    """
    found: list[Result] = []
    for first, second in combinations(summary, 2):
        shares = {first["fraction"], second["fraction"]} - {None}
        if first["target"] != second["target"] or len(shares) > 1:
            continue
        where = {"target": second["target"], "fraction": next(iter(shares), None)}
        who = {"strategy": second["strategy"], "against": first["strategy"]}
        first, second = _same_seeds(first, second)
        if not first["seeds"]:
            continue
        for side in SIDES:
            after, before = evidence.right(second, side), evidence.right(first, side)
            result = compare(after, before, evidence.subjects[second["target"], side])
            found.append({**where, "side": side, **who, **result})
    for with_baseline in (True, False):
        family = [row for row in found if (row["against"] == "BL") == with_baseline]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p
    return found


def _intervals(row: Result, evidence: Evidence) -> dict[str, Any]:
    added: dict[str, Any] = {}
    for name, side in CHANGES.items():
        right, subjects = evidence.right(row, side), evidence.subjects[row["target"], side]
        added[f"{side}_test"] = row[f"{side}_test"] | {
            "interval": accuracy_interval(right, subjects)
        }
        added[f"{name}_interval"] = (
            [0.0, 0.0]
            if row["strategy"] == "BL"
            else change_interval(right, evidence.before(row, side), subjects)
        )
    return added


def _same_seeds(*rows: Result) -> list[Result]:
    """Restrict averages to the seeds that all of them have: a run may have failed."""
    shared = [seed for seed in rows[0]["seeds"] if all(seed in row["seeds"] for row in rows)]
    return [row | {"seeds": shared} for row in rows]


def _mean_interval(
    value: float, members: Sequence[Result], side: str, evidence: Evidence
) -> list[float] | None:
    members = _same_seeds(*members)
    if not members[0]["seeds"]:
        return None
    test_sets: dict[str, list[Result]] = {}
    for row in members:
        test_sets.setdefault(row["target"] if side == "target" else "", []).append(row)
    draws = sum(
        resample(
            np.sum([evidence.right(row, side) for row in rows], 0),
            np.sum([evidence.before(row, side) for row in rows], 0),
            evidence.subjects[rows[0]["target"], side],
            seed=number,
        )
        for number, rows in enumerate(test_sets.values())
    )
    return interval(value, np.asarray(draws / len(members)))

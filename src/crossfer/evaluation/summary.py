"""From measured runs to the study's tables: means over seeds, memory integrity and gain.

A *result* is one row: a network (strategy, target, fraction, seed) measured on the source and on the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from crossfer.evaluation.paper import FINE_TUNINGS

Result = dict[str, Any]


def with_changes(results: Iterable[Result]) -> list[Result]:
    """Add memory integrity and gain to every result, against the baseline of its target and seed.

    Memory integrity is the source test accuracy after adaptation minus before; gain is the same on the
    target.  Both in points; 0 for the baseline itself.
    """
    rows = list(results)
    before = {(r["target"], r["seed"]): r for r in rows if r["strategy"] == "BL"}
    return [
        row
        | {
            change: row[side]["accuracy"] - before[row["target"], row["seed"]][side]["accuracy"]
            for change, side in (("memory_integrity", "source_test"), ("gain", "target_test"))
        }
        for row in rows
    ]


def by_strategy(results: Iterable[Result]) -> list[Result]:
    """Average over seeds: one row for each (target, fraction, strategy), in the order they come.

    The interval is the mean of the seeds' own: how far the number of test images lets an accuracy be
    known.  The deviation is between seeds.
    """
    groups: dict[tuple[str, float | None, str], list[Result]] = {}
    for row in results:
        groups.setdefault((row["target"], row["fraction"], row["strategy"]), []).append(row)
    return [
        {
            "target": target,
            "fraction": fraction,
            "strategy": strategy,
            "seeds": [row["seed"] for row in rows],
            **{
                side: {
                    "accuracy": _mean(row[side]["accuracy"] for row in rows),
                    "deviation": _deviation([row[side]["accuracy"] for row in rows]),
                    "interval": [
                        _mean(row[side]["interval"][end] for row in rows) for end in (0, 1)
                    ],
                }
                for side in ("source_test", "target_test", "source_validation", "target_validation")
            },
            "memory_integrity": _mean(row["memory_integrity"] for row in rows),
            "gain": _mean(row["gain"] for row in rows),
            "seconds": _mean(row["cost"]["seconds"] for row in rows),
            "images_seen": _mean(row["cost"]["images_seen"] for row in rows),
        }
        for (target, fraction, strategy), rows in groups.items()
    ]


def over_targets(summary: Sequence[Result]) -> list[Result]:
    """Average over the targets as sections III.1 and III.2 do: one row for each (fraction, strategy).

    The last row of each fraction, ``"fine-tunings"``, is the mean over FC, FC+CL and RE.
    """
    rows = []
    for fraction in sorted({r["fraction"] for r in summary if r["fraction"] is not None}):
        here = [r for r in summary if r["fraction"] == fraction]
        names = list(dict.fromkeys(r["strategy"] for r in here))
        groups = [(name, [r for r in here if r["strategy"] == name]) for name in names]
        tuned = [r for r in here if r["strategy"] in FINE_TUNINGS]
        for name, members in [*groups, *([("fine-tunings", tuned)] if tuned else [])]:
            rows.append(
                {
                    "fraction": fraction,
                    "strategy": name,
                    "targets": sorted({r["target"] for r in members}),
                    "memory_integrity": _mean(r["memory_integrity"] for r in members),
                    "gain": _mean(r["gain"] for r in members),
                }
            )
    return rows


def recommend(summary: Sequence[Result]) -> list[Result]:
    """Name, for each target, the strategy to use, by validation accuracy alone.

    The source and the target count the same: the strategy with the highest mean of its accuracies on
    the two validation sets wins, at the largest fraction measured.  Its test figures stand beside, but
    decide nothing.
    """
    choices = []
    for target in dict.fromkeys(row["target"] for row in summary):
        rows = [row for row in summary if row["target"] == target]
        largest = max((r["fraction"] for r in rows if r["fraction"] is not None), default=None)
        candidates = [r for r in rows if r["fraction"] in (None, largest)]
        best = max(candidates, key=_balance)
        choices.append(
            {
                "target": target,
                "strategy": best["strategy"],
                "fraction": best["fraction"],
                "validation_balance": _balance(best),
                "memory_integrity": best["memory_integrity"],
                "gain": best["gain"],
            }
        )
    return choices


def _balance(row: Result) -> float:
    return _mean(row[side]["accuracy"] for side in ("source_validation", "target_validation"))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None

"""From measured runs to the study's tables: means over seeds, memory integrity and gain.

A *result* is one row: a network (strategy, target, fraction, seed) measured on the source and on the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from crossfer.evaluation.paper import FINE_TUNINGS

Result = dict[str, Any]

CHANGES = {"memory_integrity": "source", "gain": "target"}
"""What a change of test accuracy is called on each side."""

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error")


def with_changes(results: Iterable[Result]) -> list[Result]:
    """Add memory integrity and gain to every result, against the baseline of its target and seed.

    Memory integrity is the source test accuracy after adaptation minus before; gain is the same on the
    target.  Both in points; 0 for the baseline itself.  The same within each class, 7 numbers, None for
    a class without images.
    """
    rows = list(results)
    before = {(r["target"], r["seed"]): r for r in rows if r["strategy"] == "BL"}
    changed = []
    for row in rows:
        base, changes = before[row["target"], row["seed"]], {}
        for name, side in CHANGES.items():
            new, old = row[f"{side}_test"], base[f"{side}_test"]
            changes[name] = new["accuracy"] - old["accuracy"]
            changes[f"{name}_per_class"] = [
                None if a is None or b is None else a - b
                for a, b in zip(new["per_class"], old["per_class"], strict=True)
            ]
        changed.append(row | changes)
    return changed


def by_strategy(results: Iterable[Result]) -> list[Result]:
    """Average over seeds: one row for each (target, fraction, strategy), in the order they come.

    The deviation is between seeds; what it and the number of test images mean for the averages is in
    `crossfer.evaluation.evidence`.
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
                    "deviation": _deviation([row[side]["accuracy"] for row in rows]),
                    **{metric: _mean(row[side][metric] for row in rows) for metric in METRICS},
                }
                for side in ("source_test", "target_test", "source_validation", "target_validation")
            },
            **{change: _mean(row[change] for row in rows) for change in CHANGES},
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
        names = dict.fromkeys(r["strategy"] for r in summary if r["fraction"] == fraction)
        for name in [*names, "fine-tunings"]:
            row = {"fraction": fraction, "strategy": name}
            if members := behind_average(row, summary):
                row["targets"] = sorted({r["target"] for r in members})
                rows.append(row | {c: _mean(r[c] for r in members) for c in CHANGES})
    return rows


def behind_average(row: Result, summary: Iterable[Result]) -> list[Result]:
    """Return the rows that a row of `over_targets` is the mean of."""
    names = FINE_TUNINGS if row["strategy"] == "fine-tunings" else (row["strategy"],)
    return [r for r in summary if r["fraction"] == row["fraction"] and r["strategy"] in names]


def balance(row: Result) -> float:
    """Return what strategies are chosen by: the mean of both validation accuracies, in per cent."""
    return _mean(row[side]["accuracy"] for side in ("source_validation", "target_validation"))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None

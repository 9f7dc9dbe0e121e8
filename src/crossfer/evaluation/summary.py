"""Means over seeds and targets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from crossfer.evaluation.paper import FINE_TUNINGS
from crossfer.evaluation.rows import (
    Average,
    Change,
    ClassChange,
    Cost,
    Flips,
    Mean,
    Measurements,
    Metrics,
    Result,
)
from crossfer.terms import BL

FINE_TUNED = "fine-tunings"
"""The name of the mean over `FINE_TUNINGS`."""


def complete(results: Sequence[Result]) -> list[Result]:
    """Keep what can be compared where runs have failed: on each target, strategies that have the same seeds.

    A strategy that lacks one of these seeds is left out: the seeds on which it did not fail flatter it.
    """
    kept = []
    for target in dict.fromkeys(row.target for row in results):
        own = [row for row in results if row.target == target]
        seeds: dict[tuple[float | None, str], set[int]] = {}
        for row in own:
            seeds.setdefault((row.fraction, row.strategy), set()).update(row.seeds)
        updates = [found for (_, strategy), found in seeds.items() if strategy != BL]
        shared = seeds_in_common(updates or seeds.values())
        kept += [
            row
            for row in own
            if shared <= seeds[row.fraction, row.strategy] and shared.issuperset(row.seeds)
        ]
    return kept


def on_all(results: Sequence[Result], targets: Collection[str]) -> list[Result]:
    """Keep the rows of some targets, and of these the seeds that all targets have."""
    seeds = [{row.seeds[0] for row in results if row.target == target} for target in targets]
    shared = set.intersection(*seeds)
    return [row for row in results if row.target in targets and row.seeds[0] in shared]


def seeds_in_common(seeds: Iterable[Collection[int]]) -> set[int]:
    """Return the seeds of which most results are left if those without one of them are left out.

    Parameters
    ----------
    seeds
        Those of each strategy; not all empty.
    """
    every = [frozenset(own) for own in seeds]
    shared: set[frozenset[int]] = set()
    for own in every:
        shared |= {own, *(own & other for other in shared)}

    def left(some: frozenset[int]) -> tuple[int, int]:
        strategies = sum(some <= own for own in every)
        return strategies * len(some), strategies

    return set(max(sorted(shared, key=sorted), key=left))


def by_strategy(results: Iterable[Result]) -> list[Result]:
    """Average over seeds: one row for each (target, fraction, strategy), in the original order.

    The deviation is between seeds; `crossfer.evaluation.evidence` adds intervals.
    """
    groups: dict[tuple[str, float | None, str], list[Result]] = {}
    for row in results:
        groups.setdefault((row.target, row.fraction, row.strategy), []).append(row)
    return [
        Result(
            target=target,
            fraction=fraction,
            strategy=strategy,
            seeds=tuple(row.seeds[0] for row in rows),
            runs=tuple(run for row in rows for run in row.runs),
            on_source=_measurements([row.on_source for row in rows]),
            on_target=_measurements([row.on_target for row in rows]),
            memory_integrity=mean_change([row.memory_integrity for row in rows]),
            gain=mean_change([row.gain for row in rows]),
            cost=mean_cost([row.cost for row in rows]),
        )
        for (target, fraction, strategy), rows in groups.items()
    ]


def over_targets(summary: Sequence[Result]) -> list[Average]:
    """Average over the targets as sections III.1 and III.2 do: one row for each (fraction, strategy).

    The last row of each fraction, ``"fine-tunings"``, is the mean over FC, FC+CL and RE, if there.  What
    lacks a target, since a run failed, has no mean.
    """
    rows, targets = [], {row.target for row in summary}
    for fraction in sorted({r.fraction for r in summary if r.fraction is not None}):
        names = dict.fromkeys(r.strategy for r in summary if r.fraction == fraction)
        for name in [*names, FINE_TUNED]:
            members = behind_average(fraction, name, summary)
            if members and _cover(members, targets):
                rows.append(
                    Average(
                        fraction=fraction,
                        strategy=name,
                        targets=tuple(sorted({row.target for row in members})),
                        memory_integrity=Mean(_mean(r.memory_integrity.points for r in members)),
                        gain=Mean(_mean(r.gain.points for r in members)),
                    )
                )
    return rows


def behind_average(fraction: float, strategy: str, summary: Iterable[Result]) -> list[Result]:
    """Return the rows whose mean is a row of `over_targets`."""
    names = FINE_TUNINGS if strategy == FINE_TUNED else (strategy,)
    return [r for r in summary if r.fraction == fraction and r.strategy in names]


def _cover(members: Sequence[Result], targets: set[str]) -> bool:
    """Tell whether every strategy has every target."""
    return all(
        {row.target for row in members if row.strategy == name} == targets
        for name in {row.strategy for row in members}
    )


def over_folds(several: Sequence[Metrics]) -> Metrics:
    """Average over the networks of one seed's folds, without a deviation between seeds."""
    return replace(_measured(several), deviation=None) if len(several) > 1 else several[0]


def _measurements(several: Sequence[Measurements]) -> Measurements:
    parts = several[0].parts
    return Measurements(
        _measured([one.validation for one in several]),
        _measured([one.test for one in several]),
        {part: _mean(one.parts[part] for one in several) for part in parts},
    )


def _measured(several: Sequence[Metrics]) -> Metrics:
    accuracies = [one.accuracy for one in several]
    return Metrics(
        images=several[0].images,
        accuracy=_mean(accuracies),
        balanced_accuracy=_mean(one.balanced_accuracy for one in several),
        macro_f1=_mean(one.macro_f1 for one in several),
        calibration_error=_mean(one.calibration_error for one in several),
        recall=tuple(map(_mean_or_none, zip(*(one.recall for one in several), strict=True))),
        confusion=tuple(map(tuple, np.sum([one.confusion for one in several], 0).tolist())),
        deviation=float(np.std(accuracies, ddof=1)) if len(several) > 1 else None,
    )


def mean_change(several: Sequence[Change]) -> Change:
    """Average changes over seeds or folds; examples are those of the first."""
    flips = [one.flips for one in several]
    return Change(
        points=_mean(one.points for one in several),
        classes=tuple(map(_class_change, zip(*(one.classes for one in several), strict=True))),
        flips=Flips(
            tuple(np.mean([one.positive for one in flips], 0).tolist()),
            tuple(np.mean([one.negative for one in flips], 0).tolist()),
            flips[0].positive_examples,
            flips[0].negative_examples,
        ),
    )


def _class_change(several: Sequence[ClassChange | None]) -> ClassChange | None:
    known = [one for one in several if one]
    return ClassChange(known[0].images, _mean(one.points for one in known)) if known else None


def mean_cost(several: Sequence[Cost]) -> Cost:
    """Return the mean cost, and the largest peak of memory."""
    return Cost(
        images_seen=_mean(one.images_seen for one in several),
        flop=_mean(one.flop for one in several),
        seconds=_mean(one.seconds for one in several),
        evaluation_seconds=_mean(one.evaluation_seconds for one in several),
        peak_memory_bytes=max(one.peak_memory_bytes for one in several),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None

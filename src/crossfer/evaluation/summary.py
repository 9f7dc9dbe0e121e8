"""Means over seeds and targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

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

FINE_TUNED = "fine-tunings"
"""The name of the mean over `FINE_TUNINGS`."""


def complete(results: Sequence[Result]) -> list[Result]:
    """Keep what can be compared where runs have failed: strategies that all have the same seeds.

    Of the seeds, those that most strategies have, so many that as many rows as possible are left.  A strategy
    that lacks one of them on a target is left out there: the seeds on which it did not fail flatter it.
    """
    seeds: dict[tuple[str, float | None, str], set[int]] = {}
    for row in results:
        seeds.setdefault((row.target, row.fraction, row.strategy), set()).update(row.seeds)
    common = [seed for seed, _ in Counter(chain.from_iterable(seeds.values())).most_common()]

    def rows(shared: set[int]) -> int:
        return len(shared) * sum(shared <= own for own in seeds.values())

    shared = max((set(common[:count]) for count in range(1, len(common) + 1)), key=rows)
    return [
        row
        for row in results
        if shared <= seeds[row.target, row.fraction, row.strategy] and shared.issuperset(row.seeds)
    ]


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

    The last row of each fraction, ``"fine-tunings"``, is the mean over FC, FC+CL and RE, if there.
    """
    rows = []
    for fraction in sorted({r.fraction for r in summary if r.fraction is not None}):
        names = dict.fromkeys(r.strategy for r in summary if r.fraction == fraction)
        for name in [*names, FINE_TUNED]:
            if members := behind_average(fraction, name, summary):
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

"""From results to the rows of the report's tables; the template only lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from crossfer.datasets.record import SPLITS
from crossfer.evaluation import paper
from crossfer.evaluation.decision import past_data_in_words
from crossfer.evaluation.rows import (
    Average,
    DatasetFacts,
    Flips,
    Mean,
    Metrics,
    Result,
    StrategyComparison,
)
from crossfer.evaluation.summary import FINE_TUNED
from crossfer.report.view import View, shown, signed
from crossfer.terms import BL, SIDES, Side


def strategies(view: View) -> list[tuple[str, Result]]:
    """Return the mean over seeds of every strategy and fraction, with the target's display name."""
    rows = view.results.summary
    return [(shown(t), row) for t in view.targets for row in rows if row.target == t.name]


class AverageRow(NamedTuple):
    """A strategy's mean change on each side at each fraction, and what the paper has."""

    strategy: str
    about: str
    changes: dict[Side, list[Mean | None]]
    paper: dict[Side, str]


def averages(view: View) -> list[AverageRow]:
    """Return a row per strategy: its mean changes at each fraction, and the paper's."""
    rows = {(row.strategy, row.fraction): row for row in view.results.averages}

    def changes(name: str, side: Side) -> list[Mean | None]:
        found: list[Average | None] = [rows.get((name, f)) for f in view.fractions]
        return [row.change(side) if row else None for row in found]

    return [
        AverageRow(
            name, view.about(name), {side: changes(name, side) for side in SIDES}, _paper(name)
        )
        for name in dict.fromkeys(row.strategy for row in view.results.averages)
    ]


def fine_tunings(view: View) -> list[str]:
    """Return which of the strategies that the paper averages together were measured."""
    return [name for name in paper.FINE_TUNINGS if name in view.names]


class DatasetRow(NamedTuple):
    """A dataset's sizes, and the paper's."""

    facts: DatasetFacts
    sizes: dict[str, int]
    paper: Mapping[str, int] | None

    @property
    def total(self) -> int:
        """All images that were kept."""
        return sum(self.sizes.values())


def datasets(view: View) -> list[DatasetRow]:
    """Return the rows of Table I: each dataset's sizes, and those in the paper."""
    return [
        DatasetRow(
            dataset,
            {split: sum(dataset.counts[split].values()) for split in SPLITS},
            paper.TABLE_I.get(dataset.name),
        )
        for dataset in view.results.datasets
    ]


class Cell(NamedTuple):
    """The recall of a class, and its change."""

    recall: float | None
    change: float | None


class Heat(NamedTuple):
    """A table of classes by strategies."""

    classes: list[str]
    rows: list[tuple[str, list[Cell]]]


def per_class(view: View, target: str, side: Side) -> Heat:
    """Return each strategy's recall and its change against BL on the classes of one test set.

    Means over seeds, at the largest fraction.
    """
    has = _classes_with_images(view, target, side)

    def cell(row: Result, label: int) -> Cell:
        change = row.change(side).classes[label]
        return Cell(row.on(side).test.recall[label], change.points if change else None)

    return Heat(
        [view.classes[i] for i in has],
        [(row.strategy, [cell(row, i) for i in has]) for row in view.most(target, view.names)],
    )


class Versus(NamedTuple):
    """A strategy compared with another on both test sets; None where a side is missing."""

    strategy: str
    source: StrategyComparison | None
    target: StrategyComparison | None


def against_before(view: View, target: str) -> list[Versus]:
    """Compare every strategy with BL on both test sets, at the largest fraction."""
    return [Versus(name, *compared(view, target, name, BL)) for name in view.adapted]


def against_others(view: View, target: str) -> list[Versus]:
    """Compare the recommended strategy with every other adapted one; none where that is BL."""
    chosen = view.recommended(target).strategy
    others = [name for name in view.adapted if name != chosen] if chosen != BL else []
    return [Versus(name, *compared(view, target, chosen, name)) for name in others]


def all_comparisons(view: View, target: str) -> list[StrategyComparison]:
    """Return every comparison at the largest fraction."""
    largest = (None, view.largest(target))
    rows = view.results.comparisons
    return [row for row in rows if row.target == target and row.fraction in largest]


class FlipRow(NamedTuple):
    """Images of each class that a strategy won and lost."""

    strategy: str
    cells: list[tuple[float, float]]
    all: tuple[float, float]


def flips(view: View, target: str, side: Side) -> tuple[list[str], list[FlipRow]]:
    """Count the images of one test set that flipped, by class, at the largest fraction: means over seeds."""
    has = _classes_with_images(view, target, side)
    rows = []
    for row in view.most(target, view.adapted):
        found = row.change(side).flips
        rows.append(
            FlipRow(
                row.strategy,
                [(found.positive[i], found.negative[i]) for i in has],
                (sum(found.positive), sum(found.negative)),
            )
        )
    return [view.classes[i] for i in has], rows


class ChainRow(NamedTuple):
    """A strategy through all targets: the accuracy matrix, a named row a step, and its figures."""

    strategy: str
    datasets: list[str]
    rows: list[tuple[str, list[float]]]
    average_accuracy: float
    backward_transfer: float
    forgetting: float
    forward_transfer: float


def in_turn(view: View) -> list[ChainRow]:
    """Return each strategy's accuracy matrix and figures, mean over seeds; the best average first.

    As everywhere, only strategies with the same seeds are compared.
    """
    found = []
    for name, chains in view.in_turn.items():
        names = chains[0].datasets
        steps = [BL, *(f"then {view.shown(target)}" for target in names[1:])]
        matrix = np.mean([chain.accuracy for chain in chains], axis=0)
        found.append(
            ChainRow(
                name,
                [view.shown(dataset) for dataset in names],
                list(zip(steps, matrix.tolist(), strict=True)),
                _mean(chain.average_accuracy for chain in chains),
                _mean(chain.backward_transfer for chain in chains),
                _mean(chain.forgetting for chain in chains),
                _mean(chain.forward_transfer for chain in chains),
            )
        )
    return sorted(found, key=lambda row: -row.average_accuracy)


class TogetherRow(NamedTuple):
    """A strategy on the source and on each part of the targets as one, with that of its own pair."""

    strategy: str
    source: float
    parts: list[tuple[float, float | None]]


def together(view: View) -> tuple[list[str], list[TogetherRow]] | None:
    """Return, for all targets as one, each strategy's accuracy on each, and that of its own pair beside."""
    united = next((target for target in view.targets if target.parts), None)
    if united is None:
        return None
    largest = view.largest(united.name)

    def alone(part: str, strategy: str) -> float | None:
        pair = view.averaged(part, strategy, largest)
        return pair.on_target.test.accuracy if pair else None

    rows = [
        TogetherRow(
            row.strategy,
            row.on_source.test.accuracy,
            [(row.on_target.parts[part], alone(part, row.strategy)) for part in united.parts],
        )
        for row in view.most(united.name, view.names)
    ]
    return [view.shown(part) for part in united.parts], rows


def leave_one_out(view: View) -> list[tuple[str, dict[str, float]]]:
    """Return each dataset left out, and the accuracy on it and on the others, mean over seeds."""
    rows = []
    found = view.results.leave_one_out
    for name in dict.fromkeys(row.left_out for row in found):
        runs = [row.accuracy for row in found if row.left_out == name]
        rows.append((name, {dataset: _mean(run[dataset] for run in runs) for dataset in runs[0]}))
    return rows


class FrontRow(NamedTuple):
    """A strategy that none beats, or the recommended one, and what it needs of the past."""

    row: Result
    past_data: str
    on_front: bool


def front(view: View, target: str) -> list[FrontRow]:
    """Return the Pareto front and the recommended strategy, the best on the source first."""
    needs = {s.name: past_data_in_words(s.past_data, s.exemplars) for s in view.strategies}
    needs[BL] = ""
    choice = view.recommended(target)
    names = list(dict.fromkeys([*choice.front, choice.strategy]))
    rows = sorted(view.most(target, names), key=lambda row: -row.on_source.test.accuracy)
    return [FrontRow(row, needs[row.strategy], row.strategy in choice.front) for row in rows]


def flip_examples(view: View, target: str, side: Side) -> Flips | None:
    """Name some images that the recommended strategy flipped, first seed; None where that is BL."""
    choice = view.recommended(target)
    row = view.averaged(target, choice.strategy, choice.fraction)
    return row.change(side).flips if row and row.strategy != BL else None


class Matrix(NamedTuple):
    """A confusion matrix: of each true class, how many images were taken for each, and their share."""

    name: str
    classes: list[str]
    rows: list[tuple[str, list[tuple[int, float]]]]


def confusions(view: View, target: str, side: Side) -> list[Matrix]:
    """Return the confusion matrices of one test set, summed over seeds, at the largest fraction."""
    return [
        matrix(row.strategy, row.on(side).test, view.classes)
        for row in view.most(target, view.names)
    ]


def matrix(name: str, measured: Metrics, classes: Sequence[str]) -> Matrix:
    """Return the confusion matrix of one network, without classes that are neither true nor answered."""
    counts = np.array(measured.confusion)
    keep: list[int] = np.flatnonzero(counts.sum(1) + counts.sum(0)).tolist()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [(classes[i], [(int(counts[i, j]), float(shares[i, j])) for j in keep]) for i in keep]
    return Matrix(name, [classes[i] for i in keep], rows)


def recipes(view: View) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    """Return the hyper-parameters' names, and the values of each strategy that trains a network."""
    used: dict[str, dict[str, Any]] = {}
    trained = [strategy.name for strategy in view.strategies if strategy.layers != "none"]
    for row in view.results.results:
        identity = view.runs[row.runs[0]].identity
        if "recipe" in identity:
            used.setdefault(row.strategy, _flat(identity["recipe"]))
    keys = list(dict.fromkeys(key for recipe in used.values() for key in recipe))
    return keys, [(n, [used[n].get(key) for key in keys]) for n in trained if n in used]


def machines(view: View) -> list[Mapping[str, Any]]:
    """Return the different machines that the runs name."""
    return _distinct(run.machine for run in view.results.runs)


def versions(view: View) -> list[Mapping[str, Any]]:
    """Return the different versions that the runs name."""
    return _distinct(run.versions for run in view.results.runs)


def _classes_with_images(view: View, target: str, side: Side) -> list[int]:
    """Return the classes of which a test set has images."""
    recall = view.before(target).on(side).test.recall
    return [i for i, value in enumerate(recall) if value is not None]


def _distinct(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def compared(
    view: View, target: str, strategy: str, against: str
) -> tuple[StrategyComparison | None, StrategyComparison | None]:
    """Return the comparison of two strategies on each side, seen from the first; None where missing."""
    found: dict[Side, StrategyComparison] = {}
    for row in all_comparisons(view, target):
        if (row.strategy, row.against) == (strategy, against):
            found[row.side] = row
        elif (row.strategy, row.against) == (against, strategy):
            found[row.side] = _mirrored(row)
    return found.get("source"), found.get("target")


def _mirrored(row: StrategyComparison) -> StrategyComparison:
    """Return a comparison as seen from the other strategy."""
    one = row.paired
    low, high = one.interval
    paired = replace(
        one,
        difference=-one.difference,
        interval=(-high, -low),
        gained=one.lost,
        lost=one.gained,
    )
    return replace(row, strategy=row.against, against=row.strategy, paired=paired)


def _paper(strategy: str) -> dict[Side, str]:
    source: Sequence[float]
    gain: Sequence[float]
    if strategy == FINE_TUNED:
        source, gain = paper.FINE_TUNING_SOURCE_CHANGE, paper.FINE_TUNING_GAIN
    elif strategy == "FU":
        source, gain = (paper.FUSION_SOURCE_CHANGE,), (paper.FUSION_GAIN,)
    else:
        return {"source": "", "target": ""}
    return {"source": _range(source), "target": _range(gain)}


def _range(values: Sequence[float]) -> str:
    return " to ".join(signed(value, 2) for value in sorted(values, key=abs))


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{key}: ")
        else:
            flat[prefix + key.replace("_", " ")] = value
    return flat

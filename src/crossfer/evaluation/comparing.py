"""Compare two networks on the same images, overall, per class and per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation import paired
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.evidence import with_class_intervals
from crossfer.evaluation.gate import PairedOutcomes, without_column
from crossfer.evaluation.intervals import accuracy_interval, change_interval, subject_codes
from crossfer.evaluation.latency import latency_ratio, ratio_draws
from crossfer.evaluation.measure import change, measure
from crossfer.evaluation.mistaken import mistaken_order
from crossfer.evaluation.rows import Change, Difference, Interval, Metrics, Row
from crossfer.evaluation.spread import Spread, spreads

FORMAT: Final = 2
"""Format of a comparison's JSON; raised whenever a row changes."""

MISTAKEN = 20.0
"""Points of accuracy that another class order must gain to be reported; a few points may come from a
confusion of classes."""

NOT_KNOWN = "not known"
"""The group of images without a value in a column."""


@dataclass(frozen=True, slots=True)
class ComparedNetwork(Row):
    """A classifier that is compared."""

    name: str
    """The path that it was given by."""
    kind: str
    """Exported classifier, bundle, ONNX file or weights."""
    classes: tuple[str, ...]
    """What it can say."""
    parameters: int | None
    """None where they cannot be counted."""
    bytes: int
    """Of the file with its weights."""
    identity: str
    """Differs where its answers may: the SHA-256 of its file, or of that and what its description says."""


@dataclass(frozen=True, slots=True)
class GroupChange(Row):
    """The images of a dataset that share a value of a column."""

    column: str
    value: str
    images: int
    old: float
    """Accuracy, per cent."""
    new: float
    difference: Difference


@dataclass(frozen=True, slots=True)
class PairedDecisions(Row):
    """What was said about each image: what the gate decides on.  Indices are into `Compared.classes`."""

    rows: tuple[int, ...]
    """Where the images stand in the dataset, as the old network read it."""
    labels: tuple[int, ...]
    old: tuple[int, ...]
    """What the old network decided."""
    new: tuple[int, ...]
    people: tuple[int, ...] | None
    """Who is in each image, numbered; None where nobody is known."""
    groups: Mapping[str, tuple[str, ...]]
    """By column, the group of each image; empty where the dataset has no such column."""


@dataclass(frozen=True, slots=True)
class OnDataset(Row):
    """Both networks on a split of a dataset."""

    name: str
    title: str
    stand_in: bool
    """Whether its faces are drawn: then the numbers say nothing about real ones."""
    fingerprint: str
    split: str
    classes: tuple[str, ...]
    """Those that both are measured among: of `Compared.classes`, those that the dataset tells apart."""
    left_out: Mapping[str, int]
    """Images of the split whose label belongs to none of the classes, by label."""
    old: Metrics
    new: Metrics
    spreads: Mapping[str, Spread]
    """95 % intervals of balanced accuracy, macro F1 and calibration error."""
    change: Change
    difference: Difference
    groups: tuple[GroupChange, ...]
    notes: tuple[str, ...]
    evidence: PairedDecisions


@dataclass(frozen=True, slots=True)
class Latency(Row):
    """Milliseconds from faces (bytes) to probabilities; both networks were measured in turn."""

    processor: str
    threads: int
    old: tuple[float, ...]
    """Of one face, by round."""
    new: tuple[float, ...]
    batch: int
    """Faces in a batch."""
    old_batch: tuple[float, ...]
    """Of a batch, by round."""
    new_batch: tuple[float, ...]
    ratio: float
    """Median over rounds of new over old, one face."""
    ratio_interval: Interval
    """95 %."""
    batch_ratio: float
    batch_ratio_interval: Interval


@dataclass(frozen=True, slots=True)
class Compared(Row):
    """Everything that a comparison found out: its JSON."""

    kind: Literal["comparison"]
    format: Literal[2]
    crossfer: str
    """Version that wrote it."""
    old: ComparedNetwork
    new: ComparedNetwork
    classes: tuple[str, ...]
    """What either network can say; with `shared`, what both can."""
    shared: bool
    datasets: tuple[OnDataset, ...]
    latency: Latency
    notes: tuple[str, ...]

    @property
    def size_ratio(self) -> float:
        """Bytes of the new network's file, divided by the old one's."""
        return self.new.bytes / self.old.bytes

    @property
    def damaged(self) -> str:
        """What does not fit together, as where somebody changed the file; empty if all does."""
        if not (self.old.bytes > 0 and self.new.bytes > 0):
            return "bytes"
        count = len(self.classes)
        for one in self.datasets:
            by_class = one.change.classes, one.old.recall, one.new.recall
            if {len(values) for values in by_class} != {count}:
                return f"{one.name}: classes"
            said = one.evidence
            columns = [
                said.rows,
                said.labels,
                said.old,
                said.new,
                said.people,
                *said.groups.values(),
            ]
            if len({len(column) for column in columns if column}) != 1 or not said.labels:
                return f"{one.name}: evidence"
            if not {*said.labels, *said.old, *said.new} <= set(range(count)):
                return f"{one.name}: evidence"
        times = self.latency.old, self.latency.new
        if not times[0] or len(times[0]) != len(times[1]):
            return "latency"
        if not all(0 < time < inf for time in (*times[0], *times[1])):
            return "latency"
        names = {one.name for one in self.datasets}
        return "" if self.datasets and len(names) == len(self.datasets) else "datasets"

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def on_dataset(
    facts: Mapping[str, Any],
    old: Answers,
    new: Answers,
    classes: Sequence[str],
    among: Sequence[int],
    subjects: Sequence[str | None],
    origins: Sequence[str],
    groups: Mapping[str, Sequence[Any] | None],
    notes: Sequence[str] = (),
) -> OnDataset:
    """Compare two networks on one dataset.

    Parameters
    ----------
    facts
        Name, title, stand_in, fingerprint, split and left_out of an `OnDataset`.
    old, new
        Answers of the networks on the same N images, in the same order.
    classes
        C names.
    among
        The classes that the dataset distinguishes.
    subjects
        Subject of each image.
    origins
        Origin of each image.
    groups
        For each column, the value of each image; None if the dataset has no such column.
    notes
        Further notes.

    Returns
    -------
    OnDataset
        With uncorrected p-values; `corrected` corrects them.
    """
    codes = subject_codes(subjects)
    was, is_ = old.right, new.right
    named = {
        column: tuple(NOT_KNOWN if value is None else str(value) for value in values or ())
        for column, values in groups.items()
    }
    orders = [_order_note(who, one, classes, among) for who, one in (("old", old), ("new", new))]
    return OnDataset(
        **facts,
        classes=tuple(classes[label] for label in among),
        old=_measured(old, codes),
        new=_measured(new, codes),
        spreads=spreads(old, new, codes),
        change=_change(old, new, codes, classes, origins),
        difference=_difference(is_, was, codes),
        groups=tuple(
            _group(column, value, was, is_, np.asarray(values) == value, codes)
            for column, values in named.items()
            for value in sorted(set(values))
        ),
        notes=(
            *notes,
            *(without_column(column) for column, values in groups.items() if values is None),
            *(note for note in orders if note),
        ),
        evidence=PairedDecisions(
            tuple(old.rows.tolist()),
            tuple(old.labels.tolist()),
            tuple(old.decisions.tolist()),
            tuple(new.decisions.tolist()),
            None if codes is None else tuple(codes.tolist()),
            named,
        ),
    )


def corrected(datasets: Sequence[OnDataset]) -> tuple[OnDataset, ...]:
    """Correct p-values by Holm's method: those of all datasets, and those of all groups."""
    whole = paired.corrected([one.difference for one in datasets])
    parts = iter(paired.corrected([group.difference for one in datasets for group in one.groups]))
    return tuple(
        replace(
            one,
            difference=difference,
            groups=tuple(replace(group, difference=next(parts)) for group in one.groups),
        )
        for one, difference in zip(datasets, whole, strict=True)
    )


def latency(
    processor: str,
    threads: int,
    batch: int,
    single: tuple[Sequence[float], Sequence[float]],
    batches: tuple[Sequence[float], Sequence[float]],
) -> Latency:
    """Return the row for times in milliseconds: of the old and the new network, by round."""

    def ratio_of(times: tuple[Sequence[float], Sequence[float]]) -> tuple[float, Interval]:
        ratio = latency_ratio(*times)
        low, high = np.quantile(ratio_draws(*times), [0.025, 0.975]).tolist()
        return ratio, (min(low, ratio), max(high, ratio))

    old, new = (tuple(map(float, times)) for times in single)
    old_batch, new_batch = (tuple(map(float, times)) for times in batches)
    return Latency(
        processor,
        threads,
        old,
        new,
        batch,
        old_batch,
        new_batch,
        *ratio_of(single),
        *ratio_of(batches),
    )


def asked_of(
    compared: Compared, least: Mapping[str, float], by: Sequence[str]
) -> list[PairedOutcomes]:
    """Return the input of the gate.

    Parameters
    ----------
    compared
        The comparison.
    least
        For each dataset, the required change of accuracy.
    by
        Columns of the comparison in whose groups it is required, too.
    """
    found = []
    for one in compared.datasets:
        evidence = one.evidence
        labels, old, new = (
            np.asarray(x, np.int64) for x in (evidence.labels, evidence.old, evidence.new)
        )
        people = None if evidence.people is None else np.asarray(evidence.people, np.int64)
        groups = {column: evidence.groups.get(column, ()) for column in by}
        sides = ((new == labels)[None], (old == labels)[None])
        found.append(PairedOutcomes(one.name, *sides, labels, people, least[one.name], groups))
    return found


def _measured(answers: Answers, subjects: NDArray[np.int64] | None) -> Metrics:
    return replace(measure(answers), interval=accuracy_interval(answers.right[None], subjects))


def _change(
    old: Answers,
    new: Answers,
    subjects: NDArray[np.int64] | None,
    classes: Sequence[str],
    origins: Sequence[str],
) -> Change:
    was, is_ = old.right[None], new.right[None]
    found = replace(
        change(old, new, classes, origins), interval=change_interval(is_, was, subjects)
    )
    return with_class_intervals(found, is_, was, old.labels, subjects)


def _difference(
    after: NDArray[np.bool_], before: NDArray[np.bool_], subjects: NDArray[np.int64] | None
) -> Difference:
    found = paired.compare(after[None], before[None], subjects)
    return Difference(found, found.p, found.p_images)


def _group(
    column: str,
    value: str,
    was: NDArray[np.bool_],
    is_: NDArray[np.bool_],
    own: NDArray[np.bool_],
    subjects: NDArray[np.int64] | None,
) -> GroupChange:
    old, new = was[own], is_[own]
    difference = _difference(new, old, None if subjects is None else subjects[own])
    accuracies = 100 * float(old.mean()), 100 * float(new.mean())
    return GroupChange(column, value, int(own.sum()), *accuracies, difference)


def _order_note(
    who: str, answers: Answers, classes: Sequence[str], among: Sequence[int]
) -> str | None:
    """Return a note if another class order would make a network far more accurate."""
    place = {label: i for i, label in enumerate(among)}
    labels, said = (
        np.array([place[int(x)] for x in values]) for values in (answers.labels, answers.decisions)
    )
    order = mistaken_order(labels, said, len(among))
    if order is None:
        return None
    better = np.mean(said == np.asarray(order)[labels]) - np.mean(said == labels)
    if 100 * better < MISTAKEN:
        return None
    names = ", ".join(classes[among[i]] for i in order)
    return (
        f"the {who} network would be far more accurate with its classes in another order: what is "
        f"called {', '.join(classes[label] for label in among)} looks like {names}; check its "
        "classes"
    )

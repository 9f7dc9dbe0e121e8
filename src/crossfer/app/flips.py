"""Images on which two networks differ, with what each predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import GROUP, Dataset
from crossfer.datasets.record import Pixels
from crossfer.deploy.compare import ClassifierComparison
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.comparing import NOT_KNOWN, Compared
from crossfer.evaluation.rows import DatasetFacts, Result
from crossfer.experiment.finished import Finished
from crossfer.terms import BL, SIDES, Side

FlipKind = Literal["lost", "won", "both"]
MOST_VALUES = 50
"""Of a column that one can filter by: more are names, not groups."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Changed:
    """The predictions of two networks for N images.

    Parameters
    ----------
    dataset
        The dataset of the images.
    rows
        Their rows in it: int64 (N,).
    classes
        Names of the classes.
    labels, before, after
        The labels, and the predictions of the old and the new network: int64 (N,), indices into `classes`.
    """

    dataset: Dataset
    rows: Integers
    classes: Sequence[str]
    labels: Integers
    before: Integers
    after: Integers

    @classmethod
    def of(
        cls, dataset: Dataset, rows: Integers, classes: Sequence[str], old: Answers, new: Answers
    ) -> Changed:
        """Take the answers of two networks about the same images."""
        return cls(dataset, rows, classes, new.labels, old.decisions, new.decisions)

    def flipped(self, which: FlipKind) -> NDArray[np.bool_]:
        """Tell which images flipped: bool (N,).

        `won` were wrong before and are right now, `lost` were right before and are wrong now.
        """
        was, is_ = self.before == self.labels, self.after == self.labels
        return np.asarray({"won": ~was & is_, "lost": was & ~is_, "both": was ^ is_}[which])

    @cached_property
    def groups(self) -> dict[str, NDArray[np.object_]]:
        """By column of the dataset that has 2 to `MOST_VALUES` values here, that of each image."""
        found = {}
        for name in self.dataset.samples.column_names:
            if name.startswith(GROUP):
                values = self.dataset.samples.column(name).take(self.rows).to_pylist()
                named = [NOT_KNOWN if value is None else str(value) for value in values]
                if 2 <= len(set(named)) <= MOST_VALUES:
                    found[name.removeprefix(GROUP)] = np.array(named, object)
        return found

    def chosen(self, wanted: Wanted) -> Integers:
        """Return the positions of the images that are asked for, ascending."""
        found = self.flipped(wanted.flip)
        if wanted.label is not None:
            found &= self.labels == self.classes.index(wanted.label)
        for column, value in wanted.groups.items():
            found &= self.groups[column] == value
        return np.flatnonzero(found)

    def described(self, position: int) -> Described:
        """Say in words what is known of an image."""
        label, before, after = (
            self.classes[int(x[position])] for x in (self.labels, self.before, self.after)
        )
        row = int(self.rows[position])
        groups = {name: str(values[position]) for name, values in self.groups.items()}
        origin = str(self.dataset.samples.column("origin")[row].as_py())
        return Described(position, origin, label, before, after, groups)

    def picture(self, position: int) -> Pixels:
        """Return an image's pixels, as its network reads them."""
        row = self.rows[position : position + 1]
        (found,) = (part.images[own[0]] for part, own in self.dataset.divided(row) if len(own))
        return np.asarray(found)


@dataclass(frozen=True)
class Wanted:
    """Which flips are asked for: of which class, and of which value of some columns."""

    flip: FlipKind = "lost"
    label: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """An image that flipped, in words."""

    position: int
    origin: str
    label: str
    before: str
    after: str
    groups: Mapping[str, str]

    @property
    def won(self) -> bool:
        """Whether the new network is right."""
        return self.after == self.label


@dataclass(frozen=True)
class FlipSelection:
    """Two networks on a dataset, which may be looked at.

    Parameters
    ----------
    title
        What the page calls it.
    old, new
        What it calls the networks.
    load
        Reads what they said.
    """

    title: str
    old: str
    new: str
    load: Callable[[], Changed]


def of_comparison(comparison: ClassifierComparison) -> list[FlipSelection]:
    """Return what a comparison has to show."""
    found = comparison.found
    return [
        FlipSelection(
            pictures.name,
            found.old.name,
            found.new.name,
            partial(Changed.of, pictures.old, pictures.old_rows, found.classes, old, new),
        )
        for pictures, old, new in comparison.answers
    ]


def of_record(compared: Compared, datasets: Sequence[Dataset]) -> list[FlipSelection]:
    """Return what the JSON of a comparison has to show.

    Parameters
    ----------
    compared
        From `crossfer.deploy.compare.read`.
    datasets
        Those that were compared on.

    Raises
    ------
    CrossferError
        If one of them is not given, or another one.
    """
    given = {dataset.fingerprint: dataset for dataset in datasets}
    choices = []
    wanted = {one.fingerprint: one.name for one in compared.datasets}
    for dataset in datasets:
        if dataset.fingerprint not in wanted:
            raise CrossferError(
                f"--data {dataset.folder}: not in the comparison, which is of "
                f"{', '.join(wanted.values())}; leave it out"
            )
    for one in compared.datasets:
        if one.fingerprint not in given:
            raise CrossferError(
                f"{one.name}: its pictures are missing; name the prepared dataset with --data "
                f"(fingerprint {one.fingerprint[:16]})"
            )
        said = one.evidence
        rows, labels, old, new = (
            np.asarray(x, np.int64) for x in (said.rows, said.labels, said.old, said.new)
        )
        dataset = given[one.fingerprint]
        load = partial(Changed, dataset, rows, compared.classes, labels, old, new)
        choices.append(FlipSelection(one.name, compared.old.name, compared.new.name, load))
    return choices


def of_experiment(finished: Finished) -> list[FlipSelection]:
    """Return what an experiment has to show: each network on its target and on the source, against BL.

    The recommended networks come first.
    """
    results = finished.results
    best = {choice.run for choice in results.recommendations}
    facts = {dataset.name: dataset for dataset in results.datasets}
    baselines = {(r.target, r.seeds): r for r in results.results if r.strategy == BL}
    rows = [row for row in results.results if row.strategy != BL]
    choices = []
    for row in sorted(rows, key=lambda row: row.runs[0] not in best):
        run, baseline = row.runs[0], baselines[row.target, row.seeds]
        share = f"{row.fraction:.0%} of {row.target}" if row.fraction else row.target
        mark = ", recommended" if run in best else ""
        name = f"{row.strategy} ({share}, seed {row.seeds[0]}{mark})"
        for side in SIDES[::-1]:
            on = results.source if side == "source" else facts[row.target]
            load = partial(_of_rows, finished, on, side, baseline, row)
            choices.append(FlipSelection(f"{name} on {on.name}", BL, row.strategy, load))
    return choices


def _of_rows(
    finished: Finished, on: DatasetFacts, side: Side, baseline: Result, row: Result
) -> Changed:
    old, new = (finished.said(each, side, "test")[0] for each in (baseline, row))
    return Changed.of(finished.dataset(on), new.rows, finished.results.classes, old, new)

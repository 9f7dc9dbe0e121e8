"""Compare two classifiers on prepared datasets: predictions, latency and size."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from crossfer.classes import ClassSet, canonical
from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import Split
from crossfer.deploy.checks import left_out
from crossfer.deploy.models import Model
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.comparing import (
    FORMAT,
    Compared,
    ComparedNetwork,
    Latency,
    corrected,
    latency,
    on_dataset,
)
from crossfer.evaluation.measure import find_flips, flipped_image
from crossfer.evaluation.rows import FlippedImage
from crossfer.files import read_versioned, write_csv
from crossfer.machine import threads_of
from crossfer.processor import processor
from crossfer.progress import OnProgress, silent
from crossfer.validation import adapter, first_place

FLOOR = 1e-12
"""Minimum probability of a class that a network has, above the 0 of a class that it lacks."""
BATCH_SHARE, LEAST_BATCH_ROUNDS = 10, 20
"""Batches are measured a tenth as often as single faces, but at least 20 times."""
WARM = 3
"""Warm-up rounds that are not counted."""
OTHER_SIZE = ", and name the result with --new-data if the other classifier reads another size"
COLUMNS = ("dataset", "flip", "row", "origin", "label", "old", "new")
"""Columns of the table of flips."""


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison.

    Parameters
    ----------
    split
        Split of the datasets.
    by
        Columns of the sample tables in whose groups to compare, too.
    labels
        Maps labels of the datasets to classes.
    shared
        Whether to use only classes that both networks have.
    rounds
        Number of latency measurements of one face.
    batch
        Number of faces in a batch.
    threads
        Number of threads.
    """

    split: Split = "test"
    by: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False
    rounds: int = 200
    batch: int = 32
    threads: int = 1

    def __post_init__(self) -> None:
        for name, least in (("rounds", 20), ("batch", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise CrossferError(f"--{name} {getattr(self, name)}: must be at least {least}")


@dataclass(frozen=True)
class Pictures:
    """The same pictures, prepared for each classifier.

    Parameters
    ----------
    name
        Their name in the comparison.
    old, new
        Datasets for the old and the new classifier, often the same, with the classes of the comparison.
    old_rows, new_rows
        Rows of the pictures in these: int64 (N,).
    """

    name: str
    old: Dataset
    new: Dataset
    old_rows: NDArray[np.int64]
    new_rows: NDArray[np.int64]

    def column(self, name: str) -> list[Any] | None:
        """Return a column of the sample table for each picture; None if there is no such column."""
        return self.old.column(name, self.old_rows)


@dataclass(frozen=True)
class ChangedPrediction:
    """A picture on which only one of the two networks is right."""

    dataset: str
    won: bool
    image: FlippedImage
    pixels: NDArray[np.uint8]
    """As prepared for the old network."""


@dataclass(frozen=True)
class ClassifierComparison:
    """The result of a comparison, and the answers on every picture."""

    found: Compared
    answers: Sequence[tuple[Pictures, Answers, Answers]]

    def flips(self) -> Iterator[ChangedPrediction]:
        """Yield the pictures that flipped, for each dataset first those won, then those lost."""
        for pictures, old, new in self.answers:
            origins = pictures.column("origin") or []
            for won, places in zip((True, False), find_flips(old, new), strict=True):
                for i in map(int, places):
                    image = flipped_image(old, new, i, self.found.classes, origins)
                    yield ChangedPrediction(
                        pictures.name, won, image, pictures.old.images[image.row]
                    )


def compare(
    old: Model,
    new: Model,
    datasets: Sequence[tuple[Dataset, Dataset]],
    how: CompareOptions = CompareOptions(),  # noqa: B008  (frozen)
    progress: OnProgress = silent,
) -> ClassifierComparison:
    """Compare two classifiers.

    Parameters
    ----------
    old, new
        From `crossfer.deploy.models.open_model`.
    datasets
        For each set of pictures, the datasets prepared for the old and for the new classifier; the same
        dataset twice if both read faces of the same size.
    how
        Options.
    progress
        Called with the numbers of steps done and in total.

    Raises
    ------
    CrossferError
        If a dataset does not fit a classifier, has no image of a class, or lacks a column; or the two
        classifiers have no class in common.
    """
    class_set = classes_of(old, new, how)
    check_labels(how.labels, [own for own, _ in datasets])
    sets = _pictures(old, new, datasets, class_set, how)
    _check_columns(how.by, sets)
    rows, answers = [], []
    for number, pictures in enumerate(sets):
        progress(number, len(sets) + 1)
        with threads_of(how.threads):
            before = _answers(old, pictures.old, pictures.old_rows, pictures)
            after = _answers(new, pictures.new, pictures.new_rows, pictures)
        answers.append((pictures, before, after))
        dataset = pictures.old
        rows.append(
            on_dataset(
                {
                    "name": pictures.name,
                    "title": dataset.title,
                    "stand_in": dataset.stand_in,
                    "fingerprint": dataset.fingerprint,
                    "split": how.split,
                    "left_out": left_out(dataset, how.split),
                },
                before,
                after,
                class_set.names,
                dataset.classes,
                pictures.column("subject") or [],
                pictures.column("origin") or [],
                {column: pictures.column(column) for column in how.by},
                [*_framing_notes("old", old, dataset), *_framing_notes("new", new, pictures.new)],
            )
        )
    progress(len(sets), len(sets) + 1)
    found = Compared(
        kind="comparison",
        format=FORMAT,
        crossfer=version("crossfer"),
        old=_network(old),
        new=_network(new),
        classes=class_set.names,
        shared=how.shared,
        datasets=corrected(rows),
        latency=measure_latency(old, new, sets[0], how),
        notes=tuple(_class_notes(old, new, how)),
    )
    progress(len(sets) + 1, len(sets) + 1)
    return ClassifierComparison(found, answers)


def classes_of(old: Model, new: Model, how: CompareOptions) -> ClassSet:
    """Return the classes for comparing two classifiers, with their labels.

    The classes of either, the old one's first; a network is always wrong on a class that it lacks, as its
    users would find.  With `CompareOptions.shared`, the classes of both.

    Raises
    ------
    CrossferError
        If they have no class in common, or a label would belong to two classes.
    """
    common = [name for name in old.classes if name in new.classes]
    if not common:
        raise CrossferError(
            f"{old.name} and {new.name} have no class in common: {', '.join(old.classes)}; "
            f"{', '.join(new.classes)}"
        )
    names = tuple(common if how.shared else dict.fromkeys((*old.classes, *new.classes)))
    if len(names) < 2:
        raise CrossferError(
            f"{old.name} and {new.name} share only {names[0]}; two classes are needed"
        )
    return class_set_of(names, how.labels, old, new)


def class_set_of(names: Sequence[str], asked: Mapping[str, str], *models: Model) -> ClassSet:
    """Return a class set: labels belong to the class of their name, or as the classifiers define.

    Parameters
    ----------
    names
        Names of the classes.
    asked
        Maps labels to classes, with priority over the classifiers.
    models
        The classifiers.

    Raises
    ------
    CrossferError
        If a label is mapped to an unknown class, or the classifiers define it differently.
    """
    members: dict[str, str] = {}
    for label, name in asked.items():
        if canonical(name) not in names:
            raise CrossferError(f"--label {label}={name}: the classes are {', '.join(names)}")
        if members.setdefault(canonical(label), canonical(name)) != canonical(name):
            other = members[canonical(label)]
            raise CrossferError(f"--label {label}={name}: it is {other} already; remove one")
    known = members | {name: name for name in names if name not in members}
    for label, name in [pair for model in models for pair in model.labels.items()]:
        if name in names and known.setdefault(label, name) != name and label not in members:
            raise CrossferError(
                f"{label} is {known[label]} for one classifier and {name} for the other; choose "
                f"with --label {label}=CLASS"
            )
    return ClassSet(tuple(names), known)


def check_labels(asked: Mapping[str, str], datasets: Sequence[Dataset]) -> None:
    """Refuse a ``--label`` that no dataset has.

    Raises
    ------
    CrossferError
        If there is one.
    """
    there = {name for dataset in datasets for name in dataset.card["classes"]}
    for label, name in asked.items():
        if canonical(label) not in there:
            raise CrossferError(
                f"--label {label}={name}: no image of {' or '.join(d.name for d in datasets)} has this "
                f"label; the labels are {', '.join(sorted(there))}"
            )


def measure_latency(old: Model, new: Model, pictures: Pictures, how: CompareOptions) -> Latency:
    """Measure the latency of both for one face and for a batch, alternately, so that noise affects both.

    The order of the two alternates from round to round.
    """

    def batch(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.asarray(dataset.images[rows[: how.batch]])
        return np.resize(images, (how.batch, *images.shape[1:]))

    try:
        own, other = batch(pictures.old, pictures.old_rows), batch(pictures.new, pictures.new_rows)
    except MemoryError:
        raise CrossferError(
            f"--batch {how.batch}: so many faces do not fit in memory; use fewer"
        ) from None

    def rounds(count: int, faces: int) -> tuple[list[float], list[float]]:
        calls = (lambda: old.engine(own[:faces]), lambda: new.engine(other[:faces]))
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(WARM + count):
            for which in (0, 1) if number % 2 else (1, 0):
                began = time.perf_counter()
                calls[which]()
                times[which].append(1000 * (time.perf_counter() - began))
        return times[0][WARM:], times[1][WARM:]

    with threads_of(how.threads):
        batches = rounds(max(LEAST_BATCH_ROUNDS, how.rounds // BATCH_SHARE), how.batch)
        singles = rounds(how.rounds, 1)
    return latency(processor(), how.threads, how.batch, singles, batches)


def write_flips(flips: Iterable[ChangedPrediction], file: Path) -> int:
    """Write a CSV file with a row for each picture that flipped; return their number."""
    rows = []
    for flip in flips:
        row = (flip.dataset, "won" if flip.won else "lost", *astuple(flip.image))
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    write_csv(file, COLUMNS, rows)
    return len(rows)


def read(file: str | Path) -> Compared:
    """Read the JSON of a comparison.

    Raises
    ------
    CrossferError
        If it is not one, or another version wrote it.
    """
    again = "write one with `crossfer compare … --json FILE`"
    content = read_versioned(Path(file), FORMAT, again, kind="comparison")
    try:
        compared = adapter(Compared).validate_python(content)
    except ValidationError as error:
        raise CrossferError(f"{file}: damaged ({first_place(error)}); compare again") from None
    if where := compared.damaged:
        raise CrossferError(f"{file}: damaged ({where}); compare again")
    return compared


def _pictures(
    old: Model,
    new: Model,
    datasets: Sequence[tuple[Dataset, Dataset]],
    class_set: ClassSet,
    how: CompareOptions,
) -> list[Pictures]:
    found = []
    names = [own.name for own, _ in datasets]
    for name, (own, other) in zip(names, datasets, strict=True):
        own, other = own.with_classes(class_set), other.with_classes(class_set)
        old.check(own, OTHER_SIZE)
        new.check(other, OTHER_SIZE)
        rows = own.rows(how.split)
        if not len(rows):
            labels = ", ".join(own.card["classes"])
            raise CrossferError(
                f"{own.name}: no {how.split} image of the classes {', '.join(class_set.names)}; "
                f"its labels are {labels}; map them with --label LABEL=CLASS"
            )
        for model in (old, new):
            if not any(class_set.names[label] in model.classes for label in own.classes):
                raise CrossferError(
                    f"{own.name}: {model.name} has none of its classes; map labels with --label "
                    "LABEL=CLASS, or leave the dataset out"
                )
        same = own.fingerprint == other.fingerprint
        there = rows if same else _matched(own, other, rows)
        unique = name if names.count(name) == 1 else str(own.folder)
        found.append(Pictures(unique, own, other, rows, there))
    if len({pictures.name for pictures in found}) < len(found):
        raise CrossferError("a dataset is named twice; leave one out")
    return found


def _matched(own: Dataset, other: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the same pictures in another dataset, matched by their origin."""
    places: dict[str, int] = {}
    for row, origin in enumerate(other.samples.column("origin").to_pylist()):
        if places.setdefault(origin, row) != row:
            raise CrossferError(
                f"{other.folder}: {origin} is listed twice, so it cannot be matched; prepare it "
                "again without duplicates"
            )
    found = []
    for row, origin in zip(rows, own.samples.column("origin").take(rows).to_pylist(), strict=True):
        there = places.get(origin)
        if there is None or other.labels[there] != own.labels[row]:
            why = "not there" if there is None else "labelled otherwise"
            raise CrossferError(
                f"{other.folder}: {origin} of {own.folder} is {why}; prepare both from the same raw files"
            )
        found.append(there)
    return np.asarray(found, np.int64)


def _answers(model: Model, dataset: Dataset, rows: NDArray[np.int64], of: Pictures) -> Answers:
    """Return the answers of a model; classes that it lacks have probability 0."""
    said = model.answers(dataset, rows)
    names = of.old.class_set.names
    probabilities = np.zeros((len(rows), len(names)), np.float32)
    for column, name in enumerate(names):
        if name in model.classes:
            probabilities[:, column] = np.maximum(said[:, model.classes.index(name)], FLOOR)
    return Answers.of(of.old.labels[of.old_rows], probabilities, of.old.classes, of.old_rows)


def _network(model: Model) -> ComparedNetwork:
    return ComparedNetwork(
        model.name,
        model.kind,
        model.classes,
        model.parameters,
        model.bytes,
        model.engine.identity,
    )


def _class_notes(old: Model, new: Model, how: CompareOptions) -> Iterator[str]:
    for who, model, other in (("old", old, new), ("new", new, old)):
        alone = [name for name in model.classes if name not in other.classes]
        if alone:
            what = (
                "images of them are left out"
                if how.shared
                else "the other is wrong on all their images"
            )
            yield f"only the {who} network has {', '.join(alone)}: {what}"
        if model.expect is not None:
            yield (
                f"expect: of the {who} network is not checked here: it is the accuracy on its "
                "source's test set"
            )


def _framing_notes(who: str, model: Model, dataset: Dataset) -> Iterator[str]:
    """Yield a note if the framing of the faces differs from that of a classifier."""
    faces = dataset.card["faces"]
    if model.framing is None or faces["mode"] != "find":
        return
    own, theirs = (
        (framing["eye_distance"], framing["eye_height"])
        for framing in (faces["framing"], vars(model.framing))
    )
    if own != theirs:
        yield (
            f"the framing differs from what the {who} network expects: eye distance {own[0]:g} and "
            f"height {own[1]:g}, not {theirs[0]:g} and {theirs[1]:g}"
        )


def _check_columns(columns: Sequence[str], sets: Sequence[Pictures]) -> None:
    for column in columns:
        if all(pictures.column(column) is None for pictures in sets):
            known = {name for one in sets for name in one.old.columns}
            raise CrossferError(
                f"--by {column}: no such column in {' and '.join(one.name for one in sets)}; "
                f"choose among {', '.join(sorted(known))}"
            )

"""Assess a classifier on new faces: estimated accuracy, drift, and a learning curve of labels."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from crossfer.adaptation import adapt
from crossfer.classes import UNLABELLED, ClassSet
from crossfer.datasets.card import SKIPPED
from crossfer.datasets.dataset import Dataset, is_prepared, open_dataset
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.prepare import prepare
from crossfer.datasets.readers.in_memory import READER, InMemorySource
from crossfer.datasets.record import SPLITS, Record
from crossfer.datasets.splits import take_fraction
from crossfer.deploy.checks import check_classes, check_expected, classes_without_image
from crossfer.deploy.models import Model
from crossfer.deploy.sources import sources_in
from crossfer.errors import CrossferError
from crossfer.evaluation.assessing import Assessed, CurvePoint, Truth
from crossfer.evaluation.drift import (
    Features,
    Pixels,
    class_shares,
    feature_drift,
    input_drift,
    pixels_of,
)
from crossfer.evaluation.estimate import LabelledScores, estimates
from crossfer.evaluation.intervals import accuracy_interval, count_people
from crossfer.evaluation.metrics import decide
from crossfer.evaluation.mistaken import misread
from crossfer.loading import faces_of
from crossfer.machine import Machine
from crossfer.memory.file import AGAIN, MEMORY, Memory, load_memory
from crossfer.networks import Classifier
from crossfer.networks.experts import NOT_ADAPTED, Experts
from crossfer.progress import OnProgress, silent
from crossfer.run_folder import is_finished, load_predictions, read_run
from crossfer.strategies import STRATEGIES
from crossfer.training import features, specialised

FIRST, DRAWS = 25, 3
"""Number of labels at the first point of the curve, doubled at each next one; samples per point."""
MOST, LEAST = 2_000, 20
"""Maximum validation faces of the source for the curve; minimum for comparing features."""

PHOTOGRAPHS = replace(
    READER, layout="photographs with a face in each; if they are cut-out faces, add --cropped"
)
CROPPED = replace(READER, layout="pictures of cut-out faces")

Codes = NDArray[np.integer] | None


@dataclass(frozen=True)
class SourceReference:
    """Results of a classifier on validation faces of its source.

    Parameters
    ----------
    name
        Name of the source.
    answers
        Answers of the classifier.
    pixels, features
        Statistics of the faces and of their features; None if not available.
    dataset, rows
        The faces; None if not available.
    left_out
        Number of images whose label is none of the classifier's classes, by label.
    lacking
        The classifier's classes without an image.
    warning
        How the classifier seems to be read wrongly; None if it does not.
    """

    name: str
    answers: LabelledScores
    pixels: Pixels | None = None
    features: Features | None = None
    dataset: Dataset | None = None
    rows: NDArray[np.int64] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    warning: str | None = None


def of_source(model: Model, source: Dataset, class_set: ClassSet) -> SourceReference:
    """Measure a classifier on the source's validation faces.

    Raises
    ------
    CrossferError
        If there is none, their shape is wrong, most of the classes have no image, or the accuracy is not as
        the classifier's description expects.
    """
    source = source.with_classes(class_set)
    model.check(source)
    check_classes(model, source)
    rows = source.rows("validation")
    if not len(rows):
        raise CrossferError(
            f"{source.folder}: no validation image of one of {', '.join(class_set.names)}: they "
            "calibrate the estimates; name another --source"
        )
    check_expected(model, source)
    people, labels, said = source.people(rows), source.labels[rows], model.answers(source, rows)
    where = f"{source.name}'s validation set"
    images = np.asarray(source.images[rows])
    far = None
    if len(rows) >= LEAST and (classifier := _with_head(model)) is not None:
        far = Features.of(_features(classifier, images), people)
    return SourceReference(
        source.name,
        LabelledScores.of(said, labels, people),
        pixels_of(images),
        far,
        source,
        rows,
        source.left_out,
        classes_without_image(source),
        misread(labels, decide(said, source.classes), class_set.names, where),
    )


def of_memory(model: Model, file: Path) -> SourceReference:
    """Read the statistics of the source's validation faces from a memory file.

    Raises
    ------
    CrossferError
        If it is damaged, of another model, or does not contain them.
    """
    memory = _memory_of(model, file)
    if (known := memory.calibration) is None:
        raise CrossferError(
            f"{file}: says nothing of validation faces; {AGAIN}, of a source with {LEAST} of them"
        )
    return SourceReference(known.name, known.answers.answers(), known.pixels, known.features)


def of_run(folder: Path, model: Model) -> SourceReference:
    """Read a run's predictions for its source's validation faces, and a baseline's memory file.

    Raises
    ------
    CrossferError
        If the folder is not that of a finished run, or is damaged.
    """
    if not is_finished(folder):
        raise CrossferError(
            f"{folder}: not a finished run; name the dataset that it was trained on with --source"
        )
    try:
        parts = read_run(folder)["identity"]["source"]["parts"]
        prints = [part["fingerprint"] for part in parts]
    except (KeyError, TypeError) as error:
        raise CrossferError(f"{folder}: cannot be read as a run ({error!r})") from None
    found = [load_predictions(folder, fingerprint, "validation") for fingerprint in prints]
    if not (said := [one for one in found if len(one.rows)]):
        raise CrossferError(
            f"{folder}: has no predictions for its source's validation set; name the source with "
            "--source"
        )
    columns = [said[0].classes.index(name) for name in model.classes]
    answers = LabelledScores.of(
        np.concatenate([one.probabilities[:, columns] for one in said]),
        np.concatenate([one.labels for one in said]),
    )
    names = dict.fromkeys(one.dataset for one in said)
    known, file = SourceReference(" and ".join(names), answers), folder / MEMORY
    if file.is_file() and (remembered := _memory_of(model, file).calibration):
        return replace(known, pixels=remembered.pixels, features=remembered.features)
    return known


@contextmanager
def opened(
    path: Path,
    model: Model,
    cropped: bool,
    progress: OnProgress = silent,
    say: Callable[[str], object] = warnings.warn,
) -> Iterator[Dataset]:
    """Open a prepared dataset, or prepare a folder of pictures temporarily.

    `say` is called with a line about the videos and other files among the pictures.

    Raises
    ------
    CrossferError
        If it contains neither, or more than half of the pictures cannot be used.
    """
    if is_prepared(path):
        dataset = open_dataset(path)
        dataset.check()
        yield dataset
        return
    # Windows deletes no file that is in use, as a prepared dataset is.
    prepared = TemporaryDirectory(prefix="crossfer-", ignore_cleanup_errors=True)
    with sources_in([path]) as sources, prepared as folder:
        pictures = [source for source in sources.found if not source.is_video]
        if not pictures:
            raise CrossferError(f"{path}: contains no picture; extract frames from videos first")
        if videos := len(sources.found) - len(pictures):
            say(f"videos, skipped: {videos:,}; extract their frames to assess them too")
        if note := sources.note():
            say(note)
        framing = model.engine.framing
        how = Preparation(
            faces="cropped" if cropped else "find",
            no_face="keep" if cropped else "drop",
            side=framing.side,
            channels=framing.channels,
            eyes=Preparation.eyes if cropped else (framing.eye_distance, framing.eye_height),
        )
        records = [Record(one.file, UNLABELLED, one.name) for one in pictures]
        data = InMemorySource(
            path.name, lambda options: iter(records), CROPPED if cropped else PHOTOGRAPHS
        )
        yield prepare(data, Path(folder) / "faces", how, progress=progress)


def pictures_left_out(dataset: Dataset) -> dict[str, list[str]]:
    """Return the names of the pictures that could not be used in `opened`, by reason."""
    found: dict[str, list[str]] = {}
    with (dataset.folder / SKIPPED).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["reason"], []).append(row["origin"])
    return found


def assess(
    model: Model,
    dataset: Dataset,
    known: SourceReference,
    class_set: ClassSet,
    *,
    curve: bool = False,
    progress: OnProgress = silent,
) -> Assessed:
    """Assess a classifier on new faces: all faces of a dataset, in any split.

    Parameters
    ----------
    model
        The classifier.
    dataset
        The new faces; labels are used for `Assessed.truth` and the curve only.
    known
        The reference of the estimates: `of_source`, `of_memory` or `of_run`.
    class_set
        The classifier's classes: `crossfer.deploy.compare.class_set_of`.
    curve
        Whether to train the last layer on increasing numbers of labelled training faces, and measure it on
        the test faces.
    progress
        Called with the numbers of steps done and in total.

    Raises
    ------
    CrossferError
        If the dataset does not fit the classifier, or has no labels for a curve.
    """
    dataset = dataset.with_classes(class_set)
    model.check(dataset)
    labelled, others = (
        np.concatenate([rows(split) for split in SPLITS])
        for rows in (dataset.rows, dataset.unlabelled)
    )
    rows = np.sort(np.concatenate([labelled, others]))
    if not len(rows):
        raise CrossferError(
            f"{dataset.folder}: no unlabelled face and none of the classes "
            f"{', '.join(class_set.names)}; name another dataset"
        )
    said, people = model.answers(dataset, rows), dataset.people(rows)
    truth = None if len(others) else _measured(said.argmax(1) == dataset.labels[rows], people)
    images = np.asarray(dataset.images[rows])
    far = None
    # Of fewer faces the drift's interval says nothing of other faces.
    enough = len(rows) >= LEAST
    if known.features and enough and (classifier := _with_head(model)) is not None:
        far = feature_drift(known.features, _features(classifier, images), people)
    right = next(iter(known.answers.right.values()))
    return Assessed(
        kind="assessment",
        format=1,
        crossfer=version("crossfer"),
        model=model.name,
        dataset=dataset.name,
        images=len(rows),
        people=count_people(people),
        left_out=dataset.left_out,
        lacks=classes_without_image(dataset) if len(labelled) else (),
        tested=len(dataset.rows("test")),
        source=known.name,
        source_left_out=dict(known.left_out),
        source_lacks=known.lacking,
        warning=known.warning,
        known=_measured(right, known.answers.subjects),
        estimates=estimates(known.answers, said, people),
        inputs=input_drift(known.pixels, pixels_of(images)) if known.pixels else (),
        features=far,
        classes=class_shares(
            class_set.names,
            known.answers.answered,
            np.bincount(said.argmax(1), minlength=len(class_set)),
        ),
        truth=truth,
        curve=tuple(_curve(model, dataset, known, progress)) if curve else (),
    )


def _memory_of(model: Model, file: Path) -> Memory:
    """Read a classifier's memory file."""
    memory = load_memory(file)
    memory.check(model.pytorch, file)
    return memory


def _curve(
    model: Model, dataset: Dataset, known: SourceReference, progress: OnProgress
) -> Iterator[CurvePoint]:
    """Train the last layer on increasing numbers of labels, and measure it."""
    learnt, tested = dataset.rows("training"), dataset.rows("test")
    classifier = _with_head(model)
    if classifier and isinstance(classifier.network, Experts):
        raise CrossferError(f"{model.name}: --labels trains its last layer, but {NOT_ADAPTED}")
    if classifier is None:
        raise CrossferError(
            f"{model.name}: --labels trains a linear last layer, which it lacks or does not show; "
            "leave --labels out"
        )
    if len(learnt) < FIRST or not len(tested):
        raise CrossferError(
            f"{dataset.folder}: --labels needs {FIRST} labelled training images and some test "
            f"images; it has {len(learnt)} and {len(tested)}"
        )
    if known.dataset is None or known.rows is None:
        raise CrossferError("--labels: needs the source; name it with --source")
    machine = Machine.of("cpu", "32-true")
    own_rows = known.rows[:: -(-len(known.rows) // MOST)]
    sides = ((dataset, tested), (known.dataset, own_rows))
    given = [_features(classifier, np.asarray(data.images[rows])) for data, rows in sides]
    truth = [torch.from_numpy(data.labels[rows]) for data, rows in sides]

    def right(network: Classifier) -> list[float]:
        head = network.network.get_submodule(network.layer_names("head")[0])
        with torch.no_grad():
            said = [network.of_classes(head(torch.from_numpy(part))).argmax(1) for part in given]
        return [100 * (a == b).float().mean().item() for a, b in zip(said, truth, strict=True)]

    before = right(classifier)
    yield CurvePoint(0, 0, 1, before[0], before[0], before[0], 0.0)
    sizes = [FIRST * 2**n for n in range(20) if FIRST * 2**n < len(learnt)] + [len(learnt)]
    strategy, subjects = STRATEGIES["HEAD"], [dataset.subjects[row] for row in learnt]
    recipe, labels = strategy.default_recipe(), dataset.labels[learnt]
    for number, size in enumerate(sizes):
        found = []
        for seed in range(DRAWS if size < len(learnt) else 1):
            progress(DRAWS * number + seed, DRAWS * len(sizes))
            rows = learnt[take_fraction(labels, subjects, size / len(learnt), seed)]
            if len(rows) < 2:
                continue
            training = {"target": faces_of(dataset, rows)}
            trained = adapt(
                strategy, classifier, classifier, training, {}, recipe, seed, machine, keep="last"
            )
            people = {dataset.subjects[row] for row in rows} - {None}
            found.append((len(rows), len(people), *right(trained.model)))
        if found:
            images, people_drawn, target, source = np.transpose(found)
            yield CurvePoint(
                images=float(images.mean()),
                people=float(people_drawn.mean()) or None,
                draws=len(found),
                accuracy=float(target.mean()),
                lowest=float(target.min()),
                highest=float(target.max()),
                source_change=float(source.mean() - before[1]),
            )
    progress(DRAWS * len(sizes), DRAWS * len(sizes))


def _measured(right: NDArray[np.bool_], people: Codes) -> Truth:
    return Truth(
        len(right),
        count_people(people),
        float(100 * right.mean()),
        accuracy_interval(right[None], people),
    )


def _with_head(model: Model) -> Classifier | None:
    """Return the PyTorch classifier if it has, and calls, a linear last layer, otherwise None."""
    try:
        classifier = model.pytorch
        _features(classifier, np.zeros((1, *classifier.preprocessing.image_shape), np.uint8))
    except (CrossferError, ValueError):
        return None
    return classifier


def _features(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the penultimate features, (N, D)."""
    machine, faces = Machine.of("cpu", "32-true"), torch.from_numpy(images)
    network = specialised(classifier, faces, machine.device)
    return features(network, classifier.layer_names("head")[0], faces, machine).numpy()

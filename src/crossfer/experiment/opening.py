"""Open the datasets of an experiment; raw ones are prepared first."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from glob import escape
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from crossfer.adaptation import check_strategy, untrained, with_classes
from crossfer.classes import PRESETS, ClassSet, in_order, is_known
from crossfer.datasets.dataset import Dataset, is_prepared, open_dataset
from crossfer.datasets.earlier import can_keep
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.prepare import prepare
from crossfer.datasets.raw import is_unchanged, name_of
from crossfer.datasets.splits import take_fraction
from crossfer.datasets.staging import sweep
from crossfer.errors import CrossferError
from crossfer.experiment.config import DatasetConfig, Experiment
from crossfer.experiment.data import with_split
from crossfer.experiment.progress import Progress
from crossfer.machine import Machine
from crossfer.memory.closed_form import Ridge
from crossfer.memory.file import check_projections, load_memory
from crossfer.networks import NetworkConfig, check_network
from crossfer.networks.experts import NOT_ADAPTED
from crossfer.training import Faces
from crossfer.training.cut import check_cut

HELD_OUT = 0.2
"""Fraction of the source's test set that is used for validation if it has no validation set."""
DATASETS = "datasets"
"""The folder of prepared datasets, in the experiment's folder."""


def check_paths(experiment: Experiment) -> None:
    """Refuse an experiment with a missing dataset or data root, before anything is prepared."""
    if experiment.data and not experiment.under_data(Path()).is_dir():
        raise CrossferError(f"{experiment.data}: no such data root; correct --data or data:")
    for config in (experiment.source, *experiment.targets):
        path = experiment.path(config)
        if not path.exists():
            raise CrossferError(f"{path}: no such dataset; name the data root with --data")


def check_model(experiment: Experiment, machine: Machine) -> list[str]:
    """Try the network with the strategies' layers and its memory file, before anything runs.

    Returns
    -------
    list of str
        What was found, a line each.

    Raises
    ------
    CrossferError
        If the network cannot be used, lacks a layer that a strategy needs, is a mixture that would be
        adapted, or has another memory file.
    """
    check_mixture(experiment)
    checks = [partial(check_strategy, strategy) for strategy in experiment.strategies]
    if file := experiment.memory_file:
        memory = load_memory(file)
        checks.append(partial(memory.check, file=file))
        if any(
            isinstance(one.memory, Ridge) and one.memory.projected for one in experiment.strategies
        ):
            memory.projection  # noqa: B018  (refuses a file without)
    elif any(one.memory for one in experiment.strategies):
        checks.append(check_cut)
    layers = [strategy.layers for strategy in experiment.strategies]
    return check_network(experiment.model, layers, machine, experiment.classes, checks)


def check_data(
    experiment: Experiment, machine: Machine, source: Dataset, targets: Sequence[Dataset]
) -> None:
    """Try what the network must be able to do because of the datasets, before anything runs.

    Raises
    ------
    CrossferError
        If a target has a class that is new to the network, whose head cannot be extended; or a strategy needs
        random projections, for which the source has too few images.
    """
    names, new = experiment.classes.names, experiment.model.unknown(experiment.classes)
    labels = np.concatenate([target.labels[target.rows("training")] for target in targets])
    shown = [index for index, name in enumerate(names) if name in new and index in labels]
    grows = shown and any(
        "target" in one.needs and not one.unlabelled for one in experiment.strategies
    )
    projecting = [
        one.name
        for one in experiment.strategies
        if isinstance(one.memory, Ridge) and one.memory.projected and not experiment.memory_file
    ]
    if not (grows or projecting):
        return
    model = experiment.model
    build = model.deployed if model.is_deployed else model.build
    classifier = untrained(lambda: build(experiment.classes), 0).eval().to(machine.device)
    if grows:
        images = torch.zeros(len(shown), *classifier.preprocessing.image_shape, dtype=torch.uint8)
        with_classes(classifier, Faces(images, torch.tensor(shown)), machine)
    if projecting:
        known = torch.from_numpy(source.labels[source.rows("training")]).long()
        try:
            check_projections(classifier, known, machine)
        except CrossferError as error:
            raise CrossferError(f"{projecting[0]}: {error}") from None


def check_mixture(experiment: Experiment) -> None:
    """Refuse to adapt a deployed mixture of experts, before anything runs."""
    model = experiment.model
    if model.is_deployed and model.spec(experiment.classes).router and experiment.strategies[1:]:
        raise CrossferError(f"model: {NOT_ADAPTED}; to measure it alone, set strategies: [BL]")


def open_datasets(
    experiment: Experiment, out: Path, progress: Progress, checked: bool = False
) -> list[Dataset]:
    """Open an experiment's source and targets; raw ones are prepared in its folder.

    With `checked`, nothing is prepared and no hash compared again, since another process did so: for ten
    million faces each worker would read 23 GB.
    """
    datasets: list[Dataset] = []
    for config in (experiment.source, *experiment.targets):
        dataset = _dataset(config, experiment, out, progress, checked).with_classes(
            experiment.classes
        )
        dataset.check_shape(experiment.model.preprocessing.image_shape, "model.input")
        if not datasets:
            check_framing(experiment.model, dataset)
        if experiment.memory and not datasets:
            tested = len(dataset.rows("test"))
            dataset = with_validation(dataset)
            if taken := tested - len(dataset.rows("test")):
                progress.said(
                    f"{dataset.name}: no validation set, so {taken:,} of its {tested:,} test images are "
                    "used for validation"
                )
        for other in datasets:
            if dataset.name == other.name:
                raise CrossferError(
                    f"two datasets are called {dataset.name}; set `name` for one of them"
                )
            if dataset.fingerprint == other.fingerprint:
                raise CrossferError(
                    f"{dataset.name} and {other.name} are the same data; leave one out"
                )
        progress.opened(dataset)
        datasets.append(dataset)
    classes, model = experiment.classes, experiment.model
    kept = set(classes.names) - set(model.unknown(classes)) if model.is_deployed else ()
    check_classes(classes, datasets, kept)
    return datasets


def check_framing(network: NetworkConfig, source: Dataset) -> None:
    """Refuse a source whose faces were cut out in another way than the configuration says of the network's.

    Of pictures that were cropped by somebody else the framing is unknown.
    """
    faces, framing = source.parts[0].card["faces"], network.framed
    if network.framing is None or framing is None or faces["mode"] == "cropped":
        return
    own, wanted = (
        f"{place['eye_distance']:g},{place['eye_height']:g}"
        for place in (faces["framing"], vars(framing))
    )
    if own != wanted:
        raise CrossferError(
            f"model.framing: the eyes are at {wanted} (distance, height), but {source.name} was prepared "
            f"with {own}; prepare it with --eyes {wanted} (eyes: in a configuration), or remove framing:"
        )


def with_validation(source: Dataset) -> Dataset:
    """Return a source with a validation set: if it has none, a fifth of its test set, whole subjects.

    With a memory file, a test set may be all that is left of the source; selection must not use the images on
    which results are measured.
    """
    rows = source.rows("test")
    if len(source.rows("validation")) or not len(rows):
        return source
    subjects = [source.subjects[row] for row in rows]
    taken = rows[take_fraction(source.labels[rows], subjects, HELD_OUT, 0)]
    return with_split(source, taken, "validation")


def check_classes(
    classes: ClassSet, datasets: Sequence[Dataset], kept: Collection[str] = ()
) -> None:
    """Refuse classes that the datasets do not have.

    Parameters
    ----------
    classes
        The classes of the experiment.
    datasets
        Its datasets.
    kept
        Classes that the deployed model has; they need no images.

    Raises
    ------
    CrossferError
        If a dataset has no image of any class; or, unless the classes are a preset, if no dataset has an
        image of some class, or a label with an unknown name.
    """
    own = {dataset.name: list(dataset.card["classes"]) for dataset in datasets}
    there = in_order(chain.from_iterable(own.values()))
    if classes not in PRESETS.values():
        for name in [name for name in classes.names if name not in kept]:
            labels = classes.labels_of(name)
            if not set(labels) & set(there):
                raise CrossferError(
                    f"classes: no dataset has images of {name} (label {', '.join(labels)}); "
                    f"their labels are {', '.join(there)}"
                )
        for label, name in classes.members.items():
            if label not in there and not is_known(label) and name not in kept:
                raise CrossferError(
                    f"classes: no dataset has the label {label}; their labels are {', '.join(there)}"
                )
    for dataset in datasets:
        if not dataset.classes and len(dataset.unlabelled("training")):
            raise CrossferError(
                f"{dataset.name}: no image has a label, and what a strategy gains is measured on labelled "
                "validation and test images; label some (`crossfer label`), or see what `crossfer assess` "
                "estimates"
            )
        if not dataset.classes:
            raise CrossferError(
                f"{dataset.name}: none of its labels ({', '.join(own[dataset.name])}) belongs to a "
                f"class of the experiment ({', '.join(classes.names)}); assign labels with "
                "classes:"
            )


def _dataset(
    config: DatasetConfig, experiment: Experiment, out: Path, progress: Progress, checked: bool
) -> Dataset:
    """Open a prepared dataset, or prepare a raw one inside the experiment's folder."""
    path = experiment.path(config)
    if is_prepared(path):
        if given := config.model_fields_set - {"path", "name"}:
            raise CrossferError(
                f"{path}: is a prepared dataset, so {min(given)} has no effect; remove it, or name "
                "the raw files"
            )
        dataset = open_dataset(path)
        if not checked:
            dataset.check()
        return dataset.called(config.name or dataset.name)
    reads = experiment.model.preprocessing
    how = config.preparation(reads.channels, reads.side)
    if how.root:
        how = replace(how, root=experiment.under_data(how.root))
    shown = config.name or path.stem
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    folder = out / DATASETS / f"{path.stem}-{place}"
    if checked:
        if not is_prepared(folder):
            raise CrossferError(
                f"{folder}: not there, or {path} is another path on this machine; start the experiment "
                "again with `crossfer run`"
            )
        dataset = open_dataset(folder)
        return dataset.called(config.name or name_of(path, dataset.card["reader"]))
    if not folder.exists() and (moved := _moved(out / DATASETS, path, how)):
        moved.rename(folder)
    with suppress(CrossferError):  # not there, damaged, or of another version: it is made anew
        dataset = open_dataset(folder)
        dataset.check()
        if _fits(dataset, path, how):
            sweep(folder)
            return dataset.called(config.name or name_of(path, dataset.card["reader"]))
    dataset = prepare(
        path,
        folder,
        how,
        name=config.name,
        replace=True,
        new_split=not can_keep(folder, how),
        progress=lambda done, total: progress.preparing(shown, done, total),
    )
    progress.prepared(dataset)
    return dataset


def _moved(folder: Path, path: Path, how: Preparation) -> Path | None:
    """Return what was prepared of these raw files when they, and the experiment, were elsewhere."""
    for other in sorted(folder.glob(f"{escape(path.stem)}-*")):
        with suppress(CrossferError):
            if _fits(open_dataset(other), path, how):
                return other
    return None


def _fits(dataset: Dataset, path: Path, how: Preparation) -> bool:
    """Tell whether a dataset is what would be prepared: of these raw files as they are, in this way."""
    card = dataset.card
    return card["preparation"] == how.as_json() and is_unchanged(path, how, card["raw_state"])

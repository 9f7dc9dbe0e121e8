"""Apply a strategy: choose the start, the layers and the data, train, and merge."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor

from crossfer.cost import flop_of
from crossfer.errors import CrossferError
from crossfer.machine import Machine
from crossfer.memory.adaptation import Adaptation
from crossfer.memory.exemplars import choose_exemplars
from crossfer.memory.file import Memory
from crossfer.memory.merging import (
    FISHER_IMAGES,
    Mix,
    best_mixture,
    by_depth,
    by_fisher,
    interpolate,
)
from crossfer.memory.penalties import fisher
from crossfer.networks import Classifier, grow
from crossfer.networks.adapters import adapt_linear, fold, large_matrices
from crossfer.networks.answers import find_logits
from crossfer.networks.experts import NOT_ADAPTED, Experts
from crossfer.networks.layers import plain_linear
from crossfer.strategy import Strategy
from crossfer.training import Faces, Mixture, Recipe, Trained, features, specialised, train
from crossfer.training.split import Body, alike, as_it_was, noise
from crossfer.training.statistics import batch_norms
from crossfer.training.trainer import Keep
from crossfer.unlabelled import without_labels

Built = TypeVar("Built")

OPTIONS = frozenset({"reuse", "keep", "resume", "on_step", "on_state"})
"""Options of `train`; the penalty and the objective are the strategy's."""

SUITS_OTHERS = "leave this strategy out, or name another network"


def adapt(
    strategy: Strategy,
    start: Classifier,
    baseline: Classifier,
    training: Mapping[str, Faces],
    validation: Mapping[str, Faces],
    recipe: Recipe,
    seed: int,
    machine: Machine,
    memory: Memory | None = None,
    **options: Any,
) -> Trained:
    """Adapt a network with a strategy.

    Parameters
    ----------
    strategy
        The strategy.
    start
        The network that training starts from: untrained, the baseline, or another strategy's result; it is
        not modified. If it lacks a class of the target, the trained copy is extended: see
        `crossfer.networks.grow`.
    baseline
        The network before any adaptation, for strategies that merge with it or select exemplars with it;
        often `start` itself. It is not modified.
    training
        The training sets that the strategy needs: ``"source"``, ``"target"``.
    validation
        The validation sets by side, which select the epoch and the merging weight.
    memory
        The memory file's statistics of the baseline's features, for strategies that use them.
    recipe, seed, machine, options
        As for `crossfer.training.train`.

    Returns
    -------
    Trained
        The network and its cost, including exemplars, statistics and merging.

    Raises
    ------
    ValueError
        If a training set or the memory that the strategy needs is missing, it reads no memory, or faces or
        labels do not suit the network.
    CrossferError
        If the memory belongs to another model or to other classes, the network is a mixture of experts, or
        it lacks a layer that the strategy needs.
    """
    began = time.perf_counter()
    _check_options(options)
    _check(strategy, start, baseline, training, validation, memory)
    if strategy.unlabelled:
        return _without_labels(strategy, start, training["target"], recipe, seed, machine, options)
    if strategy.exemplars:
        kept = choose_exemplars(
            training["source"], strategy.exemplars, strategy.choice, baseline, seed, machine
        )
        training = {**training, "source": kept}
    old = baseline
    model, baseline = _grown(start, baseline, training, machine)
    training = {side: _answerable(model, images) for side, images in training.items()}
    validation = {side: _answerable(model, images) for side, images in validation.items()}
    model.train_only(strategy.layers)
    if strategy.rank:
        adapt_linear(model, strategy.rank, seed)
        options["reuse"] = False  # what is calculated once knows plain layers only
    prepared = time.perf_counter() - began
    if strategy.memory:
        assert memory
        given = Adaptation(
            old=old,
            baseline=baseline,
            start=start,
            model=model,
            memory=memory,
            target=training["target"],
            validation=validation,
            recipe=recipe,
            seed=seed,
            machine=machine,
            options=options,
        )
        trained = strategy.memory.learn(given)
    elif strategy.layers == "none":
        trained = Trained(model.cpu().eval(), 0, [], 0, 0.0)
    else:
        shown, penalty = _shown(strategy, training), None
        if strategy.penalty:
            penalty = strategy.penalty.term(start, shown, training.get("source"), seed, machine)
        prepared = time.perf_counter() - began
        trained = train(model, shown, validation, recipe, seed, machine, penalty=penalty, **options)
    trained = replace(trained, seconds=trained.seconds + prepared)
    if strategy.rank:
        fold(trained.model)
    if strategy.merge:
        trained = _merged(strategy, trained, baseline, training, validation, seed, machine)
    flop = flop_of(strategy, trained.model, trained.images_seen, training, memory, recipe)
    return replace(trained, flop=flop)


def _check(
    strategy: Strategy,
    start: Classifier,
    baseline: Classifier,
    training: Mapping[str, Faces],
    validation: Mapping[str, Faces],
    memory: Memory | None,
) -> None:
    """Refuse what a strategy cannot be applied to: see `adapt`."""
    mixture = any(isinstance(each.network, Experts) for each in (start, baseline))
    if mixture and strategy.start != "deployed":
        raise CrossferError(f"model: {NOT_ADAPTED}")
    check_strategy(strategy, baseline)
    if missing := strategy.needs - training.keys():
        raise ValueError(f"{strategy.name} needs the training set of the {min(missing)}")
    if strategy.memory and memory is None:
        raise ValueError(f"{strategy.name} needs a memory file of the source")
    if memory and not strategy.memory:
        raise ValueError(f"{strategy.name} reads no memory file; leave memory out")
    for side, faces in (*training.items(), *validation.items()):
        labelled = not (strategy.unlabelled and side == "target")
        _check_faces(side, faces, start, labelled)
    if strategy.unlabelled and len(training["target"]) < 2:
        raise CrossferError(f"{strategy.name}: one image has no statistics; give at least two")
    if memory:
        memory.check(baseline)


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that `train` does not have: some strategies do not call it."""
    if unknown := options.keys() - OPTIONS:
        raise TypeError(f"adapt: {min(unknown)}: no such option; use {', '.join(sorted(OPTIONS))}")
    if (keep := options.get("keep", "best")) not in get_args(Keep):
        raise ValueError(f"keep {keep!r}: choose among {', '.join(get_args(Keep))}")


def _check_faces(side: str, faces: Faces, classifier: Classifier, labelled: bool) -> None:
    """Refuse images that are not pixels, and labels that are no class of the classifier."""
    if faces.images.dtype != torch.uint8:
        raise ValueError(f"{side}: its images are {faces.images.dtype}; they must be pixels, uint8")
    strange = (faces.labels < 0) | (faces.labels >= len(classifier.classes))
    if labelled and bool(strange.any()):
        raise ValueError(
            f"{side}: label {int(faces.labels[strange][0])} in {int(strange.sum())} rows is not one of the "
            f"{len(classifier.classes)} classes, from 0; leave these rows out"
        )


def check_strategy(strategy: Strategy, classifier: Classifier) -> None:
    """Refuse a strategy that changes or reads what a network does not have, before anything runs.

    The layers that a strategy trains are checked by `crossfer.networks.check_network`.

    Raises
    ------
    CrossferError
        If the network has no batch normalisation, no plain linear head that gives its outputs, no bias in it,
        or no layer that is large enough for adapters.
    """
    if strategy.rank:
        try:
            large_matrices(classifier, strategy.rank, classifier.layer_names(strategy.layers))
        except ValueError as error:
            raise _said_of(strategy, error) from None
    methods = filter(None, (strategy.unlabelled, strategy.memory))
    needs = {need for method in methods for need in method.needs}
    if strategy.choice == "herding":
        needs.add("head")
    if "norms" in needs and not batch_norms(classifier):
        raise CrossferError(
            f"{strategy.name}: the network has no batch normalisation to adapt; {SUITS_OTHERS}"
        )
    if "head" not in needs:
        return
    try:
        (name,) = classifier.layer_names("head")
    except ValueError as error:
        raise CrossferError(
            f"{strategy.name}: needs the network's last linear layer: {error}; or {SUITS_OTHERS}"
        ) from None
    try:
        gives_outputs = _gives_outputs(classifier, name)
        if "plain" in needs:
            plain_linear(classifier.network, name)
    except CrossferError as error:
        raise _said_of(strategy, error) from None
    if "outputs" in needs and not gives_outputs:
        raise CrossferError(
            f"{strategy.name}: the network's last layer {name} does not give its outputs: it is a "
            "convolution, something follows it, or another head gives them; name the one that does, "
            f"model.FC: [its name], or {SUITS_OTHERS}"
        )
    if "bias" in needs and getattr(classifier.network.get_submodule(name), "bias", None) is None:
        raise CrossferError(
            f"{strategy.name}: the network's last layer {name} has no bias; {SUITS_OTHERS}"
        )


def _said_of(strategy: Strategy, error: ValueError) -> CrossferError:
    """Return what is wrong with a network as a reason against a strategy."""
    said = str(error).removeprefix("model: ")
    return CrossferError(f"{strategy.name}: {said}; or {SUITS_OTHERS}")


@torch.no_grad()
def _gives_outputs(classifier: Classifier, head: str) -> bool:
    """Tell whether a layer's results for vectors are the network's outputs.

    Raises
    ------
    CrossferError
        If the network does not call the layer.
    """
    device = next(classifier.parameters()).device
    pictures = torch.zeros(1, *classifier.preprocessing.image_shape, dtype=torch.uint8)
    with as_it_was(classifier):
        shown = noise(pictures.to(device), classifier.preprocessing)
        outputs, _ = find_logits(classifier.eval().network(shown), classifier.answers)
        given = Body(classifier.network, head)(shown).flatten(1)
        try:
            return alike(classifier.network.get_submodule(head)(given).flatten(1), outputs)
        except RuntimeError:  # it is no function of a vector, as a convolution is not
            return False


def _without_labels(
    strategy: Strategy,
    start: Classifier,
    target: Faces,
    recipe: Recipe,
    seed: int,
    machine: Machine,
    options: Mapping[str, Any],
) -> Trained:
    """Adapt a network to unlabelled images; the last epoch is kept, since no label can select one."""
    began, how, shown = time.perf_counter(), strategy.unlabelled, without_labels(target)
    assert how
    model = copy.deepcopy(start)
    model.train_only(strategy.layers)
    if how.trains is False:
        model = how.applied(model, shown.images, machine).eval()
        return Trained(model, 0, [], 0, time.perf_counter() - began)
    objective = how.objective(start, machine)
    told: dict[str, Any] = {**options, "keep": "last"}
    trained = train(model, shown, {}, recipe, seed, machine, objective=objective, **told)
    return replace(
        trained, flop=flop_of(strategy, trained.model, trained.images_seen, {"target": shown})
    )


def _grown(
    start: Classifier, baseline: Classifier, training: Mapping[str, Faces], machine: Machine
) -> tuple[Classifier, Classifier]:
    """Return copies of both networks with an output for every class of the target."""
    if "target" not in training:
        return copy.deepcopy(start), baseline
    grown = with_classes(start, training["target"], machine)
    if baseline is start:
        return grown, copy.deepcopy(grown)
    return grown, with_classes(baseline, training["target"], machine)


def _answerable(classifier: Classifier, faces: Faces) -> Faces:
    """Return the faces whose class a network can answer, limited to these classes.

    From the others it could only learn to give every class that it has a lower logit.
    """
    unknown = [classifier.classes.index(name) for name in classifier.unknown]
    if not unknown:
        return faces
    labels = faces.labels.cpu()
    rows = torch.nonzero(~torch.isin(labels, torch.tensor(unknown)))[:, 0]
    every = torch.ones(len(labels), len(classifier.classes), dtype=torch.bool)
    known = every if faces.known is None else faces.known.clone()
    known[:, unknown] = False
    return replace(faces, known=known)[rows]


def with_classes(classifier: Classifier, faces: Faces, machine: Machine) -> Classifier:
    """Return a copy with an output for each class of some faces: see `crossfer.networks.grow`.

    Raises
    ------
    CrossferError
        If the network has no head that can be extended.
    """
    labels = faces.labels.cpu()
    unknown = [classifier.classes.index(name) for name in classifier.unknown]
    new = [index for index in unknown if bool((labels == index).any())]
    if not new:
        return copy.deepcopy(classifier)
    try:
        (head,) = classifier.layer_names("head")
    except ValueError as error:
        raise CrossferError(f"model: {error}, so that it can learn a new class") from None
    network = specialised(classifier, faces.images, machine.device)
    given = {
        classifier.classes[index]: features(network, head, faces.images[labels == index], machine)
        for index in new
    }
    return grow(classifier, given)


def _shown(strategy: Strategy, training: Mapping[str, Faces]) -> Faces:
    """Return a strategy's training faces: of one side, of both, or mixed in every batch."""
    if strategy.data != "source+target":
        return training[strategy.data]
    source, target = training["source"], training["target"]
    return Mixture.of(target, source, strategy.share) if strategy.share else source + target


def _merged(
    strategy: Strategy,
    trained: Trained,
    baseline: Classifier,
    training: Mapping[str, Faces],
    validation: Mapping[str, Faces],
    seed: int,
    machine: Machine,
) -> Trained:
    """Merge a trained network with the baseline; the weight is selected on the validation sets.

    Batch statistics are estimated again if training faces of both sides are available; otherwise they are
    merged like the weights, since those of the target alone would suit the target alone.
    """
    began = time.perf_counter()
    faces: Faces | None = None
    mix: Mix = interpolate
    if strategy.data == "source+target":
        faces = Mixture.of(training["target"], training["source"], 0.5)
    if strategy.merge == "LiNeS":
        mix = by_depth(trained.model)
    elif strategy.merge == "Fisher":
        mix = by_fisher(
            _fisher(baseline, training["source"], seed, machine),
            _fisher(trained.model, training["target"], seed, machine),
        )
    model, alpha, tried = best_mixture(baseline, trained.model, validation, faces, machine, mix=mix)
    seconds = trained.seconds + time.perf_counter() - began
    return replace(trained, model=model.cpu(), alpha=alpha, tried=tried, seconds=seconds)


def _fisher(network: Classifier, faces: Faces, seed: int, machine: Machine) -> dict[str, Tensor]:
    """Estimate a network's Fisher information from some of the faces; on the CPU."""
    rows = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))[:FISHER_IMAGES]
    found = fisher(network, faces.images[rows], seed, machine)
    return {name: value.cpu() for name, value in found.items()}


def untrained(build: Callable[[], Built], seed: int) -> Built:
    """Build a network or classifier with the random weights of a seed; the global generator is left alone."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return build()

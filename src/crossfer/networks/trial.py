"""Check a network before anything runs: forward pass, training steps, freezing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from crossfer.classes import FER7
from crossfer.errors import CrossferError, some_of
from crossfer.machine import Machine
from crossfer.networks.answers import failed_on, find_logits, problem_of
from crossfer.networks.classifier import Classifier
from crossfer.networks.config import Classes, NetworkConfig
from crossfer.networks.layers import training_mode
from crossfer.networks.sources import STUDY

MOST_NAMES = 4
MIXED = 0.003
"""Relative difference of outputs that rounding does not explain."""


def check_network(
    config: NetworkConfig,
    layers: Iterable[str],
    machine: Machine,
    classes: Classes = FER7,
    also: Iterable[Callable[[Classifier], None]] = (),
) -> list[str]:
    """Check a network: building, layers, outputs, and a training step for each kind of layers.

    Parameters
    ----------
    config
        The network.
    layers
        The kinds of layers to train: keys of `crossfer.networks.layers.LAYERS`.
    machine
        Device and precision; no random generator is changed.
    classes
        The classes of the classifier.
    also
        More checks, which raise an error if the built classifier does not suit.

    Returns
    -------
    list of str
        Findings for people: preprocessing, classes of the outputs, trained layers.

    Raises
    ------
    CrossferError
        If a check fails; the message names the key of the configuration.
    """
    drawing = [machine.device] if machine.device.type == "cuda" else []
    with torch.random.fork_rng(drawing):
        model, said = _built(config, classes)
        model.to(machine.device)
        images = torch.randn(2, *config.preprocessing.input_shape, device=machine.device)
        wanted = [kind for kind in dict.fromkeys(layers) if kind != "none" or _trains(model)]
        if wanted and not _trains(model):
            raise CrossferError(
                f"model: {config.network} runs in ONNX Runtime, so it can be measured but not "
                "trained; set strategies: [BL]"
            )
        place = _check_answers(config, model, images, machine)
        trained = {kind: _trained_layers(config, model, kind, images) for kind in wanted}
        for check in also:
            check(model)
        if _mixes(model.eval(), images):
            raise CrossferError(
                f"model.network: {config.name} gives a face another result alone than in a batch; "
                "make its evaluation mode independent of the batch"
            )
    return [
        f"network {config.network}: reads {config.preprocessing}",
        *_what_it_answers(model, config.outputs or model.classes, place),
        *said,
        *_what_trains(model, trained),
    ]


def _built(config: NetworkConfig, classes: Classes) -> tuple[Classifier, list[str]]:
    """Build a network, deployed or not; also return notes about its weights."""
    if config.is_deployed:
        return config.deployed_and_said(classes)
    said = (
        "weights: BL is trained on the source, starting from the network's own weights; "
        "model.weights: as-built deploys them unchanged"
    )
    return config.build(classes), [] if config.network == STUDY else [said]


def _trained_layers(
    config: NetworkConfig, model: Classifier, kind: str, images: Tensor
) -> list[str]:
    """Return the layers of a kind; refuse a network in which they would not train."""
    try:
        layers = model.layer_names(kind)
    except ValueError as error:
        raise CrossferError(f"model: {kind} trains no layer: {error}") from None
    if layers and (problem := _untrained(model, kind, images)):
        raise CrossferError(f"model: {config.name}: {problem}")
    return layers


def _trains(model: Classifier) -> bool:
    """Tell whether it has parameters; a network in ONNX Runtime has none."""
    return any(parameter.numel() for parameter in model.network.parameters())


def _what_it_answers(model: Classifier, theirs: Sequence[str], place: str) -> list[str]:
    """Describe a network's outputs and their classes."""
    # Several outputs may have the same name, or none.
    named = dict.fromkeys(filter(None, theirs))
    lines = [f"answers with {', '.join(named)}" + (f" (its {place})" if place else "")]
    for name, outputs in zip(model.classes, model.outputs, strict=True):
        own = list(dict.fromkeys(theirs[output] for output in outputs))
        if own not in ([], [name]):
            lines.append(f"{name} is its {', '.join(own)}")
    used = {theirs[output] for outputs in model.outputs for output in outputs}
    if unused := [name for name in named if name not in used]:
        lines.append(f"never predicted, because in no class of the experiment: {', '.join(unused)}")
    if model.unknown:
        lines.append(f"new classes, where a target has images of them: {', '.join(model.unknown)}")
    return lines


def _check_answers(
    config: NetworkConfig, model: Classifier, images: Tensor, machine: Machine
) -> str:
    """Check a network's outputs in evaluation and training mode; return where the logits are."""
    try:
        trial = copy.deepcopy(model.network).requires_grad_(True)
        with machine.autocast():
            measured, answers = trial.eval()(images), trial.train()(images)
        trains = _trains(model)
        problem = problem_of(measured, model.answers) or problem_of(answers, model.answers)
        if not problem and trains:
            logits, _ = find_logits(answers, model.answers)
            if logits.requires_grad:
                _probe(logits).backward()
            else:
                problem = "returns results that depend on none of its parameters"
    except Exception as error:
        raise failed_on(images, config.name, error) from None
    if problem:
        key = "weights" if config.is_deployed else "network"
        raise CrossferError(f"model.{key}: {config.name} {problem}")
    return find_logits(measured, model.answers)[1]


def _untrained(model: Classifier, kind: str, images: Tensor) -> str | None:
    """Return which trained parameters would not change; None if all do.

    A step is made on a copy, as in training: a network whose ``forward`` was replaced by a function of the
    original would train the original.
    """
    trial = copy.deepcopy(model)
    trial.train_only(kind)
    training_mode(trial)
    logits = trial(images)
    if logits.requires_grad:
        _probe(logits).backward()
    chosen = {name: p for name, p in trial.network.named_parameters() if p.requires_grad}
    without = {name: p for name, p in chosen.items() if p.grad is None}
    if len(without) == len(chosen) or not _moves(trial, chosen, images):
        return (
            f"training {_listed(kind, chosen)} does not change its results: a copy still uses the "
            "original's layers (a replaced forward?), or they are computed without gradients"
            f"{_remedy(kind)}"
        )
    if without and (kind != "all" or _matter(trial, without, images)):
        return (
            f"no gradient reaches {_listed(kind, without)}, so training would change other layers "
            f"only{_remedy(kind)}"
        )
    return None


def _remedy(kind: str) -> str:
    """Return what to do where a network's head is another than its last linear layer."""
    if kind not in ("head", "FC", "FC+CL"):
        return ""
    return "; if another head gives the outputs, name it: model.FC: [classifier], for example"


def _probe(logits: Tensor) -> Tensor:
    """Return a sum whose gradients are not zero where the logits are logarithms of probabilities."""
    return (logits.float() * torch.linspace(1, 2, logits.shape[1], device=logits.device)).sum()


@torch.no_grad()
def _mixes(model: Classifier, images: Tensor) -> bool:
    """Tell whether the output for a face depends on other faces in the batch."""
    both, alone = model(images), model(images[:1])
    return not torch.allclose(both[:1], alone, rtol=MIXED, atol=MIXED * float(both.abs().max()))


@torch.no_grad()
def _moves(trial: Classifier, parameters: dict[str, nn.Parameter], images: Tensor) -> bool:
    """Tell whether a gradient step changes the outputs."""
    before = trial.eval()(images)
    for parameter in parameters.values():
        if parameter.grad is not None:
            step = parameter.grad / parameter.grad.norm().clamp_min(1e-12)
            parameter.sub_(0.1 * (1 + parameter.norm()) * step)
    return not torch.equal(trial(images), before)


@torch.no_grad()
def _matter(trial: Classifier, parameters: dict[str, nn.Parameter], images: Tensor) -> bool:
    """Tell whether the outputs depend on parameters; those of an auxiliary head do not matter."""
    before = trial.eval()(images)
    for parameter in parameters.values():
        parameter.add_(torch.randn_like(parameter) * (1 + parameter.abs()))
    return not torch.equal(trial(images), before)


def _listed(kind: str, parameters: dict[str, nn.Parameter]) -> str:
    return f"{kind} ({some_of(list(parameters), MOST_NAMES, counted=True)})"


def _what_trains(model: Classifier, trained: dict[str, list[str]]) -> list[str]:
    """Describe the layers of each kind and their number of parameters."""
    lines = []
    alike: dict[tuple[str, ...], list[str]] = {}
    for kind, names in trained.items():
        if names:
            alike.setdefault(tuple(names), []).append(kind)
    for layers, kinds in alike.items():
        count = sum(
            p.numel()
            for name in layers
            for p in model.network.get_submodule(name).parameters(recurse=False)
        )
        listed = some_of(layers, MOST_NAMES, counted=True)
        same = ", the same layers," if len(kinds) > 1 else ""
        verb = "train" if len(kinds) > 1 else "trains"
        lines.append(f"{' and '.join(kinds)}{same} {verb} {listed}: {count:,} parameters")
    return lines

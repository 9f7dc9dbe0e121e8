"""Count the floating-point operations of an adaptation, with those of a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from crossfer.memory.file import Memory
from crossfer.memory.merging import FISHER_IMAGES
from crossfer.memory.penalties import (
    EWC,
    DarkExperience,
    Distillation,
    FocalDistillation,
    SourceDistillation,
)
from crossfer.memory.replay import FeatureReplay, views_of
from crossfer.networks import Classifier
from crossfer.networks.flop import training_flop
from crossfer.strategy import Strategy
from crossfer.training import Faces, Recipe, normalise
from crossfer.training.cut import cut_of
from crossfer.unlabelled import Shot


def flop_of(
    strategy: Strategy,
    model: Classifier,
    images_seen: int,
    training: Mapping[str, Faces],
    memory: Memory | None = None,
    recipe: Recipe | None = None,
) -> int:
    """Count the floating-point operations of a strategy's training.

    Frozen layers count in every step, whether or not they were computed once for all epochs.  Evaluation and
    the choice of a mixture do not count.

    Parameters
    ----------
    strategy
        The strategy.
    model
        The trained network; what was trained requires gradients.  The old network is taken to cost as much.
    images_seen
        Number of images in all steps; with feature replay, of images and samples.
    training
        The training sets by side, as they were shown.
    memory
        The memory file of a strategy that uses one.
    recipe
        The recipe of a strategy with feature replay.
    """
    predicted, derived = _passes(strategy, images_seen, training)
    if not (images_seen or predicted or derived):
        return 0
    some = next(iter(training.values())).images[:1]
    shape = tuple(normalise(some, model.preprocessing).shape[1:])
    step = training_flop(model, shape)
    if isinstance(strategy.memory, FeatureReplay):
        assert memory and recipe
        images = round(images_seen / (1 + strategy.memory.draws))
        rest, features = cut_of(model).rest, (memory.gaussians.mean.shape[1],)
        samples = images_seen - images
        asked = strategy.memory.draws * views_of(recipe) * len(training["target"])
        of_samples = samples * training_flop(rest, features) + asked * _forward(rest, features)
        return images * step + of_samples
    forward = _forward(model, shape) if predicted else 0
    whole = training_flop(copy.deepcopy(model).requires_grad_(True), shape) if derived else 0
    return images_seen * step + predicted * forward + derived * whole


def _forward(network: nn.Module, shape: tuple[int, ...]) -> int:
    return training_flop(copy.deepcopy(network).requires_grad_(False), shape)


def _passes(strategy: Strategy, images_seen: int, training: Mapping[str, Faces]) -> tuple[int, int]:
    """Return the number of images predicted beside the steps, and of those whose gradients are taken."""
    old = len(training.get("source", ()))
    predicted = images_seen if isinstance(strategy.unlabelled, Shot) else 0
    derived = 0
    match strategy.penalty:
        case Distillation() | FocalDistillation():
            predicted = images_seen
        case SourceDistillation():
            predicted = round((1 - (strategy.share or 0)) * images_seen)
        case DarkExperience(forward=forward):  # the stored images once; forward, every image shown
            predicted = old + (images_seen if forward else 0)
        case EWC(samples=samples):
            derived = min(samples, old)
    if strategy.merge == "Fisher":
        derived += sum(min(FISHER_IMAGES, len(faces)) for faces in training.values())
    return predicted, derived

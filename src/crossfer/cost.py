"""Count the floating-point operations of an adaptation, with those of a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from crossfer.memory.file import Memory
from crossfer.memory.merging import FISHER_IMAGES
from crossfer.memory.penalties import (
    EWC,
    DarkExperience,
    Distillation,
    FocalDistillation,
    SourceDistillation,
)
from crossfer.memory.replay import FeatureReplay
from crossfer.networks import Classifier
from crossfer.networks.flop import training_flop
from crossfer.strategy import Strategy
from crossfer.training import Faces, normalise
from crossfer.training.cut import cut_of
from crossfer.unlabelled import Shot


def flop_of(
    strategy: Strategy,
    model: Classifier,
    images_seen: int,
    training: Mapping[str, Faces],
    memory: Memory | None = None,
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
    """
    predicted, derived = _passes(strategy, images_seen, training)
    if not (images_seen or predicted or derived):
        return 0
    some = next(iter(training.values())).images[:1]
    shape = tuple(normalise(some, model.preprocessing).shape[1:])
    step = training_flop(model, shape)
    if isinstance(strategy.memory, FeatureReplay):
        assert memory
        images = round(images_seen / (1 + strategy.memory.draws))
        of_sample = training_flop(cut_of(model).rest, (memory.gaussians.mean.shape[1],))
        return images * step + (images_seen - images) * of_sample
    forward = training_flop(copy.deepcopy(model).requires_grad_(False), shape) if predicted else 0
    whole = training_flop(copy.deepcopy(model).requires_grad_(True), shape) if derived else 0
    return images_seen * step + predicted * forward + derived * whole


def _passes(strategy: Strategy, images_seen: int, training: Mapping[str, Faces]) -> tuple[int, int]:
    """Return the number of images predicted beside the steps, and of those whose gradients are taken."""
    old = len(training.get("source", ()))
    match strategy.penalty:
        case Distillation() | FocalDistillation():
            return images_seen, 0
        case SourceDistillation():
            return round((1 - (strategy.share or 0)) * images_seen), 0
        case DarkExperience(forward=forward):  # the stored images once; forward, every image shown
            return old + (images_seen if forward else 0), 0
        case EWC(samples=samples):
            return 0, min(samples, old)
    if strategy.merge == "Fisher":
        return 0, sum(min(FISHER_IMAGES, len(faces)) for faces in training.values())
    return (images_seen if isinstance(strategy.unlabelled, Shot) else 0), 0

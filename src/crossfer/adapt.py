"""One strategy applied: where training starts, which layers train, on which data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from crossfer.models import train_only
from crossfer.strategies import LAYERS, Strategy
from crossfer.training import Faces, Recipe, Trained, train


def adapt(
    strategy: Strategy,
    untrained: nn.Module,
    baseline: nn.Module | None,
    training: Mapping[str, Faces],
    validation: Mapping[str, Faces],
    recipe: Recipe,
    seed: int,
    fabric: Fabric,
    **options: Any,
) -> Trained:
    """Train a network by a strategy.

    Parameters
    ----------
    strategy
        The point in the space.
    untrained
        The network with random weights, for strategies that start there.
    baseline
        The network trained on the source, for strategies that start there; it is left as it was.
    training
        The training sets by side: ``"source"``, ``"target"``, as far as the strategy needs them.
    validation
        The validation sets by side that the epoch is chosen by.
    recipe, seed, fabric, options
        As for `crossfer.training.train`.

    Raises
    ------
    ValueError
        If the strategy starts from the baseline and none is given.
    """
    start = untrained if strategy.start == "random" else baseline
    if start is None:
        raise ValueError(f"{strategy.name} starts from the baseline: give one")
    model = copy.deepcopy(start)
    train_only(model, LAYERS[strategy.layers](model))
    first, *others = [training[side] for side in strategy.data.split("+")]
    shown = sum(others, start=first)
    return train(model, shown, validation, recipe, seed, fabric, **options)


def untrained(build: Any, seed: int) -> nn.Module:
    """Build a network with the random weights of a seed; the global generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = build()
    return model

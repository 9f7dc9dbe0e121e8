"""What a method is given that learns from a memory file and the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfer.machine import Machine
from crossfer.memory.file import Memory
from crossfer.networks import Classifier
from crossfer.training import Faces, Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class Adaptation:
    """The networks, the memory and the faces of one adaptation; no method modifies them.

    Parameters
    ----------
    old
        The memory file's network.
    baseline
        The same with an output for every class of the target.
    start
        The network that training starts from: often the old one.
    model
        The same with an output for every class of the target; the layers to train require gradients.
    memory
        The statistics of the source's features.
    target, validation
        The target's training set; the validation sets by side.
    recipe, seed, machine, options
        As for `crossfer.training.train`.
    """

    old: Classifier
    baseline: Classifier
    start: Classifier
    model: Classifier
    memory: Memory
    target: Faces
    validation: Mapping[str, Faces]
    recipe: Recipe
    seed: int
    machine: Machine
    options: Mapping[str, Any]

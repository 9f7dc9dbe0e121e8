"""Layers and a descent that pass over memory less often, for a CPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from crossfer.training.backends.cpu.descent import SGD
from crossfer.training.backends.plain import Plain
from crossfer.training.recipe import Recipe


class Cpu(Plain):
    """What a CPU is fastest with."""

    def prepare(self, network: nn.Module) -> None:
        """Normalise, rectify and pool in one go; keep weights in bfloat16 where they multiply in it."""
        from crossfer.training.backends.cpu.layers import fuse  # a compiler: half a second

        fuse(network)

    def optimizer(
        self, parameters: Iterable[nn.Parameter], rate: Tensor, recipe: Recipe
    ) -> torch.optim.Optimizer:
        """Descend in one pass over memory."""
        return SGD(parameters, **self.options(rate, recipe))

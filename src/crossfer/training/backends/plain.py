"""PyTorch as it is, on any device: what every backend may do better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import unwrap

import torch
from torch import Tensor, nn

from crossfer.training.recipe import Recipe

Step = Callable[[Tensor], None]
"""Learns from the images of one batch, given their rows: int64 (batch,)."""


class SGD(torch.optim.SGD):
    """PyTorch's descent, without what imports PyTorch's compiler, for two seconds, in case it is compiled."""

    add_param_group = unwrap(torch.optim.SGD.add_param_group)
    zero_grad = unwrap(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class Plain:
    """What training asks of a device."""

    descent: type[SGD] = SGD

    def prepare(self, network: nn.Module) -> None:
        """Put faster layers in the place of others, under the same names; in place."""

    def optimizer(
        self, parameters: Iterable[nn.Parameter], rate: Tensor, recipe: Recipe
    ) -> torch.optim.Optimizer:
        """Return Nesterov's gradient descent.

        Parameters
        ----------
        parameters
            On the device.
        rate
            The learning rate, a scalar there: filled anew before every step.
        recipe
            Its momentum and weight decay.
        """
        return self.descent(
            parameters,
            lr=rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
            fused=rate.device.type in ("cpu", "cuda"),
        )

    def compiled(self, network: nn.Module, images: int) -> Callable[[Tensor], Tensor]:
        """Return what trains like a network, faster, if as many images are shown as make it worth while."""
        return network

    def wrap(
        self, step: Step, network: nn.Module, penalty: object | None, generator: torch.Generator
    ) -> Step:
        """Return a step that does the same faster, if the network and the penalty allow it."""
        return step

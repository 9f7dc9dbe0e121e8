"""A linear layer in its dual form: all that it will ever be given is known beforehand.

While everything before it is frozen, the first fully connected layer is given a few thousand different
inputs at most: every version of every image.  The gradient of its weight is a sum of products ``d xᵀ`` with
these inputs, so gradient descent moves the weight within what they span: ``W = r W₀ + Aᵀ X``.  Here X holds
the inputs, row i of A says how far input i has moved the weight, and r is what weight decay left of the
weight W₀ that training starts from.  To input i the layer answers ``r W₀ xᵢ + Aᵀ (X xᵢ)``, of which both
products with inputs are calculated once.  A step of gradient descent on W, momentum and weight decay
included, is the same step on A and r, where row i of A has d as its gradient: that takes no product at all.

As of the perceptron (Aizerman, Braverman and Rozonoer, Automation and Remote Control 25, 1964).
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from crossfer.networks.layers import is_just_linear

WORTH_IT = 0.5
"""How many inputs there may be, as a share of D: beyond it A is hardly smaller than W."""
MOST = 4096
"""How many there may be at all: their products take 64 MB."""


class Dual(nn.Module):
    """A linear layer as a function of which of its inputs it is given.

    Parameters
    ----------
    layer
        The layer that it stands for, of D inputs; its bias is shared.
    inputs
        float (M, D): everything that it will ever be given.
    """

    def __init__(self, layer: nn.Linear, inputs: Tensor) -> None:
        super().__init__()
        self.inputs, self.start, self.bias = inputs, layer.weight.detach(), layer.bias  # X, W₀
        exact = inputs.float()
        self.products = exact @ exact.T  # X Xᵀ
        self.before = exact @ self.start.T  # X W₀ᵀ
        self.weight = nn.Parameter(exact.new_zeros(len(inputs), layer.out_features))  # A
        self.rest = nn.Parameter(exact.new_ones(()))  # r

    def forward(self, which: Tensor) -> Tensor:
        """Return what the layer would of some of its inputs, int64 (N,): float32 (N, units)."""
        # In single precision: faces are alike, so what each of them has moved nearly cancels.
        with torch.autocast(which.device.type, enabled=False):
            moved: Tensor = _Moved.apply(self.weight, self.products[which], which)
        # The rest has a gradient of zero, so that the optimiser lets it decay as it does all weights.
        answer = moved + self.rest.detach() * self.before[which] + 0 * self.rest
        return answer if self.bias is None else answer + self.bias

    def widened(self, weight: Tensor, rest: Tensor) -> Tensor:
        """Return the layer's weight (units, D) for a weight (M, units) and what is left of the start."""
        return rest * self.start + weight.T @ self.inputs.float()


class _Moved(torch.autograd.Function):
    """``(X xᵢ)ᵀ A`` for some i, with the gradient that W would have in place of the gradient of A."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, products: Tensor, which: Tensor) -> Tensor:
        ctx.save_for_backward(which)
        ctx.shape = weight.shape
        return products @ weight

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore[bad-override]  # of one result
        (which,) = ctx.saved_tensors
        return slope.new_zeros(ctx.shape).index_add_(0, which, slope), None, None


def is_worth_it(layer: nn.Module, inputs: int) -> TypeGuard[nn.Linear]:
    """Tell whether a layer is just linear, trains, and would have much less to learn of so many inputs."""
    return (
        is_just_linear(layer)
        and layer.weight.requires_grad
        and inputs <= min(WORTH_IT * layer.in_features, MOST)
    )

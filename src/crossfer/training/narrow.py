"""A linear layer whose inputs are known beforehand needs no more of them than there are directions.

While everything before it is frozen, the first fully connected layer is given a few thousand different
inputs at most: every version of every image.  They span a small part of its 8,192 dimensions.  In an
orthonormal basis Q of that part (D, r), with ``x = Q c``, the layer ``W x`` is ``(W Q) c``, and a step of
gradient descent on W is the same step on ``W Q``: the gradient of W is a sum of ``d xᵀ = (d cᵀ) Qᵀ``.  What
W does outside of that part only decays, by a factor that is one number.  So the small layer trains in place
of the large one, to the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORTH_IT = 0.25
"""Largest share of the layer's inputs that may be left: finding the basis costs r² D."""


class Narrow(nn.Module):
    """A linear layer in the coordinates of what it is given.

    Parameters
    ----------
    layer
        The layer that it stands for, of D inputs; its bias is shared.
    basis
        float32 (D, r), its columns orthonormal.
    """

    def __init__(self, layer: nn.Linear, basis: Tensor) -> None:
        super().__init__()
        weight = layer.weight.detach()
        inside = weight @ basis
        self.basis, self.outside = basis, weight - inside @ basis.T
        self.weight = nn.Parameter(inside)
        self.bias = layer.bias
        self.rest = nn.Parameter(torch.ones((), device=weight.device))

    def forward(self, coordinates: Tensor) -> Tensor:
        """Return what the layer would of the inputs with these coordinates, float (N, r)."""
        # The rest has a gradient of zero, so that the optimiser lets it decay as it does all weights.
        return F.linear(coordinates, self.weight, self.bias) + 0 * self.rest

    def widened(self, weight: Tensor, rest: Tensor) -> Tensor:
        """Return the layer's weight (units, D) for a weight (units, r) and what is left of the rest."""
        return rest * self.outside + weight @ self.basis.T


def is_worth_it(layer: nn.Module, inputs: int) -> bool:
    """Tell whether a layer is linear, trains, and would become much smaller for so many inputs."""
    return (
        type(layer) is nn.Linear
        and layer.weight.requires_grad
        and inputs <= WORTH_IT * layer.in_features
    )


def narrowed(layer: nn.Linear, inputs: Tensor) -> tuple[Narrow, Tensor]:
    """Return a layer in an orthonormal basis of its inputs, and the inputs' coordinates.

    Parameters
    ----------
    inputs
        float (M, D): everything that the layer will ever be given, M at most D.

    Returns
    -------
    Narrow
        Of M inputs.
    Tensor
        float32 (M, M): a row of coordinates for every input.
    """
    basis, coordinates = torch.linalg.qr(inputs.T.float())
    return Narrow(layer, basis.contiguous()), coordinates.T.contiguous()

"""Low-rank adapters (LoRA) for large linear layers; after training they are merged into the weights.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crossfer.errors import CrossferError
from crossfer.networks.classifier import Classifier


class LowRank(nn.Module):
    """A weight W as ``W + B A``: A (rank, in) is initially random, B (out, rank) zero, so W is unchanged.

    The paper's factor α / r is 1.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        # PyTorch's initialisation of linear layers, which the authors use for A.
        bound = inputs**-0.5
        drawn = torch.rand(rank, inputs, generator=generator)
        self.A = nn.Parameter(((2 * drawn - 1) * bound).to(weight))
        self.B = nn.Parameter(torch.zeros(outputs, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight."""
        return weight + self.B @ self.A


def adapt_linear(classifier: Classifier, rank: int, seed: int) -> None:
    """Add adapters to linear layers, in place; they train instead of the weights.

    Adapters are added to the trained linear layers, and to the projections of attention, whose weight is
    larger than its adapter.  The head trains as it is.  Biases and all other layers are frozen.  (The paper
    adapts only two of attention's four projections.)

    Raises
    ------
    CrossferError
        If there is no such layer.
    """
    network, generator = classifier.network, torch.Generator().manual_seed(seed)
    trained = [
        name
        for name, module in network.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    ]
    large = large_matrices(classifier, rank, trained)
    (head,) = classifier.layer_names("head")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
    for module, name in large:
        adapter = LowRank(module.get_parameter(name).detach(), rank, generator)
        parametrize.register_parametrization(module, name, adapter)


def large_matrices(
    classifier: Classifier, rank: int, layers: Collection[str]
) -> list[tuple[nn.Module, str]]:
    """Return the weights among some layers, but the head's, that are larger than an adapter.

    Returns
    -------
    list of tuple
        Each a layer and the name of its weight.

    Raises
    ------
    CrossferError
        If there is none, or the network has no head.
    """
    try:
        (head,) = classifier.layer_names("head")
    except ValueError as error:
        raise CrossferError(f"model: {error}") from None
    large = [
        (module, parameter)
        for name, module in classifier.network.named_modules()
        for parameter in _matrices(module)
        if name in layers and name != head and _is_large(module.get_parameter(parameter), rank)
    ]
    if not large:
        raise CrossferError(
            f"model: no trained linear layer is larger than an adapter of rank {rank}; choose a smaller rank"
        )
    return large


def fold(classifier: Classifier) -> None:
    """Merge adapters into the weights, in place."""
    for module in list(classifier.network.modules()):
        for name in _adapted(module):
            parametrize.remove_parametrizations(module, name)
            module.get_parameter(name).requires_grad_(True)  # it was trained


def _adapted(module: nn.Module) -> list[str]:
    """Return the names of a layer's weights that have an adapter."""
    if not parametrize.is_parametrized(module):
        return []
    parts: Any = module.parametrizations
    return [name for name, own in parts.items() if isinstance(own[0], LowRank)]


def _matrices(module: nn.Module) -> list[str]:
    """Return the names of the weights of a linear layer, or of attention as `torch.nn` has it.

    None of a layer whose weight is made of other parameters, as by weight normalisation: PyTorch would add
    the adapter to its class, which copies of the network share.
    """
    if parametrize.is_parametrized(module):
        return []
    if isinstance(module, nn.MultiheadAttention):  # its output projection is a linear layer in it
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [name for name in names if getattr(module, name) is not None]
    plain = isinstance(module, nn.Linear) and "weight" in module._parameters
    return ["weight"] if plain else []


def _is_large(weight: Tensor, rank: int) -> bool:
    return rank * sum(weight.shape) < weight.numel()

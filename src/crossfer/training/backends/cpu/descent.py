"""Gradient descent that reads and writes every weight once, on a CPU.

In mixed precision a step rounds every weight to bfloat16 to multiply with it, and brings the gradient back to
single precision to descend by it.  For the 19 million weights of the fully connected layers these two passes
over memory take longer than the products.  Here a layer keeps the rounded copy that it multiplies with, and
the optimiser reads the gradient of that copy as it is and renews the copy in passing: the same step, but for
the rounding of single precision.  (Weights in single precision beside rounded ones: Micikevicius et al.,
Mixed Precision Training, ICLR 2018, section 3.1.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from crossfer.training.backends import plain


class Linear(nn.Linear):
    """A linear layer that keeps a copy of its weight in bfloat16 from batch to batch.

    Parameters
    ----------
    layer
        The layer that it stands for, in single precision; parameters are shared.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self._parameters, self.training = layer._parameters, layer.training

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (N, inputs) with the copy, in mixed precision; otherwise as usual."""
        mixed = (
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        )
        if not mixed:
            return super().forward(x)
        kept, learns = vars(self.weight), self.weight.requires_grad
        # A new one where anybody but our descent has changed the weight; PyTorch counts the changes.
        if kept.get("half_of") != (self.weight._version, learns):
            kept["half"] = self.weight.detach().bfloat16().requires_grad_(learns)
            kept["half_of"] = self.weight._version, learns
        return F.linear(x, kept["half"], self.bias)


def half_of(weight: Tensor) -> Tensor | None:
    """Return the copy that a layer keeps of its weight, bfloat16 and with a gradient of its own, if any."""
    return vars(weight).get("half")


class SGD(plain.SGD):
    """PyTorch's descent with Nesterov's momentum, in one pass wherever a weight has such a copy."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take a step by the gradients of the copies, and of all other parameters."""
        for group in self.param_groups:
            for weight in group["params"]:
                half = half_of(weight)
                if half is None:
                    continue
                if half.grad is not None and weight.grad is None and group["momentum"]:
                    self._descend(weight, half, half.grad, group)
                else:  # a penalty may have a say, too
                    if half.grad is not None:
                        whole = half.grad.float()
                        weight.grad = whole if weight.grad is None else weight.grad + whole
                    vars(weight)["half_of"] = None  # a fused step does not count as a change
                half.grad = None
        super().step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for weight in group["params"]:
                if (half := half_of(weight)) is not None:
                    half.grad = None

    def _descend(
        self, weight: Tensor, half: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> None:
        """Take the step of a weight and its copy."""
        from crossfer.training.backends.cpu.kernels import descend  # a compiler

        assert group["nesterov"] and not (group["dampening"] or group["maximize"])
        state = self.state[weight]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(weight)
        descend(
            weight.detach().numpy(),
            state["momentum_buffer"].numpy(),
            _bits(half),
            _bits(gradient),
            *(np.float32(group[key]) for key in ("lr", "momentum", "weight_decay")),
        )


def _bits(numbers: Tensor) -> NDArray[Any]:
    return numbers.detach().view(torch.uint16).numpy()

"""Gradient descent that reads and writes every weight once, on a CPU.

In mixed precision a step rounds every weight to bfloat16 to multiply with it, and brings the gradient back to
single precision to descend by it.  For the 19 million weights of the fully connected layers these two passes
over memory take longer than the products.  Here a layer keeps the rounded copy that it multiplies with, and
the optimiser reads the gradient of that copy as it is and renews the copy in passing: the same step, but for
the rounding of single precision.  (Weights in single precision beside rounded ones: Micikevicius et al.,
Mixed Precision Training, ICLR 2018, section 3.1.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

HALF = "half"
"""The attribute of a weight that is its copy, bfloat16, while it trains."""


class Linear(nn.Linear):
    """A linear layer that keeps a copy of its weight in bfloat16 from step to step.

    Parameters
    ----------
    layer
        The layer that it stands for; parameters are shared.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self._parameters, self.training = layer._parameters, layer.training

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (N, inputs) with the copy, in training and in mixed precision; otherwise as usual."""
        attributes = vars(self.weight)
        if not (self.training and self.weight.requires_grad and _is_mixed()):
            attributes.pop(HALF, None)  # who evaluates may have changed the weight
            return super().forward(x)
        if HALF not in attributes:
            attributes[HALF] = self.weight.detach().bfloat16().requires_grad_()
        return F.linear(x, attributes[HALF], self.bias)


class SGD(torch.optim.SGD):
    """PyTorch's descent with Nesterov's momentum, in one pass wherever a weight has such a copy."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step by the gradients of the copies, and of all other parameters."""
        for group in self.param_groups:
            for weight in group["params"]:
                half = vars(weight).get(HALF)
                if half is None or half.grad is None:
                    continue
                if weight.grad is None:
                    self._descend(weight, half, group)
                else:  # a penalty has a say, too
                    weight.grad += half.grad
                    del vars(weight)[HALF]
        return super().step(closure)  # type: ignore[no-any-return]

    def _descend(self, weight: Tensor, half: Tensor, group: dict[str, Any]) -> None:
        """Take the step of a weight and its copy, and forget the gradient."""
        from crossfer.training.cpu.kernels import descend, on_our_threads  # a compiler

        assert half.grad is not None and (group["nesterov"] or not group["momentum"])
        state = self.state[weight]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(weight)
        on_our_threads()
        descend(
            weight.detach().numpy(),
            state["momentum_buffer"].numpy(),
            _bits(half.detach()),
            _bits(half.grad),
            *(np.float32(group[key]) for key in ("lr", "momentum", "weight_decay")),
        )
        half.grad = None


def _is_mixed() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _bits(numbers: Tensor) -> NDArray[Any]:
    return numbers.view(torch.uint16).numpy()

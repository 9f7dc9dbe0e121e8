"""Count the floating-point operations of a training step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def training_flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of a training step for one image.

    Forward through every layer, backward to the first trained layer: matrix products and convolutions, as
    counted by `torch.utils.flop_counter` (a multiply-add is two), while a copy takes such a step.

    Parameters
    ----------
    model
        Its trained parameters require gradients; if none does, one forward pass is counted.
    shape
        Channels, height and width of an image.
    """
    network = copy.deepcopy(model).cpu().eval()
    with _Counter() as counter, _plain_attention(), sdpa_kernel(SDPBackend.MATH):
        logits = network(torch.zeros(1, *shape))
        if logits.requires_grad:
            logits.sum().backward()
    return counter.flop


class _Counter(TorchDispatchMode):
    """Counts as PyTorch's ``FlopCounterMode`` does, which imports its compiler, for two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count an operation, or those that it is made of."""
        kwargs = kwargs or {}
        if func is not torch.ops.prim.device.default:
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = func(*args, **kwargs)
        if count := flop_registry.get(func._overloadpacket):
            self.flop += int(count(*args, **kwargs, out_val=made))
        return made


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable the fused kernels of transformer layers, which are not counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

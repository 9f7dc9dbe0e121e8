"""Count the floating-point operations of a training step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def training_flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of a training step for one image.

    Forward through every layer, backward to the first trained layer: matrix products and convolutions, as
    counted by `torch.utils.flop_counter` (a multiply-add is two).  It runs on the meta device if the network
    can.

    Parameters
    ----------
    model
        Its trained parameters require gradients; if none does, one forward pass is counted.
    shape
        Channels, height and width of an image.
    """
    try:
        return _flop(copy.deepcopy(model).to("meta"), shape)
    except RuntimeError:  # its forward pass needs values, or creates tensors
        return _flop(copy.deepcopy(model).cpu(), shape)


def _flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, _plain_attention():
        logits = model.eval()(torch.zeros(1, *shape, device=device))
        if logits.requires_grad:
            logits.sum().backward()
    return int(counter.get_total_flops())


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable the fused kernels of transformer layers, which are not counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

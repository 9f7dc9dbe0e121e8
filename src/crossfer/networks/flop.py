"""Count the floating-point operations of a training step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def training_flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of one image's training step, as much as trains.

    Forward through every layer, backward from the loss to the first layer that trains: matrix products and
    convolutions, as `torch.utils.flop_counter` counts them (a multiply-add is two).  Nothing is calculated
    where the network does without.

    Parameters
    ----------
    model
        With the parameters that train requiring gradients; if none does, one pass forward is counted.
    shape
        Of an image: channels, height, width.
    """
    try:
        return _flop(copy.deepcopy(model).to("meta"), shape)
    except RuntimeError:  # its forward pass needs numbers, or makes tensors of its own
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
    """Calculate transformer layers step by step: their fused kernels are counted by nobody."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

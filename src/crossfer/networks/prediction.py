"""Predict probabilities in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from crossfer.networks.preprocessing import Preprocessing, normalise

MOST_AT_ONCE = 512
ACTIVATIONS = 2**30
"""Maximum bytes of the two largest activations of a batch."""
UNMEASURED_BATCH = 32
"""Batch size that is used without measuring activations."""


Autocast = Callable[[], AbstractContextManager[Any]]
"""Returns the context of a forward pass, for mixed precision."""


def probabilities_of(
    network: nn.Module,
    images: Tensor,
    how: Preprocessing,
    batch_size: int | None = None,
    autocast: Autocast = nullcontext,
) -> Tensor:
    """Return the probability of every class for every image.

    Parameters
    ----------
    network
        Returns logits (N, classes); it is put into evaluation mode.
    images, how, batch_size, autocast
        As for `outputs_of`.

    Returns
    -------
    Tensor
        float32 (N, classes) on the CPU, rows summing to 1.
    """
    batches = outputs_of(network.eval(), images, how, batch_size, autocast)
    return torch.cat([logits.float().softmax(1) for logits in batches]).cpu()


def outputs_of(
    network: nn.Module,
    images: Tensor,
    how: Preprocessing,
    batch_size: int | None = None,
    autocast: Autocast = nullcontext,
) -> Iterator[Tensor]:
    """Yield a network's outputs for batch after batch of images, (N, …) each, without gradients.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        uint8 (N, H, W) or (N, H, W, 3); or float (N, …), the network's input.
    how
        Preprocessing of uint8 images.
    batch_size, autocast
        As for `outputs_in_batches`.
    """
    like = next(network.parameters(), torch.empty(0, device=images.device))

    def given(start: int, stop: int) -> Tensor:
        part = images[start:stop].to(like.device)
        return normalise(part, how).to(like.dtype) if images.dtype == torch.uint8 else part

    return outputs_in_batches(network, given, len(images), batch_size, autocast)


def outputs_in_batches(
    network: nn.Module,
    given: Callable[[int, int], Tensor],
    count: int,
    batch_size: int | None = None,
    autocast: Autocast = nullcontext,
) -> Iterator[Tensor]:
    """Yield a network's outputs for batch after batch, (N, …) each, without gradients.

    Parameters
    ----------
    network
        In evaluation mode.
    given
        Returns the network's input, float (N, …), for the images from one number up to another.
    count
        Number of images.
    batch_size
        Images per batch, which changes only rounding; by default as many as memory allows, at most 512.
    autocast
        Context of the forward pass.
    """
    at_once = batch_size or UNMEASURED_BATCH
    if not batch_size and count > UNMEASURED_BATCH:
        few = given(0, 2)
        with autocast():
            at_once = images_at_once(network, few)
    for start in range(0, count, at_once):
        part = given(start, min(start + at_once, count))  # in single precision
        with torch.no_grad(), autocast():
            outputs = network(part)
        yield outputs


@torch.no_grad()
def images_at_once(network: nn.Module, few: Tensor) -> int:
    """Return the batch size that fits into memory, from the network's activations on a few images.

    Parameters
    ----------
    network
        In evaluation mode.
    few
        Its input for one or more images, float (N, …), on its device.
    """
    largest = few.nbytes

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    handles = [module.register_forward_hook(look) for module in network.modules()]
    try:
        network(few)
    finally:
        for handle in handles:
            handle.remove()
    return max(1, min(MOST_AT_ONCE, ACTIVATIONS * len(few) // (2 * largest)))

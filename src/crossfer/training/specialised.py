"""A network as a device is fastest with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossfer.models import channels_last, conventions_of
from crossfer.training.batches import normalise


def specialised(model: nn.Module, images: Tensor, device: torch.device) -> nn.Module:
    """Copy a network for a device: in the layout, and with the layers, that are fastest there.

    Parameters
    ----------
    model
        Any classifier of normalised images; left as it is.
    images
        At least one as it reads them, to try the copy on: uint8 (N, H, W) or (N, H, W, 3), or normalised,
        float (N, C, H, W).

    Returns
    -------
    torch.nn.Module
        On the device, in evaluation mode.  Its parameters and buffers have the same names; it differs by
        rounding, and in training draws other chances of dropout.
    """
    one = images[:1]
    if one.dtype == torch.uint8:
        one = normalise(one, conventions_of(model))
    network = channels_last(model, one).eval()
    if device.type == "cpu":
        from crossfer.training.cpu.layers import fuse  # a compiler, which a GPU has no use for

        fuse(network)
    return network.to(device)

"""Copy a network in the form that is fastest on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from crossfer.networks.classifier import Classifier
from crossfer.networks.layers import channels_last
from crossfer.networks.preprocessing import normalise
from crossfer.training.backends import Plain, backend_of


def specialised(
    model: Classifier, images: Tensor, device: torch.device, backend: Plain | None = None
) -> Classifier:
    """Copy a classifier for a device: in the layout, and with the layers, that are fastest there.

    Parameters
    ----------
    model
        Left as it is.
    images
        At least one as it reads them, to try the copy on: uint8 (N, H, W) or (N, H, W, 3), or normalised,
        float (N, C, H, W).
    device
        Where the copy calculates.
    backend
        Whose layers it has; by default the device's own.

    Returns
    -------
    Classifier
        On the device, in evaluation mode.  Its parameters and buffers have the same names; it differs by
        rounding, and in training draws other chances of dropout.
    """
    one = images[:1]
    if one.dtype == torch.uint8:
        one = normalise(one, model.preprocessing)
    network = channels_last(model, one).eval()
    (backend or backend_of(device)).prepare(network.network)
    return network.to(device)

"""What a device is fastest with.  Each backend could be deleted: `Plain` does the same, more slowly."""

from __future__ import annotations

import torch

from crossfer.training.backends.cpu import Cpu
from crossfer.training.backends.cuda import Cuda
from crossfer.training.backends.plain import Plain, Step

BACKENDS: dict[str, Plain] = {"cpu": Cpu(), "cuda": Cuda()}
"""By type of device."""


def backend_of(device: torch.device) -> Plain:
    """Return the backend of a device; PyTorch's own layers where there is none."""
    return BACKENDS.get(device.type, Plain())


__all__ = ["BACKENDS", "Plain", "Step", "backend_of"]

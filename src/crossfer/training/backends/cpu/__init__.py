"""Layers and a descent that pass over memory less often, for a CPU."""

from __future__ import annotations

from torch import nn

from crossfer.training.backends.cpu.descent import SGD
from crossfer.training.backends.plain import Plain


class Cpu(Plain):
    """What a CPU is fastest with."""

    descent = SGD  # in one pass over memory

    def prepare(self, network: nn.Module) -> None:
        """Normalise, rectify and pool in one go; keep weights in bfloat16 where they multiply in it."""
        from crossfer.training.backends.cpu.layers import fuse  # a compiler: half a second

        fuse(network)

"""Frozen layers calculate once: what they make of a few augmented versions of every image is kept.

Augmentation and reuse are at odds: a picture that is changed anew every time has to pass through the frozen
layers every time.  `Recipe.views` settles it: so many versions of each image are drawn once and shown in
turn, epoch after epoch, and what the frozen layers make of each version is calculated when it is first
shown.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crossfer.files import reserve
from crossfer.models import Conventions, conventions_of, follow
from crossfer.training.batches import augment, normalise
from crossfer.training.recipe import Augmentation

AT_ONCE = 512
LARGEST_IN_MEMORY = 2 * 2**30
"""Bytes; beyond it the outputs lie in a file, which the system keeps in memory as far as there is room."""


def split_frozen(network: nn.Module) -> tuple[nn.Sequential, nn.Module]:
    """Cut a network before its first layer that trains.

    Returns
    -------
    frozen : torch.nn.Sequential
        Empty where the first layer trains, and for networks that are more than a sequence of layers.
    rest : torch.nn.Module
        ``rest(frozen(x))`` is ``network(x)``; both share the network's layers.
    """
    if isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward:
        for index, child in enumerate(network):
            if any(parameter.requires_grad for parameter in child.parameters()):
                if not index:
                    break
                parts = list(network.named_children())
                first, rest = OrderedDict(parts[:index]), OrderedDict(parts[index:])
                return nn.Sequential(first), follow(nn.Sequential(rest), conventions_of(network))
    return nn.Sequential(), network


class Views:
    """A few versions of all training images, as the layers that train are given them.

    Parameters
    ----------
    images
        uint8 (N, H, W) or (N, H, W, 3), on the device.
    count
        How many versions.
    augmentation
        What makes one version differ from another.
    seed
        Determines them all.
    frozen
        The layers that they pass through; may be empty.
    fabric
        Where to calculate.
    conventions
        How the network reads pixels.
    """

    def __init__(
        self,
        images: Tensor,
        count: int,
        augmentation: Augmentation,
        seed: int,
        frozen: nn.Sequential,
        fabric: Fabric,
        conventions: Conventions | None = None,
    ) -> None:
        self.images, self.count, self.augmentation = images, count, augmentation
        self.seed, self.frozen, self.fabric = seed, frozen, fabric
        self.conventions, self.channels_last = conventions, False
        self.kept: dict[int, Tensor] = {}
        self.bytes_in_memory = 0

    def show(self, epoch: int) -> Tensor:
        """Return the version of all images that an epoch shows: (N, …), channels last."""
        number = epoch % self.count
        if number not in self.kept:
            if not len(self.frozen):
                self.kept.clear()  # nothing was calculated that would be worth keeping
            self.kept[number] = self._made(number)
        return self.kept[number]

    def take(self, shown: Tensor, rows: Tensor) -> Tensor:
        """Return a batch of a version, laid out as the frozen layers gave it."""
        batch = shown[rows.to(shown.device)].to(rows.device)
        if batch.ndim == 4:
            batch = batch.movedim(-1, 1)
        return batch if self.channels_last else batch.contiguous()

    @torch.no_grad()
    def _made(self, number: int) -> Tensor:
        generator = torch.Generator(self.images.device)
        generator.manual_seed(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        kept = torch.empty(0)
        for start in range(0, len(self.images), AT_ONCE):
            part = normalise(self.images[start : start + AT_ONCE], self.conventions)
            with self.fabric.autocast():
                made = self.frozen(augment(part, self.augmentation, generator))
            if made.ndim == 4:
                self.channels_last = made.is_contiguous(memory_format=torch.channels_last)
                made = made.movedim(1, -1)
            if not start:
                kept = self._room((len(self.images), *made.shape[1:]), made.dtype)
            kept[start : start + AT_ONCE] = made
        return kept

    def _room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an empty tensor, in memory while there is room, then in a file."""
        size = int(np.prod(shape)) * dtype.itemsize
        if self.bytes_in_memory + size <= LARGEST_IN_MEMORY or not len(self.frozen):
            self.bytes_in_memory += size
            return torch.empty(shape, dtype=dtype, device=self.images.device)
        with tempfile.NamedTemporaryFile(prefix="crossfer-") as file:
            reserve(Path(file.name), size)
            count = int(np.prod(shape))
            # It loses its name here and lives on until nobody uses it: killed, a process leaves nothing.
            return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)

"""What the part of a network that trains is given; frozen layers calculate once.

Augmentation and reuse are at odds: a picture that is changed anew every time has to pass through the frozen
layers every time.  `Recipe.views` settles it: so many versions of each image are drawn once and shown in
turn, epoch after epoch, and what the frozen layers make of each version is calculated when it is first
shown.  Validation images never change, so theirs is always calculated once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from crossfer.files import reserve
from crossfer.machine import Machine
from crossfer.networks.prediction import outputs_in_batches
from crossfer.networks.preprocessing import Preprocessing, normalise
from crossfer.training.batches import augment, chances
from crossfer.training.devices import Devices
from crossfer.training.recipe import Recipe

LARGEST_IN_MEMORY = 2 * 2**30
"""Bytes; beyond it the outputs lie in a file, which the system keeps in memory as far as there is room."""


class Anew:
    """Every batch is changed by chance, and passes through the frozen layers, when it is shown.

    Parameters
    ----------
    images
        uint8 (N, H, W) or (N, H, W, 3), on the device; or features, float (N, D), which nothing changes.
    frozen
        The layers before the first that trains; may be none.
    recipe
        Its `augmentation`, and its `views`: where there are some, an epoch shows one version of every image.
    seed
        Determines the versions.
    generator
        What else is random draws from it.
    machine
        Where to calculate.
    how
        How the network reads pixels.
    devices
        Of which this one is given its share of every batch; by default there is one.
    """

    def __init__(
        self,
        images: Tensor,
        frozen: nn.Module,
        recipe: Recipe,
        seed: int,
        generator: torch.Generator,
        machine: Machine,
        how: Preprocessing,
        devices: Devices | None = None,
    ) -> None:
        self.images, self.frozen, self.recipe, self.seed = images, frozen, recipe, seed
        self.generator, self.machine, self.how = generator, machine, how
        self.devices = devices or Devices(machine)
        self.versions = min(recipe.views, recipe.epochs)
        self.chances = torch.empty(0)

    def begin(self, epoch: int) -> None:
        """Go on to the version of an epoch, from 0."""
        if self.versions:
            version = np.random.SeedSequence([self.seed, epoch % self.versions])
            generator = torch.Generator(self.generator.device)
            drawn = chances(
                len(self.images), generator.manual_seed(int(version.generate_state(1)[0]))
            )
            # In place: a recorded step reads where it read before.
            self.chances = self.chances.copy_(drawn) if len(self.chances) else drawn

    def size(self) -> int:
        """Return how many bytes the outputs for one image take."""
        self.begin(0)
        first = torch.zeros(1, dtype=torch.int64, device=self.generator.device)
        return self._made(first, self._chance(first)).nbytes

    def __call__(self, rows: Tensor) -> Tensor:
        """Return what the layers that train are given of this device's share of a batch: (rows, …)."""
        chance, share = self._chance(rows), self.devices.share
        return self._made(share(rows), None if chance is None else share(chance))

    def shown(self, rows: Tensor) -> Tensor:
        """Return what the frozen layers are given of some images in this version: (rows, …)."""
        return self._shown(rows, self._chance(rows))

    def _chance(self, rows: Tensor) -> Tensor | None:
        """Return how some images are augmented; features of a memory are shown as they are."""
        if self.images.dtype != torch.uint8:
            return None
        return self.chances[rows] if self.versions else chances(len(rows), self.generator)

    def _made(self, rows: Tensor, chance: Tensor | None) -> Tensor:
        images = self._shown(rows, chance)
        with self.machine.autocast():
            return self.frozen(images)

    def _shown(self, rows: Tensor, chance: Tensor | None) -> Tensor:
        images = self.images[rows]
        if chance is None:
            return images
        return augment(normalise(images, self.how), self.recipe.augmentation, chance)


class Kept:
    """What frozen layers make of every version of every image, calculated when an epoch first shows it."""

    def __init__(self, anew: Anew) -> None:
        self.anew, self.count = anew, len(anew.images)
        self.known: set[int] = set()
        self.first = torch.zeros((), dtype=torch.int64, device=anew.generator.device)
        self.outputs = torch.empty(0)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Go on to the version of an epoch, from 0; calculate it if it is new."""
        version = epoch % self.anew.versions
        first = version * self.count
        if version not in self.known:
            self.anew.begin(version)
            rows = torch.arange(self.count, device=self.first.device)
            batches = outputs_in_batches(
                self.anew.frozen,
                lambda start, stop: self.anew.shown(rows[start:stop]),
                self.count,
                autocast=self.anew.machine.autocast,
            )
            total = self.anew.versions * self.count
            self.outputs = joined(batches, total, first, self.outputs if self.known else None)
            self.known.add(version)
        self.first.fill_(first)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return what the layers that train are given of this device's share of a batch: (rows, …)."""
        rows = self.anew.devices.share(rows)
        return self.outputs[(self.first + rows).to(self.outputs.device)].to(rows.device)


def joined(
    batches: Iterable[Tensor], count: int, start: int = 0, room: Tensor | None = None
) -> Tensor:
    """Return a tensor of `count` rows with batches written into it one after the other, from row `start` on.

    It is laid out as they are; with `room` they are written into that.
    """
    for made in batches:
        if room is None:
            room = _room(count, made)
        room[start : start + len(made)] = made
        start += len(made)
    return torch.empty(0) if room is None else room


def _room(count: int, like: Tensor) -> Tensor:
    """Return empty (count, …), laid out like some outputs: in memory while there is room, else in a file."""
    rows = like.movedim(1, -1) if _channels_last(like) else like
    shape = (count, *rows.shape[1:])
    size = count * rows[0].numel() * rows.dtype.itemsize
    if size <= LARGEST_IN_MEMORY:
        room = torch.empty(shape, dtype=rows.dtype, device=rows.device)
    else:
        with tempfile.NamedTemporaryFile(prefix="crossfer-") as file:
            reserve(Path(file.name), size)
            # It loses its name here and lives on until nobody uses it: killed, a process leaves nothing.
            numbers = count * rows[0].numel()
            room = torch.from_file(file.name, shared=True, size=numbers, dtype=rows.dtype).view(
                shape
            )
    return room.movedim(-1, 1) if _channels_last(like) else room


def _channels_last(images: Tensor) -> bool:
    return images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)

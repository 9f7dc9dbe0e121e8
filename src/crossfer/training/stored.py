"""Images that stay where they are, however many: read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IN_MEMORY = 2**30
"""Bytes: what is larger stays in its file."""


class Stored:
    """Rows of arrays that are mapped into memory, as one set of images.

    It looks like a uint8 tensor (N, H, W) or (N, H, W, 3) on the CPU as far as training asks: it has a length
    and a shape, and indexing it gives a tensor.  Nothing is held but the row numbers; the operating system
    keeps what was read lately, and forgets it when somebody needs the room.

    Parameters
    ----------
    arrays
        uint8 (M, H, W) or (M, H, W, 3) each.
    rows
        For each array the rows that belong to the set: int64.
    """

    device, dtype = torch.device("cpu"), torch.uint8

    def __init__(
        self, arrays: Sequence[NDArray[np.uint8]], rows: Sequence[NDArray[np.int64]]
    ) -> None:
        self.arrays, self._of_arrays = list(arrays), list(rows)
        self.rows = np.concatenate(self._of_arrays)
        self._positions = np.arange(len(self.rows))
        self.starts = np.cumsum([0, *map(len, self._of_arrays)])
        self.shape = torch.Size((len(self.rows), *arrays[0].shape[1:]))
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Read some of the images: by a slice, a mask, or positions of any shape."""
        which = self._positions[chosen if isinstance(chosen, slice) else chosen.cpu().numpy()]
        images = np.empty((*which.shape, *self.shape[1:]), np.uint8)
        for number, array in enumerate(self.arrays):
            mine = (which >= self.starts[number]) & (which < self.starts[number + 1])
            images[mine] = array[self.rows[which[mine]]]
        return torch.from_numpy(images)

    def taken(self, chosen: slice) -> Stored:
        """Return some of the images, which stay where they are."""
        which = self._positions[chosen]
        edges = zip(self.starts[:-1], self.starts[1:], strict=True)
        return Stored(self.arrays, [self.rows[which[(which >= a) & (which < b)]] for a, b in edges])

    def __add__(self, other: Stored) -> Stored:
        """Return the union of two sets: first these, then the others."""
        return Stored([*self.arrays, *other.arrays], [*self._of_arrays, *other._of_arrays])

    def to(self, device: torch.device) -> Tensor:
        """Return the same images on a device; on a GPU they lie whole."""
        return as_tensor(self) if device == self.device else self[:].to(device)


def read(array: NDArray[np.uint8], rows: NDArray[np.int64]) -> Tensor:
    """Take rows of an array: into memory, or where they are if they are many."""
    size = len(rows) * int(np.prod(array.shape[1:]))
    if size > IN_MEMORY:
        return as_tensor(Stored([array], [rows]))
    return torch.from_numpy(np.array(array[rows]))


def united(first: Tensor | Stored, second: Tensor | Stored) -> Tensor:
    """Return the union of two sets of images: first these, then the others."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    return as_tensor(_stored(first) + _stored(second))


def every(images: Tensor | Stored, first: int, step: int) -> Tensor:
    """Return every so many of some images, from the first on; those in a file stay there."""
    chosen = slice(first, None, step)
    return as_tensor(images.taken(chosen)) if isinstance(images, Stored) else images[chosen]


def as_tensor(images: Stored) -> Tensor:
    """Call them what they stand in for; nothing asks more of them."""
    return cast(Tensor, images)


def _stored(images: Tensor | Stored) -> Stored:
    if isinstance(images, Stored):
        return images
    return Stored([images.cpu().numpy()], [np.arange(len(images))])

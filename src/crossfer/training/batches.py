"""Whole batches where the data lives: indexing, augmentation and normalisation, all at once.

Images stay uint8 on the training device; nothing here touches one image at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crossfer.training.recipe import Augmentation
from crossfer.training.stored import read, united


@dataclass(frozen=True)
class Faces:
    """Labelled faces in memory.

    Parameters
    ----------
    images
        uint8 (N, H, W) gray or (N, H, W, 3) RGB; may be memory-mapped.
    labels
        int64 (N,), indices of classes; −1 where there is none.
    known
        bool (N, classes): class mask: the classes that each image's dataset has, to which training and
        measuring are limited. ``None``: all.
    subjects
        int64 (N,): the subject of each image. ``None``: every image another subject.

    Raises
    ------
    ValueError
        If they have other lengths, or the labels are no whole numbers.
    """

    images: Tensor
    labels: Tensor
    known: Tensor | None = None
    subjects: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise ValueError(
                f"labels: {self.labels.dtype} {tuple(self.labels.shape)}; they must be int64 (N,)"
            )
        for name in ("images", "known", "subjects"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.labels):
                raise ValueError(f"{name}: {len(values)}, but there are {len(self.labels)} labels")

    @classmethod
    def from_numpy(
        cls,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer],
        classes: Sequence[int] | None = None,
        rows: NDArray[np.int64] | None = None,
        of: int | None = None,
    ) -> Faces:
        """Take a dataset's images and their labels, integer (N,), all or some rows.

        They are copied, unless they are so many (over 1 GiB) that they are better read batch by batch from
        where they are, which may be a file mapped into memory.  `classes` are those that the dataset has,
        `of` how many there are: both or neither.
        """
        if (classes is None) != (of is None):
            raise ValueError("classes: their number is missing")
        rows = np.arange(len(labels)) if rows is None else rows
        labels = labels[rows]
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: {labels.dtype}; they must be whole numbers")
        known = None
        if classes is not None and of is not None and len(classes) < of:
            known = torch.zeros(len(labels), of, dtype=torch.bool)
            known[:, list(classes)] = True
        return cls(read(images, rows), torch.tensor(labels, dtype=torch.int64), known)

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: Faces) -> Faces:
        """Return the union of two sets: first these, then the others."""
        images = united(self.images, other.images)
        labels = torch.cat([self.labels, other.labels])
        return Faces(images, labels, _known(self, other), _people(self, other))

    def __getitem__(self, rows: Tensor) -> Faces:
        """Return some of the faces."""
        known = self.known[rows] if self.known is not None else None
        subjects = self.subjects[rows] if self.subjects is not None else None
        return Faces(self.images[rows], self.labels[rows], known, subjects)

    def to(self, device: torch.device) -> Self:
        """Return the same faces on a device."""
        known = self.known.to(device) if self.known is not None else None
        subjects = self.subjects.to(device) if self.subjects is not None else None
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            known=known,
            subjects=subjects,
        )

    @property
    def weights(self) -> Tensor:
        """How often each face is shown, relative to others: float (N,), where the labels are."""
        return torch.ones(len(self), device=self.labels.device)

    def steps(self, size: int) -> tuple[int, int]:
        """Return how many steps an epoch has with batches nearest to a size, and how many images each."""
        most = len(self) // min(2, size)  # batch normalisation needs two
        steps = max(1, min(round(len(self) / size), most))
        return steps, len(self) // steps

    def batches(self, size: int, generator: torch.Generator) -> Tensor:
        """Deal images into equal batches, nearest to a size; fewer than there are batches are left over.

        Returns
        -------
        Tensor
            int64 (steps, images a step): rows, on the device of the generator.
        """
        steps, images = self.steps(size)
        return _shuffled(len(self), generator)[: steps * images].view(steps, -1)


@dataclass(frozen=True)
class Mixture(Faces):
    """New faces among old ones: every batch holds the same share of each.

    The first `new` faces are the new ones.  An epoch shows each of them once, and as many of the others
    as the share leaves room for, drawn without repetition until all were shown.

    Parameters
    ----------
    new
        How many of the faces are new.
    share
        Of the new ones in every batch, above 0 and below 1.
    """

    new: int = 0
    share: float = 0.5

    @classmethod
    def of(cls, new: Faces, old: Faces, share: float) -> Mixture:
        """Mix two sets."""
        both = new + old
        return cls(both.images, both.labels, both.known, both.subjects, len(new), share)

    @property
    def weights(self) -> Tensor:
        """How often each face is shown, relative to others: of the new ones and the old, their shares."""
        weights = super().weights
        weights[: self.new] = self.share / self.new
        weights[self.new :] = (1 - self.share) / (len(self) - self.new)
        return weights

    def fresh(self, size: int) -> int:
        """Return how many images of a batch, which are its first, are new ones."""
        return min(round(size * self.share), size - 1)

    def steps(self, size: int) -> tuple[int, int]:
        """Return how many steps an epoch has with batches nearest to a size, and how many images each."""
        steps = max(1, round(self.new / max(1, round(size * self.share))))
        fresh = self.new // steps
        return steps, fresh + max(1, round(fresh * (1 - self.share) / self.share))

    def batches(self, size: int, generator: torch.Generator) -> Tensor:
        """Deal one epoch into equal batches; int64 (steps, images a step), the new ones first."""
        steps, images = self.steps(size)
        fresh = self.new // steps
        kept = images - fresh
        past = len(self) - self.new
        rounds = [_shuffled(past, generator) for _ in range(-(-kept * steps // past))]
        old = self.new + torch.cat(rounds)[: kept * steps].view(steps, -1)
        new = _shuffled(self.new, generator)[: fresh * steps].view(steps, -1)
        return torch.cat([new, old], 1)


def _people(first: Faces, second: Faces) -> Tensor | None:
    """Number the people of two sets, none of whom is in both; ``None`` where nobody is known."""
    if first.subjects is None and second.subjects is None:
        return None
    mine, theirs = (
        torch.arange(len(faces)) if faces.subjects is None else faces.subjects
        for faces in (first, second)
    )
    return torch.cat([mine, theirs + (int(mine.max()) + 1 if len(mine) else 0)])


def _known(first: Faces, second: Faces) -> Tensor | None:
    """Return which classes the images of two sets know, or ``None`` where all know all."""
    known = [faces.known for faces in (first, second)]
    width = next((part.shape[1] for part in known if part is not None), None)
    if width is None:
        return None
    return torch.cat(
        [
            faces.labels.new_ones(len(faces), width, dtype=torch.bool) if part is None else part
            for faces, part in zip((first, second), known, strict=True)
        ]
    )


def _shuffled(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator, device=generator.device)


CHANCES = 8
"""How many random numbers change an image: angle, scale, mirror, shift (2), erased square (3)."""


def chances(count: int, generator: torch.Generator) -> Tensor:
    """Draw what `augment` changes images by: float (N, 8), uniform over 0–1, where the generator is."""
    return torch.rand(count, CHANCES, generator=generator, device=generator.device)


def augment(images: Tensor, how: Augmentation, chance: Tensor) -> Tensor:
    """Flip, turn, scale, shift and erase, each image by chances of its own.

    Parameters
    ----------
    images
        float (N, C, H, W), normalised.
    how
        The ranges that the chances choose from.
    chance
        float (N, 8), from `chances`.

    Returns
    -------
    Tensor
        Like `images`. What comes in from outside an image repeats its border.
    """
    _, _, height, width = images.shape
    angle = torch.deg2rad((2 * chance[:, 0] - 1) * how.rotate)
    factor = 1 + (2 * chance[:, 1] - 1) * how.scale
    mirror = torch.where(chance[:, 2] < 0.5 * how.flip, -1.0, 1.0)
    # Whole pixels: a shift alone then blurs nothing.
    across = ((2 * chance[:, 3] - 1) * how.shift * width).round() * 2 / width
    down = ((2 * chance[:, 4] - 1) * how.shift * height).round() * 2 / height
    if how.rotate or how.scale or how.shift or how.flip:
        cosine, sine = factor * angle.cos(), factor * angle.sin()
        rows = [
            torch.stack([cosine * mirror, -sine * mirror, across], 1),
            torch.stack([sine, cosine, down], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        images = F.grid_sample(
            images, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
    if how.erase:
        images = images * _outside_square(chance[:, 5:], how.erase, height, width)
    return images


def _outside_square(chance: Tensor, largest: float, height: int, width: int) -> Tensor:
    """Mark what a random square leaves: bool (N, 1, H, W); `chance` is (N, 3): x, y, side."""
    half = chance[:, 2] * largest / 2

    def near(centre: Tensor, size: int) -> Tensor:
        middle = (torch.arange(size, device=chance.device) + 0.5) / size
        return (middle - centre[:, None]).abs() <= half[:, None]

    inside = near(chance[:, 1], height)[:, :, None] & near(chance[:, 0], width)[:, None, :]
    return ~inside[:, None]

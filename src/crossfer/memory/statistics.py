"""Statistics of features: second moments, and a low-rank Gaussian for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

PER_DIRECTION = 20
"""Images per direction of a Gaussian and per random projection: fewer would reveal which images were used
(docs/memory.md)."""
JITTER = 1e-4
"""Relative increase of the variances, so that the scatter of few images has a Cholesky factor."""


@dataclass(frozen=True)
class Moments:
    """Second moments of features, and their sums by class: sufficient statistics of a ridge regression.

    Parameters
    ----------
    counts
        Number of images of each class, float64 (C,).
    sums
        Sum of the features of each class, float64 (C, D).
    products
        Σ x xᵀ over all images, float64 (D, D).
    """

    counts: Tensor
    sums: Tensor
    products: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> Moments:
        """Return the moments of features (N, D) with labels, int64 (N,)."""
        which, centre = F.one_hot(labels, classes).double(), features.double().mean(0)
        # Small numbers: in single precision they are exact enough.
        about = (features - centre).float()
        products, sums = (about.T @ about).double(), which.T @ about.double()
        left = torch.outer(sums.sum(0), centre)
        products += left + left.T + len(labels) * torch.outer(centre, centre)
        return cls(which.sum(0), sums + torch.outer(which.sum(0), centre), products)

    @classmethod
    def none(cls, classes: int, size: int) -> Moments:
        """Return the moments of no image."""
        double = torch.float64
        return cls(
            torch.zeros(classes, dtype=double),
            torch.zeros(classes, size, dtype=double),
            torch.zeros(size, size, dtype=double),
        )

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the union of two disjoint sets of images."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Moments(*(a + b for a, b in pairs))

    def __mul__(self, weight: float) -> Moments:
        """Return the moments with each image counted `weight` times."""
        return Moments(*(getattr(self, f.name) * weight for f in fields(self)))

    @property
    def means(self) -> Tensor:
        """Class means, float64 (C, D); zero for a class without images."""
        return self.sums / self.counts.clamp_min(1)[:, None]

    @property
    def mean(self) -> Tensor:
        """Mean of all images, float64 (D,)."""
        return self.sums.sum(0) / self.counts.sum()

    @property
    def scatter(self) -> Tensor:
        """Σ (x − mean)(x − mean)ᵀ over all images, float64 (D, D)."""
        return self.products - self.counts.sum() * torch.outer(self.mean, self.mean)

    @property
    def shared_covariance(self) -> Tensor:
        """Covariance within classes, about the class means, float64 (D, D)."""
        between = self.means.T @ (self.counts[:, None] * self.means)
        return (self.products - between) / self.counts.sum()

    def packed(self, name: str) -> dict[str, Tensor]:
        """Return tensors to store, named ``name.part``: the scatter as a Cholesky factor in 16 bits.

        The product of a rounded factor is still positive definite; a rounded scatter need not be.
        """
        scatter = self.scatter
        scale = scatter.diagonal().clamp_min(0).sqrt()
        divisor = torch.where(scale > 0, scale, 1)  # a feature that never moves has a scale of 0
        alike = scatter / torch.outer(divisor, divisor)
        alike.diagonal().clamp_(min=1).add_(JITTER)
        size = len(scale)
        rows, columns = torch.tril_indices(size, size)
        root = torch.linalg.cholesky(alike)[rows, columns]
        return {
            f"{name}.counts": self.counts.long(),
            f"{name}.sums": self.sums.float(),
            f"{name}.scale": scale.float(),
            f"{name}.root": root.half(),
        }

    @classmethod
    def unpacked(cls, name: str, tensors: Mapping[str, Tensor]) -> Moments:
        """Return the moments that `packed` returned, but for rounding."""
        counts, sums, scale = (
            tensors[f"{name}.{part}"].double() for part in ("counts", "sums", "scale")
        )
        size = len(scale)
        root = torch.zeros(size, size, dtype=torch.float64)
        root[tuple(torch.tril_indices(size, size))] = tensors[f"{name}.root"].double()
        root *= scale[:, None]
        total, number = sums.sum(0), counts.sum()
        return cls(counts, sums, root @ root.T + torch.outer(total, total) / number)


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian for each class: N(mean, factorᵀ factor + diag(residual)).

    Parameters
    ----------
    mean
        float32 (C, D).
    factor
        float32 (C, R, D): the R largest principal components of the class, scaled by their standard
        deviations; zero if the class has too few images for R components.
    residual
        float32 (C, D): the remaining variance of each feature, non-negative.
    """

    mean: Tensor
    factor: Tensor
    residual: Tensor

    @property
    def ranks(self) -> list[int]:
        """Number of principal components of each class that has any."""
        counts = self.factor.any(2).sum(1)
        return counts[counts > 0].tolist()

    @classmethod
    def none(cls, classes: int, size: int, rank: int) -> Gaussians:
        """Return Gaussians of classes without images: all zero."""
        return cls(
            torch.zeros(classes, size),
            torch.zeros(classes, rank, size),
            torch.zeros(classes, size),
        )

    def describe(self, label: int, features: Tensor) -> None:
        """Fit the Gaussian of a class to features, float (N, D), in place."""
        mean = features.mean(0)
        centred = features - mean
        rank = min(self.factor.shape[1], len(features) // PER_DIRECTION, features.shape[1])
        with torch.random.fork_rng([]):  # the decomposition starts at random vectors
            torch.default_generator.manual_seed(0)
            _, lengths, directions = torch.svd_lowrank(centred, min(2 * rank, *centred.shape))
        along = directions[:, :rank] * lengths[:rank] / math.sqrt(len(features))
        self.mean[label], self.factor[label, :rank] = mean, along.T
        left = centred.square().mean(0) - along.square().sum(1)
        self.residual[label] = left.clamp_min(0)

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Sample features for labels int64 (N,): float32 (N, D)."""
        along = torch.randn(len(labels), self.factor.shape[1], generator=generator)
        beside = torch.randn(len(labels), self.mean.shape[1], generator=generator)
        drawn = torch.empty_like(beside)
        for label in torch.unique(labels).tolist():
            rows = labels == label
            deviation = self.residual[label].sqrt()
            drawn[rows] = self.mean[label] + along[rows] @ self.factor[label]
            drawn[rows] += beside[rows] * deviation
        return drawn

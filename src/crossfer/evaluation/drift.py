"""Drift between two sets of faces, without labels: pixels, features and predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.rows import Interval, Row

Pixels = Mapping[str, tuple[float, float]]
"""Of faces: mean and standard deviation of each measure of `measured`."""
SHRINKAGE = 0.1
"""Share of the mean variance in the covariance of features: they are more than there are images, at times."""
FAR = 0.95


@dataclass(frozen=True)
class InputDrift(Row):
    """How a measure of pixels differs between the source and the new faces."""

    measure: str
    source: float
    new: float
    deviations: float
    """Difference of the means in standard deviations of the source (Glass's Δ); 0.2 is little, 0.8 much."""


@dataclass(frozen=True)
class FeatureDrift(Row):
    """How many new faces lie far from the source's features."""

    share: float
    """In per cent: of new faces farther from the source's mean than 95 % of the source's own are."""
    interval: Interval


@dataclass(frozen=True)
class ClassShare(Row):
    """How often a class is the answer, in per cent."""

    name: str
    source: float
    new: float


def measured(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Measure the pixels of faces, uint8 (N, H, W) or (N, H, W, 3): float64 (N,) each.

    Brightness and contrast are the mean and standard deviation of the pixels, sharpness is the standard
    deviation of their Laplacian; all as shares of white, 0–1.
    """
    gray = [face if face.ndim == 2 else cv2.cvtColor(face, cv2.COLOR_RGB2GRAY) for face in faces]
    light = [face.astype(np.float64) / 255 for face in gray]
    return {
        "brightness": np.array([face.mean() for face in light]),
        "contrast": np.array([face.std() for face in light]),
        "sharpness": np.array([cv2.Laplacian(face, cv2.CV_64F).std() for face in light]),
    }


def pixels_of(faces: NDArray[np.uint8]) -> Pixels:
    """Sum up the pixels of faces."""
    return {name: (float(v.mean()), float(v.std())) for name, v in measured(faces).items()}


def input_drift(source: Pixels, new: Pixels) -> tuple[InputDrift, ...]:
    """Compare the pixels of two sets of faces."""
    return tuple(
        InputDrift(name, own, new[name][0], (new[name][0] - own) / max(deviation, 1e-12))
        for name, (own, deviation) in source.items()
    )


@dataclass(frozen=True)
class Ellipsoid:
    """The features that are near the source's, by their Mahalanobis distance.

    Parameters
    ----------
    mean, covariance
        float64 (D,), (D, D), of the source's features.
    bound
        The squared distance that 95 % of its features stay below, of faces that the two are not made of.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    bound: float = np.inf

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Ellipsoid:
        """Take mean and covariance from one half of some features, float (N, D), the bound from the other."""
        order = np.random.default_rng(0).permutation(len(features))
        first, second = (features[half].astype(np.float64) for half in np.array_split(order, 2))
        return cls(first.mean(0), np.cov(first, rowvar=False, ddof=0)).around(second)

    def around(self, features: NDArray[np.floating]) -> Ellipsoid:
        """Return the same with the bound of some features, float (N, D)."""
        return replace(self, bound=float(np.quantile(self.distances(features), FAR)))

    def distances(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return squared distances from the mean, float64 (N,), of features, float (N, D)."""
        typical = np.trace(self.covariance) / len(self.covariance)
        mixed = (1 - SHRINKAGE) * self.covariance
        mixed.flat[:: len(mixed) + 1] += SHRINKAGE * typical + np.finfo(np.float64).eps
        away = np.linalg.solve(np.linalg.cholesky(mixed), (features - self.mean).T)
        return np.asarray(np.square(away).sum(0))

    def drift(self, features: NDArray[np.floating]) -> FeatureDrift:
        """Count the new features, float (N, D), that lie outside: 5 % where there is no drift."""
        far = int((self.distances(features) > self.bound).sum())
        return FeatureDrift(100 * far / len(features), wilson_interval(far, len(features)))


def class_shares(
    names: tuple[str, ...], source: NDArray[np.integer], new: NDArray[np.integer]
) -> tuple[ClassShare, ...]:
    """Compare how often each class is the answer: counts, (C,)."""
    own, other = (counts / counts.sum() for counts in (source, new))
    return tuple(
        ClassShare(name, float(100 * own[i]), float(100 * other[i])) for i, name in enumerate(names)
    )

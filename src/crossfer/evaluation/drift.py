"""Drift between two sets of faces, without labels: pixels, features and predictions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.rows import Interval, Row

MEASURES = ("brightness", "contrast", "sharpness")
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
    """Measure faces uint8 (N, H, W) or (N, H, W, 3), by `MEASURES`: float64 (N,) each.

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


def input_drift(source: NDArray[np.uint8], new: NDArray[np.uint8]) -> tuple[InputDrift, ...]:
    """Compare the pixels of two sets of faces."""
    own, other = measured(source), measured(new)
    return tuple(
        InputDrift(
            name,
            float(own[name].mean()),
            float(other[name].mean()),
            float((other[name].mean() - own[name].mean()) / max(own[name].std(), 1e-12)),
        )
        for name in MEASURES
    )


def feature_drift(source: NDArray[np.floating], new: NDArray[np.floating]) -> FeatureDrift:
    """Count new faces whose features are unlike the source's.

    Mean and covariance are those of one half of the source's features, drawn by chance; far is what has a
    greater Mahalanobis distance from them than 95 % of the other half.  Without drift it is 5 % of new faces.

    Parameters
    ----------
    source, new
        What the head is given: float (N, D), (M, D).
    """
    order = np.random.default_rng(0).permutation(len(source))
    first, second = (source[half].astype(np.float64) for half in np.array_split(order, 2))
    mean, covariance = first.mean(0), np.cov(first, rowvar=False, ddof=0)
    typical = SHRINKAGE * np.trace(covariance) / len(covariance) + np.finfo(np.float64).eps
    mixed = (1 - SHRINKAGE) * covariance + typical * np.eye(len(covariance))
    factor = np.linalg.cholesky(mixed)

    def distances(points: NDArray[np.floating]) -> NDArray[np.float64]:
        away = np.linalg.solve(factor, (points - mean).T)
        return np.asarray(np.square(away).sum(0))

    far = int((distances(new) > np.quantile(distances(second), FAR)).sum())
    return FeatureDrift(100 * far / len(new), wilson_interval(far, len(new)))


def class_shares(
    names: tuple[str, ...], source: NDArray[np.integer], new: NDArray[np.integer]
) -> tuple[ClassShare, ...]:
    """Count how often each class is the answer; decisions are indices of names."""
    own, other = (np.bincount(d, minlength=len(names)) / len(d) for d in (source, new))
    return tuple(
        ClassShare(name, float(100 * own[i]), float(100 * other[i])) for i, name in enumerate(names)
    )

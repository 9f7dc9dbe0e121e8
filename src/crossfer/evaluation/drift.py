"""Drift between two sets of faces, without labels: pixels, features and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import clusters, resampled
from crossfer.evaluation.rows import Interval, Row

Pixels = Mapping[str, tuple[float, float]]
"""Mean and standard deviation of each measure of `measured` over faces."""
RESAMPLES = 300
Subjects = NDArray[np.integer] | None


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
    """How far the mean of the new faces' features lies from the source's."""

    deviations: float
    """In standard deviations of the source's features; 0.2 is little, 0.8 much."""
    interval: Interval


@dataclass(frozen=True)
class ClassShare(Row):
    """How often a class is the answer, in per cent."""

    name: str
    source: float
    new: float


def measured(faces: Iterable[NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
    """Measure the pixels of N faces, uint8 (H, W) or (H, W, 3) each: float64 (N,) per measure.

    Brightness and contrast are the mean and standard deviation of the pixels, sharpness is the standard
    deviation of their Laplacian; all as shares of white, 0–1.
    """
    import cv2  # not needed by what only adapts a network

    rows = []
    for face in faces:
        gray = face if face.ndim == 2 else cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
        light = gray.astype(np.float64) / 255
        rows.append((light.mean(), light.std(), cv2.Laplacian(light, cv2.CV_64F).std()))
    columns = np.array(rows, np.float64).reshape(-1, 3).T
    return dict(zip(("brightness", "contrast", "sharpness"), columns, strict=True))


def pixels_of(faces: Iterable[NDArray[np.uint8]]) -> Pixels:
    """Return mean and standard deviation of the pixel measures of faces."""
    return {name: (float(v.mean()), float(v.std())) for name, v in measured(faces).items()}


def input_drift(source: Pixels, new: Pixels) -> tuple[InputDrift, ...]:
    """Compare the pixel measures of two sets of faces."""
    return tuple(
        InputDrift(name, own, new[name][0], (new[name][0] - own) / max(deviation, 1e-12))
        for name, (own, deviation) in source.items()
    )


@dataclass(frozen=True)
class Features:
    """Statistics of features, float (N, D).

    Parameters
    ----------
    mean
        (D,).
    variance
        Sum of the variances of the features.
    error
        Squared standard error of the mean, summed over the features, with people as sampling units.
    """

    mean: Sequence[float]
    variance: float
    error: float

    @classmethod
    def of(cls, features: NDArray[np.floating], people: Subjects = None) -> Features:
        """Compute them; `people` are the subjects, (N,), None: all different."""
        mean, sums = _by_people(features, people)
        error = len(sums) / max(1, len(sums) - 1) * np.square(sums).sum() / len(features) ** 2
        variance = np.square(features - mean).sum() / len(features)
        return cls(mean.tolist(), float(variance), float(error))


def feature_drift(
    source: Features, new: NDArray[np.floating], people: Subjects = None
) -> FeatureDrift:
    """Measure how far the mean of new features, float (N, D), lies from the source's.

    The squared distance of the means, without its bias by chance, relative to the source's variance; its root
    is a standardised difference like Glass's Δ, over all features.  It is the maximum mean discrepancy with a
    linear kernel (Gretton et al., A Kernel Two-Sample Test, JMLR 2012), with people as sampling units.
    """
    found = Features.of(new, people)
    mean, sums = _by_people(new, people)
    away = mean - np.asarray(source.mean)
    rng = np.random.default_rng(0)
    weights = resampled(len(sums), RESAMPLES, rng)
    drawn = np.square(away + weights @ sums / len(new)).sum(1) - 2 * found.error
    # The source's mean is uncertain, too: along the distance by a feature's share of its error.
    along = np.sqrt(source.error / len(away)) * np.linalg.norm(away)
    drawn += rng.normal(0, 2 * along, RESAMPLES)
    squares = np.array([np.square(away).sum() - found.error, *np.quantile(drawn, [0.025, 0.975])])
    share = (squares - source.error) / max(source.variance, np.finfo(np.float64).tiny)
    value, low, high = np.sqrt(share.clip(0)).tolist()
    return FeatureDrift(value, (low, high))


def _by_people(
    features: NDArray[np.floating], people: Subjects
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of features, float64 (D,), and each cluster's sum of deviations from it, (G, D)."""
    mean = features.mean(0, dtype=np.float64)
    codes = clusters(len(features), people)
    sums = np.zeros((codes.max() + 1, len(mean)))
    np.add.at(sums, codes, features - mean)
    return mean, sums


def class_shares(
    names: tuple[str, ...], source: NDArray[np.integer], new: NDArray[np.integer]
) -> tuple[ClassShare, ...]:
    """Compare how often each class is predicted; counts, (C,)."""
    own, other = (counts / counts.sum() for counts in (source, new))
    return tuple(
        ClassShare(name, float(100 * own[i]), float(100 * other[i])) for i, name in enumerate(names)
    )

"""Metrics from labels and probabilities: pure functions of NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]

BINS = 15
"""Bins of the calibration error, as in Guo and others (2017)."""


def decide(probabilities: Probabilities, classes: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Return the most probable class of each image.

    Parameters
    ----------
    probabilities
        Float (N, C).
    classes
        Labels to choose among, by default all.  A dataset is measured on the classes that it has.

    Returns
    -------
    int64 (N,)
    """
    if classes is None:
        return np.asarray(np.argmax(probabilities, 1), np.int64)
    allowed = np.asarray(sorted(classes))
    return np.asarray(allowed[np.argmax(probabilities[:, allowed], 1)], np.int64)


def confusion(labels: Labels, decisions: Labels, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix, int64 (C, C): entry (i, j) counts class i predicted as class j."""
    return np.bincount(labels * classes + decisions, minlength=classes**2).reshape(classes, classes)


def accuracy(labels: Labels, decisions: Labels) -> float:
    """Return the accuracy in per cent; NaN if there is no image."""
    return float(100 * np.mean(labels == decisions)) if len(labels) else float("nan")


def recalls(matrix: NDArray[np.integer]) -> list[float | None]:
    """Return the recall of each class in per cent; None if it has no image."""
    totals = matrix.sum(1)
    return [
        float(100 * right / total) if total else None
        for right, total in zip(np.diag(matrix), totals, strict=True)
    ]


def balanced_accuracy(matrix: NDArray[np.integer]) -> float:
    """Return the mean recall over the classes that have images, in per cent; NaN if there are none.

    With n_ij the number of images of class i predicted as class j: (100 / K) Σ_i n_ii / Σ_j n_ij over the K
    classes with images (Brodersen and others 2010).  Always predicting one class gives 100 / K.
    """
    known = [recall for recall in recalls(matrix) if recall is not None]
    return float(np.mean(known)) if known else float("nan")


def macro_f1(matrix: NDArray[np.integer]) -> float:
    """Return the mean F1 over the classes that have images, in per cent; NaN if there are none.

    F1 of class i is the harmonic mean of its precision and recall: 2 n_ii / (Σ_j n_ij + Σ_j n_ji).
    """
    totals = matrix.sum(1)
    scores = 2 * np.diag(matrix) / np.maximum(totals + matrix.sum(0), 1)
    return float(100 * np.mean(scores[totals > 0])) if totals.any() else float("nan")


def confidence(
    probabilities: Probabilities, classes: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Return the largest probability among some classes, renormalised to sum to one.

    Parameters
    ----------
    probabilities, classes
        As in `decide`.

    Returns
    -------
    float64 (N,)
    """
    allowed = sorted(classes) if classes is not None else list(range(probabilities.shape[1]))
    chosen = probabilities[:, allowed].astype(np.float64)
    return np.asarray(chosen.max(1) / np.maximum(chosen.sum(1), np.finfo(np.float64).tiny))


def calibration_error(right: NDArray[np.bool_], confidences: NDArray[np.float64]) -> float:
    """Return the expected calibration error, in points; NaN if there is no image.

    The mean difference of confidence and accuracy: Σ_b (n_b / N) |accuracy_b − confidence_b|, where bin b has
    the n_b images whose confidence lies in ((b − 1)/15, b/15] (Naeini and others 2015; Guo and others 2017).
    It is never negative, so it is biased upwards for few images.

    Parameters
    ----------
    right
        Whether each decision is right: bool (N,).
    confidences
        The `confidence` of each: float64 (N,).
    """
    if not len(right):
        return float("nan")
    gaps = np.bincount(bins_of(confidences), right - confidences)  # n_b (accuracy_b − confidence_b)
    return float(100 * np.abs(gaps).sum() / len(right))


def bins_of(confidences: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each confidence: int64 (N,), 0 … 14."""
    edges = np.linspace(0, 1, BINS + 1)
    return np.asarray(np.minimum(np.searchsorted(edges[1:], confidences), BINS - 1), np.int64)

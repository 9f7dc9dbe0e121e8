"""From labels and probabilities to numbers: pure functions of NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]


def decide(probabilities: Probabilities, classes: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Choose the most probable class.

    Parameters
    ----------
    probabilities
        Float (N, 7).
    classes
        Labels to choose among; all by default.  A dataset without some of the seven classes is measured
        on the classes that it has.

    Returns
    -------
    int64 (N,)
    """
    if classes is None:
        return np.asarray(np.argmax(probabilities, 1), np.int64)
    allowed = np.asarray(sorted(classes))
    return np.asarray(allowed[np.argmax(probabilities[:, allowed], 1)], np.int64)


def confusion(labels: Labels, decisions: Labels, classes: int = 7) -> NDArray[np.int64]:
    """Count decisions: entry (i, j) is how many images of class i were taken for class j."""
    return np.bincount(labels * classes + decisions, minlength=classes**2).reshape(classes, classes)


def accuracy(labels: Labels, decisions: Labels) -> float:
    """Return the share of images decided rightly, in per cent; NaN where there is none."""
    return float(100 * np.mean(labels == decisions)) if len(labels) else float("nan")


def per_class_accuracy(matrix: NDArray[np.integer]) -> list[float | None]:
    """Return each class's share decided rightly (its recall), in per cent; None where it has no image."""
    totals = matrix.sum(1)
    return [
        float(100 * right / total) if total else None
        for right, total in zip(np.diag(matrix), totals, strict=True)
    ]


def wilson_interval(right: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, in per cent (Wilson 1927; Brown, Cai, DasGupta 2001).

    With p = right / total: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not total:
        return 0.0, 100.0
    share = right / total
    centre = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 100 / (1 + z * z / total)
    return float((centre - half) * scale), float((centre + half) * scale)


def measure(
    labels: Labels, probabilities: Probabilities, classes: Sequence[int] | None = None
) -> dict[str, object]:
    """Measure a network on one test set, as the study does (section III).

    Parameters
    ----------
    labels
        Integer (N,), 0–6.
    probabilities
        Float (N, 7).
    classes
        The labels the dataset has; decisions are made among them.

    Returns
    -------
    dict
        ``images``; ``accuracy`` in per cent; ``interval``, Wilson's of 95 %; ``per_class``, in per cent,
        None for a class without images; ``confusion``, 7 lists of 7 counts.
    """
    decisions = decide(probabilities, classes)
    matrix = confusion(labels, decisions)
    return {
        "images": len(labels),
        "accuracy": accuracy(labels, decisions),
        "interval": list(wilson_interval(int(np.trace(matrix)), len(labels))),
        "per_class": per_class_accuracy(matrix),
        "confusion": matrix.tolist(),
    }

"""Metrics of continual learning on several datasets.

All functions take the accuracy matrix R in per cent: ``R[i][j]`` is the accuracy on dataset j after step i.
Dataset 0 is the source, step 0 the baseline; step i trains on dataset i.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Matrix = Sequence[Sequence[float]]


def average_accuracy(matrix: Matrix) -> float:
    """Return the mean accuracy over all datasets after the last step: Σ_j R[T][j] / (T + 1)."""
    return float(np.mean(matrix[-1]))


def backward_transfer(matrix: Matrix) -> float:
    """Return the change on earlier datasets by later steps, in points: Σ_{j<T} (R[T][j] − R[j][j]) / T.

    Negative if they were forgotten (Lopez-Paz and Ranzato, Gradient Episodic Memory, NeurIPS 2017,
    equation 3).
    """
    square = np.asarray(matrix)
    return float(np.mean(square[-1, :-1] - np.diagonal(square)[:-1]))


def forgetting(matrix: Matrix) -> float:
    """Return the mean drop from the best accuracy on earlier datasets, in points.

    Σ_{j<T} (max_i R[i][j] − R[T][j]) / T, the maximum over j ≤ i < T, as in Chaudhry et al., Riemannian Walk,
    ECCV 2018, section 3.2; negative if the accuracy rose.
    """
    square = np.asarray(matrix)
    last = len(square) - 1
    return float(np.mean([square[j:last, j].max() - square[last, j] for j in range(last)]))


def forward_transfer(matrix: Matrix) -> float:
    """Return the gain on datasets before they are trained on, in points.

    Σ_{1<j≤T} (R[j−1][j] − R[0][j]) / (T − 1), relative to the baseline; zero for a single target (after
    Lopez-Paz and Ranzato, equation 4).
    """
    square = np.asarray(matrix)
    later = range(2, len(square))
    return float(np.mean([square[j - 1, j] - square[0, j] for j in later])) if later else 0.0

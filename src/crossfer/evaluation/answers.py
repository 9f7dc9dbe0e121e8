"""The predictions of a network on a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.metrics import Labels, Probabilities, confidence, decide


@dataclass(frozen=True)
class Answers:
    """Predictions of a network on N images; each is decided among the classes of its dataset.

    Parameters
    ----------
    rows
        Rows of the images in their dataset's sample table: int64 (N,).
    labels
        True labels: int64 (N,).
    probabilities
        float32 (N, C).
    decisions
        Predicted labels: int64 (N,).
    confidences
        Confidence of each decision, see `crossfer.evaluation.metrics.confidence`: float64 (N,).
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: Probabilities
    decisions: NDArray[np.int64]
    confidences: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        labels: Labels,
        probabilities: Probabilities,
        classes: Sequence[int] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Answers:
        """Decide each image among some classes, by default among all."""
        return cls(
            np.arange(len(labels)) if rows is None else rows,
            np.asarray(labels, np.int64),
            probabilities,
            decide(probabilities, classes),
            confidence(probabilities, classes),
        )

    @classmethod
    def joined(cls, several: Sequence[Answers]) -> Answers:
        """Concatenate the answers on several sets."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(one, name) for one in several]) for name in names))

    @classmethod
    def pooled(cls, several: Sequence[Answers]) -> Answers:
        """Concatenate the answers of several networks on disjoint images, in the order of the rows."""
        one = cls.joined(several)
        order = np.argsort(one.rows, kind="stable")
        return cls(*(getattr(one, field.name)[order] for field in fields(cls)))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each decision is right: bool (N,)."""
        return np.asarray(self.decisions == self.labels)

    @property
    def classes(self) -> int:
        """Number of classes of the network."""
        return int(self.probabilities.shape[1])

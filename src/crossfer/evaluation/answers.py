"""The predictions of a network on a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.metrics import Labels, Probabilities, confidence, decide


@dataclass(frozen=True)
class Answers:
    """What a network said about N images, each decided among the classes that its dataset has.

    Parameters
    ----------
    rows
        Where the images stand in their dataset's sample table: int64 (N,).
    labels
        The truth: int64 (N,).
    probabilities
        float32 (N, C).
    decisions
        int64 (N,).
    confidences
        Of each decision, see `crossfer.evaluation.metrics.confidence`: float64 (N,).
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
        """Decide each image among some classes; among all by default."""
        return cls(
            np.arange(len(labels)) if rows is None else rows,
            np.asarray(labels, np.int64),
            probabilities,
            decide(probabilities, classes),
            confidence(probabilities, classes),
        )

    @classmethod
    def joined(cls, several: Sequence[Answers]) -> Answers:
        """Take the answers about several sets as the answers about one."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(one, name) for one in several]) for name in names))

    @classmethod
    def pooled(cls, several: Sequence[Answers]) -> Answers:
        """Take the answers of several networks, each about images of its own, as those about one set."""
        one = cls.joined(several)
        order = np.argsort(one.rows, kind="stable")
        return cls(*(getattr(one, field.name)[order] for field in fields(cls)))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each decision is right: bool (N,)."""
        return np.asarray(self.decisions == self.labels)

    @property
    def classes(self) -> int:
        """How many classes the network answers with."""
        return int(self.probabilities.shape[1])

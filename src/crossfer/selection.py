"""Which candidate is kept: an epoch, a mixture of weights, a trial of a search.  One rule for all of them.

Validation sets hold 15 to several thousand images, and the best of many noisy means is a lottery.  So, of the
candidates in an order of preference, **the first is kept that is not shown to be worse than the best**.  The
best has the lowest loss, each set counting the same.  Shown to be worse is what has a higher loss, and is not
shown to be right about more images.  Shown is a difference of more than half its standard error.

It is the one-standard-error rule (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees,
1984, section 3.4.3) with four changes.  Differences are paired, image by image, which makes the standard
error several times smaller.  Whole people count, not their images.  A higher loss alone is not held against
a candidate, since a network that goes on learning grows too sure of its answers (Guo and others, On
calibration of modern neural networks, 2017).  And half a standard error suffices: to keep what is worse costs
as much as to leave what is better.  Losses, not counts: among near candidates they vary far less.

``docs/statistics.md`` has the simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Values = Mapping[str, NDArray[np.floating] | NDArray[np.bool_]]
"""Of one candidate: for each validation set a number for every image, (N,)."""
Subjects = Mapping[str, NDArray[np.integer] | None]
"""Who is in these images, integer (N,); None: everybody another."""

ALIKE = 0.1
"""Correlation of two candidates' differences on two images of one person: 0.0 to 0.26 on CK+48."""
MARGIN = 0.5
"""How many standard errors a difference has to exceed to be shown."""
BEHIND = ("loss_behind", "loss_behind_error", "accuracy_ahead", "accuracy_ahead_error")
"""The columns of `Behind.as_row`."""
LEAST = 1e-3
"""The lowest probability that is believed: no image counts for more than 6.9 nats."""


class Candidate(NamedTuple):
    """What one candidate made of the validation sets.

    Parameters
    ----------
    likelihood
        The probability that it gives to the right class, 0–1.
    right
        Whether it is right, bool.
    """

    likelihood: Values
    right: Values


@dataclass(frozen=True)
class Lead:
    """How far one candidate is ahead of another on the same images, and the standard error of that."""

    difference: float
    error: float

    @property
    def shown(self) -> bool:
        """Whether it is more than chance may well do."""
        return self.difference > MARGIN * self.error


@dataclass(frozen=True)
class Behind:
    """How far a candidate is behind the best.

    Parameters
    ----------
    loss
        By how much its loss is higher, in nats.
    accuracy
        By how much its accuracy is higher all the same, 0–1.
    """

    loss: Lead
    accuracy: Lead

    @property
    def shown(self) -> bool:
        """Whether it is shown to be worse."""
        return self.loss.shown and not self.accuracy.shown

    def as_row(self) -> dict[str, float]:
        """Return it as columns: ``loss_behind`` (nats), ``accuracy_ahead`` (0–1), and the error of each."""
        parts = (
            self.loss.difference,
            self.loss.error,
            self.accuracy.difference,
            self.accuracy.error,
        )
        return dict(zip(BEHIND, parts, strict=True))


@dataclass(frozen=True)
class Choice:
    """Which candidate is kept, which is the best, and how far each of all is behind that one."""

    index: int
    best: int
    behind: list[Behind]


def choose(candidates: Sequence[Candidate], subjects: Subjects, preferred: Sequence[int]) -> Choice:
    """Keep the first candidate, in the order of preference, that is not shown to be worse than the best.

    Parameters
    ----------
    candidates
        What each made of the same validation sets.
    subjects
        Who is in them.
    preferred
        All candidates' indices, the one to keep in doubt first.

    Raises
    ------
    ValueError
        If there is no validation image.
    """
    scores = [mean(_log(candidate.likelihood)) for candidate in candidates]
    best = max(preferred, key=lambda index: scores[index])  # the first of equals
    behind = [compare(candidate, candidates[best], subjects) for candidate in candidates]
    return Choice(first_not_worse(preferred, lambda index: behind[index].shown), best, behind)


def first_not_worse(preferred: Sequence[T], worse: Callable[[T], bool]) -> T:
    """Return the first in the order of preference that is not shown to be worse than the best of them."""
    return next(one for one in preferred if not worse(one))


def compare(candidate: Candidate, best: Candidate, subjects: Subjects) -> Behind:
    """Return how far a candidate is behind the best."""
    loss = lead(_log(best.likelihood), _log(candidate.likelihood), subjects)
    return Behind(loss, lead(candidate.right, best.right, subjects))


def mean(values: Values) -> float:
    """Return the mean over the validation sets that hold an image, each counting the same.

    Raises
    ------
    ValueError
        If none does.
    """
    means = [float(of_images.mean()) for of_images in values.values() if len(of_images)]
    if not means:
        raise ValueError("there is no validation image for the selection")
    return sum(means) / len(means)


def lead(first: Values, second: Values, subjects: Subjects) -> Lead:
    """Return how far one candidate's mean is above another's, with the standard error of that difference.

    With d the paired differences of one set of N images, D their mean, and X_c the sum of ``d - D`` over
    the n_c images of each of its G subjects, the variance of D is the larger of two estimates:

    - ``Σ (d - D)² / N (N - 1)``, as of independent images, times ``1 + (Σ n_c² / N - 1) ALIKE`` (Kish, Survey
      Sampling, 1965, section 5.4), which holds for few people, and for one;
    - ``G / (G - 1) Σ X_c² / N²`` over whole people (Davison and Hinkley 1997, section 3.8), however alike
      their images are; of few people it is uncertain.
    """
    variances = [
        _variance(np.subtract(first[name], second[name], dtype=np.float64), subjects.get(name))
        for name in first
        if len(first[name])
    ]
    return Lead(mean(first) - mean(second), float(np.sqrt(sum(variances))) / len(variances))


def _log(likelihood: Values) -> Values:
    return {name: np.log(np.maximum(values, LEAST)) for name, values in likelihood.items()}


def _variance(differences: NDArray[np.float64], subjects: NDArray[np.integer] | None) -> float:
    """Return the variance of the mean of N differences."""
    count = len(differences)
    if count == 1:
        return float(differences[0] / MARGIN) ** 2  # one image shows nothing
    deviations = differences - differences.mean()
    of_images = float(deviations @ deviations) / count / (count - 1)
    if subjects is None:
        return of_images
    _, codes, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    of_images *= 1 + (float(sizes @ sizes) / count - 1) * ALIKE
    people = len(sizes)
    if people == 1:
        return of_images
    sums = np.bincount(codes, deviations)
    return max(of_images, people / (people - 1) * float(sums @ sums) / count**2)

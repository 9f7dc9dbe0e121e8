"""Select an epoch, a merge of weights or a trial of a search: one rule for all of them.

Validation sets have 15 to several thousand images, and the maximum of many noisy means is a poor choice.  So
the candidates are ordered by preference, and **the first that is not shown to be worse than the best is
selected**.  The best has the lowest loss, each set counting the same.  A candidate is shown to be worse if
its loss is higher and its accuracy is not.  A difference is shown if it exceeds half its standard error.

It is the one-standard-error rule (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees,
1984, section 3.4.3) with four changes.  Differences are paired by image, which makes the standard error
several times smaller.  The sampling units are people, not images.  A higher loss alone does not count against
a candidate, since networks become overconfident as they train (Guo and others, On calibration of modern
neural networks, 2017).  And half a standard error suffices, since keeping a worse candidate costs as much as
missing a better one.  Losses are compared because they vary far less than accuracies between similar
candidates.

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
"""For each validation set, a value for every image, (N,)."""
Subjects = Mapping[str, NDArray[np.integer] | None]
"""For each validation set, the subject of every image, integer (N,); None: all different."""

ALIKE = 0.1
"""Assumed correlation of paired differences on two images of one person: 0.0 to 0.26 on CK+48."""
MARGIN = 0.5
"""Standard errors that a difference must exceed to be shown."""
BEHIND = ("loss_behind", "loss_behind_error", "accuracy_ahead", "accuracy_ahead_error")
"""The columns of `Behind.as_row`."""
LEAST = 1e-3
"""Lower bound of probabilities: no image has a loss above 6.9 nats."""


class Candidate(NamedTuple):
    """The predictions of one candidate on the validation sets.

    Parameters
    ----------
    likelihood
        Probability of the true class, 0–1.
    right
        Whether the prediction is right, bool.
    """

    likelihood: Values
    right: Values


@dataclass(frozen=True)
class Lead:
    """Difference of two candidates on the same images, and its standard error."""

    difference: float
    error: float

    @property
    def shown(self) -> bool:
        """Whether it exceeds `MARGIN` standard errors."""
        return self.difference > MARGIN * self.error


@dataclass(frozen=True)
class Behind:
    """Difference of a candidate from the best.

    Parameters
    ----------
    loss
        By how much its loss is higher, in nats.
    accuracy
        By how much its accuracy is higher, 0–1.
    """

    loss: Lead
    accuracy: Lead

    @property
    def shown(self) -> bool:
        """Whether the candidate is shown to be worse."""
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
    """The selected candidate, and the difference of each candidate from the best."""

    index: int
    behind: list[Behind]


def choose(candidates: Sequence[Candidate], subjects: Subjects, preferred: Sequence[int]) -> Choice:
    """Select the first candidate, in order of preference, that is not shown to be worse than the best.

    Parameters
    ----------
    candidates
        Predictions of each candidate on the same validation sets.
    subjects
        Subjects of the validation images.
    preferred
        Indices of all candidates in order of preference.

    Raises
    ------
    ValueError
        If there is no validation image.
    """
    scores = [mean(_log(candidate.likelihood)) for candidate in candidates]
    best = max(preferred, key=lambda index: scores[index])  # the first of equals
    behind = [compare(candidate, candidates[best], subjects) for candidate in candidates]
    return Choice(first_not_worse(preferred, lambda index: behind[index].shown), behind)


def first_not_worse(preferred: Sequence[T], worse: Callable[[T], bool]) -> T:
    """Return the first in order of preference that is not shown to be worse."""
    return next(one for one in preferred if not worse(one))


def compare(candidate: Candidate, best: Candidate, subjects: Subjects) -> Behind:
    """Return the difference of a candidate from the best."""
    loss = lead(_log(best.likelihood), _log(candidate.likelihood), subjects)
    return Behind(loss, lead(candidate.right, best.right, subjects))


def mean(values: Values) -> float:
    """Return the mean over the non-empty validation sets, each counting the same.

    Raises
    ------
    ValueError
        If all sets are empty.
    """
    means = [float(of_images.mean()) for of_images in values.values() if len(of_images)]
    if not means:
        raise ValueError("there is no validation image for the selection")
    return sum(means) / len(means)


def lead(first: Values, second: Values, subjects: Subjects) -> Lead:
    """Return the difference of two candidates' means and its standard error.

    With d the paired differences of one set of N images, D their mean, and X_c the sum of ``d - D`` over
    the n_c images of each of its G subjects, the variance of D is the larger of two estimates:

    - ``Σ (d - D)² / N (N - 1)``, for independent images, times the `design_effect`, valid for few people,
      even one;
    - ``G / (G - 1) Σ X_c² / N²`` over whole people (Davison and Hinkley 1997, section 3.8), valid for any
      correlation, but uncertain for few people.
    """
    variances = [
        _variance(np.subtract(first[name], second[name], dtype=np.float64), subjects.get(name))
        for name in first
        if len(first[name])
    ]
    return Lead(mean(first) - mean(second), float(np.sqrt(sum(variances))) / len(variances))


def design_effect(people: NDArray[np.integer]) -> float:
    """Return by how much the variance of a mean over images grows as those of a person are alike: at least 1.

    With n_c of N images of person c, ``1 + (Σ n_c² / N - 1) ALIKE`` (Kish, Survey Sampling, 1965, section
    5.4).

    Parameters
    ----------
    people
        The number of each image's person, from 0: (N,).
    """
    sizes = np.bincount(people)
    return 1 + (float(sizes @ sizes) / len(people) - 1) * ALIKE


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
    codes = np.unique(subjects, return_inverse=True)[1]
    of_images *= design_effect(codes)
    people = int(codes.max()) + 1
    if people == 1:
        return of_images
    sums = np.bincount(codes, deviations)
    return max(of_images, people / (people - 1) * float(sums @ sums) / count**2)

"""Estimate the accuracy of a network on unlabelled faces from its predictions.

Both methods compare its confidence on the new faces with that on labelled faces that it was not trained on,
the source's validation set.  Neither detects a network that is confident and wrong; docs/assess.md shows
their errors.

Intervals cover random variation: of the validation images, of the new faces (of people where they are known,
as in `crossfer.evaluation.intervals`) and of the network's errors on them, of which those on one person are
taken to be alike (`crossfer.selection.ALIKE`).  They do not cover a bias of the method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import clusters, for_few, interval, resampled
from crossfer.evaluation.metrics import Probabilities
from crossfer.evaluation.rows import Interval, Row
from crossfer.selection import design_effect

RESAMPLES = 1_000
GROUP, GROUPS = 20, 100
"""Minimum size of a group of `BinnedScores`, and maximum number of groups."""

Values = NDArray[np.float64]
Subjects = NDArray[np.integer] | None


@dataclass(frozen=True)
class Estimate(Row):
    """An accuracy that was estimated without labels."""

    method: str
    accuracy: float
    """In per cent."""
    interval: Interval


def negative_entropy(probabilities: Probabilities) -> Values:
    """Return the negative entropy ``Σ_c p_c log p_c`` of probabilities (N, C): float64 (N,), at most 0."""
    p = probabilities.astype(np.float64)
    return np.asarray((p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(1))


def confidence(probabilities: Probabilities) -> Values:
    """Return the largest of each image's probabilities (N, C): float64 (N,)."""
    return np.asarray(probabilities.max(1), np.float64)


class Method(NamedTuple):
    """A score of each image, and the accuracy in per cent from scores: see `thresholded_confidence`."""

    score: Callable[[Probabilities], Values]
    accuracy: Callable[[Values, NDArray[np.bool_], Values, Values, Values], float]


@dataclass(frozen=True)
class LabelledScores:
    """Predictions of a network on labelled images, as the estimates need them.

    Parameters
    ----------
    scores
        For each method, the confidence score of each image, float64 (N,): see `METHODS`.
    right
        For each method, whether the prediction is right, bool (N,).
    answered
        Number of predictions of each class, int64 (C,).
    subjects
        Subject of each image, (N,); None: all different.
    """

    scores: Mapping[str, Values]
    right: Mapping[str, NDArray[np.bool_]]
    answered: NDArray[np.int64]
    subjects: Subjects = None

    @classmethod
    def of(
        cls, probabilities: Probabilities, labels: NDArray[np.integer], subjects: Subjects = None
    ) -> LabelledScores:
        """Compute them from probabilities, float (N, C), and true labels, (N,)."""
        said = probabilities.argmax(1)
        scores = {name: method.score(probabilities) for name, method in METHODS.items()}
        right = dict.fromkeys(METHODS, said == labels)
        return cls(scores, right, np.bincount(said, minlength=probabilities.shape[1]), subjects)


@dataclass(frozen=True)
class BinnedScores:
    """The same in groups of at least 20 images (or all) with similar scores, without single images.

    The groups are the bins of a reliability diagram with bins of equal size (Guo et al., On Calibration of
    Modern Neural Networks, ICML 2017, section 2).

    Parameters
    ----------
    images
        Number of images.
    scores
        For each method, the mean score of each group, ascending.
    right
        For each method, the number of right predictions in each group.
    answered
        Number of predictions of each class.
    """

    images: int
    scores: Mapping[str, list[float]]
    right: Mapping[str, list[int]]
    answered: list[int]

    @classmethod
    def of(cls, answers: LabelledScores) -> BinnedScores:
        """Divide one or more answers into groups of (nearly) equal size."""
        scores, right = dict[str, list[float]](), dict[str, list[int]]()
        for method, values in answers.scores.items():
            parts = _groups(np.argsort(values, kind="stable"))
            scores[method] = [float(f"{values[part].mean():.6g}") for part in parts]
            right[method] = [int(answers.right[method][part].sum()) for part in parts]
        return cls(int(answers.answered.sum()), scores, right, answers.answered.tolist())

    def answers(self) -> LabelledScores:
        """Return answers with these groups: interpolated scores, right ones evenly distributed."""
        sizes = np.array([len(part) for part in _groups(np.arange(self.images))])
        middles = np.cumsum(sizes) - (sizes + 1) / 2
        scores = {
            method: np.interp(np.arange(self.images), middles, means)
            for method, means in self.scores.items()
        }
        right = {
            method: np.concatenate([_dealt(*pair) for pair in zip(counts, sizes, strict=True)])
            for method, counts in self.right.items()
        }
        return LabelledScores(scores, right, np.array(self.answered))


def _groups(order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(order, min(GROUPS, max(1, len(order) // GROUP)))


def _dealt(right: int, size: int) -> NDArray[np.bool_]:
    """Return bool (size,) with `right` true values, as evenly distributed as possible."""
    return np.diff(np.arange(size + 1) * right // size) > 0


def thresholded_confidence(
    scores: Values, right: NDArray[np.bool_], weights: Values, new: Values, new_weights: Values
) -> float:
    """Estimate an accuracy in per cent: the fraction of new images with scores above a threshold.

    Average thresholded confidence (ATC): Garg, Balakrishnan, Lipton, Neyshabur, Sedghi, Leveraging unlabeled
    data to predict out-of-distribution performance, ICLR 2022, equations 1 and 2.  On the labelled images,
    the fraction of scores below the threshold equals the error rate.

    Parameters
    ----------
    scores, right, weights
        Of labelled images, (N,): score, whether the prediction is right, weight of the image.
    new, new_weights
        Scores and weights of new images, (M,).
    """
    order = np.argsort(scores, kind="stable")
    below = np.cumsum(weights[order])
    wrong = float(weights[~right].sum())
    place = int(np.searchsorted(below, wrong, side="right"))
    threshold = scores[order][place] if place < len(scores) else np.inf
    return float(100 * new_weights[new >= threshold].sum() / new_weights.sum())


def difference_of_confidences(
    confidences: Values, right: NDArray[np.bool_], weights: Values, new: Values, new_weights: Values
) -> float:
    """Estimate an accuracy in per cent from the drop of the mean confidence.

    Difference of confidences (DoC): Guillory, Shankar, Ebrahimi, Darrell, Schmidt, Predicting with confidence
    on unseen distributions, ICCV 2021, section 3, without regression on known shifts: the accuracy on
    labelled images minus the difference of mean confidences.  Parameters as for `thresholded_confidence`.
    """
    accuracy = np.average(right, weights=weights)
    fallen = np.average(confidences, weights=weights) - np.average(new, weights=new_weights)
    return float(100 * np.clip(accuracy - fallen, 0, 1))


METHODS: Mapping[str, Method] = {
    "ATC": Method(negative_entropy, thresholded_confidence),
    "DoC": Method(confidence, difference_of_confidences),
}


def estimates(
    known: LabelledScores,
    new: Probabilities,
    new_subjects: Subjects = None,
    resamples: int = RESAMPLES,
) -> tuple[Estimate, ...]:
    """Estimate the accuracy on new images by each method, with 95 % intervals.

    Parameters
    ----------
    known
        Predictions on labelled images.
    new
        Probabilities of new images, float (M, C).
    new_subjects
        Subjects of the new images, (M,); None: all different.
    resamples
        Number of bootstrap resamples of each set.
    """
    people = clusters(int(known.answered.sum()), known.subjects)
    new_people = clusters(len(new), new_subjects)
    independent = max(1, round(len(new) / design_effect(new_people)))  # so many tell as much
    found = []
    for name, (score, accuracy) in METHODS.items():
        rng = np.random.default_rng(0)
        scores, right, unknown = known.scores[name], known.right[name], score(new)
        ones, new_ones = np.ones(len(scores)), np.ones(len(unknown))
        value = accuracy(scores, right, ones, unknown, new_ones)
        other_known = [
            accuracy(scores, right, weights, unknown, new_ones)
            for weights in _weights(people, resamples, rng)
        ]
        other_new = [
            accuracy(scores, right, ones, unknown, weights)
            for weights in _weights(new_people, resamples, rng)
        ]
        draws = value + sum(
            (np.array(drawn) - value) * for_few(int(who.max()) + 1, resamples, rng)
            for drawn, who in ((other_known, people), (other_new, new_people))
        )
        # Two right and two wrong answers more ("plus four"): where all seem right, errors are possible, too.
        rate = (independent * value / 100 + 2) / (independent + 4)
        draws += 100 * rng.binomial(independent, rate, resamples) / independent - value
        found.append(Estimate(name, value, interval(value, draws, lowest=0.0)))
    return tuple(found)


def _weights(
    people: NDArray[np.integer], resamples: int, rng: np.random.Generator
) -> Iterator[Values]:
    """Yield bootstrap weights of the images, with people as sampling units."""
    for weights in resampled(int(people.max()) + 1, resamples, rng):
        yield weights[people].astype(np.float64)

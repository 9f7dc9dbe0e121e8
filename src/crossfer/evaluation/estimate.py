"""How often is a network right about faces that nobody has labelled?  Estimates, from what it answers.

Both compare its confidence on the new faces with that on labelled ones that it has not learnt from: the
source's validation set.  Neither can see a network that is sure and wrong: see docs/assess.md for how far
they were off.

An interval holds what chance does: which validation images there were, which new faces, whole people where
they are known (as in `crossfer.evaluation.intervals`), and which of these the network happens to be right
about.  It does not hold that the method may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import clusters, for_few, interval
from crossfer.evaluation.metrics import Probabilities
from crossfer.evaluation.rows import Interval, Row

RESAMPLES = 1_000
GROUP, GROUPS = 20, 100
"""Images of a group of `Grouped`, at least; and how many groups there are, at most."""

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
    """Return how sure answers are: ``Σ_c p_c log p_c`` of probabilities (N, C), float64 (N,), at most 0."""
    p = probabilities.astype(np.float64)
    return np.asarray((p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(1))


def confidence(probabilities: Probabilities) -> Values:
    """Return the largest of each image's probabilities (N, C): float64 (N,)."""
    return np.asarray(probabilities.max(1), np.float64)


SCORES: Mapping[str, Callable[[Probabilities], Values]] = {
    "ATC": negative_entropy,
    "DoC": confidence,
}
"""By what each method tells how sure an answer is."""


@dataclass(frozen=True)
class Answers:
    """What a network said about labelled images, as far as estimates need it.

    Parameters
    ----------
    scores
        For each method how sure each answer is, float64 (N,): see `SCORES`.
    right
        For each method which of these answers are right, bool (N,).
    answered
        How often each class is the answer, int64 (C,).
    subjects
        Who is in the images, (N,); None: everybody another.
    """

    scores: Mapping[str, Values]
    right: Mapping[str, NDArray[np.bool_]]
    answered: NDArray[np.int64]
    subjects: Subjects = None

    @classmethod
    def of(
        cls, probabilities: Probabilities, labels: NDArray[np.integer], subjects: Subjects = None
    ) -> Answers:
        """Take them from probabilities, float (N, C), and the truth, (N,)."""
        said = probabilities.argmax(1)
        scores = {method: score(probabilities) for method, score in SCORES.items()}
        right = dict.fromkeys(SCORES, said == labels)
        return cls(scores, right, np.bincount(said, minlength=probabilities.shape[1]), subjects)


@dataclass(frozen=True)
class Grouped:
    """The same without single images: groups of at least 20 (or all) of similar scores.

    They are what a reliability diagram with bins of equal size shows (Guo et al., On Calibration of Modern
    Neural Networks, ICML 2017, section 2).

    Parameters
    ----------
    images
        How many.
    scores
        For each method the mean score of each group, ascending.
    right
        For each method how many answers of each group are right.
    answered
        How often each class is the answer.
    """

    images: int
    scores: Mapping[str, list[float]]
    right: Mapping[str, list[int]]
    answered: list[int]

    @classmethod
    def of(cls, answers: Answers) -> Grouped:
        """Divide answers, which are at least one, into groups of equal size, or nearly so."""
        scores, right = dict[str, list[float]](), dict[str, list[int]]()
        for method, values in answers.scores.items():
            parts = _groups(np.argsort(values, kind="stable"))
            scores[method] = [float(f"{values[part].mean():.6g}") for part in parts]
            right[method] = [int(answers.right[method][part].sum()) for part in parts]
        return cls(int(answers.answered.sum()), scores, right, answers.answered.tolist())

    def answers(self) -> Answers:
        """Return answers that have these groups: scores interpolated, right ones dealt evenly."""
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
        return Answers(scores, right, np.array(self.answered))


def _groups(order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(order, min(GROUPS, max(1, len(order) // GROUP)))


def _dealt(right: int, size: int) -> NDArray[np.bool_]:
    """Return `size` answers of which `right`, as evenly as possible, are right."""
    return np.diff(np.arange(size + 1) * right // size) > 0


def thresholded_confidence(
    scores: Values, right: NDArray[np.bool_], weights: Values, new: Values, new_weights: Values
) -> float:
    """Estimate an accuracy by the share of new answers that are surer than a threshold; in per cent.

    Average thresholded confidence (ATC): Garg, Balakrishnan, Lipton, Neyshabur, Sedghi, Leveraging unlabeled
    data to predict out-of-distribution performance, ICLR 2022, equations 1 and 2.  On the labelled images,
    the share of scores below the threshold is the share of wrong answers.

    Parameters
    ----------
    scores, right, weights
        Of labelled images: how sure the answer is, whether it is right, how often the image counts; (N,).
    new, new_weights
        The same of new images, (M,).
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
    """Estimate an accuracy by how much less confident the new answers are on average; in per cent.

    Difference of confidences (DoC): Guillory, Shankar, Ebrahimi, Darrell, Schmidt, Predicting with confidence
    on unseen distributions, ICCV 2021, section 3, without regression on known shifts: the accuracy on
    labelled images minus the difference of mean confidences.  Parameters as for `thresholded_confidence`.
    """
    accuracy = np.average(right, weights=weights)
    fallen = np.average(confidences, weights=weights) - np.average(new, weights=new_weights)
    return float(100 * np.clip(accuracy - fallen, 0, 1))


def estimates(
    known: Answers,
    new: Probabilities,
    new_subjects: Subjects = None,
    resamples: int = RESAMPLES,
) -> tuple[Estimate, ...]:
    """Estimate the accuracy on new images by each method, with 95 % intervals.

    Parameters
    ----------
    known
        What the network said about labelled images.
    new
        What it said about the new ones, float (M, C).
    new_subjects
        Who is in these, (M,); None: everybody another.
    resamples
        How often each set is drawn again.
    """
    methods: Mapping[str, Callable[..., float]] = {
        "ATC": thresholded_confidence,
        "DoC": difference_of_confidences,
    }
    people = clusters(int(known.answered.sum()), known.subjects)
    new_people = clusters(len(new), new_subjects)
    found = []
    for name, method in methods.items():
        rng = np.random.default_rng(0)
        scores, right, unknown = known.scores[name], known.right[name], SCORES[name](new)
        ones, new_ones = np.ones(len(scores)), np.ones(len(unknown))
        value = method(scores, right, ones, unknown, new_ones)
        other_known = [
            method(scores, right, weights, unknown, new_ones)
            for weights in _weights(people, resamples, rng)
        ]
        other_new = [
            method(scores, right, ones, unknown, weights)
            for weights in _weights(new_people, resamples, rng)
        ]
        draws = value + sum(
            (np.array(drawn) - value) * for_few(int(who.max()) + 1, resamples, rng)
            for drawn, who in ((other_known, people), (other_new, new_people))
        )
        draws += 100 * rng.binomial(len(new), value / 100, resamples) / len(new) - value
        found.append(Estimate(name, value, interval(value, draws, lowest=0.0)))
    return tuple(found)


def _weights(
    people: NDArray[np.integer], resamples: int, rng: np.random.Generator
) -> Iterator[Values]:
    """Draw how often each image counts: whole people are drawn, as often as there are people."""
    count = int(people.max()) + 1
    for weights in rng.multinomial(count, np.full(count, 1 / count), resamples):
        yield weights[people].astype(np.float64)

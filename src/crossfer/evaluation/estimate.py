"""How often is a network right about faces that nobody has labelled?  Estimates, from what it answers.

Both compare its confidence on the new faces with that on labelled ones that it has not learnt from: the
source's validation set.  Neither can see a network that is sure and wrong: see docs/assess.md for how far
they were off.

An interval holds what chance does: which validation images there were, which new faces, whole people where
they are known (as in `crossfer.evaluation.intervals`), and which of these the network happens to be right
about.  It does not hold that the method may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import for_few, interval
from crossfer.evaluation.metrics import Probabilities
from crossfer.evaluation.rows import Interval, Row

RESAMPLES = 1_000

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
    probabilities: Probabilities,
    labels: NDArray[np.integer],
    new: Probabilities,
    subjects: Subjects = None,
    new_subjects: Subjects = None,
    resamples: int = RESAMPLES,
) -> tuple[Estimate, ...]:
    """Estimate the accuracy on new images by each method, with 95 % intervals.

    Parameters
    ----------
    probabilities, labels
        What the network said about labelled images, float (N, C), and the truth, (N,).
    new
        What it said about the new ones, float (M, C).
    subjects, new_subjects
        Who is in the images; None: everybody another.
    resamples
        How often each set is drawn again.
    """
    right = probabilities.argmax(1) == labels
    methods: tuple[tuple[str, Callable[..., float], Callable[[Probabilities], Values]], ...] = (
        ("ATC", thresholded_confidence, negative_entropy),
        ("DoC", difference_of_confidences, lambda p: p.max(1).astype(np.float64)),
    )
    people, new_people = _people(subjects, len(labels)), _people(new_subjects, len(new))
    found = []
    for name, method, score in methods:
        rng = np.random.default_rng(0)
        known, unknown = score(probabilities), score(new)
        ones, new_ones = np.ones(len(known)), np.ones(len(unknown))
        value = method(known, right, ones, unknown, new_ones)
        other_known = [
            method(known, right, weights, unknown, new_ones)
            for weights in _weights(people, resamples, rng)
        ]
        other_new = [
            method(known, right, ones, unknown, weights)
            for weights in _weights(new_people, resamples, rng)
        ]
        draws = value + sum(
            (np.array(drawn) - value) * for_few(int(who.max()) + 1, resamples, rng)
            for drawn, who in ((other_known, people), (other_new, new_people))
        )
        draws += 100 * rng.binomial(len(new), value / 100, resamples) / len(new) - value
        found.append(Estimate(name, value, interval(value, draws, lowest=0.0)))
    return tuple(found)


def _people(subjects: Subjects, count: int) -> NDArray[np.integer]:
    """Number the people of `count` images from 0: of one alone, or of nobody known, the images."""
    if subjects is None or len(np.unique(subjects)) == 1:
        return np.arange(count)
    return np.unique(subjects, return_inverse=True)[1]


def _weights(
    people: NDArray[np.integer], resamples: int, rng: np.random.Generator
) -> Iterator[Values]:
    """Draw how often each image counts: whole people are drawn, as often as there are people."""
    count = int(people.max()) + 1
    for weights in rng.multinomial(count, np.full(count, 1 / count), resamples):
        yield weights[people].astype(np.float64)

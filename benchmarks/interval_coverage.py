"""How often does a "95 % interval" hold the truth?  Answers of made-up networks whose accuracy is known.

Run with ``python benchmarks/interval_coverage.py``; ``docs/statistics.md`` has the table it prints.

A network is right about an image where the sum of its skill, the image's ease, the subject's ease, the
training's luck and noise is above zero, all of them normal; so its true accuracy, over all images, people and
trainings, is known.
"""

from __future__ import annotations

from math import erf, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.intervals import accuracy_interval, change, change_interval

IMAGE, SUBJECT, NOISE, SHARED = 1.0, 0.5, 0.6, 0.7
"""Deviations of the parts, and what share of the ease is the same for both networks."""


class Case(NamedTuple):
    """A test set, some trainings, and how good two networks are."""

    seeds: int
    images: int
    subjects: int
    before: float
    after: float
    luck: float


CASES = [
    Case(1, 67, 0, 0.5, 1.1, 0.0),
    Case(1, 189, 0, 3.2, 3.2, 0.0),
    Case(1, 3589, 0, 0.7, 0.2, 0.0),
    Case(1, 67, 3, 0.5, 1.1, 0.0),
    Case(1, 67, 5, 0.5, 0.5, 0.0),
    Case(1, 734, 9, 0.7, 1.4, 0.0),
    Case(1, 189, 20, 0.7, 1.7, 0.0),
    Case(1, 189, 20, 2.8, 3.1, 0.0),
    Case(2, 3589, 0, 0.7, 0.2, 0.1),
    Case(3, 3589, 0, 0.7, 0.2, 0.03),
    Case(3, 3589, 0, 0.7, 0.2, 0.3),
    Case(5, 3589, 0, 0.7, 0.2, 0.1),
    Case(3, 67, 0, 0.5, 1.1, 0.1),
    Case(3, 189, 20, 0.7, 0.7, 0.1),
    Case(5, 189, 20, 0.7, 1.7, 0.1),
]


def main(repetitions: int = 400) -> None:
    """Print a table of coverage, in per cent, and mean half-width, in points."""
    print("| seeds | images | subjects | true accuracy | true change ", end="")
    print("| accuracy | change | plain bootstrap, change | pigeonhole, change |")
    print("|" + "---|" * 9)
    for case in CASES:
        subject = SUBJECT if case.subjects else 0.0
        spread = sqrt(IMAGE**2 + subject**2 + NOISE**2 + case.luck**2)
        truth = [50 * (1 + erf(skill / spread / sqrt(2))) for skill in (case.before, case.after)]
        found = np.zeros((4, 2))
        rng = np.random.default_rng(1)
        for _ in range(repetitions):
            before, after, subjects = draw(case, rng)
            difference = truth[1] - truth[0]
            for row, (low, high), true in (
                (0, accuracy_interval(after, subjects), truth[1]),
                (1, change_interval(after, before, subjects), difference),
                (2, crossed(after, before, subjects, rng, trainings=False), difference),
                (3, crossed(after, before, subjects, rng, trainings=True), difference),
            ):
                found[row] += low <= true <= high, (high - low) / 2
        cells = [f"{100 * c / repetitions:.0f} (±{w / repetitions:.1f})" for c, w in found]
        people = case.subjects or "–"
        head = f"| {case.seeds} | {case.images:,} | {people} | {truth[1]:.1f} | {truth[1] - truth[0]:+.1f} | "
        print(head + " | ".join(cells) + " |", flush=True)


def draw(
    case: Case, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64] | None]:
    """Draw both networks' answers, (seeds, images), and who is in the images."""
    people = max(case.subjects, 1)
    subjects = np.sort(rng.integers(0, people, case.images))

    def ease() -> NDArray[np.float64]:
        image = rng.normal(0, IMAGE, case.images)
        subject = rng.normal(0, SUBJECT if case.subjects else 0.0, people)
        return np.asarray(image + subject[subjects])

    shared, answers = ease(), []
    for skill in (case.before, case.after):
        own = sqrt(SHARED) * shared + sqrt(1 - SHARED) * ease()
        luck = rng.normal(0, case.luck, (case.seeds, 1))
        noise = rng.normal(0, NOISE, (case.seeds, case.images))
        answers.append(skill + own + luck + noise > 0)
    return answers[0], answers[1], subjects if case.subjects else None


def crossed(
    after: NDArray[np.bool_],
    before: NDArray[np.bool_],
    subjects: NDArray[np.int64] | None,
    rng: np.random.Generator,
    trainings: bool,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Return the percentile interval over images or subjects, and, crossed with them, trainings."""
    scores, seeds = after.astype(float) - before, len(after)
    if subjects is None:  # equal columns are interchangeable
        sums, copies = np.unique(scores, axis=1, return_counts=True)
        sizes = np.ones(len(copies))
    else:
        codes = np.unique(subjects, return_inverse=True)[1]
        sums = np.array([np.bincount(codes, row) for row in scores])
        sizes = np.bincount(codes).astype(float)
        copies = np.ones(len(sizes), int)
    drawn = rng.multinomial(copies.sum(), copies / copies.sum(), resamples)
    weights = np.full((resamples, seeds), 1 / seeds)
    if trainings:
        weights = rng.multinomial(seeds, weights[0], resamples) / seeds
    draws = np.einsum("bs,sc,bc->b", weights, sums, drawn, optimize=True) / (drawn @ sizes)
    low, high = 100 * np.quantile(draws, (0.025, 0.975))
    value = change(after, before)
    return min(low, value), max(high, value)


if __name__ == "__main__":
    main()

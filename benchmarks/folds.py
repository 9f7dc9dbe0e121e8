"""What do folds tell of a target of few people that one split does not?  Made-up people whose truth is known.

    python benchmarks/folds.py [--repetitions 200]

``docs/statistics.md`` has the table.  A person's faces are Gaussian around the class's mean, the person's own
shift, and the person's own way of showing the class.  A network is a mean for each class, and a face belongs
to the nearest.  The old model's means are the true ones, or off by so much; a strategy moves them by a share
towards the means of the people that it learns from.  The truth is the accuracy on 500 other people.

Compared are one split of the people (six to learn from, one to choose by, three to test, as JAFFE's in Table
I), five folds, and a fold for each person.  *Held* is how often the 95 % interval of the gain of the strategy
that moves half way holds the true gain of the very networks that were tested; *recipe*, how often it holds
the mean true gain over all such groups of people.  *Lost* is by how many points the strategy that is chosen
on the validation data is truly worse than the best (*highest*: if the highest accuracy chose), *flattered* by
how many points its measured gain is above the true one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.splits import divide
from crossfer.evaluation.intervals import change_interval
from crossfer.selection import first_not_worse, lead

Array = NDArray[np.float64]
CLASSES, FEATURES, IMAGES = 7, 20, 3
"""Images are of each person and class."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The strategies, the old model first: in doubt it is kept."""
OFF = (0.35, 0.0)
"""How far the old model's means are from the true ones, standard deviation."""
MEASURED = SHARES.index(0.5)
DESIGNS = {"one split": 0, "5 folds": 5, "leave one out": -1}


class People(NamedTuple):
    """Faces (N, FEATURES), their classes and who is in them (N,)."""

    faces: Array
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> People:
        """Take some of them."""
        return People(self.faces[rows], self.labels[rows], self.subjects[rows])


def people(rng: np.random.Generator, means: Array, count: int) -> People:
    """Draw people."""
    who = np.repeat(np.arange(count), CLASSES * IMAGES)
    labels = np.tile(np.repeat(np.arange(CLASSES), IMAGES), count)
    shift = rng.normal(0, 0.4, (count, FEATURES))
    own = rng.normal(0, 0.6, (count, CLASSES, FEATURES))
    noise = rng.normal(0, 0.8, (len(who), FEATURES))
    return People(means[labels] + shift[who] + own[who, labels] + noise, labels, who)


def right(means: Array, shown: People) -> NDArray[np.bool_]:
    """Tell about which faces the network of these means is right."""
    distances = (means**2).sum(1) - 2 * shown.faces @ means.T
    return np.asarray(distances.argmin(1) == shown.labels)


def networks(old: Array, learnt: People) -> list[Array]:
    """Return the network of each strategy."""
    new = np.stack([learnt.faces[learnt.labels == c].mean(0) for c in range(CLASSES)])
    return [(1 - share) * old + share * new for share in SHARES]


def divisions(shown: People, design: int, seed: int) -> list[tuple[NDArray[np.bool_], ...]]:
    """Return which faces are learnt from, chosen by and tested, for each fold."""
    count = int(shown.subjects.max()) + 1
    names = [str(who) for who in shown.subjects]
    if not design:
        parts = divide(shown.labels, names, (6, 1, 3), seed)
        return [(parts == 0, parts == 1, parts == 2)]
    folds = count if design < 0 else design
    parts = divide(shown.labels, names, [1] * folds, seed)
    return [
        ((parts != k) & (parts != (k + 1) % folds), parts == (k + 1) % folds, parts == k)
        for k in range(folds)
    ]


class Outcome(NamedTuple):
    """Of one group of people: in points, but for the interval's ends."""

    low: float
    high: float
    true_gain: float
    lost: float
    lost_by_highest: float
    flattered: float


def tried(
    old: Array, shown: People, others: People, splits: Sequence[tuple[NDArray[np.bool_], ...]]
) -> Outcome:
    """Adapt, choose, test, and compare with the truth."""
    chosen_by, tested = np.zeros((2, len(SHARES), len(shown.labels)))
    true = []
    for learnt, validation, test in splits:
        for i, network in enumerate(nets := networks(old, shown.of(learnt))):
            chosen_by[i, validation] = right(network, shown.of(validation))
            tested[i, test] = right(network, shown.of(test))
        true.append([100 * right(network, others).mean() for network in nets])
    validated, asked = (np.any([split[k] for split in splits], axis=0) for k in (1, 2))
    truth = np.mean(true, 0)

    def behind(i: int, best: int) -> bool:
        first, second = ({"": chosen_by[j, validated]} for j in (best, i))
        return lead(first, second, {"": shown.subjects[validated]}).shown

    best = int(np.argmax(chosen_by[:, validated].mean(1)))
    kept = first_not_worse([0, best], lambda i: behind(i, best))
    after, before = (tested[i, asked].astype(bool)[None] for i in (MEASURED, 0))
    measured = 100 * tested[:, asked].mean(1)
    return Outcome(
        *change_interval(after, before, shown.subjects[asked]),
        truth[MEASURED] - truth[0],
        truth.max() - truth[kept],
        truth.max() - truth[best],
        (measured[kept] - measured[0]) - (truth[kept] - truth[0]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--people", type=int, nargs="*", default=[10, 20])
    asked = parser.parse_args()
    print(
        "| old model | people | design | held | recipe | half-width | lost | highest | flattered |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for off, count in product(OFF, asked.people):
        found: dict[str, list[Outcome]] = {design: [] for design in DESIGNS}
        for repetition in range(asked.repetitions):
            rng = np.random.default_rng([repetition, count])
            means = np.random.default_rng(7).normal(0, 0.7, (CLASSES, FEATURES))
            old = means + np.random.default_rng(8).normal(0, off, means.shape)
            shown, strangers = people(rng, means, count), people(rng, means, 500)
            for design, number in DESIGNS.items():
                splits = divisions(shown, number, repetition)
                found[design].append(tried(old, shown, strangers, splits))
        for design, outcomes in found.items():
            low, high, true, *others = np.transpose(outcomes)
            held, recipe = (100 * np.mean((low <= x) & (x <= high)) for x in (true, true.mean()))
            means = [
                f"{x.mean():.2f} ± {1.96 * x.std(ddof=1) / np.sqrt(len(x)):.2f}" for x in others
            ]
            width = f"±{(high - low).mean() / 2:.1f}"
            row = [
                "off" if off else "right",
                str(count),
                design,
                f"{held:.0f}",
                f"{recipe:.0f}",
                width,
                *means,
            ]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

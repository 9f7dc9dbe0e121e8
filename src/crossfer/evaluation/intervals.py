"""How sure is a number?  95 % intervals for an accuracy and for a change of accuracy.

A measured accuracy is off by chance for two reasons: other test *images* (above all, other people) would
have given another number, and so would another *training* (its seed).  Both are counted here.

*Images.*  The bootstrap draws the test set again from itself, with replacement.  Pictures of one person are
alike, so whole subjects are drawn where they are known (the cluster bootstrap: Davison and Hinkley 1997,
section 3.8); an image without a subject stands for itself.  Two networks are always compared on the same
drawn images.

*Trainings.*  With several seeds, the seeds' means are drawn again the same way.  With one seed nothing is
known about this noise, and an interval does not hold it.

*Folds.*  A target whose people are few is cross-validated: each image is answered by the network that has
not met its subject, and all these answers are one test set.  On the source, each fold's network answers about
every image.  Folds share a baseline and most of their people, so they are no independent trainings: of
several seeds, a seed's mean over folds is one training.  Of one seed, its folds are taken for trainings, all
that is known about these: such an interval is too narrow rather than too wide.

*Few.*  A test set may have three subjects, an experiment three seeds.  Drawn from n, the bootstrap's
variance is (n − 1)/n of what it should be, and it does not know that it was estimated from few.  Each drawn
deviation is therefore multiplied by √(n / χ²), χ² drawn with n − 1 degrees of freedom: √(n / (n − 1)) mends
the variance, and a normal deviate over √(χ² / (n − 1)) is Student's t.  For large n nothing changes.

*Both at once.*  The two deviations are added, as in Behrens and Fisher's problem.  What is peculiar to one
image in one training is counted in both, so intervals err on the wide side.  Drawing seeds and subjects
crosswise (the pigeonhole bootstrap: Owen 2007) is the well-known alternative; no bootstrap of crossed
factors is exact (McCullagh 2000), and with two or three seeds its intervals hold the truth in 70 to 98 of
100 cases; these, in 95 to 99 (``docs/statistics.md`` has the simulation).

*None wrong.*  The bootstrap of 67 right out of 67 is always 67 out of 67.  Every drawn test set therefore
also has four imagined images on which each network is right by the toss of a coin: Agresti and Coull's
"plus four" (1998), for pairs too.  Among thousands of images they do not show.

The interval is the percentile interval of the draws.  BCa would mend bias and skewness, which are small
here, and not fewness, which is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation.rows import Interval

Right = NDArray[np.bool_]
Draws = NDArray[np.float64]

RESAMPLES = 10_000
IMAGINED = 4
"""Images in every drawn test set that nobody has seen."""

LEVEL = 0.95
Z = 1.959963984540054
"""The normal distribution's quantile at (1 + `LEVEL`) / 2."""


def accuracy_interval(
    right: Right, subjects: NDArray[np.integer] | None = None, folds: int = 1
) -> Interval:
    """Return the 95 % interval of an accuracy, in per cent.

    Images that are independent of one another, in one training, are the textbook's case: Wilson's interval.
    Everything else is drawn; see `resample` for the parameters.
    """
    value = 100 * float(right.mean())
    if len(right) == 1 and independent(subjects):
        return _around(value, *wilson_interval(int(right.sum()), right.size), lowest=0.0)
    return interval(value, resample(right, subjects=subjects, folds=folds), lowest=0.0)


def change_interval(
    after: Right, before: Right, subjects: NDArray[np.integer] | None = None, folds: int = 1
) -> Interval:
    """Return the 95 % interval of a change of accuracy, in points; see `resample`."""
    return interval(change(after, before), resample(after, before, subjects, folds=folds))


def change(after: Right, before: Right) -> float:
    """Return the accuracy of one network minus another's, in points, over all seeds."""
    return float(100 * (int(after.sum()) - int(before.sum())) / after.size)


def resample(
    after: Right | NDArray[np.integer],
    before: Right | NDArray[np.integer] | None = None,
    subjects: NDArray[np.integer] | None = None,
    *,
    folds: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Draws:
    """Draw accuracies, or changes of accuracy, as they might have come out.

    With x_si in {0, 1} (or after minus before, in {−1, 0, 1}), its means over seeds summed to X_c in each of
    the G clusters of n_c images, multinomial counts w (G clusters drawn from G) and v (S seeds from S), and
    the imagined images' sum k, of mean κ, each draw is::

        m + ((Σ_c w_c X_c + κ) / (Σ_c w_c n_c + 4) − m) √(G / χ²_{G−1})
          + (k − κ) / (N + 4)
          + (Σ_s v_s x̄_s / S − x̄) √(S / χ²_{S−1}),    m = (Σ_c X_c + κ) / (N + 4)

    Parameters
    ----------
    after
        Whether the network of each seed was right about each image: bool (S, N); or how many of several
        networks were, integer (S, N).
    before
        The same of the network to compare it with, on the same images and seeds; None draws accuracies.
    subjects
        Who is in each image: integer (N,).  None: everybody another.
    folds
        How many networks there are of each seed, one after the other: those of its folds.  S then counts
        seeds; of one seed, its folds.
    resamples
        How many draws.
    seed
        The same seed gives the same draws.

    Returns
    -------
    float64 (resamples,)
        In per cent, or in points.
    """
    rng = np.random.default_rng(seed)
    scores = after.astype(np.int64) if before is None else after.astype(np.int64) - before
    sign = _first_sign(scores) if before is not None else 1  # so that a swap mirrors every draw
    scores = sign * scores
    networks, images = scores.shape
    codes = clusters(images, subjects)
    sums, sizes = np.bincount(codes, scores.sum(0)).astype(np.int64), np.bincount(codes)

    # Equal clusters are interchangeable: thousands of single images are a handful of kinds.
    kinds, copies = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    drawn = rng.multinomial(len(sums), copies / len(sums), resamples) @ kinds.T

    coins = rng.binomial(IMAGINED, 0.5, resamples)
    if before is not None:
        coins = coins - rng.binomial(IMAGINED, 0.5, resamples)
    expected = IMAGINED / 2 if before is None else 0.0
    centre = (scores.sum() / networks + expected) / (images + IMAGINED)
    means = (drawn[:, 0] / networks + expected) / (drawn[:, 1] + IMAGINED)
    draws = centre + (means - centre) * for_few(len(sums), resamples, rng)
    draws += (coins - expected) / (images + IMAGINED)

    trained = scores.mean(1)
    if networks > folds:  # those of one seed have a baseline in common, and most of the people
        trained = trained.reshape(-1, folds).mean(1)
    seeds = len(trained)
    if seeds > 1:
        drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) @ trained / seeds
        draws += (drawn_seeds - trained.mean()) * for_few(seeds, resamples, rng)
    return np.asarray(100 * sign * draws)


def interval(value: float, draws: Draws, lowest: float = -100.0) -> Interval:
    """Return the range of the middle 95 % of the draws, within [lowest, 100] and around the value."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _around(value, float(low), float(high), lowest)


def p_value(draws: Draws) -> float:
    """Return how surprising a change so far from zero would be if there were none: two-sided.

    Twice the share of the draws on the lesser side of zero: below 0.05 when the interval leaves zero out.
    At least 2 / (draws + 1): draws cannot show what is rarer (Davison and Hinkley 1997, section 4.2).
    """
    beyond = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return min(1.0, 2 * (beyond + 1) / (len(draws) + 1))


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, in per cent (Wilson 1927; Brown, Cai, DasGupta 2001).

    With p = right / total: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not total:
        return 0.0, 100.0
    z, share = Z, right / total
    centre = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 100 / (1 + z * z / total)
    return float((centre - half) * scale), float((centre + half) * scale)


def subject_codes(subjects: Sequence[Any]) -> NDArray[np.int64] | None:
    """Number the subjects of N images: int64 (N,); None where nobody is known.

    An image without a subject (None) is a subject of its own.
    """
    if all(subject is None for subject in subjects):
        return None
    names = [("image", i) if s is None else ("subject", s) for i, s in enumerate(subjects)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def count_people(subjects: NDArray[np.integer] | None) -> int | None:
    """Return how many subjects there are; None where nobody is known."""
    return None if subjects is None else len(np.unique(subjects))


def clusters(images: int, subjects: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Number what is drawn together, from 0: people, or else images: int64 (N,).

    Of a single subject images are drawn: how people differ cannot be seen from one.
    """
    if subjects is not None:
        people, codes = np.unique(subjects, return_inverse=True)
        if len(people) > 1:
            return np.asarray(codes, np.int64)
    return np.arange(images)


def independent(subjects: NDArray[np.integer] | None) -> bool:
    """Tell whether no two images share a subject."""
    return subjects is None or len(np.unique(subjects)) == len(subjects)


def for_few(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw what deviations of n drawn from n are multiplied by: √(n / χ²), χ² with n − 1 degrees of freedom.

    1 where there is but one.
    """
    return np.sqrt(n / rng.chisquare(n - 1, resamples)) if n > 1 else np.ones(resamples)


def _around(value: float, low: float, high: float, lowest: float) -> Interval:
    return max(min(low, value), lowest), min(max(high, value), 100.0)


def _first_sign(scores: NDArray[np.int64]) -> int:
    differing = scores[scores != 0]
    return int(np.sign(differing[0])) if differing.size else 1

"""95 % bootstrap intervals for an accuracy and for a change of accuracy.

A measured accuracy is random for two reasons: other test *images* (above all, other people) would give
another value, and so would another *training* (another seed).  The intervals cover both.

*Images.*  The bootstrap resamples the test set with replacement.  Images of one person are correlated, so
whole subjects are resampled where they are known (cluster bootstrap: Davison and Hinkley 1997, section 3.8);
an image without a subject is its own cluster.  Two networks are always compared on the same resampled images.

*Trainings.*  With several seeds, the means of the seeds are resampled the same way.  With one seed this
variation is unknown, and the interval does not cover it.

*Folds.*  A target with few people is cross-validated: each image is predicted by the network that was not
trained on its subject, and all these predictions are one test set.  On the source, each fold's network
predicts every image.  Folds share a baseline and most of their people, so they are not independent trainings:
with several seeds, a seed's mean over folds counts as one training.  With one seed, its folds count as
trainings; such an interval is rather too narrow than too wide.

*Small samples.*  A test set may have three subjects, an experiment three seeds.  The bootstrap variance of n
units is too small by the factor (n − 1)/n, and ignores that the variance is estimated.  Each deviation is
therefore multiplied by √(n / χ²), χ² drawn with n − 1 degrees of freedom: √(n / (n − 1)) corrects the
variance, and a normal deviate divided by √(χ² / (n − 1)) has Student's t distribution.  For large n nothing
changes.

*Both at once.*  The two deviations are added, as in the Behrens–Fisher problem.  The interaction of image and
training is counted in both, so intervals err on the wide side.  The well-known alternative resamples seeds
and subjects crosswise (pigeonhole bootstrap: Owen 2007); no bootstrap of crossed factors is exact (McCullagh
2000), and with two or three seeds it covers the truth in 70 to 98 % of cases; these intervals, in 95 to 99 %
(``docs/statistics.md`` has the simulation).

*No errors.*  Every resample of 67 right out of 67 is 67 out of 67.  Therefore every resample has four
additional images on which each network is right with probability one half: Agresti and Coull's "plus four"
(1998), for pairs, too.  They have no effect among thousands of images.

The interval is the percentile interval of the draws.  BCa would correct bias and skewness, which are small
here, but not the small number of units.
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
"""Additional images in every resample."""

LEVEL = 0.95
Z = 1.959963984540054
"""The normal distribution's quantile at (1 + `LEVEL`) / 2."""


def accuracy_interval(
    right: Right, subjects: NDArray[np.integer] | None = None, folds: int = 1
) -> Interval:
    """Return the 95 % interval of an accuracy, in per cent.

    For independent images and one training it is Wilson's interval, otherwise a bootstrap interval; see
    `resample` for the parameters.
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
    """Return bootstrap draws of an accuracy, or of a change of accuracy.

    With x_si in {0, 1} (or after minus before, in {−1, 0, 1}), its means over seeds summed to X_c in each of
    the G clusters of n_c images, multinomial counts w (G clusters drawn from G) and v (S seeds from S), and
    the imagined images' sum k, of mean κ, each draw is::

        m + ((Σ_c w_c X_c + κ) / (Σ_c w_c n_c + 4) − m) √(G / χ²_{G−1})
          + (k − κ) / (N + 4)
          + (Σ_s v_s x̄_s / S − x̄) √(S / χ²_{S−1}),    m = (Σ_c X_c + κ) / (N + 4)

    Parameters
    ----------
    after
        Whether the network of each seed is right on each image: bool (S, N); or how many of several networks
        are, integer (S, N).
    before
        The same for the network to compare with, on the same images and seeds; None: accuracies.
    subjects
        Subject of each image: integer (N,).  None: all different.
    folds
        Number of consecutive rows per seed, one for each fold.  S is then the number of seeds or, with one
        seed, of folds.
    resamples
        Number of draws.
    seed
        Seed of the draws.

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
        drawn_seeds = resampled(seeds, resamples, rng) @ trained / seeds
        draws += (drawn_seeds - trained.mean()) * for_few(seeds, resamples, rng)
    return np.asarray(100 * sign * draws)


def interval(value: float, draws: Draws, lowest: float = -100.0) -> Interval:
    """Return the middle 95 % of the draws, within [lowest, 100] and including the value."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _around(value, float(low), float(high), lowest)


def p_value(draws: Draws) -> float:
    """Return the two-sided p-value of the hypothesis of no change.

    Twice the fraction of the draws on the smaller side of zero: below 0.05 if the interval excludes zero.
    At least 2 / (draws + 1) (Davison and Hinkley 1997, section 4.2).
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
    """Number the subjects of N images: int64 (N,); None if all are unknown.

    An image without a subject (None) gets a number of its own.
    """
    if all(subject is None for subject in subjects):
        return None
    names = [("image", i) if s is None else ("subject", s) for i, s in enumerate(subjects)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def count_people(subjects: NDArray[np.integer] | None) -> int | None:
    """Return the number of subjects; None if they are unknown."""
    return None if subjects is None else len(np.unique(subjects))


def clusters(images: int, subjects: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Number the sampling units of N images, from 0: subjects, or else images: int64 (N,).

    With a single subject the units are images, since its variation between people is unknown.
    """
    if subjects is not None:
        people, codes = np.unique(subjects, return_inverse=True)
        if len(people) > 1:
            return np.asarray(codes, np.int64)
    return np.arange(images)


def independent(subjects: NDArray[np.integer] | None) -> bool:
    """Tell whether no two images share a subject."""
    return subjects is None or len(np.unique(subjects)) == len(subjects)


def resampled(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw how often each of n units is in a resample of n: (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples)


def for_few(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the factors of bootstrap deviations of n units: √(n / χ²), χ² with n − 1 degrees of freedom.

    1 if n is 1.
    """
    return np.sqrt(n / rng.chisquare(n - 1, resamples)) if n > 1 else np.ones(resamples)


def _around(value: float, low: float, high: float, lowest: float) -> Interval:
    return max(min(low, value), lowest), min(max(high, value), 100.0)


def _first_sign(scores: NDArray[np.int64]) -> int:
    differing = scores[scores != 0]
    return int(np.sign(differing[0])) if differing.size else 1

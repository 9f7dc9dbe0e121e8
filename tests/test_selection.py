"""Which candidate is kept: no lottery, however few images there are to choose by."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from crossfer.selection import ALIKE, Candidate, Values, choose, compare, lead

Array = NDArray[np.float64]


def curve(
    losses: list[float], images: int, noise: float, seed: int = 0, accuracy: float = 0.5
) -> list[Candidate]:
    """Return candidates of some losses that find the same images hard, on one set."""
    rng = np.random.default_rng(seed)
    hard = _centred(rng, images, 0.3)
    drawn = [np.exp(-loss - hard - _centred(rng, images, noise)) for loss in losses]
    right = np.arange(images) < accuracy * images
    return [Candidate({"source": likelihood}, {"source": right}) for likelihood in drawn]


def _centred(rng: np.random.Generator, images: int, noise: float) -> Array:
    drawn = rng.normal(0, noise, images)
    return np.asarray(drawn - drawn.mean())


def also(candidate: Candidate, likelihood: list[float], right: int) -> Candidate:
    """Add a second set, of as many images as it has likelihoods."""
    mine = np.arange(len(likelihood)) < right
    return Candidate(
        {**candidate.likelihood, "target": np.array(likelihood)},
        {**candidate.right, "target": mine},
    )


LATEST_FIRST = (2, 1, 0)


def test_the_latest_is_kept_that_is_not_shown_to_be_worse() -> None:
    """Against the noise of paired differences, not of images: these differ by 0.3 nats."""
    for last, kept in ((1.001, 2), (1.02, 1)):
        choice = choose(curve([1.1, 1.0, last], 400, 0.1), {}, LATEST_FIRST)
        assert choice.index == kept
        assert choice.behind[1].loss.difference == 0
        assert choice.behind[2].loss.difference == pytest.approx(last - 1)
        assert choice.behind[2].loss.error == pytest.approx(0.1 * 2**0.5 / 20, rel=0.2)


def test_too_sure_is_not_worse() -> None:
    """A network that goes on learning is right more often, and its loss rises all the same."""
    before, after = curve([1.0, 1.2], 400, 0.1)
    better = Candidate(after.likelihood, {"source": np.arange(400) < 201})
    assert choose([before, after], {}, (1, 0)).index == 0
    assert choose([before, better], {}, (1, 0)).index == 1


def test_a_few_pictures_of_one_person_do_not_outvote_thousands() -> None:
    """As found on real faces: 6 instead of 3 of 20 right cost 5 points among 3,589."""
    person = [(0.30, 3), (0.35, 6), (0.32, 3)]  # all near the threshold
    source = [curve([loss], 3589, 0.3, n, a)[0] for n, (loss, a) in enumerate(
        [(1.5, 0.40), (1.25, 0.54), (1.10, 0.595)]
    )]  # fmt: skip
    candidates = [
        also(one, [p] * 10 + [p / 2] * 10, n) for one, (p, n) in zip(source, person, strict=True)
    ]
    accuracies = [np.mean([r.mean() for r in one.right.values()]) for one in candidates]
    assert int(np.argmax(accuracies)) == 1
    choice = choose(candidates, {"target": np.zeros(20, int)}, LATEST_FIRST)
    assert choice.index == 2


def test_pictures_of_one_person_are_not_independent() -> None:
    rng, none = np.random.default_rng(0), np.zeros(200)
    people = np.arange(200) // 20
    differences = rng.normal(0, 1, 10)[people] + rng.normal(0, 0.1, 200)
    one, other = {"target": differences}, {"target": none}
    alone, together = (lead(one, other, {"target": s}).error for s in (None, people))
    assert alone == pytest.approx(np.std(differences, ddof=1) / 200**0.5)
    assert together == pytest.approx(np.std(differences.reshape(10, 20).mean(1), ddof=1) / 10**0.5)
    assert together > 3 * alone
    of_one_person = lead(one, other, {"target": people * 0}).error
    assert of_one_person == pytest.approx(alone * (1 + 199 * ALIKE) ** 0.5)
    assert lead(other, one, {"target": people}).difference == -differences.mean()


def test_what_cannot_be_told_apart_is_no_reason_to_leave_the_preferred_one() -> None:
    right: Values = {"source": np.array([True])}
    equal = curve([1.0] * 3, 9, 0.0)
    single = [Candidate({"source": np.array([p])}, right) for p in (0.9, 0.1, 0.2)]
    for candidates in (equal, single):
        for preferred in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            assert choose(candidates, {}, preferred).index == preferred[0]
    with pytest.raises(ValueError, match="no validation image"):
        choose([Candidate({}, {})], {}, [0])


@pytest.mark.parametrize("seed", range(20))
def test_epochs_are_chosen_on_the_way_as_they_would_be_at_the_end(seed: int) -> None:
    """A training keeps the weights of one epoch and the answers of one: it need not look back."""
    rng = np.random.default_rng(seed)
    losses = list(np.maximum(1.5 - 0.02 * np.arange(12), 1.4) + rng.normal(0, 0.02, 12))
    accuracies = rng.uniform(0.4, 0.6, 12)
    candidates = [
        curve([loss], 60, 0.1, seed + n, accuracy)[0]
        for n, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    ]
    best, kept = candidates[0], 0
    for epoch, candidate in enumerate(candidates):
        behind = compare(candidate, best, {})
        kept = kept if behind.shown else epoch
        best = best if behind.loss.difference > 0 else candidate
    assert kept == choose(candidates, {}, range(11, -1, -1)).index

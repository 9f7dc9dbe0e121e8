"""Inter-annotator agreement: Cohen's κ.  Pure functions.

Cohen's κ = (p_o − p_e) / (1 − p_e): the share of faces with the same answer, p_o, over what two people with
these habits would reach by chance, p_e = Σ_k p_k· p_·k (Cohen, A Coefficient of Agreement for Nominal Scales,
1960, equation 1).  Its interval takes p_e as given, as Cohen's standard error does (equation 7), and Wilson's
interval for p_o, so that twenty equal answers out of twenty are not taken for certainty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossfer.evaluation.intervals import wilson_interval


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance.

    Parameters
    ----------
    value
        −1 to 1; ``None`` where both gave one and the same answer to every face: nothing can be said.
    interval
        95 %.
    faces
        That both answered.
    same
        How many of them alike.
    """

    value: float | None
    interval: tuple[float, float] | None
    faces: int
    same: int


@dataclass(frozen=True)
class OfClass:
    """Agreement on one class against all others: who said how often that a face shows it.

    Parameters
    ----------
    name
        Of the class.
    kappa
        Of the answers "it" and "not it".
    first, second, both
        How many faces each of the two, and both, say to show it.
    """

    name: str
    kappa: Kappa
    first: int
    second: int
    both: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of two people.

    Parameters
    ----------
    people
        The two.
    kappa
        Over all classes.
    classes
        Over each that one of them named.
    disagreements
        The faces that they answered otherwise.
    """

    people: tuple[str, str]
    kappa: Kappa
    classes: list[OfClass]
    disagreements: list[str]


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> Kappa:
    """Return Cohen's κ.

    Parameters
    ----------
    first, second
        Answers of two people to the same faces, in the same order; at least one face.
    """
    faces = len(first)
    same = sum(one == other for one, other in zip(first, second, strict=True))
    one, other = Counter(first), Counter(second)
    by_chance = sum(one[name] * other[name] for name in one) / faces**2
    if by_chance == 1:
        return Kappa(None, None, faces, same)
    low, high = (_beyond(share / 100, by_chance) for share in wilson_interval(same, faces))
    return Kappa(_beyond(same / faces, by_chance), (max(low, -1.0), high), faces, same)


def agreement(
    people: tuple[str, str],
    first: Mapping[str, str],
    second: Mapping[str, str],
    classes: Sequence[str],
) -> Agreement | None:
    """Compare the answers of two people.

    Parameters
    ----------
    people
        Their names.
    first, second
        What each answered, by face.
    classes
        All possible answers, in their order.

    Returns
    -------
    Agreement or None
        ``None`` where no face was answered by both.
    """
    common = [face for face in first if face in second]
    if not common:
        return None
    one, other = [first[face] for face in common], [second[face] for face in common]
    named = {*one, *other}
    return Agreement(
        people,
        cohens_kappa(one, other),
        [
            OfClass(
                name,
                cohens_kappa([_is(a, name) for a in one], [_is(b, name) for b in other]),
                one.count(name),
                other.count(name),
                sum(a == b == name for a, b in zip(one, other, strict=True)),
            )
            for name in [*classes, *sorted(named - {*classes})]
            if name in named
        ],
        [face for face, a, b in zip(common, one, other, strict=True) if a != b],
    )


def _is(answer: str, name: str) -> str:
    return "it" if answer == name else "another"


def _beyond(observed: float, by_chance: float) -> float:
    return (observed - by_chance) / (1 - by_chance)

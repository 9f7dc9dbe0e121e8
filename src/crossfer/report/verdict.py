"""One update in a sentence: what it lost, what it gained, which classes fell, and so whether to use it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from crossfer.evaluation.mistaken import guesses
from crossfer.evaluation.rows import Change, ClassChange, Result
from crossfer.report.view import (
    View,
    listed,
    number,
    shown,
    signed,
    span,
)
from crossfer.terms import BL, SIDES, Side

NOTHING, MUCH = 1.0, 5.0
"""Changes, in points: below the first nothing happened, from the second on it is forgetting."""

FELL = 10.0
"""A class whose recall falls by so many points is warned of."""

Advice = Literal["use", "care", "keep", "none"]


def judge(view: View, row: Result) -> tuple[str, Advice]:
    """Say in a sentence what an update did to both datasets, and what to do about it."""
    name, old, new = row.strategy, shown(view.source), shown(view.dataset(row.target))
    if nothing := no_comparison(view, row):
        return nothing, "none"
    if name == BL:
        text = f"Keep the old model: no strategy beats it on {old} and {new} together."
        return text, "keep"
    change, gain = row.memory_integrity.points, row.gain.points
    kept, gained = change > -NOTHING, gain >= NOTHING
    joined = "and" if kept == gained else "but"
    facts = f"{name} {_on_source(change, old)} {joined} {_on_target(gain, new)}"
    if not gained:
        return f"{facts}: no good reason to change.", "keep"
    if change <= -MUCH:
        return f"{facts}: use it only if the new faces matter more than the old.", "care"
    if row.gain.interval and row.gain.interval[0] <= 0:
        return f"{facts}: use it with care, since the gain may be chance.", "care"
    if lower := [view.classes[fall.label] for fall in falls(row) if fall.sure]:
        lower = list(dict.fromkeys(lower))
        return f"{facts}: use it only if lower recall of {listed(lower)} is acceptable.", "care"
    return f"{facts}: use it.", "use"


def no_comparison(view: View, row: Result) -> str:
    """Say that the old model only guesses, so that nothing can be compared with it; empty if it does not."""
    if not only_guesses(view, row.target):
        return ""
    before = view.before(row.target).on_source.test
    return (
        f"No comparison: {BL} has {number(before.accuracy)}\N{NO-BREAK SPACE}% on "
        f"{shown(view.source)}, no better than guessing."
    )


def only_guesses(view: View, target: str) -> bool:
    """Tell whether the baseline guesses: a mean over few seeds is too uncertain to tell, so each of them."""
    rows = [view.before(target), *view.baselines(target)]
    return all(guesses(row.on_source.test) for row in rows)


def _on_source(change: float, name: str) -> str:
    if change >= NOTHING:
        return f"raised {name} by {change:.1f} points"
    if change > -NOTHING:
        points = signed(change)
        return f"left {name} unchanged" if points == "0.0" else f"kept {name} ({points} points)"
    return f"{'lost' if change > -MUCH else 'forgot'} {-change:.1f} points on {name}"


def _on_target(gain: float, name: str) -> str:
    if gain >= NOTHING:
        return f"gained {gain:.1f} on {name}"
    return f"gained nothing on {name}" if gain > -NOTHING else f"lost {-gain:.1f} on {name}"


class Fall(NamedTuple):
    """A class whose recall fell by `FELL` points or more on the test set of one side."""

    side: Side
    label: int
    change: ClassChange

    @property
    def sure(self) -> bool:
        """Whether the 95 % interval of the change lies below zero."""
        return self.change.interval is not None and self.change.interval[1] < 0


def falls(row: Result) -> list[Fall]:
    """Return for each side the class that fell most, if one fell much; one beyond chance comes first."""
    return [fell[0] for side in SIDES if (fell := falls_in(row.change(side), side))]


def fallen(view: View, row: Result) -> list[str]:
    """Name every class that a result recognises much less often than the old model, on both sides."""
    return [
        fall_in_words(view, row, fall)
        for side in SIDES
        for fall in falls_in(row.change(side), side)
    ]


def falls_in(change: Change, side: Side) -> list[Fall]:
    """Return the classes that fell much on a side: those beyond chance first, the largest fall first."""
    fell = [
        Fall(side, label, one)
        for label, one in enumerate(change.classes)
        if one and one.points <= -FELL
    ]
    return sorted(fell, key=lambda fall: (not fall.sure, fall.change.points))


def fall_in_words(view: View, after: Result, fall: Fall) -> str:
    """Write how often a class was recognised before and after, and whether the fall may be chance."""
    side, label, change = fall
    dataset = view.source if side == "source" else view.dataset(after.target)
    old, new = (
        number(row.on(side).test.recall[label], 0) for row in (view.before(after.target), after)
    )
    doubt = "" if fall.sure else ", which may be chance"
    return (
        f"{shown(dataset)}, {view.classes[label]}: {after.strategy} recognises "
        f"{new}\N{NO-BREAK SPACE}%, the old model {old}\N{NO-BREAK SPACE}% "
        f"({signed(change.points)} points, {change.images:,} images; 95\N{NO-BREAK SPACE}% "
        f"interval {span(change.interval)}{doubt})."
    )

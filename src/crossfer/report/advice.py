"""From results to an answer for each target: what to do, why, what it costs, and what is given up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossfer.datasets.audit import FEW_PEOPLE
from crossfer.evaluation.decision import merit
from crossfer.evaluation.rows import DatasetFacts, Recommendation, Result, RunFacts
from crossfer.evaluation.suggested import in_words, led
from crossfer.report.tables import fine_tunings
from crossfer.report.verdict import MUCH, NOTHING, Advice, fall_in_words, falls, judge, only_guesses
from crossfer.report.view import (
    View,
    duration,
    listed,
    number,
    people,
    shown,
    signed,
    surprise,
)
from crossfer.report.words import HERE, diverged, missing_classes, sureness
from crossfer.terms import BL, SIDES

NEAR = 2.0
"""A strategy within these points of the chosen one on validation data comes close."""

FEW_IMAGES = 100
"""With fewer test images than this, an accuracy is only roughly known."""

FEW_SEEDS = 5
"""An interval over fewer seeds is wide for that reason alone."""


@dataclass(frozen=True)
class Answer:
    """What to do about one target.

    Parameters
    ----------
    target
        The target's name, for people.
    strategy
        The recommended strategy.
    about
        What it does.
    verdict
        ``"use"`` it, take ``"care"``, or ``"keep"`` the old model; ``"none"``: that only guesses.
    sentence
        The answer.
    warnings
        Classes that fell, and what is known about these images alone.
    cautions
        How far to trust it: what to know before it is used.
    notes
        What it costs, and what else there is.
    network
        Which network to ship, and its folder.
    before, after
        Means over seeds: the baseline and the recommended strategy.
    """

    target: str
    strategy: str
    about: str
    verdict: Advice
    sentence: str
    warnings: list[str]
    cautions: list[str]
    notes: list[str]
    network: tuple[str, str]
    before: Result
    after: Result


def answers(view: View) -> list[Answer]:
    """Return the answer for each target, in the order of the targets."""
    return [_answer(view, choice) for choice in view.results.recommendations]


def headline(found: list[Answer]) -> str:
    """Return the whole answer in one line."""
    alone = {
        "use": "Use {}: {}.",
        "care": "{}, with care: {}.",
        "keep": "Keep the old model.",
        "none": "No comparison: the old model only guesses.",
    }
    within = {
        "use": "{}",
        "care": "{} with care",
        "keep": "the old model",
        "none": "no comparison",
    }
    groups: dict[tuple[str, str], list[str]] = {}
    for answer in found:
        strategy = "" if answer.verdict in ("keep", "none") else answer.strategy
        groups.setdefault((answer.verdict, strategy), []).append(answer.target)
    if len(groups) == 1:
        about = found[0].about or "see below"
        return alone[found[0].verdict].format(found[0].strategy, about)
    parts = [
        f"{within[verdict].format(strategy)} for {listed(targets)}"
        for (verdict, strategy), targets in groups.items()
    ]
    verdicts, strategies = map(set, zip(*groups, strict=True))
    one = len(strategies) == 1 and verdicts == {"use", "care"}
    return f"{'' if one else 'It depends on the target: '}{'; '.join(parts)}."


def _answer(view: View, choice: Recommendation) -> Answer:
    target = view.dataset(choice.target)
    after = _recommended(view, choice)
    sentence, verdict = judge(view, after)
    fell, run = falls(after), view.runs[choice.run]
    cautions = (
        *(fall_in_words(view, after, fall) for fall in fell if not fall.sure),
        _unconfirmed(after),
        *_new_classes(view, after),
        _uncertain(view, target, after),
        missing_classes(view, view.source),
        missing_classes(view, target),
        *_few_people(view, after),
        *diverged(view, target.name),
    )
    notes = (
        _cost(view, after),
        *_given_up(view, choice, after),
        _close(view, choice, after),
        _forgotten(view, target),
    )
    return Answer(
        target=shown(target),
        strategy=after.strategy,
        about=view.about(after.strategy),
        verdict=verdict,
        sentence=sentence,
        warnings=[
            *(fall_in_words(view, after, fall) for fall in fell if fall.sure),
            *_known_here(view, after),
            *_led(target),
        ],
        cautions=[*filter(None, cautions)],
        notes=[*filter(None, notes)],
        network=(_which(view, run, verdict != "keep"), run.folder),
        before=view.before(choice.target),
        after=after,
    )


def explain(view: View, choice: Recommendation) -> list[str]:
    """Say why a strategy was chosen, and what was given up: for a choice of `recommend`, a line each."""
    after = _recommended(view, choice)
    sentence, _ = judge(view, after)
    if after.strategy == BL and choice.ruled_out:
        sentence = "Keep the old model: no allowed strategy beats it."
    return [
        sentence,
        *(fall_in_words(view, after, fall) for fall in falls(after)),
        _why(view, choice, after),
        *_given_up(view, choice, after),
        *_new_classes(view, after),
        *_known_here(view, after),
        *_few_people(view, after),
    ]


def shipped(view: View, run: str, folder: str = "") -> str:
    """Name the bundle with a run's network, below a folder, and its seed; empty without a comparison."""
    facts = view.runs[run]
    if facts.target and only_guesses(view, facts.target):
        return ""
    row = facts.target and view.averaged(facts.target, facts.strategy, facts.fraction)
    ship = not row or judge(view, row)[1] != "keep"
    return f"{_which(view, facts, ship)}: {(Path(folder) / facts.folder).as_posix()}"


def _which(view: View, facts: RunFacts, ship: bool) -> str:
    seed = f" (seed {facts.seed}, the best on the validation data)" if len(view.seeds) > 1 else ""
    what = "The network to ship" if ship or facts.strategy == BL else f"{facts.strategy}'s network"
    return f"{what}{seed}"


def _new_classes(view: View, after: Result) -> list[str]:
    """Say how well the classes that are new to the model are recognised, and the others beside them."""
    new = [view.classes.index(name) for name in view.results.new_classes]
    dataset, before = view.dataset(after.target), view.before(after.target)
    found = []
    tests = [row.on_target.test for row in (before, after)]
    for label in new:
        images = sum(tests[1].confusion[label]) // len(after.seeds)
        if images:
            reached = number(tests[1].recall[label], 0)
            found.append(
                f"New class {view.classes[label]}: {after.strategy} recognises "
                f"{reached}\N{NO-BREAK SPACE}% of its {images:,} test faces in {shown(dataset)}."
            )
    old = [label for label in range(len(view.classes)) if label not in new]
    if found and (images := sum(sum(tests[0].confusion[label]) for label in old)):
        was, is_ = (
            100 * sum(t.confusion[i][i] for i in old) / sum(sum(t.confusion[i]) for i in old)
            for t in tests
        )
        found.append(
            f"Accuracy on the other classes there: {number(is_)}\N{NO-BREAK SPACE}%, before "
            f"{number(was)}\N{NO-BREAK SPACE}%. On {shown(view.source)} only these classes count."
        )
    return found


def _known_here(view: View, after: Result) -> list[str]:
    """Say where a change is real on these images, and not known to be so for other people."""
    found = []
    for row in view.results.comparisons:
        if (row.target, row.strategy, row.against) != (after.target, after.strategy, BL):
            continue
        if row.fraction == after.fraction and sureness(row) == HERE:
            dataset = view.source if row.side == "source" else view.dataset(row.target)
            one = row.paired
            found.append(
                f"On these images of {shown(dataset)} the difference is real ({number(one.gained, 0)} "
                f"won, {number(one.lost, 0)} lost, p\N{NO-BREAK SPACE}{surprise(one.p_images or 0)}); for "
                f"other people it is not known yet: {people(one.people)}."
            )
    return found


def _few_people(view: View, after: Result) -> list[str]:
    dataset = view.dataset(after.target)
    tested = dataset.test_subjects
    if not tested or tested >= FEW_PEOPLE or dataset.folds or dataset.parts:
        return []
    first = "prepare it with --ignore-splits and " if dataset.split.asked is None else ""
    return [
        f"The test set of {shown(dataset)} has {people(tested)}: {first}use cross-validation over all "
        "its people (“folds: 5” in the configuration, without “protocols”)."
    ]


def _recommended(view: View, choice: Recommendation) -> Result:
    after = view.averaged(choice.target, choice.strategy, choice.fraction)
    assert after is not None
    return after


def _why(view: View, choice: Recommendation, after: Result) -> str:
    tried, limit = len(view.adapted), choice.limit
    left = tried - len(choice.ruled_out)
    first = next(row for row in view.most(choice.target, view.names) if row.strategy == choice.best)
    if limit is None:
        best = f"the highest mean accuracy on both validation sets, {number(first.balance)}"
        allowed = f"Of {tried} strategies, {left} are allowed" if left < tried else f"{tried} tried"
    else:
        best = "the highest accuracy on the target's validation set, "
        best += number(first.on_target.validation.accuracy)
        within = f"lose at most {limit:g} {'point' if limit == 1 else 'points'} on the source's"
        allowed = f"{left} of {tried} strategies are allowed and {within} validation set"
    if not left:
        return f"{allowed}."
    why = f"{allowed}; of these and the old model, {first.strategy} has {best}\N{NO-BREAK SPACE}%."
    if first.strategy == after.strategy:
        return why
    images = after.on_target.validation.images
    known = {one.people for one in view.results.validation if one.target == after.target} - {None}
    of = f" of {people(max(filter(None, known)))}" if known else ""
    return (
        f"{why} The old model is not shown to be worse: its difference is {choice.behind:.1f} ± "
        f"{choice.behind_error:.1f} points, by {images:,} target images{of}."
    )


def _given_up(view: View, choice: Recommendation, after: Result) -> list[str]:
    """Name what another update has more of, on each test set: the best of the front, if it is one."""
    front = view.most(choice.target, choice.front)
    sentences = []
    for side, dataset in zip(SIDES, (view.source, view.dataset(choice.target)), strict=True):
        reached = {row.strategy: row.on(side).test.accuracy for row in front}
        best = max(front, key=lambda row: reached[row.strategy])
        more = reached[best.strategy] - after.on(side).test.accuracy
        if more >= 0.05 and best.strategy not in (after.strategy, BL):
            ruled_out = choice.ruled_out.get(best.strategy)
            why = f", but {' and '.join(ruled_out)}" if ruled_out else ""
            sentences.append(
                f"Trade-off on {shown(dataset)}: {best.strategy} is {more:.1f} points better on "
                f"the test set ({duration(best.cost.seconds)} of training){why}."
            )
    return sentences


def _led(target: DatasetFacts) -> list[str]:
    found = target.suggestions
    return [f"Labels of {shown(target)}: {in_words(found)}."] if found and led(found) else []


def _unconfirmed(after: Result) -> str | None:
    if after.strategy == BL or after.gain.points >= NOTHING:
        return None
    return "It was selected on validation data; the test data do not confirm the choice."


def _cost(view: View, after: Result) -> str | None:
    others = _others(view, after)
    if not others:
        return None
    quickest = min(others, key=lambda row: row.cost.seconds)
    said = f"{quickest.strategy}, took {duration(quickest.cost.seconds)}"
    if after.strategy == BL:
        return f"It costs nothing more; the quickest of the others, {said}."
    cost = f"{duration(after.cost.seconds)} of training, {after.cost.images_seen:,.0f} images seen"
    if quickest.cost.seconds >= after.cost.seconds:
        return f"It cost {cost}, the least of all."
    times = after.cost.seconds / max(quickest.cost.seconds, 1e-9)
    ratio = f"{times:.0f} times less" if times >= 1.95 else f"{100 * (1 - 1 / times):.0f} % less"
    return f"It cost {cost}; the quickest, {said} ({ratio})."


def _close(view: View, choice: Recommendation, after: Result) -> str | None:
    """Name the cheapest strategy that is allowed too, and comes close on the validation data."""
    cheaper = [row for row in _others(view, after) if row.cost.seconds < after.cost.seconds]
    if not cheaper or after.strategy == BL:
        return None
    near = [
        row
        for row in cheaper
        if row.strategy not in choice.ruled_out
        and merit(after, choice.limit) - merit(row, choice.limit) <= NEAR
    ]
    if not near:
        return "No cheaper strategy comes close on the validation data without forgetting more."
    best = min(near, key=lambda row: row.cost.seconds)
    changes = (
        f"{signed(best.memory_integrity.points)} on the source, "
        f"{signed(best.gain.points)} on the target"
    )
    cheapest = f"{best.strategy}, {duration(best.cost.seconds)}"
    return f"The cheapest that comes close: {cheapest} ({changes})."


def _forgotten(view: View, target: DatasetFacts) -> str | None:
    """Say what fine-tuning on the target alone did to the source."""
    rows = view.most(target.name, fine_tunings(view))
    changes = {row.strategy: row.memory_integrity.points for row in rows}
    losses = changes.values()
    if not losses:
        return None
    if min(losses) > -NOTHING:
        verdict = "forgot nothing"
    elif min(losses) > -MUCH:
        verdict = "forgot a little"
    else:
        verdict = "forgot much" if max(losses) <= -MUCH else "can forget much"
    each = ", ".join(f"{name} {signed(change)}" for name, change in changes.items())
    old, new = shown(view.source), shown(target)
    return f"Fine-tuning on {new} alone {verdict}: {each} points on {old}."


def _uncertain(view: View, target: DatasetFacts, after: Result) -> str | None:
    images = view.test_images(target.name, "target")
    interval = after.on_target.test.interval
    if images >= FEW_IMAGES or not interval:
        return None
    low, high = interval
    within = f"{number(low, 0)} to {number(high, 0)}\N{NO-BREAK SPACE}%"
    network = f"{after.strategy} on {shown(target)}"
    few = f" and {len(view.seeds)} seeds" if 1 < len(view.seeds) < FEW_SEEDS else ""
    return f"Only {images} test images{few}: the interval of {network} is {within}."


def _others(view: View, after: Result) -> list[Result]:
    """Return the other adapted strategies for the same target, at the largest fraction."""
    return view.most(after.target, [name for name in view.adapted if name != after.strategy])

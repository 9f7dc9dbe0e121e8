"""From results to sentences: the answer, what it costs, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from crossfer.evaluation.comparing import Difference
from crossfer.evaluation.decision import KEPT, merit
from crossfer.evaluation.mistaken import guesses
from crossfer.evaluation.rows import (
    ClassChange,
    DatasetFacts,
    Recommendation,
    Result,
    RunFacts,
    StrategyComparison,
)
from crossfer.evaluation.suggested import in_words, led
from crossfer.report.view import View, duration, listed, number, shown, signed, span, surprise
from crossfer.terms import BL, SIDES, Side

NOTHING, MUCH = 1.0, 5.0
"""Changes, in points: below the first nothing happened, from the second on it is forgetting."""

NEAR = 2.0
"""A strategy within these points of the chosen one on validation data comes close."""

FEW_IMAGES = 100
"""With fewer test images than this, an accuracy is only roughly known."""

LEVEL = 0.05
"""A difference that chance alone brings about more often than this may be chance."""

FELL = 10.0
"""A class whose recall falls by so many points is warned of."""

FEW_SEEDS = 5
"""An interval over fewer seeds is wide for that reason alone."""
FEW_PEOPLE = 20
"""With fewer people than this in a test set, little is known about others."""

DIVERGED = 20.0
"""Points of validation accuracy that a training loses after the epoch that is kept only if it diverges."""

STAND_IN = "Drawn stand-ins: these numbers say nothing about real faces."

RULE = (
    f"the highest target accuracy among strategies that lose at most {KEPT:g} point on the source; "
    "if none of them gains, the highest mean of both. The old model is kept unless it is shown to "
    "be worse."
)

Advice = Literal["use", "care", "keep", "none"]


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


def explain(view: View, choice: Recommendation) -> list[str]:
    """Say why a strategy was chosen, and what was given up: for a choice of `recommend`, a line each."""
    after = _recommended(view, choice)
    sentence, _ = _sentence_of(view, choice)
    if after.strategy == BL and choice.ruled_out:
        sentence = "Keep the old model: no allowed strategy beats it."
    return [
        sentence,
        *(_in_words(view, after, fall) for fall in _falls(after)),
        _why(view, choice, after),
        *_given_up(view, choice, after),
        *_new_classes(view, after),
        *_known_here(view, after),
        *_few_people(view, after),
    ]


def shipped(view: View, run: str, folder: str = "") -> str:
    """Name the bundle with a run's network, below a folder, and its seed; empty without a comparison."""
    facts = view.runs[run]
    if facts.target and _guesses(view, facts.target):
        return ""
    row = facts.target and view.averaged(facts.target, facts.strategy, facts.fraction)
    ship = not row or _sentence(view, view.dataset(row.target), row)[1] != "keep"
    return f"{_which(view, facts, ship)}: {'/'.join(filter(None, [folder, facts.folder]))}"


def _which(view: View, facts: RunFacts, ship: bool) -> str:
    seed = f" (seed {facts.seed}, the best on the validation data)" if len(view.seeds) > 1 else ""
    what = "The network to ship" if ship or facts.strategy == BL else f"{facts.strategy}'s network"
    return f"{what}{seed}"


class _Fall(NamedTuple):
    """A class whose recall fell by `FELL` points or more on the test set of one side."""

    side: Side
    label: int
    change: ClassChange

    @property
    def sure(self) -> bool:
        """Whether the 95 % interval of the change lies below zero."""
        return self.change.interval is not None and self.change.interval[1] < 0


def _falls(row: Result) -> list[_Fall]:
    """Return for each side the class that fell most, if one fell much; one beyond chance comes first."""
    return [fell[0] for side in SIDES if (fell := _falls_on(row, side))]


def _falls_on(row: Result, side: Side) -> list[_Fall]:
    """Return the classes that fell much on a side: those beyond chance first, the largest fall first."""
    fell = [
        _Fall(side, label, change)
        for label, change in enumerate(row.change(side).classes)
        if change and change.points <= -FELL
    ]
    return sorted(fell, key=lambda fall: (not fall.sure, fall.change.points))


def fallen(view: View, row: Result) -> list[str]:
    """Name every class that a result recognises much less often than the old model, on both sides."""
    return [_in_words(view, row, fall) for side in SIDES for fall in _falls_on(row, side)]


def _in_words(view: View, after: Result, fall: _Fall) -> str:
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
                f"other people it is not known yet: {_people(one.people)}."
            )
    return found


def _few_people(view: View, after: Result) -> list[str]:
    dataset = view.dataset(after.target)
    people = dataset.test_subjects
    if not people or people >= FEW_PEOPLE or dataset.folds or dataset.parts:
        return []
    first = "prepare it with --ignore-splits and " if dataset.split.asked is None else ""
    return [
        f"The test set of {shown(dataset)} has {_people(people)}: {first}use cross-validation over all "
        "its people (“folds: 5” in the configuration, without “protocols”)."
    ]


def _people(count: int | None) -> str:
    return "1 person" if count == 1 else f"{count} people"


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
    people = f" of {_people(max(filter(None, known)))}" if known else ""
    return (
        f"{why} The old model is not shown to be worse: its difference is {choice.behind:.1f} ± "
        f"{choice.behind_error:.1f} points, by {images:,} target images{people}."
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


def failures(view: View) -> str | None:
    """Say how many runs failed, and what that means for the rest; None if none did."""
    if not view.failed:
        return None
    runs = len(view.failed) + len(view.results.runs)
    return (
        f"{len(view.failed)} of {runs} runs failed. Their results are missing, and averages cover "
        "the other runs. Run the same command again to retry them."
    )


def copies(view: View) -> list[str]:
    """Say which test images also stand in a training set, and whether they count; a sentence a dataset."""
    leakage = view.results.leakage
    if leakage is None:
        return [
            "Copies of test images in the training sets were not searched; “copies: count” does "
            "this."
        ]
    sentences = []
    for dataset in (view.source, *view.targets):
        if found := leakage.in_training.get(dataset.name):
            images = sum(dataset.counts["test"].values())
            counted = (
                "they are left out of all results"
                if leakage.dropped
                else (
                    "networks may remember them; “copies: drop” leaves them out without retraining"
                )
            )
            sentences.append(
                f"{found:,} of the {images:,} test images of {shown(dataset)} "
                f"({100 * found / images:.{0 if found >= images / 100 else 1}f}\N{NO-BREAK SPACE}%) "
                f"have a copy in a training set: {counted}."
            )
    return sentences or ["No test image has a copy in a training set."]


def missing_classes(view: View, dataset: DatasetFacts) -> str | None:
    """Say which classes a dataset lacks, and what that means; None if it has all."""
    missing = view.missing(dataset)
    if not missing:
        return None
    classes = f"the {len(dataset.classes)} classes that it has"
    return (
        f"{shown(dataset)} has no {listed(missing)}: accuracy there is measured on {classes}, but "
        "the shipped network can predict all; training on it teaches nothing about "
        f"{listed(missing)}."
    )


def comparability(view: View) -> str:
    """Say whether the averages may be held against the paper's."""
    if view.stand_in:
        return (
            "These are drawn stand-ins, so the columns cannot be compared. The paper's numbers "
            "only show where they would appear."
        )
    same = {d.name for d in view.alone} == {"jaffe", "tfeid", "mug"}
    if same and view.source.name == "fer2013":
        return (
            "Same four datasets as the paper; its split, recipe and face crops are not "
            "published, so small differences are expected."
        )
    return (
        "The paper's figures are means over JAFFE, TFEID and MUG with FER2013 as the source. "
        "These are other datasets, so the paper's figures only give an orientation."
    )


def kept(run: RunFacts) -> str:
    """Say which epoch or mixture of a run was kept, and how far what is kept in doubt is behind the best."""
    if not (chosen := run.chosen):
        return f"epoch {run.kept_epoch}" if run.kept_epoch else "–"
    what = chosen["what"]
    said = f"{'share' if what == 'alpha' else what} {chosen['kept'][what]:g} of {chosen['of']}"
    doubt = chosen["in_doubt"]
    if doubt[what] == chosen["kept"][what]:
        return said
    behind, error = doubt["loss_behind"], doubt["loss_behind_error"]
    return f"{said}; {doubt[what]:g} is behind by {behind:.3f} ± {error:.3f} nats"


def diverged(view: View, target: str) -> list[str]:
    """Name the strategies whose training diverged: their results say little about them."""
    found = []
    for row in view.most(target, view.names):
        run = max((view.runs[key] for key in row.runs), key=_lost_after)
        if (lost := _lost_after(run)) >= DIVERGED:
            found.append(
                f"{row.strategy}: training diverged after epoch {run.kept_epoch} (the last one has "
                f"{lost:.0f} points less on the validation data); use a lower learning rate."
            )
    return found


def _lost_after(run: RunFacts) -> float:
    """Return how many points of validation accuracy the last epoch is shown to be behind the best one."""
    if not run.chosen or run.chosen["what"] != "epoch":
        return 0.0
    last = run.chosen["in_doubt"]
    lost, error = -last["accuracy_ahead"], last["accuracy_ahead_error"]
    return 100.0 * lost if lost > 2 * error else 0.0


def chosen_by(run: RunFacts) -> str:
    """Say by how many validation images of how many people an epoch or a mixture was chosen."""
    if not run.chosen:
        return "–"
    sides = []
    for side, by in run.chosen["by"].items():
        people = "" if by["subjects"] is None else f" of {_people(by['subjects'])}"
        images = "1 image" if by["images"] == 1 else f"{by['images']:,} images"
        sides.append(f"{images}{people} ({side})")
    return ", ".join(sides)


def selection_rule(selection: str) -> str:
    """Say in words which epoch's weights were kept."""
    best = "the latest epoch that is not shown to be worse than the best on the validation "
    rules = {
        "trained-on": best + "sets of the data that the strategy trains on",
        "source": best + "set of the source",
        "target": best + "set of the target",
        "both": best + "sets of source and target",
        "last": "the last epoch, without selection",
    }
    return f"Kept: {rules.get(selection, selection)}. Test sets are never used for selection."


def network(config: Mapping[str, Any]) -> str:
    """Say which network it was, from an experiment's configuration."""
    model = config["model"]
    if (name := model["network"]) != "study":
        given = ", ".join(f"{key}={value}" for key, value in model["arguments"].items())
        built = f"{name}({given})" if given else name
    else:
        width = "" if model["width"] == 1 else f", with {model['width']:g} times its width"
        built = f"the study's, five convolutions and three fully connected layers{width}"
    if config["strategies"][0]["start"] == "deployed":
        weights = f", its weights {model['weights']}" if model["weights"] else ""
        return f"Network: {built}; the old model is deployed{weights}."
    if model["weights"]:
        return f"Network: {built}; training starts from the weights of its source."
    return f"Network: {built}."


def certainty(view: View) -> str:
    """Say how often everything was measured."""
    said = f"Means over {len(view.seeds)} seeds; the intervals also cover other trainings."
    if len(view.seeds) == 1:
        said = "Measured with one seed: the intervals do not cover other trainings."
    return " ".join([said, *(_by_folds(target) for target in view.targets if target.folds)])


def _by_folds(target: DatasetFacts) -> str:
    """Say how a target is measured by folds, and what of it flatters."""
    return (
        f"{shown(target)}: {target.split.how}; every image is tested by a network that has not "
        "seen its subject. The same images selected the strategy, with networks of other folds, "
        "so its results are slightly optimistic if there are few people."
    )


HERE = "real on these images"

SURENESS = {
    "real": (f"significant at the {LEVEL:.0%} level after correction for all comparisons (Holm)"),
    HERE: (
        "significant on these images (McNemar), but not for other people: there are too few, or "
        "they differ too much"
    ),
    "likely": "significant before the correction only",
    "may be chance": "not significant: too few images, or too small a difference",
}


def sureness(comparison: StrategyComparison | Difference) -> str:
    """Say how sure a difference is: a key of `SURENESS`."""
    if comparison.p_holm < LEVEL:
        return "real"
    if comparison.paired.p < LEVEL:
        return "likely"
    here = comparison.p_images_holm is not None and comparison.p_images_holm < LEVEL
    return HERE if here else "may be chance"


def _answer(view: View, choice: Recommendation) -> Answer:
    target = view.dataset(choice.target)
    after = _recommended(view, choice)
    sentence, verdict = _sentence_of(view, choice)
    falls, run = _falls(after), view.runs[choice.run]
    cautions = (
        *(_in_words(view, after, fall) for fall in falls if not fall.sure),
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
            *(_in_words(view, after, fall) for fall in falls if fall.sure),
            *_known_here(view, after),
            *_led(target),
        ],
        cautions=[*filter(None, cautions)],
        notes=[*filter(None, notes)],
        network=(_which(view, run, verdict != "keep"), run.folder),
        before=view.before(choice.target),
        after=after,
    )


def no_comparison(view: View, row: Result) -> str:
    """Say that the old model only guesses, so that nothing can be compared with it; empty if it does not."""
    if not _guesses(view, row.target):
        return ""
    before = view.before(row.target).on_source.test
    return (
        f"No comparison: {BL} has {number(before.accuracy)}\N{NO-BREAK SPACE}% on "
        f"{shown(view.source)}, no better than guessing."
    )


def _guesses(view: View, target: str) -> bool:
    """Tell whether the baseline guesses: a mean over few seeds is too uncertain to tell, so each of them."""
    rows = [view.before(target), *view.baselines(target)]
    return all(guesses(row.on_source.test) for row in rows)


def _sentence_of(view: View, choice: Recommendation) -> tuple[str, Advice]:
    return _sentence(view, view.dataset(choice.target), _recommended(view, choice))


def _sentence(view: View, target: DatasetFacts, row: Result) -> tuple[str, Advice]:
    name, old, new = row.strategy, shown(view.source), shown(target)
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
    if fallen := [view.classes[fall.label] for fall in _falls(row) if fall.sure]:
        fallen = list(dict.fromkeys(fallen))
        return f"{facts}: use it only if lower recall of {listed(fallen)} is acceptable.", "care"
    return f"{facts}: use it.", "use"


def _led(target: DatasetFacts) -> list[str]:
    found = target.suggestions
    return [f"Labels of {shown(target)}: {in_words(found)}."] if found and led(found) else []


def _on_source(change: float, name: str) -> str:
    if change >= NOTHING:
        return f"raised {name} by {change:.1f} points"
    if change > -NOTHING:
        within = f"{abs(change):.1f}"
        return (
            f"left {name} unchanged" if within == "0.0" else f"kept {name} within {within} points"
        )
    return f"{'lost' if change > -MUCH else 'forgot'} {-change:.1f} points on {name}"


def _on_target(gain: float, name: str) -> str:
    if gain >= NOTHING:
        return f"gained {gain:.1f} on {name}"
    return f"gained nothing on {name}" if gain > -NOTHING else f"lost {-gain:.1f} on {name}"


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
    tuned = [
        s.name
        for s in view.strategies
        if s.start == "baseline" and s.data == "target" and s.past_data == "none"
    ]
    rows = view.most(target.name, tuned)
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

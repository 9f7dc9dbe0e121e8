"""From results to sentences: the answer, what it costs, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossfer.evaluation.decision import KEPT, merit
from crossfer.evaluation.summary import balance
from crossfer.report.view import Row, View, duration, listed, number, shown, signed

NOTHING, MUCH = 1.0, 5.0
"""Changes, in points: below the first nothing happened, from the second on it is forgetting."""

NEAR = 2.0
"""A strategy within these points of the chosen one on validation data comes close."""

FEW_IMAGES = 100
"""With fewer test images than this, an accuracy is only roughly known."""

LEVEL = 0.05
"""A difference that chance alone brings about more often than this may be chance."""

STAND_IN = "Drawn stand-ins: these numbers say nothing about real faces."

RULE = (
    f"the highest target accuracy of what loses at most {KEPT:g} point on the source; where nothing does and "
    "gains, the highest mean of both."
)

Verdict = Literal["use", "care", "keep"]


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
        ``"use"`` it, take ``"care"``, or ``"keep"`` the old model.
    sentence
        The answer.
    notes
        What it costs, what else there is, and how far to trust it.
    before, after
        Rows of the summary: the baseline and the recommended strategy.
    """

    target: str
    strategy: str
    about: str
    verdict: Verdict
    sentence: str
    notes: list[str]
    before: Row
    after: Row


def answers(view: View) -> list[Answer]:
    """Return the answer for each target, in the order of the targets."""
    return [_answer(view, choice) for choice in view.results["recommendations"]]


def headline(found: list[Answer]) -> str:
    """Return the whole answer in one line."""
    alone = {"use": "Use {}: {}.", "care": "{}, with care: {}.", "keep": "Keep the old model."}
    within = {"use": "{}", "care": "{} with care", "keep": "the old model"}
    groups: dict[tuple[str, str], list[str]] = {}
    for answer in found:
        groups.setdefault((answer.verdict, answer.strategy), []).append(answer.target)
    if len(groups) == 1:
        about = found[0].about or "see below"
        return alone[found[0].verdict].format(found[0].strategy, about)
    parts = [
        f"{within[verdict].format(strategy)} for {listed(targets)}"
        for (verdict, strategy), targets in groups.items()
    ]
    return f"It depends on the target: {'; '.join(parts)}."


def explain(view: View, choice: Row) -> list[str]:
    """Say why a strategy was chosen, and what was given up: for a choice of `recommend`, a line each."""
    after = view.averaged(choice["target"], choice["strategy"], choice["fraction"])
    assert after is not None
    target = view.target(choice["target"])
    sentence, _ = _sentence(view, target, after)
    if after["strategy"] == "BL" and choice["ruled_out"]:
        sentence = "Keep the old model: nothing that is allowed beats it."
    return [sentence, _why(view, choice, after), *_given_up(view, choice, after)]


def _why(view: View, choice: Row, after: Row) -> str:
    tried, limit = len(view.adapted), choice["limit"]
    left = tried - len(choice["ruled_out"])
    if limit is None:
        best = f"the highest mean accuracy on both validation sets, {number(balance(after))}"
        allowed = f"Of {tried} strategies, {left} are allowed" if left < tried else f"{tried} tried"
    else:
        best = "the highest accuracy on the target's validation set, "
        best += number(after["target_validation"]["accuracy"])
        within = f"lose at most {limit:g} {'point' if limit == 1 else 'points'} on the source's"
        allowed = f"{left} of {tried} strategies are allowed and {within} validation set"
    if not left:
        return f"{allowed}."
    return f"{allowed}; among them and the old model, {after['strategy']} has {best}\N{NO-BREAK SPACE}%."


def _given_up(view: View, choice: Row, after: Row) -> list[str]:
    """Name what another update has more of, on each test set: the best of the front, if it is one."""
    largest = view.largest(choice["target"])
    front = [view.averaged(choice["target"], name, largest) for name in choice["front"]]
    sentences = []
    for side, dataset in (("source", view.source), ("target", view.target(choice["target"]))):
        test = f"{side}_test"
        best = max((row for row in front if row), key=lambda row: row[test]["accuracy"])
        more = best[test]["accuracy"] - after[test]["accuracy"]
        if more >= 0.05 and best["strategy"] not in (after["strategy"], "BL"):
            ruled_out = choice["ruled_out"].get(best["strategy"])
            why = f", but {' and '.join(ruled_out)}" if ruled_out else ""
            sentences.append(
                f"Given up on {shown(dataset)}: {best['strategy']} has {more:.1f} points more on the test "
                f"set ({duration(best['seconds'])} of training){why}."
            )
    return sentences


def failures(view: View) -> str | None:
    """Say how many runs failed, and what that means for the rest; None if none did."""
    if not view.failed:
        return None
    runs = len(view.failed) + len(view.results["runs"])
    return (
        f"{len(view.failed)} of {runs} runs failed. What they would have shown is left out, and averages go "
        "over what there is. The same command tries them again."
    )


def copies(view: View) -> list[str]:
    """Say which test images also stand in a training set, and whether they count; a sentence a dataset."""
    leakage = view.results["leakage"]
    if leakage is None:
        return [
            "Copies of test images in the training sets were not looked for; “copies: count” does."
        ]
    sentences = []
    for dataset in (view.source, *view.targets):
        if found := leakage["in_training"].get(dataset["name"]):
            images = sum(dataset["counts"]["test"].values())
            counted = (
                "they count nowhere on this page"
                if leakage["dropped"]
                else "networks may remember them; with “copies: drop” they do not count, and nothing is "
                "trained again"
            )
            sentences.append(
                f"{found:,} of the {images:,} test images of {shown(dataset)} "
                f"({100 * found / images:.{0 if found >= images / 100 else 1}f}\N{NO-BREAK SPACE}%) "
                f"also stand in a training set: {counted}."
            )
    return sentences or ["No test image also stands in a training set."]


def missing_classes(view: View, dataset: Row) -> str | None:
    """Say which classes a dataset lacks, and what that means; None if it has all."""
    missing = view.missing(dataset)
    if not missing:
        return None
    classes = f"the {len(dataset['classes'])} classes that it has"
    return (
        f"{shown(dataset)} has no {listed(missing)}: accuracy there is measured on {classes}, and what is "
        f"learnt from it says nothing about {listed(missing)}."
    )


def comparability(view: View) -> str:
    """Say whether the averages may be held against the paper's."""
    if view.stand_in:
        return (
            "These are drawn stand-ins: the two columns cannot be compared. The paper's stand "
            "here to show where its figures will go."
        )
    same = {d["name"] for d in view.alone} == {"jaffe", "tfeid", "mug"}
    if same and view.source["name"] == "fer2013":
        return (
            "Same four datasets as the paper; its split, recipe and face crops are not "
            "published, so small differences are expected."
        )
    return (
        "The paper's figures are means over JAFFE, TFEID and MUG with FER2013 as the source. "
        "These are other datasets: read its figures as a landmark, not as a yardstick."
    )


def selection_rule(selection: str) -> str:
    """Say in words which epoch's weights were kept."""
    best = "the epoch with the highest mean accuracy on the validation "
    rules = {
        "trained-on": best + "sets of the data that the strategy trains on",
        "source": best + "set of the source",
        "target": best + "set of the target",
        "both": best + "sets of source and target",
        "last": "the last epoch, without looking",
    }
    return f"Kept: {rules.get(selection, selection)}. No choice ever looks at a test set."


def network(model: Row) -> str:
    """Say which network it was, from the configuration."""
    if (name := model["network"]) != "study":
        given = ", ".join(f"{key}={value}" for key, value in model["arguments"].items())
        built = f"{name}({given})"
    else:
        width = "" if model["width"] == 1 else f", its width times {model['width']:g}"
        built = f"the study's, five convolutions and three fully connected layers{width}"
    if weights := model["weights"]:
        return f"Network: {built}; the old model is deployed, its weights {weights}."
    return f"Network: {built}."


def certainty(view: View) -> str:
    """Say how often everything was measured."""
    if len(view.seeds) == 1:
        return "Measured with one seed: how far another training would land is in no interval."
    return f"Means over {len(view.seeds)} seeds; the intervals count other trainings too."


SURENESS = {
    "real": f"chance alone would do this in fewer than 1 of {1 / LEVEL:.0f} experiments, although so many "
    "differences are tested here",
    "likely": "the same would hold if this were the only difference tested, but not for so many",
    "may be chance": "the images are too few, or the difference too small, to tell",
}


def sureness(comparison: Row) -> str:
    """Say how sure a difference is: a key of `SURENESS`."""
    if comparison["p_holm"] < LEVEL:
        return "real"
    return "likely" if comparison["p"] < LEVEL else "may be chance"


def _answer(view: View, choice: Row) -> Answer:
    target = next(d for d in view.targets if d["name"] == choice["target"])
    after = view.averaged(choice["target"], choice["strategy"], choice["fraction"])
    assert after is not None
    sentence, verdict = _sentence(view, target, after)
    notes = (
        _unconfirmed(after),
        _cost(view, after),
        *_given_up(view, choice, after),
        _close(view, choice, after),
        _forgotten(view, target),
        _uncertain(view, target, after),
        missing_classes(view, view.source),
        missing_classes(view, target),
    )
    return Answer(
        target=shown(target),
        strategy=after["strategy"],
        about=view.about(after["strategy"]),
        verdict=verdict,
        sentence=sentence,
        notes=[note for note in notes if note],
        before=view.before(choice["target"]),
        after=after,
    )


def _sentence(view: View, target: Row, row: Row) -> tuple[str, Verdict]:
    name, old, new = row["strategy"], shown(view.source), shown(target)
    if name == "BL":
        text = f"Keep the old model: nothing tried beats it on {old} and {new} together."
        return text, "keep"
    change, gain = row["memory_integrity"], row["gain"]
    kept, gained = change > -NOTHING, gain >= NOTHING
    joined = "and" if kept == gained else "but"
    facts = f"{name} {_on_source(change, old)} {joined} {_on_target(gain, new)}"
    if not gained:
        return f"{facts}: no good reason to change.", "care"
    if change <= -MUCH:
        return f"{facts}: use it only if the new faces matter more than the old.", "care"
    if row["gain_interval"][0] <= 0:
        return f"{facts}: use it, though the gain may be chance.", "care"
    return f"{facts}: use it.", "use"


def _on_source(change: float, name: str) -> str:
    if change >= NOTHING:
        return f"raised {name} by {change:.1f} points"
    if change > -NOTHING:
        within = f"{abs(change):.1f}"
        return (
            f"kept {name} as it was" if within == "0.0" else f"kept {name} within {within} points"
        )
    return f"{'gave up' if change > -MUCH else 'forgot'} {-change:.1f} points on {name}"


def _on_target(gain: float, name: str) -> str:
    if gain >= NOTHING:
        return f"gained {gain:.1f} on {name}"
    return f"gained nothing on {name}" if gain > -NOTHING else f"lost {-gain:.1f} on {name}"


def _unconfirmed(after: Row) -> str | None:
    if after["strategy"] == "BL" or after["gain"] >= NOTHING:
        return None
    return "The validation data chose it; the test data do not confirm the choice."


def _cost(view: View, after: Row) -> str | None:
    others = _others(view, after)
    if not others:
        return None
    quickest = min(others, key=lambda row: float(row["seconds"]))
    said = f"{quickest['strategy']}, took {duration(quickest['seconds'])}"
    if after["strategy"] == "BL":
        return f"It costs nothing more; the quickest of the others, {said}."
    cost = f"{duration(after['seconds'])} of training, {after['images_seen']:,.0f} images seen"
    if quickest["seconds"] >= after["seconds"]:
        return f"It cost {cost}, the least of all."
    times = after["seconds"] / max(quickest["seconds"], 1e-9)
    ratio = f"{times:.0f} times less" if times >= 1.95 else f"{100 * (1 - 1 / times):.0f} % less"
    return f"It cost {cost}; the quickest, {said} ({ratio})."


def _close(view: View, choice: Row, after: Row) -> str | None:
    """Name the cheapest strategy that is allowed too, and comes close on the validation data."""
    cheaper = [row for row in _others(view, after) if row["seconds"] < after["seconds"]]
    if not cheaper or after["strategy"] == "BL":
        return None

    near = [
        row
        for row in cheaper
        if row["strategy"] not in choice["ruled_out"]
        and merit(after, choice["limit"]) - merit(row, choice["limit"]) <= NEAR
    ]
    if not near:
        return "Nothing cheaper comes close on the validation data without forgetting more."
    best = min(near, key=lambda row: float(row["seconds"]))
    changes = (
        f"{signed(best['memory_integrity'])} on the source, {signed(best['gain'])} on the target"
    )
    cheapest = f"{best['strategy']}, {duration(best['seconds'])}"
    return f"The cheapest that comes close: {cheapest} ({changes})."


def _forgotten(view: View, target: Row) -> str | None:
    """Say what fine-tuning on the target alone did to the source."""
    tuned = [
        s["name"] for s in view.strategies if s["start"] == "baseline" and s["data"] == "target"
    ]
    largest = view.largest(target["name"])
    rows = [view.averaged(target["name"], name, largest) for name in tuned]
    changes = {row["strategy"]: row["memory_integrity"] for row in rows if row}
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


def _uncertain(view: View, target: Row, after: Row) -> str | None:
    images = view.test_images(target["name"], "target")
    if images >= FEW_IMAGES:
        return None
    low, high = after["target_test"]["interval"]
    between = f"{number(low, 0)} and {number(high, 0)}\N{NO-BREAK SPACE}%"
    network = f"{after['strategy']} on {shown(target)}"
    return f"Only {images} test images: {network} lies somewhere between {between}."


def _others(view: View, after: Row) -> list[Row]:
    """Return the other adapted strategies for the same target, at the largest fraction."""
    names = [name for name in view.adapted if name != after["strategy"]]
    largest = view.largest(after["target"])
    rows = [view.averaged(after["target"], name, largest) for name in names]
    return [row for row in rows if row]

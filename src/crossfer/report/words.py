"""From results to sentences: what was measured, how, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossfer.evaluation.decision import KEPT
from crossfer.evaluation.rows import DatasetFacts, Difference, RunFacts, StrategyComparison
from crossfer.report.view import View, listed, people, percent, shown

LEVEL = 0.05
"""A difference that chance alone brings about more often than this may be chance."""


DIVERGED = 20.0
"""Points of validation accuracy that a training loses after the epoch that is kept only if it diverges."""


STAND_IN = "Drawn stand-ins: these numbers say nothing about real faces."


RULE = (
    f"the highest target accuracy among strategies that lose at most {KEPT:g} point on the source; "
    "if none of them gains, the highest mean of both. The old model is kept unless it is shown to "
    "be worse."
)


def failures(view: View) -> str | None:
    """Say how many runs failed, and what that means for the rest; None if none did."""
    if not view.failed:
        return None
    runs = len(view.failed) + len(view.results.runs)
    said = f"{len(view.failed)} of {runs} runs failed. Run the same command again to retry them."
    return " ".join(filter(None, [said, averaged_over(view)]))


def averaged_over(view: View) -> str:
    """Say which seeds averages cover, and what they leave out, where runs failed; empty where none did."""
    averaged = {(row.target, row.strategy, row.fraction) for row in view.results.summary}
    found = []
    for target in view.targets:
        rows = [row for row in view.results.results if row.target == target.name]
        kept = view.seeds_of(target.name)
        lacking = dict.fromkeys(
            row.strategy + (f" ({percent(row.fraction)})" if len(view.fractions) > 1 else "")
            for row in rows
            if (row.target, row.strategy, row.fraction) not in averaged
        )
        if lacking or {row.seeds[0] for row in rows} > {*kept}:
            without = f", without {listed([*lacking])}" if lacking else ""
            found.append(f"{shown(target)}: {_seeds(kept)}{without}")
    chains = view.results.in_turn
    lacking = dict.fromkeys(c.strategy for c in chains if c.strategy not in view.in_turn)
    if lacking or {chain.seed for chain in chains} > {*view.seeds_in_turn}:
        without = f", without {listed([*lacking])}" if lacking else ""
        found.append(f"in turn: {_seeds(view.seeds_in_turn)}{without}")
    if not found:
        return ""
    return f"Averages and comparisons are of the same seeds only ({'; '.join(found)}); results.csv has all."


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {listed([*map(str, seeds)])}"


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
    said = (
        f"{'share' if what == 'alpha' else what} {chosen['kept'][what]:g}, of {chosen['of']} tried"
    )
    if what == "epoch":
        passes = run.identity["recipe"]["epochs"] // chosen["of"]
        each = f" (of {passes} passes each)" if passes > 1 else ""
        said = f"epoch {chosen['kept'][what]:g} of {chosen['of']}{each}"
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
    if not run.chosen or run.chosen["of"] == 1:
        return "–"
    sides = []
    for side, by in run.chosen["by"].items():
        of = "" if by["subjects"] is None else f" of {people(by['subjects'])}"
        images = "1 image" if by["images"] == 1 else f"{by['images']:,} images"
        sides.append(f"{images}{of} ({side})")
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
    single = [shown(t) for t in view.targets if len(view.seeds_of(t.name)) == 1]
    if len(view.seeds) == 1:
        said = "Measured with one seed: the intervals do not cover other trainings."
    elif single:
        said = f"{said[:-1]}, but those of {listed(single)}, with one seed left, do not."
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

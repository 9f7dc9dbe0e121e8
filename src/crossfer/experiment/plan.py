"""Plan the runs of an experiment, each with a key that identifies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from crossfer.classes import ClassSet
from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError
from crossfer.experiment.config import Experiment
from crossfer.experiment.data import DataRef, MemoryRef, rows_to_learn
from crossfer.experiment.identity import RULES, Arithmetic, described, key_of
from crossfer.networks import NetworkConfig
from crossfer.strategies import UNLABELLED, starts
from crossfer.strategy import Strategy
from crossfer.training.recipe import Recipe

WORK = {
    "none": 0.0,
    "norms": 0.75,
    "head": 0.05,
    "FC": 0.15,
    "FC+CL": 0.45,
    "body": 1.0,
    "all": 1.0,
}
"""Approximate time of an epoch by trained layers, relative to training all layers, with the default recipes
on a CPU (docs/benchmarks.md).  Used for the remaining time and for the budgets of a search."""
WORK_OF_ADAPTERS = 0.4
"""The same for adapters: every layer forward, and backward to the first adapter."""


@dataclass(frozen=True)
class Run:
    """One training of one strategy for one (source, target, fraction, seed), as plain values.

    Parameters
    ----------
    strategy, recipe, network
        The strategy, its hyper-parameters and the network.
    classes
        The classes of the network.
    source
        The source: one dataset, or several as one.
    target
        The target; ``None`` if only the source is involved.
    fraction
        Fraction of the target's training set; ``None`` if it is not used.
    seed
        Seed of all random choices.
    parent
        The run whose weights this one starts from; ``None``: random or deployed weights.
    baseline
        The run of the network before any adaptation; ``None`` for the baseline itself.
    validate_on
        The sides whose validation sets are measured after every epoch.
    keep
        Which epoch is kept, ``"best"`` or ``"last"``: see `crossfer.training.train`.
    arithmetic
        Device and precision.
    source_images, target_images
        Number of available training images of each side.
    memory
        The given memory file, for a strategy that uses one; ``None``: that of the baseline.
    note
        Further description for people: the datasets before, the one left out, or the fold.
    devices
        Number of devices that train it together.
    """

    NOT_IDENTITY: ClassVar = frozenset({"note", "source_images", "target_images", "devices"})
    """Descriptions, counts, and what changes only rounding."""

    strategy: Strategy
    recipe: Recipe
    network: NetworkConfig
    classes: ClassSet
    source: DataRef
    target: DataRef | None
    fraction: float | None
    seed: int
    parent: Run | None
    baseline: Run | None
    validate_on: tuple[str, ...]
    keep: str
    arithmetic: Arithmetic
    source_images: int
    target_images: int
    memory: MemoryRef | None = None
    note: str = ""
    devices: int = 1

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the weights."""
        looked_at = self.baseline if self.strategy.looks_back else None
        own = {f.name: getattr(self, f.name) for f in fields(self)} | {
            "built": self.network.built(self.classes),
            "parent": self.parent.key if self.parent else None,
            "baseline": looked_at.key if looked_at else None,
        }
        if self.strategy.start == "deployed":
            # Nothing is trained; every seed has its own baseline.
            # Of the data, the classes matter, and the source, which its memory file describes.
            kept = ["network", "built", "classes", "source", "seed", "arithmetic"]
            kept += ["memory"] if self.memory else []  # a given file lies in its folder instead
            weights: dict[str, str] = {"weights": self.network.weights_digest}
        else:
            kept = [name for name in own if name not in self.NOT_IDENTITY]
            weights = {}
        start = self.strategy.start
        kind = start if start in ("random", "deployed") else "parent"  # whose key says which
        found = described({key: own[key] for key in kept})
        if "strategy" in kept:  # layers that are the same have one name: their training is one run
            found["strategy"]["layers"] = self.network.same_layers(self.strategy.layers)
        return {"rules": RULES, "start": kind, **weights, **found}

    @cached_property
    def key(self) -> str:
        """The hash of the identity: sixteen hexadecimal digits."""
        return key_of(self.identity)

    @property
    def needed(self) -> list[Run]:
        """The runs that it depends on: its parent and, if it looks back, its baseline."""
        return [
            other
            for other in (self.parent, self.baseline if self.strategy.looks_back else None)
            if other
        ]

    @property
    def label(self) -> str:
        """A description for people."""
        parts = [self.strategy.name]
        if self.target:
            parts.append(self.target.name)
        if self.fraction is not None:
            parts.append(f"{100 * self.fraction:g}%")
        return " · ".join([*parts, *filter(None, [self.note]), f"seed {self.seed}"])

    @property
    def folder(self) -> str:
        """The name of its folder: a readable part, of a length that file systems allow, and the key."""
        readable = self.label.replace(" · ", "-").replace(" ", "").replace("%", "")
        safe = "".join(c if c.isalnum() or c in "+-" else "_" for c in readable)
        return f"{safe[:75]}-{self.key}"

    @property
    def training_images(self) -> int:
        """Number of images that it trains on."""
        count = 0
        if self.strategy.start == "deployed":
            return count
        if "source" in self.strategy.sides:
            count = self.source_images
            if self.strategy.exemplars:
                known = {index for part in self.source.parts for index in part.classes}
                count = min(count, self.strategy.exemplars * len(known))
        if "target" in self.strategy.sides:
            count += self.target_images
        return count

    @property
    def work(self) -> float:
        """Approximate cost, in full training steps of one image."""
        images = self.training_images
        if self.strategy.share:  # an epoch passes over the target
            images = round(self.target_images / self.strategy.share)
        return images * self.recipe.epochs * work_of(self.strategy)


def work_of(strategy: Strategy) -> float:
    """Return the approximate cost of a strategy's epoch, relative to training all layers on its images."""
    return WORK_OF_ADAPTERS if strategy.rank else WORK[strategy.layers]


def plan(
    experiment: Experiment, source: Dataset, targets: Sequence[Dataset], arithmetic: Arithmetic
) -> list[Run]:
    """Return the runs of an experiment, each after the one it starts from.

    Runs that do not involve the target, such as the baseline, are shared by all targets and fractions.

    Parameters
    ----------
    experiment
        The configuration.
    source, targets
        Its open datasets; of a target with folds, each fold.
    arithmetic
        Device and precision.

    Raises
    ------
    CrossferError
        If a split is empty, or a fraction leaves too few images to train on.
    """
    _check_splits(experiment, source, targets)
    _check_fractions(experiment, targets)
    datasets = [source, *(part for target in targets for part in target.parts)]
    run, past = partial(make_run, experiment, arithmetic, datasets), DataRef.of(source)
    known = {strategy.name: strategy for strategy in experiment.strategies}
    pairs = [
        (DataRef.of(target), fraction, str(target.card.get("fold", "")))
        for target in targets
        for fraction in experiment.fractions
    ]
    runs: list[Run] = []
    for seed in experiment.seeds:
        baseline = run(experiment.strategies[0], seed, past)
        arrived: dict[tuple[str, DataRef | None, float | None], Run] = {}
        for strategy in experiment.strategies[1:]:
            lineage = [strategy, *(known[name] for name in starts(strategy, known))]
            meets_target = any("target" in one.sides for one in lineage)
            for target, fraction, note in pairs if meets_target else [(None, None, "")]:
                place = (target, fraction)
                parent = (
                    arrived.get((strategy.start, *place))
                    or arrived.get((strategy.start, None, None))
                    or baseline
                )
                arrived[strategy.name, *place] = run(
                    strategy, seed, past, parent, baseline, target, fraction, note
                )
        runs += [baseline, *arrived.values()]
    return runs


def make_run(
    experiment: Experiment,
    arithmetic: Arithmetic,
    datasets: Sequence[Dataset],
    strategy: Strategy,
    seed: int,
    source: DataRef,
    parent: Run | None = None,
    baseline: Run | None = None,
    target: DataRef | None = None,
    fraction: float | None = None,
    note: str = "",
) -> Run:
    """Plan one run of an experiment on some of its open datasets; see `Run` for the parameters."""
    known = target.open(datasets) if target else None
    return Run(
        strategy=strategy,
        recipe=experiment.recipe(strategy),
        source=source,
        target=target,
        fraction=fraction,
        seed=seed,
        parent=None if strategy.start in ("random", "deployed") else parent,
        baseline=baseline,
        network=experiment.model,
        classes=experiment.classes,
        validate_on=_sides(strategy, experiment.selection),
        keep="last" if experiment.selection == "last" or strategy.unlabelled else "best",
        arithmetic=arithmetic,
        source_images=len(source.open(datasets).rows("training")),
        target_images=len(rows_to_learn(known, fraction or 1.0, seed, strategy.labels == "all"))
        if known
        else 0,
        memory=MemoryRef.of(experiment.memory_file)
        if experiment.memory_file and (strategy.memory or strategy.start == "deployed")
        else None,
        note=note,
        devices=experiment.devices,
    )


def _sides(strategy: Strategy, selection: str) -> tuple[str, ...]:
    if strategy.unlabelled:
        return ()
    if strategy.merge:
        return ("source", "target")
    if strategy.data == "source" or selection in ("trained-on", "last"):
        return strategy.sides
    return ("source", "target") if selection == "both" else (selection,)


def _check_splits(experiment: Experiment, source: Dataset, targets: Sequence[Dataset]) -> None:
    """Refuse empty splits, and a source without a class of the model."""
    learnt_from = any(
        "source" in strategy.needs or (strategy.memory and not experiment.memory)
        for strategy in experiment.strategies
    )
    for dataset in (source, *targets):
        for split in ("training", "validation", "test"):
            if split == "training" and dataset is source and not learnt_from:
                continue
            if split == "training" and len(dataset.unlabelled("training")):
                continue  # who learns from it says below what it needs
            if not len(dataset.rows(split)):
                official = str(dataset.card["split"]["how"]).startswith("official")
                why = "prepare it with other --sizes"
                if dataset is source and not learnt_from:
                    options = "--ignore-splits --sizes" if official else "--sizes"
                    why = f"prepare it with {options} 0,20,80, since no strategy trains on it"
                elif official:
                    why = "prepare it with --ignore-splits, which divides all its images again"
                if split == "training" and dataset is source and experiment.model.is_deployed:
                    why += (
                        "; or set memory: for strategies that use a memory file (`crossfer "
                        "remember`)"
                    )
                if dataset.left_out:
                    why = (
                        f"or none of its labels belongs to a class of the experiment; {why}, or "
                        "change classes:"
                    )
                raise CrossferError(f"{dataset.folder}: its {split} set is empty; {why}")
    new = experiment.model.unknown(experiment.classes)
    if not set(source.classes) - {experiment.classes.names.index(name) for name in new}:
        raise CrossferError(
            f"model.classes: the model has none of {source.name}'s classes ({', '.join(new)}); "
            "name another source, or correct the classes"
        )


def _check_fractions(experiment: Experiment, targets: Sequence[Dataset]) -> None:
    """Refuse targets, and fractions of them, from which the strategies cannot learn."""
    needing = [s.name for s in experiment.strategies if "target" in s.needs and s.labels == "all"]
    for target in targets:
        if needing and not len(target.rows("training")) and len(target.unlabelled("training")):
            raise CrossferError(
                f"{target.name}: {needing[0]} needs labels, and no training image has one; label "
                f"some, or choose among {', '.join(s.name for s in UNLABELLED)}"
            )
        for fraction in experiment.fractions:
            for seed in experiment.seeds:
                rows = rows_to_learn(target, fraction, seed, bool(needing))
                known = target.labels[rows]
                if needing and len(np.unique(known)) == 1 and len(rows) > 1:
                    raise CrossferError(
                        f"fractions: {fraction:g} of {target.name}'s training set has only the "
                        f"class {experiment.classes.names[known[0]]}; add images of other classes"
                    )
                if len(rows) < 2:
                    raise CrossferError(
                        f"fractions: {fraction:g} leaves fewer than 2 of {target.name}'s "
                        f"{len(target.rows('training'))} training images; use a larger fraction"
                    )

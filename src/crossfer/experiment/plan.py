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
        deployed = self.strategy.start == "deployed"
        return {"rules": RULES, **(self._of_deployed() if deployed else self._of_trained())}

    def _of_deployed(self) -> dict[str, Any]:
        """Return the identity of a deployed network, which is not trained; every seed has its own.

        Of the data, the classes matter, and the source, which its memory file describes.
        """
        given = {"memory": self.memory} if self.memory else {}  # it lies in the folder instead
        own = {
            "network": self.network,
            "built": self.network.built(self.classes),
            "classes": self.classes,
            "source": self.source,
            "seed": self.seed,
            "arithmetic": self.arithmetic,
        }
        weights = {"weights": self.network.weights_digest}
        return {"start": "deployed", **weights, **described(own | given)}

    def _of_trained(self) -> dict[str, Any]:
        """Return the identity of a trained network: all fields but those in `NOT_IDENTITY`."""
        start = "random" if self.strategy.start == "random" else "parent"  # whose key says which
        own = {f.name: getattr(self, f.name) for f in fields(self)} | {
            "built": self.network.built(self.classes),
            "parent": self.parent.key if self.parent else None,
            "baseline": self._looked_at.key if self._looked_at else None,
        }
        found = described({key: own[key] for key in own if key not in self.NOT_IDENTITY})
        # Layers that are the same have one name: their training is one run.
        found["strategy"]["layers"] = self.network.same_layers(self.strategy.layers)
        return {"start": start, **found}

    @cached_property
    def key(self) -> str:
        """The hash of the identity: sixteen hexadecimal digits."""
        return key_of(self.identity)

    @property
    def needed(self) -> list[Run]:
        """The runs that it depends on, each once: its parent and, if it looks back, its baseline."""
        both = (self.parent, self._looked_at)
        return list({other.key: other for other in both if other}.values())

    @property
    def _looked_at(self) -> Run | None:
        """The baseline, if it is needed beside the parent."""
        return self.baseline if self.strategy.looks_back else None

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
        baseline = run(strategy=experiment.strategies[0], seed=seed, source=past)
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
                    strategy=strategy,
                    seed=seed,
                    source=past,
                    parent=parent,
                    baseline=baseline,
                    target=target,
                    fraction=fraction,
                    note=note,
                )
        runs += [baseline, *arrived.values()]
    return runs


def make_run(
    experiment: Experiment,
    arithmetic: Arithmetic,
    datasets: Sequence[Dataset],
    *,
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
    shown = 0
    if target:
        rows = rows_to_learn(target.open(datasets), fraction, seed, not strategy.unlabelled)
        shown = len(rows)
    given = None
    if experiment.memory_file and (strategy.memory or strategy.start == "deployed"):
        given = MemoryRef.of(experiment.memory_file)
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
        target_images=shown,
        memory=given,
        note=note,
        devices=1 if strategy.layers == "none" else experiment.devices,
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
        unused = dataset is source and not learnt_from
        # Who learns from unlabelled images says below what it needs.
        optional = ["training"] if unused or len(dataset.unlabelled("training")) else []
        for split in ("training", "validation", "test"):
            if not len(dataset.rows(split)) and split not in optional:
                old = dataset is source and split == "training"
                advice = _how_to_fill(dataset, unused, old and experiment.model.is_deployed)
                raise CrossferError(f"{dataset.folder}: its {split} set is empty; {advice}")
    new = experiment.model.unknown(experiment.classes)
    if not set(source.classes) - {experiment.classes.names.index(name) for name in new}:
        raise CrossferError(
            f"model.classes: the model has none of {source.name}'s classes ({', '.join(new)}); "
            "name another source, or correct the classes"
        )


def _how_to_fill(dataset: Dataset, unused: bool, remembered: bool) -> str:
    """Say what to do about an empty split.

    Parameters
    ----------
    dataset
        The dataset.
    unused
        No strategy trains on it.
    remembered
        A memory file may stand for the split.
    """
    official = str(dataset.card["split"]["how"]).startswith("official")
    if unused:
        options = "--ignore-splits --sizes" if official else "--sizes"
        advice = f"prepare it with {options} 0,20,80, since no strategy trains on it"
    elif official:
        advice = "prepare it with --ignore-splits, which divides all its images again"
    else:
        advice = "prepare it with other --sizes"
    if remembered:
        advice += "; or set memory: for strategies that use a memory file (`crossfer remember`)"
    if dataset.left_out:
        return f"or none of its labels belongs to a class of the experiment; {advice}, or change classes:"
    return advice


def _check_fractions(experiment: Experiment, targets: Sequence[Dataset]) -> None:
    """Refuse targets, and fractions of them, from which the strategies cannot learn."""
    needing = [s.name for s in experiment.strategies if "target" in s.needs and not s.unlabelled]
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

"""Configuration → the list of runs, each identified by the hash of what determines it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.splits import take_fraction
from crossfer.errors import CrossferError
from crossfer.experiment.config import Experiment
from crossfer.networks import NetworkConfig
from crossfer.strategies import Strategy, starts
from crossfer.training.recipe import Recipe

RULES = 6
"""Raised whenever the same configuration would give other weights: it enters every run's identity."""

WORK = {"none": 0.0, "head": 0.05, "FC": 0.15, "FC+CL": 0.45, "all": 1.0}
"""Rough time of an epoch by what trains, as a share of one in which every layer does: with the default
recipes, on a CPU (docs/benchmarks.md).  For the time that is left, and the budgets of a search."""


@dataclass(frozen=True)
class Run:
    """One training of one strategy for one (source, target, fraction, seed).

    Parameters
    ----------
    strategy, recipe, network
        What trains, and how.
    source
        The past: one dataset, or several as one.
    target
        ``None`` where only the source is involved.
    fraction
        Share of the target training set; ``None`` where it is not used.
    seed
        Determines all chance.
    parent
        The run whose weights this one starts from; ``None``: from random or deployed weights.
    baseline
        The network before any adaptation; ``None`` for that itself.
    validate_on
        The sides whose validation sets are measured after every epoch.
    keep
        The weights of which epoch: ``"best"`` or ``"last"``, see `crossfer.training.train`.
    precision
        The arithmetic, which changes the bits.
    note
        What else tells it apart, for people: which datasets came before, or which one is left out.
    """

    strategy: Strategy
    recipe: Recipe
    source: Dataset
    target: Dataset | None
    fraction: float | None
    seed: int
    parent: Run | None
    baseline: Run | None
    network: NetworkConfig
    validate_on: tuple[str, ...]
    keep: str
    precision: str
    note: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the weights."""
        strategy = self.strategy
        if strategy.start == "deployed":
            # Nothing is trained; the seed is there so that every seed has a baseline of its own.
            return {
                "rules": RULES,
                "start": "deployed",
                "model": self.network.identity | {"weights": self.network.weights_digest},
                "classes": self.source.class_set.as_mapping(),
                "seed": self.seed,
                "precision": self.precision,
            }
        return {
            "rules": RULES,
            "start": "random" if strategy.start == "random" else "baseline",
            "layers": strategy.layers,
            "data": strategy.data,
            **_not_default(strategy, "exemplars", "choice", "share", "penalty", "merge"),
            "classes": self.source.class_set.as_mapping(),
            **self._known,
            "recipe": {
                key: value
                for key, value in asdict(self.recipe).items()
                if value or key not in ("averaging", "views")
            },
            "source": self.source.fingerprint,
            "target": self.target.fingerprint if self.target else None,
            "fraction": self.fraction,
            "seed": self.seed,
            "parent": self.parent.key if self.parent else None,
            "baseline": self.baseline.key if self.baseline and strategy.looks_back else None,
            "model": self.network.identity,
            "validate_on": list(self.validate_on),
            "keep": self.keep,
            "precision": self.precision,
        }

    @property
    def _known(self) -> dict[str, Any]:
        """The classes of the datasets it learns from, where one lacks some: the loss is masked to them."""
        sides = {"source": self.source, "target": self.target}
        shown = {side: sides[side] for side in self.strategy.sides}
        sets = {side: dataset.class_sets for side, dataset in shown.items() if dataset}
        if all(
            len(classes) == len(self.source.class_set)
            for found in sets.values()
            for classes in found
        ):
            return {}
        return {"known": {k: v[0] if len(v) == 1 else v for k, v in sets.items()}}

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that identify the run."""
        return key_of(self.identity)

    @property
    def label(self) -> str:
        """What people call it."""
        parts = [self.strategy.name]
        if self.target:
            parts.append(self.target.name)
        if self.fraction is not None:
            parts.append(f"{100 * self.fraction:g}%")
        return " · ".join([*parts, *filter(None, [self.note]), f"seed {self.seed}"])

    @property
    def folder(self) -> str:
        """The name of its folder: readable first, unique at the end."""
        readable = self.label.replace(" · ", "-").replace(" ", "").replace("%", "")
        safe = "".join(c if c.isalnum() or c in "+-" else "_" for c in readable)
        return f"{safe}-{self.key}"

    @cached_property
    def target_rows(self) -> NDArray[np.int64]:
        """The rows of the target's training set that are at hand; none without a target."""
        if self.target is None:
            return np.empty(0, np.int64)
        return fraction_rows(self.target, self.fraction or 1.0, self.seed)

    @property
    def training_images(self) -> int:
        """How many images it trains on."""
        count = 0
        if self.strategy.start == "deployed":
            return count
        if "source" in self.strategy.sides:
            count = len(self.source.rows("training"))
            if self.strategy.exemplars:
                count = min(count, self.strategy.exemplars * len(self.source.classes))
        if "target" in self.strategy.sides:
            count += len(self.target_rows)
        return count

    @property
    def work(self) -> float:
        """How long it will take, in full training steps of one image, roughly."""
        images = self.training_images
        if self.strategy.share:  # an epoch passes over the target
            images = round(len(self.target_rows) / self.strategy.share)
        return images * self.recipe.epochs * WORK[self.strategy.layers]


def key_of(identity: dict[str, Any]) -> str:
    """Return the hash that identifies a run, of what determines its weights."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _not_default(strategy: Strategy, *names: str) -> dict[str, Any]:
    """Return the choices that differ from the default: later additions leave older identities alone."""
    defaults = {field.name: field.default for field in fields(strategy)}
    chosen = {name: getattr(strategy, name) for name in names}
    return {
        name: asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
        for name, value in chosen.items()
        if value != defaults[name]
    }


def fraction_rows(target: Dataset, fraction: float, seed: int) -> NDArray[np.int64]:
    """Return the rows of a share of a target's training set."""
    rows = target.rows("training")
    subjects = [target.subjects[row] for row in rows]
    return rows[take_fraction(target.labels[rows], subjects, fraction, seed)]


def at_hand(target: Dataset, fraction: float, seed: int) -> Dataset:
    """Return a target of whose training set only this share is there, for what comes after it."""
    if fraction == 1:
        return target
    splits = target.samples.column("split").to_numpy(zero_copy_only=False).copy()
    splits[np.setdiff1d(target.rows("training"), fraction_rows(target, fraction, seed))] = (
        "not used"
    )
    place = target.samples.schema.get_field_index("split")
    table = target.samples.set_column(place, "split", pa.array(splits, pa.string()))
    card = target.card | {"fingerprint": f"{target.fingerprint}-{fraction:g}-{seed}"}
    return replace(target, card=card, table=table)


def plan(
    experiment: Experiment, source: Dataset, targets: Sequence[Dataset], precision: str
) -> list[Run]:
    """List the runs of an experiment, each after the one it starts from.

    What has not met the target is trained once per seed and shared: the baseline above all.

    Parameters
    ----------
    experiment
        The configuration.
    source, targets
        Its datasets, open.
    precision
        The arithmetic of the machine, which changes the bits.

    Raises
    ------
    CrossferError
        If a data set has no test image, or a fraction leaves no image to train on.
    """
    _check(experiment, source, targets)
    run = partial(make_run, experiment, precision)
    known = {strategy.name: strategy for strategy in experiment.strategies}
    pairs = [(target, fraction) for target in targets for fraction in experiment.fractions]
    runs: list[Run] = []
    for seed in experiment.seeds:
        baseline = run(experiment.strategies[0], seed, source)
        arrived: dict[tuple[str, str | None, float | None], Run] = {}
        for strategy in experiment.strategies[1:]:
            lineage = [strategy, *(known[name] for name in starts(strategy, known))]
            meets_target = any("target" in one.sides for one in lineage)
            for target, fraction in pairs if meets_target else [(None, None)]:
                place = (target.name if target else None, fraction)
                parent = (
                    arrived.get((strategy.start, *place))
                    or arrived.get((strategy.start, None, None))
                    or baseline
                )
                arrived[strategy.name, *place] = run(
                    strategy, seed, source, parent, baseline, target, fraction
                )
        runs += [baseline, *arrived.values()]
    return runs


def make_run(
    experiment: Experiment,
    precision: str,
    strategy: Strategy,
    seed: int,
    source: Dataset,
    parent: Run | None = None,
    baseline: Run | None = None,
    target: Dataset | None = None,
    fraction: float | None = None,
    note: str = "",
) -> Run:
    """Plan one run of an experiment; see `Run` for the parameters."""
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
        validate_on=_sides(strategy, experiment.selection),
        keep="last" if experiment.selection == "last" else "best",
        precision=precision,
        note=note,
    )


def _sides(strategy: Strategy, selection: str) -> tuple[str, ...]:
    if strategy.merge:
        return ("source", "target")
    if strategy.data == "source" or selection in ("trained-on", "last"):
        return strategy.sides
    return ("source", "target") if selection == "both" else (selection,)


def _check(experiment: Experiment, source: Dataset, targets: Sequence[Dataset]) -> None:
    learnt_from = any("source" in strategy.needs for strategy in experiment.strategies)
    for dataset in (source, *targets):
        for split in ("training", "validation", "test"):
            if split == "training" and dataset is source and not learnt_from:
                continue
            if not len(dataset.rows(split)):
                raise CrossferError(
                    f"{dataset.folder}: its {split} set is empty; prepare it with other --sizes"
                )
    for target in targets:
        for fraction in experiment.fractions:
            for seed in experiment.seeds:
                if len(fraction_rows(target, fraction, seed)) < 2:
                    raise CrossferError(
                        f"fractions: {fraction:g} leaves too few images of {target.name}'s "
                        f"{len(target.rows('training'))} to train on (at least 2)"
                    )

"""Protocols with several targets: together, in turn, leave-one-dataset-out.

The paper uses one pair of datasets at a time, and mentions (section IV) that more than two can be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.folds import folds_of
from crossfer.datasets.union import unite
from crossfer.errors import CrossferError
from crossfer.evaluation import continual
from crossfer.evaluation.metrics import accuracy
from crossfer.evaluation.rows import Chain, LeftOut
from crossfer.experiment.config import Experiment
from crossfer.experiment.data import DataRef
from crossfer.experiment.folder import folder_of, load_answers, parts_of
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.plan import Run, make_run, plan
from crossfer.strategies import BASELINE
from crossfer.terms import BL


@dataclass(frozen=True)
class PlannedChain:
    """One strategy on all targets, one after the other.

    Parameters
    ----------
    datasets
        The source and the targets, in order.
    runs
        A run for each: the baseline, then the network after each target.
    """

    datasets: list[Dataset]
    runs: list[Run]


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment.

    Parameters
    ----------
    pairs
        The study's protocol: the source with each target.
    chains
        Targets in turn.
    left_out
        For each seed and dataset, the network trained on all other datasets.
    datasets
        The source and the targets.
    folds
        For each target with folds, by name: the dataset with the splits of each fold.
    """

    pairs: list[Run]
    chains: list[PlannedChain]
    left_out: list[tuple[Dataset, Run]]
    datasets: list[Dataset]
    folds: Mapping[str, list[Dataset]]

    @property
    def runs(self) -> list[Run]:
        """Each run once, after the one that it starts from."""
        every = [
            *self.pairs,
            *(r for c in self.chains for r in c.runs),
            *(r for _, r in self.left_out),
        ]
        first: dict[str, Run] = {}
        for run in every:
            first.setdefault(run.key, run)
        return list(first.values())

    @property
    def opened(self) -> list[Dataset]:
        """The datasets that runs refer to; of targets with folds, each fold."""
        return [one for dataset in self.datasets for one in self.folds.get(dataset.name, [dataset])]

    @property
    def divisions(self) -> list[list[Dataset]]:
        """The datasets for each fold; a single list without folds."""
        each = [self.folds.get(dataset.name, [dataset]) for dataset in self.datasets]
        return [[one[k % len(one)] for one in each] for k in range(max(map(len, each)))]

    def measured_on(self, run: Run) -> list[Dataset]:
        """Return the datasets on whose validation and test sets a run is measured."""
        widely = {r.key for chain in self.chains for r in chain.runs}
        widely |= {r.key for _, r in self.left_out}
        if run.target is None or run.key in widely:
            return self.opened
        on_target = {part.fingerprint for part in run.target.parts}
        return [self.datasets[0], *(d for d in self.opened if d.fingerprint in on_target)]


def united_targets(experiment: Experiment, targets: Sequence[Dataset]) -> list[Dataset]:
    """Return the targets and, if the experiment asks for it, their union."""
    together = "together" in experiment.protocols and len(targets) > 1
    return [*targets, *([unite(targets)] if together else [])]


def plan_all(
    experiment: Experiment, source: Dataset, targets: Sequence[Dataset], arithmetic: Arithmetic
) -> Plan:
    """Plan the pairs and the other protocols of an experiment.

    Parameters
    ----------
    experiment, source, arithmetic
        As for `crossfer.experiment.plan.plan`.
    targets
        The targets.

    Raises
    ------
    CrossferError
        As `plan`.
    """
    folds = _folds(experiment, targets)
    divided = [one for target in targets for one in folds.get(target.name, [target])]
    pairs = plan(experiment, source, united_targets(experiment, divided), arithmetic)
    chains, left_out = [], []
    if "in-turn" in experiment.protocols and len(targets) > 1:
        chains = _chains(experiment, source, targets, pairs, arithmetic)
    if "leave-one-out" in experiment.protocols:
        left_out = _left_out(experiment, [source, *targets], arithmetic)
    return Plan(pairs, chains, left_out, [source, *targets], folds)


def _folds(experiment: Experiment, targets: Sequence[Dataset]) -> dict[str, list[Dataset]]:
    names = [target.name for target in targets]
    asked = experiment.folds if isinstance(experiment.folds, dict) else {}
    if unknown := asked.keys() - set(names):
        raise CrossferError(
            f"folds.{min(unknown)}: no such target; choose among {', '.join(names)}"
        )
    for config, name in zip(experiment.targets, names, strict=True):
        vain = [key for key in ("sizes", "exact", "seed") if key in config.model_fields_set]
        if vain and experiment.folds_of(name):
            raise CrossferError(
                f"targets: {vain[0]} of {name} has no effect, since folds divide it; remove one of the two"
            )
    return {
        target.name: folds_of(target, folds)
        for target in targets
        if (folds := experiment.folds_of(target.name))
    }


def not_in_turn(experiment: Experiment) -> list[str]:
    """Say which strategies are not applied in turn: a line, or none."""
    names = [one.name for one in experiment.strategies if one.name != BL and not one.goes_on]
    if "in-turn" not in experiment.protocols or not names:
        return []
    return [f"in turn: without {', '.join(names)}, which cannot go on from their own last result"]


def _chains(
    experiment: Experiment,
    source: Dataset,
    targets: Sequence[Dataset],
    pairs: Sequence[Run],
    arithmetic: Arithmetic,
) -> list[PlannedChain]:
    found = []
    fraction = experiment.fractions[-1]
    for seed in experiment.seeds:
        baseline = next(run for run in pairs if run.seed == seed and run.baseline is None)
        for strategy in experiment.strategies:
            if not strategy.goes_on:
                continue
            runs = [baseline]
            for step, target in enumerate(targets):
                past = DataRef.of(source)
                if "source" in strategy.needs:
                    met = (DataRef.of(t).at_hand(fraction, seed) for t in targets[:step])
                    past = sum(met, start=past)
                runs.append(
                    make_run(
                        experiment,
                        arithmetic,
                        [source, *targets],
                        strategy=strategy,
                        seed=seed,
                        source=past,
                        parent=runs[-1],
                        baseline=baseline,
                        target=DataRef.of(target),
                        fraction=fraction,
                        note=f"after {', '.join(t.name for t in targets[:step])}" if step else "",
                    )
                )
            found.append(PlannedChain([source, *targets], runs))
    return found


def _left_out(
    experiment: Experiment, datasets: Sequence[Dataset], arithmetic: Arithmetic
) -> list[tuple[Dataset, Run]]:
    return [
        (
            dataset,
            make_run(
                experiment,
                arithmetic,
                datasets,
                strategy=BASELINE,
                seed=seed,
                source=DataRef.of(unite([other for other in datasets if other is not dataset])),
                note=f"without {dataset.name}",
            ),
        )
        for seed in experiment.seeds
        for dataset in datasets
    ]


def in_turn(
    planned: Plan,
    runs_folder: Path,
    dropped: Mapping[str, Sequence[int]],
    failed: Mapping[str, str],
    new: Sequence[int] = (),
) -> list[Chain]:
    """Measure every chain whose runs are finished: the accuracy matrix and its metrics.

    Images of the source whose classes are `new` to the model do not count, as everywhere.
    """
    found, without = [], {planned.datasets[0].name: new}
    for chain in planned.chains:
        if any(run.key in failed for run in chain.runs):
            continue
        last = chain.runs[-1]
        matrix = tuple(
            tuple(
                _tested(run, dataset, runs_folder, dropped, without.get(dataset.name, ()))
                for dataset in chain.datasets
            )
            for run in chain.runs
        )
        found.append(
            Chain(
                strategy=last.strategy.name,
                seed=last.seed,
                fraction=last.fraction or 1.0,
                datasets=tuple(dataset.name for dataset in chain.datasets),
                runs=tuple(run.key for run in chain.runs),
                accuracy=matrix,
                average_accuracy=continual.average_accuracy(matrix),
                backward_transfer=continual.backward_transfer(matrix),
                forgetting=continual.forgetting(matrix),
                forward_transfer=continual.forward_transfer(matrix),
            )
        )
    return found


def leave_one_out(
    planned: Plan,
    runs_folder: Path,
    dropped: Mapping[str, Sequence[int]],
    failed: Mapping[str, str],
) -> list[LeftOut]:
    """Measure the networks trained on all datasets but one (as in Zavarez et al., SIBGRAPI 2017)."""
    return [
        LeftOut(
            left_out=dataset.name,
            seed=run.seed,
            run=run.key,
            accuracy={d.name: _tested(run, d, runs_folder, dropped) for d in planned.datasets},
        )
        for dataset, run in planned.left_out
        if run.key not in failed
    ]


def _tested(
    run: Run,
    dataset: Dataset,
    runs_folder: Path,
    dropped: Mapping[str, Sequence[int]],
    without: Sequence[int] = (),
) -> float:
    """Return a network's accuracy on a dataset's test set, among the dataset's classes, in per cent."""
    said = load_answers(folder_of(run, runs_folder), parts_of(dataset), "test", dropped, without)
    return accuracy(said.labels, said.decisions)

"""Compute ``results.json`` and the tables beside it from the predictions of finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.folds import all_tested, in_words
from crossfer.datasets.record import Split
from crossfer.errors import CrossferError
from crossfer.evaluation import summary
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.decision import leads, recommend
from crossfer.evaluation.evidence import (
    Evidence,
    Key,
    comparisons,
    with_intervals,
    with_mean_intervals,
)
from crossfer.evaluation.intervals import count_people
from crossfer.evaluation.measure import change, find_flips, flipped_image, measure
from crossfer.evaluation.metrics import accuracy
from crossfer.evaluation.rows import (
    FORMAT,
    DatasetFacts,
    Division,
    FailedRun,
    FlippedImage,
    Leakage,
    Measurements,
    Result,
    Results,
    RunFacts,
    StrategyFacts,
    Suggestions,
)
from crossfer.evaluation.summary import mean_change, mean_cost, over_folds
from crossfer.experiment.config import Experiment
from crossfer.experiment.folder import folder_of, parts_of, place_of, said_by_folds
from crossfer.experiment.leakage import test_rows
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import Plan, in_turn, leave_one_out, united_targets
from crossfer.files import write_csv, write_json
from crossfer.run_folder import load_run
from crossfer.strategies import STRATEGIES, starts
from crossfer.strategy import Strategy
from crossfer.terms import BL, PAST_DATA, SIDES, PastData, Side
from crossfer.validation import adapter, first_place

RESULTS, TABLE, SUMMARY, FLIPS = "results.json", "results.csv", "summary.csv", "flips.csv"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error")
CHANGES: Mapping[Side, str] = {"source": "memory_integrity", "target": "gain"}
NETWORK = ("target", "fraction", "strategy", "seed", "run")
IMAGE = ("side", "dataset", "flip", "row", "origin", "label", "before", "after")
"""The columns of ``flips.csv``: the network, the image and its flip."""


@dataclass(frozen=True)
class TestSet:
    """A test set without the images that are left out.

    Parameters
    ----------
    dataset
        The dataset.
    dropped
        For each dataset, rows that are left out.
    without
        Classes whose images are left out: on the source, those that are new to the model, which it cannot
        forget.
    folds
        With folds, the dataset with the splits of each fold; all images are test images then.
    """

    __test__ = False  # or pytest takes it for a test

    dataset: Dataset
    dropped: Mapping[str, Sequence[int]]
    without: Sequence[int] = ()
    folds: Sequence[Dataset] = ()

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the images in the dataset: int64 (N,)."""
        rows = test_rows(self.dataset, self.dropped)
        return rows[~np.isin(self.dataset.labels[rows], self.without)]

    @cached_property
    def origins(self) -> list[str]:
        """Origin of each of the N images."""
        return list(self.dataset.samples.column("origin").take(self.rows).to_pylist())

    @cached_property
    def subjects(self) -> NDArray[np.int64] | None:
        """Subject of each image: int64 (N,); None if unknown."""
        return self.dataset.people(self.rows)

    @property
    def people(self) -> int | None:
        """Number of subjects; None if unknown."""
        return count_people(self.subjects)

    @cached_property
    def fold(self) -> NDArray[np.int64]:
        """The fold that tests each image: int64 (N,)."""
        tested = [np.isin(self.rows, fold.rows("test")) for fold in self.folds]
        return np.argmax(tested, 0) if tested else np.zeros(len(self.rows), np.int64)

    def said(self, folders: Sequence[Path], split: Split) -> tuple[Answers, ...]:
        """Return the answers of one seed's networks: see `crossfer.experiment.folder.said_by_folds`."""
        divided = [parts_of(one) for one in self.folds or (self.dataset,)]
        dropped = self.dropped if split == "test" else {}
        return said_by_folds(folders, divided, split, dropped, self.without)


Said = dict[tuple[Key, Side], Sequence[Answers]]
TestSets = Mapping[tuple[str, Side], TestSet]
"""By target and side."""


@dataclass(frozen=True)
class Collected:
    """The results of the finished runs.

    Parameters
    ----------
    results
        The content of ``results.json``.
    evidence
        The predictions behind it.
    test_sets
        The test sets.
    """

    results: Results
    evidence: Evidence
    test_sets: TestSets


def collect(
    experiment: Experiment,
    planned: Plan,
    runs_folder: Path,
    out: Path,
    failed: Mapping[str, str],
    leakage: Leakage | None = None,
    network: Sequence[str] = (),
) -> Collected:
    """Measure every finished run, and average over seeds and targets.

    Every network is measured on the test sets of the source and of its target, among the classes of each
    dataset; a network without a target (the baseline) is measured on every target.  Strategies with the same
    run share its results.  Images that `leakage` drops are left out, and on the source those of classes that
    are new to the model.  `network` contains the findings of the check of the network.

    Failed runs (reasons by key) are listed and left out, and so are seeds without a baseline.  Folders
    of runs inside the experiment's folder, `out`, are relative to it.

    Raises
    ------
    CrossferError
        If every baseline failed.
    """
    runs = planned.runs
    source, *single = planned.datasets
    targets = united_targets(experiment, single)
    dropped = leakage.dropped if leakage else {}
    names = experiment.classes.names
    new = experiment.model.unknown(experiment.classes)
    numbers = [names.index(name) for name in new]
    of_source = TestSet(source, dropped, numbers)
    test_sets: dict[tuple[str, Side], TestSet] = {}
    for target in targets:
        folds = planned.folds.get(target.name, ())
        whole = all_tested(target) if folds else target
        test_sets[target.name, "source"] = of_source
        test_sets[target.name, "target"] = TestSet(whole, dropped, folds=folds)
    measured, answers, chosen_by = _measure(_comparable(planned, failed), test_sets, runs_folder)
    evidence = Evidence(answers, {where: test.subjects for where, test in test_sets.items()})
    people = {
        (target, side): test_sets[target, side].dataset.people(said[0].rows)
        for ((target, *_), side), said in chosen_by.items()
    }
    validation = Evidence(chosen_by, people)
    kept = summary.complete(measured)
    averaged = summary.by_strategy(kept)
    alone = summary.by_strategy(summary.on_all(kept, [target.name for target in single]))
    records = [_record(run, runs_folder, out) for run in runs if run.key not in failed]
    known = {strategy.name: strategy for strategy in experiment.strategies}
    ahead = leads(averaged, validation)
    facts = [_facts(strategy, known) for strategy in experiment.strategies]
    results = Results(
        format=FORMAT,
        crossfer=version("crossfer"),
        name=experiment.name,
        stand_in=any(dataset.stand_in for dataset in (source, *targets)),
        classes=source.class_set.names,
        config=experiment.model_dump(mode="json", by_alias=True),
        machine=records[-1].machine,
        datasets=(
            _describe(of_source, "source"),
            *(_describe(test_sets[target.name, "target"], "target") for target in targets),
        ),
        leakage=leakage,
        strategies=tuple(facts),
        runs=tuple(records),
        failed=tuple(_failure(run, failed[run.key]) for run in runs if run.key in failed),
        results=tuple(with_intervals(measured, evidence)),
        summary=tuple(with_intervals(averaged, evidence, classes=True)),
        averages=tuple(with_mean_intervals(summary.over_targets(alone), alone, evidence)),
        comparisons=tuple(comparisons(averaged, evidence)),
        validation=tuple(ahead),
        recommendations=tuple(recommend(measured, averaged, facts, ahead)),
        in_turn=tuple(in_turn(planned, runs_folder, dropped, failed, numbers)),
        leave_one_out=tuple(leave_one_out(planned, runs_folder, dropped, failed)),
        new_classes=new,
        network=tuple(network),
    )
    return Collected(results, evidence, test_sets)


def past_of(
    strategy: Strategy, known: Mapping[str, Strategy] = STRATEGIES
) -> tuple[PastData, int | None]:
    """Return the level of past data that a strategy needs, including the strategies it starts from.

    Returns
    -------
    tuple
        The level, and the number of exemplars per class, if any; the baseline's own training is not counted.
    """
    above = [] if strategy.name == BL else starts(strategy, known)
    line = [strategy, *(known[name] for name in above if name != BL)]
    most = max((one.past_data for one in line), key=PAST_DATA.index)
    return most, max((one.exemplars for one in line if one.exemplars), default=None)


def write_results(collected: Collected, folder: Path) -> None:
    """Write ``flips.csv``, ``results.csv`` and ``summary.csv``, and ``results.json``.

    ``results.csv`` has a row for each network and target, ``summary.csv`` one for each mean over seeds.
    """
    results = collected.results
    write_csv(folder / FLIPS, (*NETWORK, *IMAGE), _flipped_images(collected))
    rows = [_table_row(row, "seed") for row in results.results]
    write_csv(folder / TABLE, rows[0], rows)
    rows = list(_summary_rows(results))
    write_csv(folder / SUMMARY, rows[0], rows)
    write_json(folder / RESULTS, results.as_json())


def read_results(content: Any, file: Path) -> Results:
    """Read the content of ``results.json``.

    Raises
    ------
    CrossferError
        If another version wrote it; the message names ``file``.
    """
    try:
        return adapter(Results).validate_python(content)
    except ValidationError as error:
        where = first_place(error) or "no results"
        raise CrossferError(
            f"{file}: written by another version or changed ({where}); run the experiment again"
        ) from None


def schema() -> dict[str, Any]:
    """Return the JSON schema of ``results.json``."""
    return adapter(Results).json_schema()


def _facts(strategy: Strategy, strategies: Mapping[str, Strategy]) -> StrategyFacts:
    """Return the facts of a strategy, for the report and the recommendation."""
    past_data, exemplars = past_of(strategy, strategies)
    return StrategyFacts(
        name=strategy.name,
        start=strategy.start,
        layers=strategy.layers,
        data=strategy.data,
        about=strategy.about,
        past_data=past_data,
        exemplars=exemplars,
    )


def _comparable(planned: Plan, failed: Mapping[str, str]) -> list[Run]:
    """Return the finished runs of seeds with a finished baseline."""
    baselines = [run for run in planned.pairs if run.strategy.name == BL]
    seeds = {run.seed for run in baselines if run.key not in failed}
    if not seeds:
        raise CrossferError(f"{baselines[0].label} failed: {failed[baselines[0].key]}")
    return [run for run in planned.pairs if run.seed in seeds and run.key not in failed]


def _measure(
    runs: Iterable[Run], test_sets: TestSets, runs_folder: Path
) -> tuple[list[Result], Said, Said]:
    """Measure networks on the source and on their target, or on every target if they have none.

    The baseline of each seed must come first.

    Returns
    -------
    tuple
        The rows, and the answers on the test sets and on the validation sets.
    """
    rows: list[Result] = []
    answers: Said = {}
    chosen_by: Said = {}
    for key, networks in _networks(runs, test_sets).items():
        target, fraction, strategy, seed = key
        folders = [folder_of(run, runs_folder) for run in networks]
        measured, changes = {}, {}
        for side in SIDES:
            test = test_sets[target, side]
            after = answers[key, side] = test.said(folders, "test")
            before = answers[(target, None, BL, seed), side]
            names, origins = test.dataset.class_set.names, test.origins
            validation = chosen_by[key, side] = test.said(folders, "validation")
            measured[side] = _measured(test, validation, after)
            changes[side] = mean_change(
                [
                    change(old, new, names, origins)
                    for old, new in zip(cycle(before), after, strict=False)
                ]
            )
        rows.append(
            Result(
                target=target,
                fraction=fraction,
                strategy=strategy,
                seeds=(seed,),
                runs=tuple(run.key for run in networks),
                on_source=measured["source"],
                on_target=measured["target"],
                memory_integrity=changes["source"],
                gain=changes["target"],
                cost=mean_cost([load_run(folder).cost for folder in folders]),
            )
        )
    return rows, answers, chosen_by


def _networks(runs: Iterable[Run], test_sets: TestSets) -> dict[Key, list[Run]]:
    """Return the runs of each row, one or one per fold; rows with a missing fold are left out."""
    found: dict[Key, list[Run]] = {}
    for run in runs:
        targets = [run.target.name] if run.target else dict.fromkeys(name for name, _ in test_sets)
        for target in targets:
            key = (target, run.fraction, run.strategy.name, run.seed)
            found.setdefault(key, []).append(run)
    return {
        key: own
        for key, own in found.items()
        if own[0].target is None or len(own) == max(1, len(test_sets[key[0], "target"].folds))
    }


def _measured(
    test: TestSet, validation: Sequence[Answers], tested: Sequence[Answers]
) -> Measurements:
    """Measure the networks of one seed on one dataset; on a union, also on each part."""
    ends = np.cumsum([len(part.samples) for part in test.dataset.parts])
    alone = {}
    for part, end in zip(test.dataset.parts, ends, strict=True):
        of_part = [
            (one, (one.rows < end) & (one.rows >= end - len(part.samples))) for one in tested
        ]
        each = [accuracy(one.labels[own], one.decisions[own]) for one, own in of_part]
        alone[part.name] = float(np.mean(each))
    return Measurements(
        over_folds([measure(one) for one in validation]),
        over_folds([measure(one) for one in tested]),
        alone if len(alone) > 1 else {},
    )


def _record(run: Run, runs_folder: Path, out: Path) -> RunFacts:
    """Return the facts of a run, with its folder and the strategy's name in this experiment."""
    folder = folder_of(run, runs_folder)
    return replace(
        load_run(folder),
        folder=place_of(folder, out),
        strategy=run.strategy.name,
        about=run.strategy.about,
    )


def _failure(run: Run, why: str) -> FailedRun:
    return FailedRun(
        key=run.key,
        label=run.label,
        strategy=run.strategy.name,
        target=run.target.name if run.target else None,
        fraction=run.fraction,
        seed=run.seed,
        why=why,
    )


def _table_row(row: Result, seeds: str) -> dict[str, Any]:
    table: dict[str, Any] = {name: getattr(row, name) for name in NETWORK[:3]}
    table[seeds] = " ".join(map(str, row.seeds))
    for side in SIDES:
        on, changed = row.on(side), row.change(side)
        table |= {f"{side}_test_{name}": getattr(on.test, name) for name in METRICS}
        table |= _ends(f"{side}_test", on.test.interval)
        table[f"{side}_validation_accuracy"] = on.validation.accuracy
        table[CHANGES[side]] = changed.points
        table |= _ends(CHANGES[side], changed.interval)
    return {**table, **asdict(row.cost), "run": " ".join(row.runs)}


def _summary_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``summary.csv``, with the p-values of the comparisons with BL."""
    compared = [c for c in results.comparisons if c.against == BL]
    p = {(c.target, c.fraction, c.strategy, c.side): c.p_holm for c in compared}
    for row in results.summary:
        key = (row.target, row.fraction, row.strategy)
        yield _table_row(row, "seeds") | {f"{side}_p": p.get((*key, side)) for side in SIDES}


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _flipped_images(collected: Collected) -> Iterator[dict[str, Any]]:
    """Yield every flipped image of every network."""
    answers = collected.evidence.answers
    for row in collected.results.results:
        (seed,) = row.seeds
        key = (row.target, row.fraction, row.strategy, seed)
        for side in SIDES:
            test = collected.test_sets[row.target, side]
            before, after = answers[(row.target, None, BL, seed), side], answers[key, side]
            for number, (old, new) in enumerate(zip(cycle(before), after, strict=False)):
                ways = zip(("positive", "negative"), find_flips(old, new), strict=True)
                for way, i in ((way, int(i)) for way, positions in ways for i in positions):
                    run = row.runs[number if len(after) > 1 else int(test.fold[i]) % len(row.runs)]
                    image: FlippedImage = flipped_image(
                        old, new, i, collected.results.classes, test.origins
                    )
                    network = dict(zip(NETWORK, (*key, run), strict=True))
                    where = {"side": side, "dataset": test.dataset.name, "flip": way}
                    yield {**network, **where, **asdict(image)}


def _describe(test: TestSet, role: Side) -> DatasetFacts:
    dataset, card = test.dataset, test.dataset.card
    split = card["split"]
    return DatasetFacts(
        role=role,
        name=dataset.name,
        title=card["title"],
        stand_in=dataset.stand_in,
        fingerprint=dataset.fingerprint,
        classes=tuple(dataset.class_set.names[label] for label in dataset.classes),
        counts=dataset.counts(),
        images=card["images"],
        subjects=card["subjects"],
        test_subjects=test.people,
        split=Division(in_words(test.folds), None, 0)
        if test.folds
        else Division(split["how"], split["asked"], split["subjects_in_several_splits"]),
        skipped=card["skipped"],
        left_out=dataset.left_out,
        faces=card["faces"],
        licence=card["licence"],
        citation=card["citation"],
        parts=tuple(card.get("parts", ())),
        folds=tuple(fold.fingerprint for fold in test.folds),
        suggestions=Suggestions(**said) if (said := card.get("suggestions")) else None,
    )

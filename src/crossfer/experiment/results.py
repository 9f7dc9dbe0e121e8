"""Finished runs → ``results.json``, ``results.csv``, ``flips.csv``: from their stored predictions alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError
from crossfer.evaluation import summary
from crossfer.evaluation.decision import PAST_DATA, recommend
from crossfer.evaluation.evidence import (
    SIDES,
    Evidence,
    Key,
    comparisons,
    with_bounds,
    with_intervals,
    with_mean_intervals,
)
from crossfer.evaluation.flips import Flips, find_flips, per_class
from crossfer.evaluation.intervals import subject_codes
from crossfer.evaluation.metrics import accuracy, decide, measure_as_one
from crossfer.experiment.config import Experiment
from crossfer.experiment.folder import Predictions, folder_of, load_predictions, load_run
from crossfer.experiment.leakage import test_rows
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import Plan, in_turn, leave_one_out, united_targets
from crossfer.files import write_json, written
from crossfer.strategies import BASELINE, STRATEGIES, PastData, Strategy, starts

FORMAT = 4
RESULTS, TABLE, FLIPS = "results.json", "results.csv", "flips.csv"
NETWORK = ("target", "fraction", "strategy", "seed", "run")
IMAGE = ("side", "dataset", "flip", "row", "origin", "label", "before", "after")
"""The columns of ``flips.csv``: which network, and which image flipped how."""

EXAMPLES = 5
"""Of the images that flipped each way, so many stand in ``results.json``; ``flips.csv`` has all."""


@dataclass(frozen=True)
class Tested:
    """What one network said about a dataset's test set, as far as it counts.

    Parameters
    ----------
    dataset
        Whose test set.
    rows
        Where the images stand in the dataset: int64 (N,).
    labels
        The truth: int64 (N,).
    probabilities
        float32 (N, classes).
    decisions
        int64 (N,), each among the classes of the dataset that the image came from.
    """

    dataset: Dataset
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    decisions: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each decision is right: bool (N,)."""
        return np.asarray(self.decisions == self.labels)

    @cached_property
    def origins(self) -> list[str]:
        """N names of where the images came from."""
        return list(self.dataset.samples.column("origin").take(self.rows).to_pylist())


Answers = dict[tuple[Key, str], Tested]
"""What was said, by network and side."""


def collect(
    experiment: Experiment,
    planned: Plan,
    runs_folder: Path,
    out: Path,
    failed: Mapping[str, str],
    leakage: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Measure every finished run and average.

    Every network is measured on the source test set and on its target's test set, each image on the
    classes that its dataset has; what only knows the source (the baseline) is measured on every target.
    Strategies that come to the same run share its numbers.  What `leakage` says is dropped does not count.

    Runs that failed, by key, are named with the reason and left out; so is a seed without its baseline,
    which has nothing to be compared with.

    Returns
    -------
    tuple
        The content of ``results.json``, where runs lie relative to the experiment's folder, `out`; and the
        rows of ``flips.csv``, one at a time: every image that flipped.

    Raises
    ------
    CrossferError
        If every baseline failed.
    """
    runs = planned.runs
    source, *single = planned.datasets
    targets = united_targets(experiment, single)
    dropped: dict[str, list[int]] = leakage["dropped"] if leakage else {}
    rows, answers = _measure(_comparable(planned, failed), targets, runs_folder, dropped)
    evidence = Evidence(
        {network: one.right for network, one in answers.items()},
        {
            (target.name, side): subject_codes([d.subjects[row] for row in test_rows(d, dropped)])
            for target in targets
            for side, d in zip(SIDES, (source, target), strict=True)
        },
    )
    results = summary.with_changes(rows)
    averages = summary.by_strategy(results)
    alone = {target.name for target in single}
    over_targets = summary.over_targets([row for row in averages if row["target"] in alone])
    records = [_record(run, runs_folder, out) for run in runs if run.key not in failed]
    strategies = {strategy.name: strategy for strategy in experiment.strategies}
    known = [_known(strategy, strategies) for strategy in experiment.strategies]
    content = {
        "format": FORMAT,
        "crossfer": version("crossfer"),
        "name": experiment.name,
        "stand_in": any(dataset.stand_in for dataset in (source, *targets)),
        "classes": list(source.class_set.names),
        "config": experiment.model_dump(mode="json", by_alias=True),
        "machine": records[-1]["machine"],
        "datasets": [
            _describe(source, "source"),
            *(_describe(target, "target") for target in targets),
        ],
        "leakage": leakage,
        "strategies": known,
        "runs": records,
        "failed": [_failure(run, failed[run.key]) for run in runs if run.key in failed],
        "results": [
            row | {"flips": {side: _flips(row, side, answers) for side in SIDES}}
            for row in with_intervals(results, evidence)
        ],
        "summary": with_bounds(with_intervals(averages, evidence), evidence),
        "averages": with_mean_intervals(over_targets, averages, evidence),
        "comparisons": comparisons(averages, evidence),
        "recommendations": recommend(averages, known),
        "in_turn": in_turn(planned, runs_folder, dropped, failed),
        "leave_one_out": leave_one_out(planned, runs_folder, dropped, failed),
    }
    return content, _flipped_images(results, answers)


def past_of(
    strategy: Strategy, known: Mapping[str, Strategy] = STRATEGIES
) -> tuple[PastData, int | None]:
    """Say what of the source's images is needed for a strategy and all that it starts from: the most.

    Returns
    -------
    tuple
        What, and, if some of each class, how many; the images that the baseline learnt from do not count.
    """
    above = [] if strategy.name == BASELINE.name else starts(strategy, known)
    line = [strategy, *(known[name] for name in above if name != BASELINE.name)]
    most = max((one.past_data for one in line), key=PAST_DATA.index)
    return most, max((one.exemplars for one in line if one.exemplars), default=None)


def _known(strategy: Strategy, strategies: Mapping[str, Strategy]) -> dict[str, Any]:
    """Describe a strategy, for the report and the recommendation."""
    keys = ("name", "start", "layers", "data", "about")
    past_data, exemplars = past_of(strategy, strategies)
    told = {key: getattr(strategy, key) for key in keys}
    return told | {"past_data": past_data, "exemplars": exemplars}


def _comparable(planned: Plan, failed: Mapping[str, str]) -> list[Run]:
    """Return what is finished, of the seeds whose baseline is; two strategies may have the same run."""
    baselines = [run for run in planned.pairs if run.strategy.name == BASELINE.name]
    seeds = {run.seed for run in baselines if run.key not in failed}
    if not seeds:
        raise CrossferError(f"{baselines[0].label} failed: {failed[baselines[0].key]}")
    return [run for run in planned.pairs if run.seed in seeds and run.key not in failed]


def _measure(
    runs: Iterable[Run],
    targets: Sequence[Dataset],
    runs_folder: Path,
    dropped: Mapping[str, list[int]],
) -> tuple[list[dict[str, Any]], Answers]:
    """Measure networks on the source and on their target; what only knows the source, on every target."""
    rows: list[dict[str, Any]] = []
    answers: Answers = {}
    for run in runs:
        folder = folder_of(run, runs_folder)
        on_source, of_source = _measured(folder, run.source, dropped, "source")
        for target in [run.target] if run.target else targets:
            on_target, of_target = _measured(folder, target, dropped, "target")
            key = (target.name, run.fraction, run.strategy.name, run.seed)
            answers |= {(key, "source"): on_source, (key, "target"): on_target}
            rows.append(
                {
                    "strategy": run.strategy.name,
                    "target": target.name,
                    "fraction": run.fraction,
                    "seed": run.seed,
                    "run": run.key,
                    **of_source,
                    **of_target,
                    "cost": load_run(folder)["cost"],
                }
            )
    return rows, answers


def _record(run: Run, runs_folder: Path, out: Path) -> dict[str, Any]:
    """Return what a run says of itself, and where it lies, under the name that it has here."""
    folder = folder_of(run, runs_folder)
    return load_run(folder) | {
        "folder": Path(os.path.relpath(folder, out)).as_posix(),
        "strategy": run.strategy.name,
        "about": run.strategy.about,
    }


def _failure(run: Run, why: str) -> dict[str, Any]:
    return {
        "key": run.key,
        "label": run.label,
        "strategy": run.strategy.name,
        "target": run.target.name if run.target else None,
        "fraction": run.fraction,
        "seed": run.seed,
        "why": why,
    }


def write_results(
    results: dict[str, Any], flipped: Iterable[Mapping[str, Any]], folder: Path
) -> None:
    """Write ``flips.csv``, ``results.csv`` (one row a network and target) and ``results.json``."""
    _write_csv(folder / FLIPS, (*NETWORK, *IMAGE), flipped)
    rows = [_table_row(result) for result in results["results"]]
    _write_csv(folder / TABLE, rows[0], rows)
    write_json(folder / RESULTS, results)


def _table_row(result: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {key: result[key] for key in NETWORK[:-1]}
    for side in SIDES:
        row |= {f"{side}_test_{name}": result[f"{side}_test"][name] for name in summary.METRICS}
        row[f"{side}_test_low"], row[f"{side}_test_high"] = result[f"{side}_test"]["interval"]
        row[f"{side}_validation_accuracy"] = result[f"{side}_validation"]["accuracy"]
    for name in summary.CHANGES:
        row[name] = result[name]
        row[f"{name}_low"], row[f"{name}_high"] = result[f"{name}_interval"]
    return {**row, **result["cost"], "run": result["run"]}


def _write_csv(file: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with written(file) as beside, beside.open("w", newline="", encoding="utf-8") as text:
        table = csv.DictWriter(text, list(columns))
        table.writeheader()
        table.writerows(rows)


def _measured(
    folder: Path, dataset: Dataset, dropped: Mapping[str, list[int]], side: str
) -> tuple[Tested, dict[str, Any]]:
    """Measure a network on one dataset; where that is several as one, on each of them too."""
    test, validation = (
        _said(folder, dataset, split, of_split)
        for split, of_split in (("test", dropped), ("validation", {}))
    )
    measured: dict[str, Any] = {
        f"{side}_{split}": measure_as_one((y, p, part.classes) for part, (_, y, p) in said)
        for split, said in (("test", test), ("validation", validation))
    }
    decisions = [decide(p, part.classes) for part, (_, _, p) in test]
    if len(dataset.parts) > 1:
        measured["parts"] = {
            part.name: accuracy(one.labels, decided)
            for (part, one), decided in zip(test, decisions, strict=True)
        }
    whole = Predictions(*map(np.concatenate, zip(*(one for _, one in test), strict=True)))
    return Tested(dataset, *whole, decisions=np.concatenate(decisions)), measured


def _said(
    folder: Path, dataset: Dataset, split: str, dropped: Mapping[str, list[int]]
) -> list[tuple[Dataset, Predictions]]:
    """Return what a network said about each part of a dataset; rows are those of the whole."""
    start, found = 0, []
    for part in dataset.parts:
        said = load_predictions(folder, part.fingerprint, split)
        said = said.without(dropped.get(part.name, []))
        found.append((part, said._replace(rows=said.rows + start)))
        start += len(part.samples)
    return found


def _before_and_after(
    row: Mapping[str, Any], side: str, answers: Answers
) -> tuple[Tested, Tested, Flips]:
    key: Key = (row["target"], row["fraction"], row["strategy"], row["seed"])
    before, after = answers[(key[0], None, "BL", key[3]), side], answers[key, side]
    return before, after, find_flips(after.labels, before.decisions, after.decisions)


def _flips(row: Mapping[str, Any], side: str, answers: Answers) -> dict[str, Any]:
    """Count a network's flips by class, and name those where it changed its mind most."""
    before, after, flips = _before_and_after(row, side, answers)
    moved = np.abs(after.probabilities - before.probabilities)
    moved = moved[np.arange(len(after.labels)), after.labels]
    found: dict[str, Any] = {}
    for way, positions in flips._asdict().items():
        first = positions[np.argsort(-moved[positions], kind="stable")][:EXAMPLES]
        found[way] = per_class(after.labels, positions)
        found[f"{way}_examples"] = [_image(before, after, int(i)) for i in first]
    return found


def _flipped_images(
    rows: Iterable[Mapping[str, Any]], answers: Answers
) -> Iterator[dict[str, Any]]:
    """Yield every flipped image of every network."""
    for row in rows:
        network = {key: row[key] for key in NETWORK}
        for side in SIDES:
            before, after, flips = _before_and_after(row, side, answers)
            for way, positions in flips._asdict().items():
                for i in positions:
                    where = {"side": side, "dataset": after.dataset.name, "flip": way}
                    yield {**network, **where, **_image(before, after, int(i))}


def _image(before: Tested, after: Tested, position: int) -> dict[str, Any]:
    """Describe one test image: its row in the sample table, its origin, its class, both decisions."""
    names = after.dataset.class_set.names
    said = {"label": after.labels, "before": before.decisions, "after": after.decisions}
    return {
        "row": int(after.rows[position]),
        "origin": after.origins[position],
        **{name: names[decisions[position]] for name, decisions in said.items()},
    }


def _describe(dataset: Dataset, role: str) -> dict[str, Any]:
    card = dataset.card
    kept = ("title", "licence", "citation", "images", "subjects", "split", "skipped", "faces")
    return {
        "role": role,
        "name": dataset.name,
        "stand_in": dataset.stand_in,
        "fingerprint": dataset.fingerprint,
        "classes": [dataset.class_set.names[label] for label in dataset.classes],
        "counts": dataset.counts(),
        "left_out": dataset.left_out,
        **{key: card[key] for key in kept},
        **({"parts": card["parts"]} if "parts" in card else {}),
    }

"""Finished runs → ``results.json``, ``results.csv``, ``flips.csv``: from their stored predictions alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.datasets.union import Union
from crossfer.emotions import EMOTIONS
from crossfer.errors import CrossferError
from crossfer.evaluation import summary
from crossfer.evaluation.decision import recommend
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
from crossfer.evaluation.metrics import accuracy, decide, measure
from crossfer.experiment.config import Experiment
from crossfer.experiment.execute import Predictions, folder_of, load_predictions, load_run
from crossfer.experiment.leakage import test_rows
from crossfer.experiment.plan import Run
from crossfer.experiment.protocols import Plan, in_turn, leave_one_out, united_targets
from crossfer.files import write_json, written
from crossfer.strategies import BASELINE

FORMAT = 3
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
        float32 (N, 7).
    """

    dataset: Dataset
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @cached_property
    def decisions(self) -> NDArray[np.int64]:
        """int64 (N,), among the classes that the dataset has."""
        return decide(self.probabilities, self.dataset.classes)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each decision is right: bool (N,)."""
        return np.asarray(self.decisions == self.labels)

    @cached_property
    def origins(self) -> list[str]:
        """N names of where the images came from."""
        return list(self.dataset.samples.column("origin").take(self.rows).to_pylist())


def collect(
    experiment: Experiment,
    planned: Plan,
    runs_folder: Path,
    out: Path,
    failed: Mapping[str, str],
    leakage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure every finished run and average: the content of ``results.json``.

    Every network is measured on the source test set and on its target's test set, each on the classes
    that the dataset has; what only knows the source (the baseline) is measured on every target.  All
    images that flipped are written to ``flips.csv`` in the experiment's folder, `out`.  What `leakage`
    says is dropped does not count.

    Runs that failed, by key, are named with the reason and left out; so is a seed without its baseline,
    which has nothing to be compared with.

    Raises
    ------
    CrossferError
        If every baseline failed.
    """
    runs = planned.runs
    source, *single = planned.datasets
    targets = united_targets(experiment, single)
    pairs = {run.key for run in planned.pairs}
    baselines = [run for run in planned.pairs if run.strategy.name == BASELINE.name]
    comparable = {run.seed for run in baselines if run.key not in failed}
    if not comparable:
        raise CrossferError(f"{baselines[0].label} failed: {failed[baselines[0].key]}")
    dropped: dict[str, list[int]] = leakage["dropped"] if leakage else {}
    records, rows = [], []
    tested: dict[tuple[Key, str], Tested] = {}
    for run in runs:
        if run.key in failed:
            continue
        folder = folder_of(run, runs_folder)
        record = load_run(folder) | {
            "folder": Path(os.path.relpath(folder, out)).as_posix(),
            "strategy": run.strategy.name,
            "about": run.strategy.about,
        }
        records.append(record)
        if run.seed not in comparable or run.key not in pairs:
            continue
        on_source, of_source = _measured(folder, source, dropped, "source")
        for target in [run.target] if run.target else targets:
            on_target, of_target = _measured(folder, target, dropped, "target")
            key = (target.name, run.fraction, run.strategy.name, run.seed)
            tested |= {(key, "source"): on_source, (key, "target"): on_target}
            rows.append(
                {
                    "strategy": run.strategy.name,
                    "target": target.name,
                    "fraction": run.fraction,
                    "seed": run.seed,
                    "run": run.key,
                    **of_source,
                    **of_target,
                    "cost": record["cost"],
                }
            )
    evidence = Evidence(
        {network: one.right for network, one in tested.items()},
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
    keys = ("name", "start", "layers", "data", "about", "past_data", "exemplars")
    known = [{key: getattr(s, key) for key in keys} for s in experiment.strategies]
    _write_csv(out / FLIPS, (*NETWORK, *IMAGE), _flipped_images(results, tested))
    return {
        "format": FORMAT,
        "crossfer": version("crossfer"),
        "name": experiment.name,
        "stand_in": any(dataset.stand_in for dataset in (source, *targets)),
        "emotions": list(EMOTIONS),
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
            row | {"flips": {side: _flips(row, side, tested) for side in SIDES}}
            for row in with_intervals(results, evidence)
        ],
        "summary": with_bounds(with_intervals(averages, evidence), evidence),
        "averages": with_mean_intervals(over_targets, averages, evidence),
        "comparisons": comparisons(averages, evidence),
        "recommendations": recommend(averages, known),
        "in_turn": in_turn(planned, runs_folder, dropped, failed),
        "leave_one_out": leave_one_out(planned, runs_folder, dropped, failed),
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


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Write ``results.json`` and ``results.csv`` (one row a network and target)."""
    write_json(folder / RESULTS, results)
    rows = [_table_row(result) for result in results["results"]]
    _write_csv(folder / TABLE, rows[0], rows)


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
    test = Tested(dataset, *_said(folder, dataset, "test", dropped))
    validation = _said(folder, dataset, "validation", {})
    measured: dict[str, Any] = {
        f"{side}_test": measure(test.labels, test.probabilities, dataset.classes),
        f"{side}_validation": measure(validation.labels, validation.probabilities, dataset.classes),
    }
    if isinstance(dataset, Union):
        tests = {part.name: _said(folder, part, "test", dropped) for part in dataset.parts}
        measured["parts"] = {
            part.name: accuracy(
                tests[part.name].labels, decide(tests[part.name].probabilities, part.classes)
            )
            for part in dataset.parts
        }
    return test, measured


def _said(
    folder: Path, dataset: Dataset, split: str, dropped: Mapping[str, list[int]]
) -> Predictions:
    """Return what a network said about a set, or about that of several datasets as one."""
    if not isinstance(dataset, Union):
        said = load_predictions(folder, dataset.fingerprint, split)
        return said.without(dropped.get(dataset.name, []))
    start, found = 0, []
    for part in dataset.parts:
        said = _said(folder, part, split, dropped)
        found.append(said._replace(rows=said.rows + start))
        start += len(part.samples)
    return Predictions(*map(np.concatenate, zip(*found, strict=True)))


def _before_and_after(
    row: Mapping[str, Any], side: str, tested: Mapping[tuple[Key, str], Tested]
) -> tuple[Tested, Tested, Flips]:
    key: Key = (row["target"], row["fraction"], row["strategy"], row["seed"])
    before, after = tested[(key[0], None, "BL", key[3]), side], tested[key, side]
    return before, after, find_flips(after.labels, before.decisions, after.decisions)


def _flips(
    row: Mapping[str, Any], side: str, tested: Mapping[tuple[Key, str], Tested]
) -> dict[str, Any]:
    """Count a network's flips by class, and name those where it changed its mind most."""
    before, after, flips = _before_and_after(row, side, tested)
    moved = np.abs(after.probabilities - before.probabilities)
    moved = moved[np.arange(len(after.labels)), after.labels]
    found: dict[str, Any] = {}
    for way, positions in flips._asdict().items():
        first = positions[np.argsort(-moved[positions], kind="stable")][:EXAMPLES]
        found[way] = per_class(after.labels, positions)
        found[f"{way}_examples"] = [_image(before, after, int(i)) for i in first]
    return found


def _flipped_images(
    rows: Iterable[Mapping[str, Any]], tested: Mapping[tuple[Key, str], Tested]
) -> Iterator[dict[str, Any]]:
    """Yield every flipped image of every network."""
    for row in rows:
        network = {key: row[key] for key in NETWORK}
        for side in SIDES:
            before, after, flips = _before_and_after(row, side, tested)
            for way, positions in flips._asdict().items():
                for i in positions:
                    where = {"side": side, "dataset": after.dataset.name, "flip": way}
                    yield {**network, **where, **_image(before, after, int(i))}


def _image(before: Tested, after: Tested, position: int) -> dict[str, Any]:
    """Describe one test image: its row in the sample table, its origin, its class, both decisions."""
    said = {"label": after.labels, "before": before.decisions, "after": after.decisions}
    return {
        "row": int(after.rows[position]),
        "origin": after.origins[position],
        **{name: EMOTIONS[decisions[position]] for name, decisions in said.items()},
    }


def _describe(dataset: Dataset, role: str) -> dict[str, Any]:
    card = dataset.card
    kept = ("title", "licence", "citation", "images", "subjects", "split", "skipped", "faces")
    return {
        "role": role,
        "name": dataset.name,
        "stand_in": dataset.stand_in,
        "fingerprint": dataset.fingerprint,
        "classes": [EMOTIONS[label] for label in dataset.classes],
        "counts": dataset.counts(),
        **{key: card[key] for key in kept},
        **({"parts": card["parts"]} if "parts" in card else {}),
    }

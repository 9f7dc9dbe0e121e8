"""Finished runs → ``results.json`` and ``results.csv``, from their stored predictions alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossfer.datasets.dataset import Dataset
from crossfer.emotions import EMOTIONS
from crossfer.evaluation import summary
from crossfer.evaluation.metrics import measure
from crossfer.experiment.config import Experiment
from crossfer.experiment.execute import folder_of, load_predictions, load_run, write_json
from crossfer.experiment.plan import Run

FORMAT = 1
RESULTS, TABLE = "results.json", "results.csv"


def collect(
    experiment: Experiment,
    source: Dataset,
    targets: Sequence[Dataset],
    runs: Sequence[Run],
    runs_folder: Path,
) -> dict[str, Any]:
    """Measure every finished run and average: the content of ``results.json``.

    Every network is measured on the source test set and on its target's test set, each on the classes
    that the dataset has; what only knows the source (the baseline) is measured on every target.
    """
    records, rows = [], []
    for run in runs:
        folder = folder_of(run, runs_folder)
        record = load_run(folder) | {
            "folder": f"{runs_folder.name}/{folder.name}",
            "strategy": run.strategy.name,
            "about": run.strategy.about,
        }
        records.append(record)
        of_source = _measured(folder, source, "source")
        for target in [run.target] if run.target else targets:
            rows.append(
                {
                    "strategy": run.strategy.name,
                    "target": target.name,
                    "fraction": run.fraction,
                    "seed": run.seed,
                    "run": run.key,
                    **of_source,
                    **_measured(folder, target, "target"),
                    "cost": record["cost"],
                }
            )
    results = summary.with_changes(rows)
    averages = summary.by_strategy(results)
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
        "strategies": [
            {"name": s.name, "start": s.start, "layers": s.layers, "data": s.data, "about": s.about}
            for s in experiment.strategies
        ],
        "runs": records,
        "results": results,
        "summary": averages,
        "averages": summary.over_targets(averages),
        "recommendations": summary.recommend(averages),
    }


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Write ``results.json`` and ``results.csv`` (one row a network and target)."""
    write_json(folder / RESULTS, results)
    partial = folder / f"{TABLE}.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        sides = ("source_test", "target_test", "source_validation", "target_validation")
        keys = ("target", "fraction", "strategy", "seed")
        changes, costs = ("memory_integrity", "gain"), tuple(results["results"][0]["cost"])
        rows.writerow([*keys, *(f"{side}_accuracy" for side in sides), *changes, *costs, "run"])
        for result in results["results"]:
            rows.writerow(
                [
                    *(result[key] for key in keys),
                    *(result[side]["accuracy"] for side in sides),
                    *(result[key] for key in changes),
                    *(result["cost"][key] for key in costs),
                    result["run"],
                ]
            )
    os.replace(partial, folder / TABLE)


def _measured(folder: Path, dataset: Dataset, side: str) -> dict[str, Any]:
    return {
        f"{side}_{split}": measure(*load_predictions(folder, dataset, split), dataset.classes)
        for split in ("test", "validation")
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
    }

"""From results to the rows of the report's tables; the template only lays them out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfer.datasets.record import SPLITS
from crossfer.evaluation import paper
from crossfer.evaluation.decision import past_data_in_words
from crossfer.evaluation.summary import CHANGES
from crossfer.report.view import Row, View, known, shown, signed

IN_TURN = ("average_accuracy", "backward_transfer", "forgetting", "forward_transfer")
"""What is averaged over seeds of targets one after the other."""


def strategies(view: View) -> list[Row]:
    """Return every averaged row, with the peak memory of its runs and the target's shown name."""
    rows = []
    for target in view.targets:
        for row in view.results["summary"]:
            if row["target"] == target["name"]:
                runs = view.measured(row["target"], row["strategy"], row["fraction"])
                peak = max(run["cost"]["peak_memory_bytes"] for run in runs)
                rows.append(row | {"shown": shown(target), "peak": peak})
    return rows


def averages(view: View) -> list[Row]:
    """Return one row a strategy: its mean changes at each fraction, beside the paper's."""
    rows = view.results["averages"]
    return [
        {
            "strategy": name,
            "about": view.about(name),
            "changes": {
                key: [_find(rows, name, fraction, key) for fraction in view.fractions]
                for key in CHANGES
            },
            "paper": _paper(name),
        }
        for name in dict.fromkeys(row["strategy"] for row in rows)
    ]


def fine_tunings(view: View) -> list[str]:
    """Return which of the strategies that the paper averages together were measured."""
    return [name for name in paper.FINE_TUNINGS if name in view.names]


def datasets(view: View) -> list[Row]:
    """Return Table I: the sizes reached, asked for and printed in the paper, of each dataset."""
    rows = []
    for dataset in view.results["datasets"]:
        counts = {split: sum(dataset["counts"][split].values()) for split in SPLITS}
        split = dataset["split"]
        rows.append(
            dataset
            | {
                "shown": shown(dataset),
                "sizes": counts,
                "total": sum(counts.values()),
                "asked": split["asked"],
                "paper": paper.TABLE_I.get(dataset["name"]),
                "how": split["how"],
                "missing": view.missing(dataset),
            }
        )
    return rows


def per_class(view: View, target: str, side: str) -> Row:
    """Return each strategy's accuracy and change against BL on the classes of one test set.

    Means over seeds, at the largest fraction.
    """
    means = {
        name: np.mean([np.array(run[f"{side}_test"]["per_class"], float) for run in runs], axis=0)
        for name in view.names
        if (runs := view.measured_most(target, name))
    }
    rows: list[Row] = [
        {
            "strategy": name,
            "cells": [
                {"accuracy": float(value), "change": float(value - old)}
                for value, old in zip(values, means["BL"], strict=True)
            ],
        }
        for name, values in means.items()
    ]
    has = [
        any(known(row["cells"][i]["accuracy"]) for row in rows) for i in range(len(view.emotions))
    ]
    for row in rows:
        row["cells"] = [cell for cell, wanted in zip(row["cells"], has, strict=True) if wanted]
    classes = [emotion for emotion, wanted in zip(view.emotions, has, strict=True) if wanted]
    return {"classes": classes, "rows": rows}


def against_before(view: View, target: str) -> list[Row]:
    """Compare every strategy with BL on both test sets, at the largest fraction."""
    return [{"strategy": name} | _compared(view, target, name, "BL") for name in view.adapted]


def against_others(view: View, target: str) -> list[Row]:
    """Compare the recommended strategy with every other adapted one; none where that is BL."""
    chosen = view.recommended(target)["strategy"]
    others = [name for name in view.adapted if name != chosen] if chosen != "BL" else []
    return [{"strategy": name} | _compared(view, target, chosen, name) for name in others]


def all_comparisons(view: View, target: str) -> list[Row]:
    """Return every comparison at the largest fraction."""
    return [row for row in view.results["comparisons"] if _here(view, row, target)]


def flips(view: View, target: str, side: str) -> Row:
    """Count the images of one test set that flipped, by class, at the largest fraction: means over seeds."""
    rows = []
    for name in view.adapted:
        if runs := view.measured_most(target, name):
            ways = [
                np.mean([run["flips"][side][way] for run in runs], axis=0)
                for way in ("positive", "negative")
            ]
            cells = [(float(won), float(lost)) for won, lost in zip(*ways, strict=True)]
            rows.append(
                {"strategy": name, "cells": cells, "all": tuple(map(float, map(sum, ways)))}
            )
    dataset = view.source if side == "source" else view.target(target)
    has = [i for i, emotion in enumerate(view.emotions) if emotion in dataset["classes"]]
    for row in rows:
        row["cells"] = [row["cells"][i] for i in has]
    return {"classes": [view.emotions[i] for i in has], "rows": rows}


def in_turn(view: View) -> list[Row]:
    """Return each strategy's accuracy matrix and figures, mean over seeds; the best average first."""
    found = []
    for name in view.names:
        chains = [chain for chain in view.results["in_turn"] if chain["strategy"] == name]
        if not chains:
            continue
        names = chains[0]["datasets"]
        steps = ["BL", *(f"then {view.shown(target)}" for target in names[1:])]
        matrix = np.mean([chain["accuracy"] for chain in chains], axis=0)
        found.append(
            {
                "strategy": name,
                "datasets": [view.shown(dataset) for dataset in names],
                "rows": list(zip(steps, matrix.tolist(), strict=True)),
                **{key: float(np.mean([chain[key] for chain in chains])) for key in IN_TURN},
            }
        )
    return sorted(found, key=lambda row: -row["average_accuracy"])


def together(view: View) -> Row | None:
    """Return, for all targets as one, each strategy's accuracy on each, and that of its own pair beside."""
    united = next((target for target in view.targets if "parts" in target), None)
    if united is None:
        return None
    rows, largest = [], view.largest(united["name"])
    for name in view.names:
        if runs := view.measured(united["name"], name, largest):
            alone = {part: view.averaged(part, name, largest) for part in united["parts"]}
            rows.append(
                {
                    "strategy": name,
                    "source": _mean([run["source_test"]["accuracy"] for run in runs]),
                    "parts": [
                        (
                            _mean([run["parts"][part] for run in runs]),
                            pair["target_test"]["accuracy"] if pair else None,
                        )
                        for part, pair in alone.items()
                    ],
                }
            )
    return {"parts": [view.shown(part) for part in united["parts"]], "rows": rows}


def leave_one_out(view: View) -> list[Row]:
    """Return a row for each dataset left out: the accuracy on it and on the others, mean over seeds."""
    rows = []
    found = view.results["leave_one_out"]
    for name in dict.fromkeys(row["left_out"] for row in found):
        runs = [row["accuracy"] for row in found if row["left_out"] == name]
        accuracies = {dataset: _mean([run[dataset] for run in runs]) for dataset in runs[0]}
        rows.append({"left_out": name, "accuracies": accuracies})
    return rows


def front(view: View, target: str) -> list[Row]:
    """Return the Pareto front and the recommended strategy, the best on the source first."""
    needs = {s["name"]: past_data_in_words(s["past_data"], s["exemplars"]) for s in view.strategies}
    choice, largest = view.recommended(target), view.largest(target)
    names = dict.fromkeys([*choice["front"], choice["strategy"]])
    rows = [row for name in names if (row := view.averaged(target, name, largest))]
    rows.sort(key=lambda row: -row["source_test"]["accuracy"])
    return [
        row
        | {
            "past_data": "" if row["strategy"] == "BL" else needs[row["strategy"]],
            "on_front": row["strategy"] in choice["front"],
        }
        for row in rows
    ]


def flip_examples(view: View, target: str, side: str) -> Row | None:
    """Name some images that the recommended strategy flipped, first seed; None where that is BL."""
    choice = view.recommended(target)
    if choice["strategy"] == "BL":
        return None
    first = view.measured(target, choice["strategy"], choice["fraction"])[0]
    return dict(first["flips"][side])


def confusions(view: View, target: str, side: str) -> list[Row]:
    """Return the confusion matrices of one test set, summed over seeds, at the largest fraction."""
    found = []
    for name in view.names:
        if runs := view.measured_most(target, name):
            counts = np.sum([run[f"{side}_test"]["confusion"] for run in runs], axis=0)
            keep = np.flatnonzero(counts.sum(1) + counts.sum(0))
            shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            found.append(
                {
                    "strategy": name,
                    "classes": [view.emotions[i] for i in keep],
                    "rows": [
                        {
                            "emotion": view.emotions[i],
                            "cells": [(int(counts[i, j]), float(shares[i, j])) for j in keep],
                        }
                        for i in keep
                    ],
                }
            )
    return found


def recipes(view: View) -> tuple[list[str], list[Row]]:
    """Return the hyper-parameters' names, and each strategy's values; a deployed network has none."""
    used: dict[str, Row] = {}
    for row in view.results["results"]:
        identity = view.runs[row["run"]]["identity"]
        if "recipe" in identity:
            used.setdefault(row["strategy"], _flat(identity["recipe"]))
    keys = list(dict.fromkeys(key for recipe in used.values() for key in recipe))
    ordered = [name for name in view.names if name in used]
    return keys, [{"strategy": n, "values": [used[n].get(key) for key in keys]} for n in ordered]


def distinct(view: View, key: str) -> list[Row]:
    """Return the different machines or versions that the runs name."""
    found: list[Row] = []
    for run in view.results["runs"]:
        if run[key] not in found:
            found.append(run[key])
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _find(
    rows: Sequence[Row], strategy: str, fraction: float, key: str
) -> tuple[float | None, list[float] | None]:
    """Return a mean change and its interval."""
    for row in rows:
        if row["strategy"] == strategy and row["fraction"] == fraction:
            return row[key], row[f"{key}_interval"]
    return None, None


def _here(view: View, comparison: Row, target: str) -> bool:
    return comparison["target"] == target and comparison["fraction"] in (None, view.largest(target))


def _compared(view: View, target: str, strategy: str, against: str) -> Row:
    """Return the comparison of two strategies on each side, seen from the first; None where missing."""
    found: Row = {"source": None, "target": None}
    for row in all_comparisons(view, target):
        if (row["strategy"], row["against"]) == (strategy, against):
            found[row["side"]] = row
        elif (row["strategy"], row["against"]) == (against, strategy):
            low, high = row["interval"]
            mirrored = {"difference": -row["difference"], "interval": [-high, -low]}
            swapped = {"gained": row["lost"], "lost": row["gained"]}
            found[row["side"]] = row | mirrored | swapped
    return found


def _paper(strategy: str) -> dict[str, str] | None:
    source: Sequence[float]
    gain: Sequence[float]
    if strategy == "fine-tunings":
        source, gain = paper.FINE_TUNING_SOURCE_CHANGE, paper.FINE_TUNING_GAIN
    elif strategy == "FU":
        source, gain = (paper.FUSION_SOURCE_CHANGE,), (paper.FUSION_GAIN,)
    else:
        return None
    return {"memory_integrity": _range(source), "gain": _range(gain)}


def _range(values: Sequence[float]) -> str:
    return " to ".join(signed(value, 2) for value in sorted(values, key=abs))


def _flat(recipe: Row, prefix: str = "") -> Row:
    flat: Row = {}
    for key, value in recipe.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{key}: ")
        else:
            flat[prefix + key.replace("_", " ")] = value
    return flat

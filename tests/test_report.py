"""The report: the answer in words, and a page that is safe, whole and needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from crossfer.classes import FER7
from crossfer.evaluation import summary
from crossfer.evaluation.decision import recommend
from crossfer.evaluation.evidence import (
    SIDES,
    Evidence,
    comparisons,
    with_bounds,
    with_intervals,
    with_mean_intervals,
)
from crossfer.evaluation.metrics import balanced_accuracy, macro_f1, per_class_accuracy
from crossfer.report import answers, charts, explain, tables, words, write_report
from crossfer.report.view import View

ABOUT = {
    "BL": ("random", "all", "source", "the network trained on the source, not adapted"),
    "FC": ("baseline", "FC", "target", "fine-tune the fully connected layers"),
    "FC+CL": ("baseline", "FC+CL", "target", "fine-tune them and the last convolution"),
    "RE": ("baseline", "all", "target", "fine-tune every layer"),
    "FU": ("random", "all", "source+target", "train anew on source and target together"),
}
SECONDS = {"BL": 1000.0, "FC": 20.0, "FC+CL": 30.0, "RE": 60.0, "FU": 1100.0}


def made_results(
    accuracies: dict[str, dict[str, tuple[float, float]]],
    *,
    fractions: tuple[float, ...] = (1.0,),
    seeds: tuple[int, ...] = (0,),
    images: dict[str, int] | None = None,
    missing: dict[str, tuple[str, ...]] | None = None,
    name: str = "made up",
    titles: dict[str, str] | None = None,
    stand_in: bool = False,
) -> dict[str, Any]:
    """Make results from accuracies: target → strategy → (on the source, on the target)."""
    images, missing = {"fer2013": 3589} | (images or {}), missing or {}
    titles = {"fer2013": "FER2013, made up", "jaffe": "JAFFE, made up"} | (titles or {})
    names = list(next(iter(accuracies.values())))
    rows, runs = [], {}
    for target, by_strategy in accuracies.items():
        for strategy, (on_source, on_target) in by_strategy.items():
            for fraction in fractions if strategy != "BL" else (None,):
                for seed in seeds:
                    key = f"{strategy}-{target if strategy != 'BL' else ''}-{fraction}-{seed}"
                    less = 0 if fraction is None else 6 * (1 - fraction)
                    jitter = 0.0 if len(seeds) == 1 else (seed - 1) * 0.4
                    sides = {
                        f"{side}_{split}": _measured(
                            at + jitter, images.get(data, 400), missing.get(data, ())
                        )
                        for side, data, at in (
                            ("source", "fer2013", on_source),
                            ("target", target, on_target - less),
                        )
                        for split in ("test", "validation")
                    }
                    cost = {"images_seen": 4000, "seconds": SECONDS.get(strategy, 90.0)}
                    cost |= {"evaluation_seconds": 1.0, "peak_memory_bytes": 700_000_000}
                    rows.append(
                        {"strategy": strategy, "target": target, "fraction": fraction}
                        | {"seed": seed, "run": key, **sides, "cost": cost}
                    )
                    runs[key] = _run(key, strategy, target, fraction, seed, cost)
    evidence = _evidence(rows)
    results = summary.with_changes(rows)
    averaged = summary.by_strategy(results)
    known: list[dict[str, Any]] = [
        dict(zip(("name", "start", "layers", "data", "about"), (n, *_about(n)), strict=True))
        | {"exemplars": None, "past_data": "all source" if "source" in _about(n)[2] else "none"}
        for n in names
    ]
    return {
        "format": 3,
        "crossfer": "0",
        "name": name,
        "stand_in": stand_in,
        "classes": list(FER7),
        "config": {
            "name": name,
            "selection": "trained-on",
            "model": {"network": "study", "width": 1.0, "weights": None},
        },
        "machine": {"device": "cpu"},
        "datasets": [
            _dataset(data, titles.get(data, data), missing.get(data, ()), stand_in)
            for data in ("fer2013", *accuracies)
        ],
        "strategies": known,
        "leakage": None,
        "in_turn": [],
        "leave_one_out": [],
        "runs": list(runs.values()),
        "failed": [],
        "results": [row | {"flips": _flips()} for row in with_intervals(results, evidence)],
        "summary": with_bounds(with_intervals(averaged, evidence), evidence),
        "averages": with_mean_intervals(summary.over_targets(averaged), averaged, evidence),
        "comparisons": comparisons(averaged, evidence),
        "recommendations": recommend(averaged, known),
    }


def _about(name: str) -> tuple[str, str, str, str]:
    return ABOUT.get(name, ("baseline", "all", "source+target", ""))


def _measured(accuracy: float, images: int, missing: tuple[str, ...]) -> dict[str, Any]:
    has = [i for i, emotion in enumerate(FER7) if emotion not in missing]
    matrix = np.zeros((7, 7), int)
    for i, total in zip(
        has, np.diff(np.linspace(0, images, len(has) + 1).astype(int)), strict=True
    ):
        matrix[i, i] = round(accuracy / 100 * total)
        matrix[i, has[has.index(i) - 1]] += total - matrix[i, i]
    return {
        "images": images,
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "calibration_error": 12.5,
        "per_class": per_class_accuracy(matrix),
        "confusion": matrix.tolist(),
    }


def _evidence(rows: list[dict[str, Any]]) -> Evidence:
    """Make up who was right about which image, as often as the rows say."""
    rng, answers = np.random.default_rng(0), {}
    for row in rows:
        for side in SIDES:
            key = (row["target"], row["fraction"], row["strategy"], row["seed"])
            images, share = row[f"{side}_test"]["images"], row[f"{side}_test"]["accuracy"] / 100
            answers[key, side] = rng.permutation(images) < round(share * images)
    return Evidence(answers, {(row["target"], side): None for row in rows for side in SIDES})


def _flips() -> dict[str, Any]:
    image = {"row": 1, "origin": "faces/KA.HA1.tiff", "label": "happy"}
    return {
        side: {
            "positive": [3, 0, 1, 0, 0, 2, 0],
            "negative": [0, 1, 0, 0, 0, 0, 0],
            "positive_examples": [image | {"before": "sad", "after": "happy"}],
            "negative_examples": [image | {"before": "happy", "after": "sad"}],
        }
        for side in SIDES
    }


def _dataset(name: str, title: str, missing: tuple[str, ...], stand_in: bool) -> dict[str, Any]:
    classes = [emotion for emotion in FER7 if emotion not in missing]
    asked = {"training": 70, "validation": 7, "test": 30}
    split = {"how": "subject-disjoint", "asked": asked, "subjects_in_several_splits": 0}
    return {
        "role": "source" if name == "fer2013" else "target",
        "name": name,
        "stand_in": stand_in,
        "fingerprint": "0123456789abcdef" * 4,
        "classes": classes,
        "counts": {part: {c: 10 for c in classes} for part in ("training", "validation", "test")},
        "title": title,
        "licence": "research use",
        "citation": "Somebody, 2020",
        "images": 210,
        "subjects": 10,
        "split": split,
        "skipped": {"no face found": 3},
        "crop": 1.0,
    }


def _run(
    key: str, strategy: str, target: str, fraction: float | None, seed: int, cost: dict[str, Any]
) -> dict[str, Any]:
    return {
        "key": key,
        "label": key,
        "strategy": strategy,
        "target": None if strategy == "BL" else target,
        "fraction": fraction,
        "seed": seed,
        "identity": {"recipe": {"epochs": 30, "augmentation": {"flip": True}}},
        "kept_epoch": 2,
        "training_images": 100,
        "trained_parameters": 19_271_431,
        "cost": cost,
        "machine": {"device": "cpu"},
        "versions": {"crossfer": "0"},
        "folder": f"runs/{key}",
    }


STUDY = {"BL": (64.0, 40.0), "FC": (43.0, 60.6), "RE": (35.3, 77.4), "FU": (64.3, 80.3)}
LEAST = {"BL": (64.0, 40.0), "FC": (57.0, 62.0)}
LITTLE = {"BL": (64.0, 40.0), "FC": (64.0, 50.0)}
WORSE = {"BL": (64.0, 40.0), "FC": (33.0, 60.0)}


@pytest.mark.parametrize(
    ("strategies", "sentence", "short"),
    [
        (
            STUDY,
            "FU kept FER2013 within 0.3 points and gained 40.3 on JAFFE: use it.",
            "Use FU: train anew on source and target together.",
        ),
        (
            LEAST,
            "FC forgot 7.0 points on FER2013 but gained 22.0 on JAFFE: "
            "use it only if the new faces matter more than the old.",
            "FC, with care: fine-tune the fully connected layers.",
        ),
        (
            LITTLE,
            "FC kept FER2013 as it was and gained 10.0 on JAFFE: "
            "use it, though the gain may be chance.",
            "FC, with care: fine-tune the fully connected layers.",
        ),
        (
            WORSE,
            "Keep the old model: nothing tried beats it on FER2013 and JAFFE together.",
            "Keep the old model.",
        ),
    ],
)
def test_the_answer(strategies: dict[str, tuple[float, float]], sentence: str, short: str) -> None:
    results = made_results({"jaffe": strategies}, images={"jaffe": 67})
    assert answers(results) == [sentence]
    assert words.headline(words.answers(View(results))) == short


def test_the_answer_says_what_it_costs_and_how_sure_it_is() -> None:
    (answer,) = words.answers(View(made_results({"jaffe": STUDY}, images={"jaffe": 67})))
    notes = " ".join(answer.notes).replace("\N{NO-BREAK SPACE}", " ")
    assert "It cost 18 min of training, 4,000 images seen; the quickest, FC, took 20 s" in notes
    assert "alone forgot much: FC −21.0, RE −28.7 points on FER2013." in notes
    assert "Only 67 test images: FU on JAFFE lies somewhere between" in notes


def test_the_page_tells_what_is_real_and_what_flipped(tmp_path: Path) -> None:
    strategies = {"BL": (64.0, 40.0), "FC": (63.9, 44.0), "FU": (64.3, 80.3)}
    results = made_results({"jaffe": strategies}, images={"jaffe": 67})
    sure = {
        (c["strategy"], c["side"]): words.sureness(c)
        for c in results["comparisons"]
        if c["against"] == "BL"
    }
    assert sure["FU", "target"] == "real"
    assert sure["FC", "target"] == sure["FC", "source"] == "may be chance"
    assert words.sureness({"p": 0.03, "p_holm": 0.3}) == "likely"
    (row,) = tables.against_others(View(results), "jaffe")
    assert row["strategy"] == "FC"
    assert row["target"]["difference"] > 0
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "Is the difference real?" in page
    assert "All 6 comparisons, with p-values" in page
    assert "<code>faces/KA.HA1.tiff</code> (happy): happy → sad" in page
    assert '<span class="up">+6</span> <span class="down">−1</span>' in page


def test_a_comparison_looks_the_same_from_the_other_side() -> None:
    view = View(made_results({"jaffe": STUDY}, images={"jaffe": 67}))
    here = {row["strategy"]: row["target"] for row in tables.against_others(view, "jaffe")}
    (stored,) = (
        c
        for c in tables.all_comparisons(view, "jaffe")
        if (c["strategy"], c["against"], c["side"]) == ("FU", "FC", "target")
    )
    assert here["FC"] == stored
    view.results["recommendations"][0]["strategy"] = "FC"
    there = {row["strategy"]: row["target"] for row in tables.against_others(view, "jaffe")}
    assert there["FU"]["difference"] == -stored["difference"]
    assert there["FU"]["interval"] == [-end for end in reversed(stored["interval"])]
    assert (there["FU"]["gained"], there["FU"]["lost"]) == (stored["lost"], stored["gained"])


def test_a_page_that_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    results = made_results(
        {"jaffe": STUDY, "ck48": STUDY},
        fractions=(0.5, 1.0),
        seeds=(0, 1, 2),
        missing={"ck48": ("neutral",)},
        stand_in=True,
    )
    history = tmp_path / "runs" / "FU-jaffe-1.0-0" / "history.csv"
    history.parent.mkdir(parents=True)
    history.write_text("epoch,source_accuracy,target_accuracy\n1,0.2,0.3\n2,0.5,0.6\n")
    report = write_report(results, tmp_path, contact_sheet=b"\x89PNG")
    page = report.read_text(encoding="utf-8")
    assert report == tmp_path / "report.html"
    assert "Drawn stand-ins: these numbers say nothing about real faces" in page
    assert "ck48 stand-in has no neutral: accuracy there is measured on the 6 classes" in page
    assert "validation accuracy over 2 epochs" in page
    assert "data:image/png;base64,iVBORw==" in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:)""", page)
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(page) < 1_000_000
    figures = {file.name for file in (tmp_path / "figures").iterdir()}
    assert figures == {"fig6.png", "fig6.svg", "stand-ins.png"}


def test_figure_is_valid_and_always_the_same(tmp_path: Path) -> None:
    results = made_results({"jaffe": STUDY}, name="costs $5 and $6")
    for folder in ("a", "b"):
        write_report(results, tmp_path / folder)
    for name in ("fig6.svg", "fig6.png"):
        first, second = (tmp_path / folder / "figures" / name for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    svg = (tmp_path / "a" / "figures" / "fig6.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "JAFFE test set" in svg
    assert (tmp_path / "a" / "figures" / "fig6.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_names_from_outside_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> $x_{"
    strategies = {"BL": (64.0, 40.0), evil: (60.0, 70.0)}
    results = made_results({evil: strategies}, name=evil, titles={"fer2013": evil})
    results["classes"][0] = evil
    results["datasets"][0]["skipped"][evil] = 1
    for row in results["results"]:
        row["flips"]["source"]["negative_examples"][0]["origin"] = evil
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("failed", [(1.0,), (0.5, 1.0)])
def test_a_target_whose_runs_failed_has_its_own_largest_share(
    failed: tuple[float, ...], tmp_path: Path
) -> None:
    results = made_results({"jaffe": STUDY, "ck48": STUDY}, fractions=(0.5, 1.0))
    for part in ("results", "summary", "comparisons"):
        results[part] = [
            r for r in results[part] if r["target"] != "jaffe" or r["fraction"] not in failed
        ]
    results["recommendations"] = recommend(results["summary"], results["strategies"])
    jaffe, ck48 = (explain(results, choice) for choice in results["recommendations"])
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "FU" in ck48[0]
    assert tables.front(View(results), "ck48")[-1]["fraction"] == 1.0
    if 0.5 in failed:
        assert jaffe[0].startswith("Keep the old model")
        assert page.count("(every update failed)") == 4
    else:
        assert "FU" in jaffe[0]
        assert [row["fraction"] for row in tables.front(View(results), "jaffe")][-1] == 0.5
        assert page.count("(trained on at most 50\N{NO-BREAK SPACE}% of its training set)") == 4


def test_the_page_shows_what_it_says(tmp_path: Path) -> None:
    """Networks of other protocols and several targets as one are not taken for what they are not."""
    results = made_results(dict.fromkeys(("jaffe", "tfeid", "mug"), STUDY))
    left_out = results["runs"][0] | {"key": "other", "folder": "runs/other"}
    results["runs"].append(left_out)
    for run in (results["runs"][0], left_out):
        file = tmp_path / run["folder"] / "history.csv"
        file.parent.mkdir(parents=True)
        file.write_text("epoch,source_accuracy\n1,0.2\n2,0.5\n")
    drawn = charts.curves(View(results), tmp_path)
    assert [[curve.strategy for curve in curves] for _, curves in drawn] == [["BL"]] * 3
    united = results["datasets"][1] | {"name": "all", "title": "all", "parts": ["jaffe", "tfeid"]}
    results["datasets"].append(united)
    view = View(results)
    assert view.targets[-1]["name"] == "all"
    assert "all" not in [target["name"] for target in view.alone]
    assert words.comparability(view).startswith("Same four datasets")


def test_no_heading_breaks_a_name(tmp_path: Path) -> None:
    results = made_results({"jaffe": STUDY}, stand_in=True)
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    headings = re.findall(r'<(?:h1|h3|p class="say")>(.*?)</', page)
    assert any("FER2013 stand\N{NON-BREAKING HYPHEN}in" in heading for heading in headings)
    assert not any("-" in heading for heading in headings)

"""The report: the answer in words, and a page that is safe, whole and needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfer.classes import FER7
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
from crossfer.evaluation.measure import change, measure
from crossfer.evaluation.rows import (
    Change,
    ClassChange,
    Cost,
    DatasetFacts,
    Division,
    FlippedImage,
    Flips,
    Measurements,
    Result,
    Results,
    RunFacts,
    StrategyComparison,
    StrategyFacts,
)
from crossfer.report import advice, answers, charts, explain, tables, words, write_report
from crossfer.report.view import View, mean
from crossfer.terms import BL, SIDES, Side
from tests.browser import browser, check_page, needs_chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]


ABOUT = {
    "BL": ("random", "all", "source", "the network trained on the source, not adapted"),
    "FC": ("baseline", "FC", "target", "fine-tune the fully connected layers"),
    "FC+CL": ("baseline", "FC+CL", "target", "fine-tune them and the last convolution"),
    "RE": ("baseline", "all", "target", "fine-tune every layer"),
    "FU": (
        "random",
        "all",
        "source+target",
        "train from random weights on source and target together",
    ),
}
SECONDS = {"BL": 1000.0, "FC": 20.0, "FC+CL": 30.0, "RE": 60.0, "FU": 1100.0}


def made_results(
    accuracies: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    fractions: tuple[float, ...] = (1.0,),
    seeds: tuple[int, ...] = (0,),
    images: dict[str, int] | None = None,
    missing: dict[str, tuple[str, ...]] | None = None,
    name: str = "made up",
    titles: dict[str, str] | None = None,
    stand_in: bool = False,
) -> Results:
    """Make results from accuracies: target → strategy → (on the source, on the target)."""
    images, missing = {"fer2013": 3589} | (images or {}), missing or {}
    titles = {"fer2013": "FER2013, made up", "jaffe": "JAFFE, made up"} | (titles or {})
    names = list(next(iter(accuracies.values())))
    measured: list[Result] = []
    runs: dict[str, RunFacts] = {}
    answers: dict[tuple[Key, Side], list[Answers]] = {}
    rng = np.random.default_rng(0)
    for target, by_strategy in accuracies.items():
        for strategy, (on_source, on_target) in by_strategy.items():
            for fraction in fractions if strategy != BL else (None,):
                for seed in seeds:
                    key = (target, fraction, strategy, seed)
                    less = 0 if fraction is None else 6 * (1 - fraction)
                    jitter = 0.0 if len(seeds) == 1 else (seed - 1) * 0.4
                    on: list[Measurements] = []
                    changes: list[Change] = []
                    for side, data, at in (
                        ("source", "fer2013", on_source + jitter),
                        ("target", target, on_target - less + jitter),
                    ):
                        side = cast(Side, side)
                        said = _said(rng, at, images.get(data, 400), missing.get(data, ()))
                        answers[key, side] = [said]
                        exact = replace(measure(said), accuracy=at)
                        on.append(Measurements(exact, exact, {}))
                        (before,) = answers[(target, None, BL, seed), side]
                        old = by_strategy[BL][side == "target"] + jitter
                        changed = change(before, said, FER7, ["faces/KA.HA1.tiff"] * len(said.rows))
                        changes.append(replace(changed, points=at - old, flips=FLIPS))
                    run = f"{strategy}-{target if strategy != BL else ''}-{fraction}-{seed}"
                    cost = Cost(4000, 1e12, SECONDS.get(strategy, 90.0), 1.0, 700_000_000)
                    runs[run] = _run(run, strategy, target, fraction, seed, cost)
                    measured.append(
                        Result(
                            target=target,
                            fraction=fraction,
                            strategy=strategy,
                            seeds=(seed,),
                            runs=(run,),
                            on_source=on[0],
                            on_target=on[1],
                            memory_integrity=changes[0],
                            gain=changes[1],
                            cost=cost,
                        )
                    )
    people: dict[tuple[str, Side], None] = {(t, side): None for t in accuracies for side in SIDES}
    evidence = Evidence(answers, people)
    averaged = summary.by_strategy(measured)
    ahead = tuple(leads(averaged, evidence))
    known = tuple(
        StrategyFacts(n, *_about(n), "all source" if "source" in _about(n)[2] else "none", None)
        for n in names
    )
    return Results(
        format=5,
        crossfer="0",
        name=name,
        stand_in=stand_in,
        classes=FER7,
        config={
            "name": name,
            "selection": "trained-on",
            "model": {"network": "study", "width": 1.0, "weights": None},
            "strategies": [{"start": "random"}],
        },
        machine={"device": "cpu"},
        datasets=tuple(
            _dataset(data, titles.get(data, data), missing.get(data, ()), stand_in)
            for data in ("fer2013", *accuracies)
        ),
        leakage=None,
        strategies=known,
        runs=tuple(runs.values()),
        failed=(),
        results=tuple(with_intervals(measured, evidence)),
        summary=tuple(with_intervals(averaged, evidence, classes=True)),
        averages=tuple(with_mean_intervals(summary.over_targets(averaged), averaged, evidence)),
        comparisons=tuple(comparisons(averaged, evidence)),
        validation=ahead,
        recommendations=tuple(recommend(measured, averaged, known, ahead)),
        in_turn=(),
        leave_one_out=(),
    )


def _about(name: str) -> tuple[str, str, str, str]:
    return ABOUT.get(name, ("baseline", "all", "source+target", ""))


def _said(
    rng: np.random.Generator, accuracy: float, images: int, missing: tuple[str, ...]
) -> Answers:
    """Make up who was right about which image: as often as the accuracy says."""
    has = np.array([i for i, name in enumerate(FER7) if name not in missing])
    labels = has[np.arange(images) % len(has)]
    right = rng.permutation(images) < round(accuracy / 100 * images)
    decisions = np.where(right, labels, has[(np.arange(images) + 1) % len(has)])
    return Answers.of(labels, np.eye(len(FER7), dtype=np.float32)[decisions])


IMAGE = FlippedImage(1, "faces/KA.HA1.tiff", "happy", "sad", "happy")
FLIPS = Flips(
    positive=(3, 0, 1, 0, 0, 2, 0),
    negative=(0, 1, 0, 0, 0, 0, 0),
    positive_examples=(IMAGE,),
    negative_examples=(replace(IMAGE, before="happy", after="sad"),),
)


def _dataset(name: str, title: str, missing: tuple[str, ...], stand_in: bool) -> DatasetFacts:
    classes = tuple(one for one in FER7 if one not in missing)
    asked = {"training": 70, "validation": 7, "test": 30}
    return DatasetFacts(
        role="source" if name == "fer2013" else "target",
        name=name,
        title=title,
        stand_in=stand_in,
        fingerprint="0123456789abcdef" * 4,
        classes=classes,
        counts={part: dict.fromkeys(classes, 10) for part in ("training", "validation", "test")},
        images=210,
        subjects=10,
        test_subjects=None,
        split=Division("subject-disjoint", asked, 0),
        skipped={"no face found": 3},
        left_out={},
        faces={},
        licence="research use",
        citation="Somebody, 2020",
        parts=(),
    )


def _run(
    key: str, strategy: str, target: str, fraction: float | None, seed: int, cost: Cost
) -> RunFacts:
    return RunFacts(
        key=key,
        label=key,
        strategy=strategy,
        about="",
        target=None if strategy == BL else target,
        fraction=fraction,
        seed=seed,
        identity={"recipe": {"epochs": 30, "augmentation": {"flip": True}}},
        kept_epoch=2,
        merged={},
        chosen=None,
        training_images=100,
        parameters=19_271_431,
        trained_parameters=19_271_431,
        cost=cost,
        machine={"device": "cpu"},
        versions={"crossfer": "0"},
        folder=f"runs/{key}",
    )


STUDY = {"BL": (64.0, 40.0), "FC": (43.0, 60.6), "RE": (35.3, 77.4), "FU": (64.3, 80.3)}
LEAST = {"BL": (64.0, 40.0), "FC": (57.0, 62.0)}
LITTLE = {"BL": (64.0, 40.0), "FC": (64.0, 50.0)}
WORSE = {"BL": (64.0, 40.0), "FC": (33.0, 60.0)}


@pytest.mark.parametrize(
    ("strategies", "sentence", "short"),
    [
        (
            STUDY,
            "FU kept FER2013 (+0.3 points) and gained 40.3 on JAFFE: use it.",
            "Use FU: train from random weights on source and target together.",
        ),
        (
            LEAST,
            "FC forgot 7.0 points on FER2013 but gained 22.0 on JAFFE: "
            "use it only if the new faces matter more than the old.",
            "FC, with care: fine-tune the fully connected layers.",
        ),
        (
            LITTLE,
            "FC left FER2013 unchanged and gained 10.0 on JAFFE: "
            "use it with care, since the gain may be chance.",
            "FC, with care: fine-tune the fully connected layers.",
        ),
        (
            WORSE,
            "Keep the old model: no strategy beats it on FER2013 and JAFFE together.",
            "Keep the old model.",
        ),
    ],
)
def test_the_answer(strategies: dict[str, tuple[float, float]], sentence: str, short: str) -> None:
    results = made_results({"jaffe": strategies}, images={"jaffe": 67})
    assert answers(results) == [sentence]
    assert advice.headline(advice.answers(View(results))) == short


def test_the_headline_depends_on_the_target_only_if_another_strategy_does_better() -> None:
    def headline(**targets: dict[str, tuple[float, float]]) -> str:
        results = made_results(targets, images=dict.fromkeys(targets, 67))
        return advice.headline(advice.answers(View(results)))

    assert headline(jaffe=LEAST | {"FC": (64.3, 80.0)}, mug=LITTLE) == (
        "FC for JAFFE; FC with care for mug."
    )
    assert headline(jaffe=STUDY, mug=LITTLE).startswith("It depends on the target: FU for JAFFE")
    assert headline(jaffe=WORSE, mug=LITTLE).startswith("It depends on the target: the old model")


def test_the_answer_says_what_it_costs_and_how_sure_it_is() -> None:
    (answer,) = advice.answers(View(made_results({"jaffe": STUDY}, images={"jaffe": 67})))
    notes = " ".join((*answer.cautions, *answer.notes)).replace("\N{NO-BREAK SPACE}", " ")
    assert "It cost 18 min of training, 4,000 images seen; the quickest, FC, took 20 s" in notes
    assert "alone forgot much: FC −21.0, RE −28.7 points on FER2013." in notes
    assert "Only 67 test images: the interval of FU on JAFFE is" in notes


def test_the_page_tells_what_is_real_and_what_flipped(tmp_path: Path) -> None:
    strategies = {"BL": (64.0, 40.0), "FC": (63.9, 44.0), "FU": (64.3, 80.3)}
    results = made_results({"jaffe": strategies}, images={"jaffe": 67})
    sure = {(c.strategy, c.side): words.sureness(c) for c in results.comparisons if c.against == BL}
    assert sure["FU", "target"] == "real"
    assert sure["FC", "target"] == sure["FC", "source"] == "may be chance"
    (row,) = tables.against_others(View(results), "jaffe")
    assert row.strategy == "FC" and row.target
    assert row.target.paired.difference > 0
    one = replace(row.target, paired=replace(row.target.paired, p=0.03), p_holm=0.3)
    assert words.sureness(one) == "likely"
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "Is the difference significant?" in page
    assert "All 6 comparisons, with p-values" in page
    assert "<code>faces/KA.HA1.tiff</code> (happy): happy → sad" in page
    assert '<span class="up">+6</span> <span class="down">−1</span>' in page


def with_fallen_fear(results: Results, fall: ClassChange) -> Results:
    """Let fear be recognised less often on the source after FU."""

    def fallen(row: Result) -> Result:
        if row.strategy != "FU":
            return row
        classes = list(row.memory_integrity.classes)
        classes[2] = fall
        integrity = replace(row.memory_integrity, classes=tuple(classes))
        recall = tuple(11.0 if i == 2 else 70.0 for i in range(7))
        test = replace(row.on_source.test, recall=recall)
        return replace(row, memory_integrity=integrity, on_source=replace(row.on_source, test=test))

    return replace(results, summary=tuple(map(fallen, results.summary)))


def test_a_class_that_falls_is_warned_of_on_the_first_screen(tmp_path: Path) -> None:
    made = made_results({"jaffe": STUDY}, images={"jaffe": 67})
    results = with_fallen_fear(made, ClassChange(500, -47.0, (-52.0, -42.0)))
    (answer,) = advice.answers(View(results))
    assert answer.verdict == "care"
    assert answer.sentence.endswith("use it only if lower recall of fear is acceptable.")
    warning = answer.warnings[0].replace("\N{NO-BREAK SPACE}", " ")
    assert warning.startswith("FER2013, fear: FU recognises 11 %, the old model 6")
    assert "(−47.0 points, 500 images; 95 % interval −52.0 to −42.0)" in warning
    assert answer.warnings[0] in explain(results, results.recommendations[0])
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert page.index(answer.warnings[0]) < page.index('<section id="fig6">')
    one_of_six = with_fallen_fear(made, ClassChange(6, -16.7, (-50.0, 0.0)))
    (answer,) = advice.answers(View(one_of_six))
    assert answer.verdict == "use"
    assert "may be chance" in answer.cautions[0]
    assert not any("fear" in warning for warning in answer.warnings)


def test_these_images_and_other_people_are_two_questions(tmp_path: Path) -> None:
    results = made_results({"jaffe": STUDY}, images={"jaffe": 67})

    def of_three(row: StrategyComparison) -> StrategyComparison:
        if (row.strategy, row.against, row.side) != ("FU", BL, "target"):
            return row
        paired = replace(row.paired, gained=40.0, lost=7.0, people=3, p=0.2, p_images=1e-6)
        return replace(row, paired=paired, p_holm=0.4, p_images_holm=6e-6)

    jaffe = replace(results.targets[0], test_subjects=3)
    results = replace(
        results,
        datasets=(results.source, jaffe),
        comparisons=tuple(map(of_three, results.comparisons)),
    )
    (answer,) = advice.answers(View(results))
    told = (*answer.warnings, *answer.cautions)
    said = [text.replace("\N{NO-BREAK SPACE}", " ") for text in told]
    assert (
        "On these images of JAFFE the difference is real (40 won, 7 lost, p < 0.001); "
        "for other people it is not known yet: 3 people." in said
    )
    assert any("has 3 people: use cross-validation over all its people" in text for text in said)
    assert 'class="real-on-these-images"' in write_report(results, tmp_path).read_text("utf-8")


def test_the_network_to_ship_is_named() -> None:
    one = made_results({"jaffe": STUDY})
    assert advice.answers(View(one))[0].network == ("The network to ship", "runs/FU-jaffe-1.0-0")
    (answer,) = advice.answers(View(made_results({"jaffe": STUDY}, seeds=(0, 1, 2))))
    assert answer.network == (
        "The network to ship (seed 2, the best on the validation data)",
        "runs/FU-jaffe-1.0-2",
    )


def test_what_gains_nothing_is_not_named_to_be_shipped() -> None:
    results = made_results({"jaffe": {"BL": (64.0, 60.0), "FC": (64.0, 50.0)}})
    choice = replace(results.recommendations[0], strategy="FC", run="FC-jaffe-1.0-0", fraction=1.0)
    view = View(replace(results, recommendations=(choice,)))
    (answer,) = advice.answers(view)
    assert answer.verdict == "keep" and answer.sentence.endswith("no good reason to change.")
    assert advice.headline([answer]) == "Keep the old model."
    assert answer.network[0] == "FC's network"
    assert advice.shipped(view, choice.run).startswith("FC's network: ")
    other = replace(results, recommendations=(replace(choice, strategy=BL, run="BL-0"),))
    assert advice.shipped(View(other), choice.run).startswith("FC's network: ")


def test_two_seeds_that_do_not_guess_do_not_guess_together() -> None:
    """A mean over two seeds may have an interval from 1 to 50 % where each network has 24 to 32 %."""
    results = made_results({"jaffe": STUDY}, seeds=(0, 1))

    def wide(row: Result) -> Result:
        test = replace(row.on_source.test, interval=(0.0, 100.0))
        return replace(row, on_source=replace(row.on_source, test=test))

    unsure = replace(results, summary=tuple(map(wide, results.summary)))
    assert advice.answers(View(unsure))[0].verdict == "use"
    guessing = replace(unsure, results=tuple(map(wide, results.results)))
    assert advice.answers(View(guessing))[0].verdict == "none"


def test_a_comparison_looks_the_same_from_the_other_side() -> None:
    view = View(made_results({"jaffe": STUDY}, images={"jaffe": 67}))
    here = {row.strategy: row.target for row in tables.against_others(view, "jaffe")}
    (stored,) = (
        c
        for c in tables.all_comparisons(view, "jaffe")
        if (c.strategy, c.against, c.side) == ("FU", "FC", "target")
    )
    assert here["FC"] == stored
    other = replace(view.results.recommendations[0], strategy="FC")
    view = View(replace(view.results, recommendations=(other,)))
    there = {row.strategy: row.target for row in tables.against_others(view, "jaffe")}
    assert there["FU"]
    mirrored, paired = there["FU"].paired, stored.paired
    assert mirrored.difference == -paired.difference
    assert mirrored.interval == tuple(-end for end in reversed(paired.interval))
    assert (mirrored.gained, mirrored.lost) == (paired.lost, paired.gained)


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
    source = replace(results.source, skipped={evil: 1})
    flips = replace(FLIPS, negative_examples=(replace(IMAGE, origin=evil),))
    summary_ = [
        replace(
            row,
            gain=replace(row.gain, flips=flips),
            memory_integrity=replace(row.gain, flips=flips),
        )
        for row in results.summary
    ]
    results = replace(
        results,
        classes=(evil, *FER7[1:]),
        datasets=(source, *results.targets),
        summary=tuple(summary_),
    )
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("failed", [(1.0,), (0.5, 1.0)])
def test_a_target_whose_runs_failed_has_its_own_largest_share(
    failed: tuple[float, ...], tmp_path: Path
) -> None:
    results = made_results({"jaffe": STUDY, "ck48": STUDY}, fractions=(0.5, 1.0))

    def kept(row: Result | StrategyComparison) -> bool:
        return row.target != "jaffe" or row.fraction not in failed

    results = replace(
        results,
        results=tuple(filter(kept, results.results)),
        summary=tuple(filter(kept, results.summary)),
        comparisons=tuple(filter(kept, results.comparisons)),
    )
    found = recommend(results.results, results.summary, results.strategies, results.validation)
    results = replace(results, recommendations=tuple(found))
    jaffe, ck48 = (explain(results, choice) for choice in results.recommendations)
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "FU" in ck48[0]
    assert tables.front(View(results), "ck48")[-1].row.fraction == 1.0
    if 0.5 in failed:
        assert jaffe[0].startswith("Keep the old model")
        assert page.count("(every update failed)") == 4
    else:
        assert "FU" in jaffe[0]
        assert tables.front(View(results), "jaffe")[-1].row.fraction == 0.5
        assert page.count("(trained on at most 50\N{NO-BREAK SPACE}% of its training set)") == 4


def test_the_page_shows_what_it_says(tmp_path: Path) -> None:
    """Networks of other protocols and several targets as one are not taken for what they are not."""
    results = made_results(dict.fromkeys(("jaffe", "tfeid", "mug"), STUDY))
    left_out = replace(results.runs[0], key="other", folder="runs/other")
    results = replace(results, runs=(*results.runs, left_out))
    for run in (results.runs[0], left_out):
        file = tmp_path / run.folder / "history.csv"
        file.parent.mkdir(parents=True)
        file.write_text("epoch,source_accuracy\n1,0.2\n2,0.5\n")
    drawn = charts.curves(View(results), tmp_path)
    assert [[curve.strategy for curve in curves] for _, curves in drawn] == [["BL"]] * 3
    united = replace(results.targets[0], name="all", title="all", parts=("jaffe", "tfeid"))
    view = View(replace(results, datasets=(*results.datasets, united)))
    assert view.targets[-1].name == "all"
    assert "all" not in [target.name for target in view.alone]
    assert words.comparability(view).startswith("Same four datasets")


@needs_chromium
def test_the_page_can_be_read_in_light_and_dark_on_any_screen(
    browser: Browser, tmp_path: Path
) -> None:
    page = write_report(made_results({"jaffe": STUDY}, fractions=(0.5, 1.0)), tmp_path)
    for width, scheme in ((1280, "light"), (400, "dark")):
        size = {"width": width, "height": 900}
        with opened(browser, page.as_uri(), viewport=size, color_scheme=scheme) as tab:
            check_page(tab)


def test_no_heading_breaks_a_name(tmp_path: Path) -> None:
    results = made_results({"jaffe": STUDY}, stand_in=True)
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    headings = re.findall(r'<(?:h1|h3|p class="say")>(.*?)</', page)
    assert any("FER2013 stand\N{NON-BREAKING HYPHEN}in" in heading for heading in headings)
    assert not any("-" in heading for heading in headings)


def test_the_report_says_what_was_kept_and_by_how_many_images() -> None:
    columns = {"loss_behind": 0.012, "loss_behind_error": 0.02}
    chosen = {
        "what": "epoch",
        "of": 12,
        "kept": {"epoch": 6, **columns},
        "in_doubt": {"epoch": 12, **columns},
        "by": {
            "source": {"images": 3589, "subjects": None},
            "target": {"images": 20, "subjects": 1},
        },
    }
    identity = {"recipe": {"epochs": 12}}
    run: Any = SimpleNamespace(chosen=chosen, kept_epoch=6, identity=identity)
    assert words.kept(run) == "epoch 6 of 12; 12 is behind by 0.012 ± 0.020 nats"
    assert words.chosen_by(run) == "3,589 images (source), 20 images of 1 person (target)"
    run.identity = {"recipe": {"epochs": 48}}
    assert words.kept(run).startswith("epoch 6 of 12 (of 4 passes each); 12 is")
    last: Any = SimpleNamespace(chosen=None, kept_epoch=12)
    assert (words.kept(last), words.chosen_by(last)) == ("epoch 12", "–")


def test_a_training_that_diverged_is_told() -> None:
    """Its best epoch is kept, so its results look like those of a strategy that is no good."""
    results = made_results({"jaffe": STUDY})
    last = {"epoch": 12, "loss_behind": 1.0, "loss_behind_error": 0.2}

    def told(lost: float, error: float) -> list[str]:
        worse = last | {"accuracy_ahead": -lost, "accuracy_ahead_error": error}
        chosen = {"what": "epoch", "of": 12, "kept": {"epoch": 1}, "in_doubt": worse, "by": {}}
        runs = [
            replace(run, chosen=chosen, kept_epoch=1) if run.strategy == "RE" else run
            for run in results.runs
        ]
        return answers(replace(results, runs=tuple(runs)))[1:]

    assert told(0.475, 0.128) == [
        "JAFFE: RE: training diverged after epoch 1 (the last one has 48 points less on the "
        "validation data); use a lower learning rate."
    ]
    assert told(0.475, 0.3) == told(0.1, 0.01) == []


@given(
    st.lists(
        st.tuples(
            st.floats(50, 320),
            st.floats(20, 240),
            st.sampled_from(["", "FC", "MIX+KD", "GFR+WiSE"]),
        ),
        max_size=12,
    )
)
def test_labels_stay_in_the_frame(points: list[tuple[float, float, str]]) -> None:
    marks = [charts.Mark(x, y, label, "", "", label) for x, y, label in points]
    charts._place_labels(marks)
    for mark in marks:
        if mark.label:
            left, top, right, bottom = charts._box(
                mark, mark.lx - mark.x, mark.ly - mark.y, mark.anchor
            )
            assert left >= charts.EDGE and right <= charts.WIDTH
            assert top >= 0 and bottom <= charts.HEIGHT - charts.EDGE


def test_labels_keep_off_other_marks_and_whiskers_end_at_the_frame() -> None:
    crowded = [charts.Mark(100 + 20 * n, 100, "", "", "", "FC" if n == 0 else "") for n in range(3)]
    charts._place_labels(crowded)
    assert crowded[0].anchor == "end", "two marks stand on its right"
    assert charts._whiskers(100, 50, 80, 120, 60, 40) == (
        "M100 50H80M100 50H120M100 50V60M100 50V40",
        False,
    )
    path, cut = charts._whiskers(100, 50, -5, 120, 60, 40)
    assert cut and path.startswith(f"M100 50H{charts.EDGE}m4-3l-4 3l4 3M100 50H120")


def test_means_of_counts_over_seeds_are_not_rounded_away() -> None:
    """Half an image gained and none lost is no "0 : 0" beside a difference."""
    assert [mean(value) for value in (0.0, 0.5, 2.0, 1234.25)] == ["0", "0.5", "2", "1,234.2"]

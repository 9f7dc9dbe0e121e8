"""A target of few people is cross-validated: everybody is tested once, by a network that never met them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from crossfer.classes import UNLABELLED, ClassSet
from crossfer.cli import app
from crossfer.datasets import Dataset, open_dataset
from crossfer.datasets.folds import ONE_SUBJECT, all_tested, folds_of, in_words
from crossfer.errors import CrossferError
from crossfer.evaluation.intervals import accuracy_interval, change_interval
from crossfer.evaluation.metrics import accuracy, decide
from crossfer.evaluation.rows import Results
from crossfer.experiment import check_experiment, load_results, run_experiment, search
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.protocols import plan_all
from crossfer.experiment.status import status
from crossfer.experiment.verify import verify
from crossfer.report import explain, write_report
from crossfer.run_folder import load_predictions
from crossfer.terms import BL

SMALL: dict[str, Any] = {
    "name": "folds",
    "source": "fer2013",
    "targets": ["jaffe"],
    "strategies": ["FC", "HEAD"],
    "model": {"width": 0.05},
    "recipes": {"default": {"epochs": 1, "batch_size": 32}},
    "fractions": [1.0],
    "folds": 3,
}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("folds") / "small"
    return out, run_experiment(check_experiment(SMALL | {"data": data}), out)


def test_unlabelled_images_of_people_who_are_not_tested_are_trained_on(
    prepared: dict[str, Dataset],
) -> None:
    jaffe = prepared["jaffe"]
    names = jaffe.samples.column("label").to_pylist()
    for row in range(0, len(names), 5):
        names[row] = UNLABELLED
    place = jaffe.samples.schema.get_field_index("label")
    some = replace(jaffe, table=jaffe.samples.set_column(place, "label", pa.array(names)))
    for fold in folds_of(some, 3):
        others = fold.unlabelled("training")
        tested = {fold.subjects[row] for part in ("validation", "test") for row in fold.rows(part)}
        assert len(others) and not {fold.subjects[row] for row in others} & tested
        assert not len(fold.unlabelled("test")) and not len(fold.unlabelled("validation"))


def without_subjects(dataset: Dataset) -> Dataset:
    place = dataset.samples.schema.get_field_index("subject")
    empty = pa.array([None] * len(dataset.samples), pa.string())
    return replace(dataset, table=dataset.samples.set_column(place, "subject", empty))


def test_everybody_is_tested_once_by_who_has_not_met_them(prepared: dict[str, Dataset]) -> None:
    dataset = prepared["jaffe"]
    for asked, count in ((3, 3), (5, 5), (ONE_SUBJECT, 10)):
        folds = folds_of(dataset, asked)
        assert len(folds) == count
        for split in ("test", "validation"):
            rows = np.concatenate([fold.rows(split) for fold in folds])
            assert sorted(rows) == list(range(len(dataset.samples)))
        for fold in folds:
            people = [
                {fold.subjects[row] for row in fold.rows(split)}
                for split in ("training", "validation", "test")
            ]
            assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
        prints = {fold.fingerprint for fold in folds}
        assert len(prints | {dataset.fingerprint}) == count + 1
    assert in_words(folds_of(dataset, 3)) == "3 folds of 10 people"
    assert [f.fingerprint for f in folds] == [f.fingerprint for f in folds_of(dataset, ONE_SUBJECT)]
    assert len(all_tested(dataset).rows("test")) == len(dataset.samples)


def test_folds_have_the_classes_as_well_as_people_allow(prepared: dict[str, Dataset]) -> None:
    nobody = without_subjects(prepared["jaffe"])
    for dataset in (prepared["jaffe"], nobody):
        counts = np.array([list(f.counts()["test"].values()) for f in folds_of(dataset, 3)])
        assert (np.ptp(counts, axis=0) <= 0.5 * counts.mean(0) + 1).all()
    words = in_words(folds_of(nobody, 3))
    assert words.startswith("3 folds of images; subjects are not known")


def test_what_cannot_be_is_said_in_a_line(prepared: dict[str, Dataset], data: Path) -> None:
    jaffe, fer = prepared["jaffe"], prepared["fer2013"]
    one = np.flatnonzero(jaffe.labels == 0)[0]
    names = ["angry" if row == one else "happy" for row in range(len(jaffe.samples))]
    place = jaffe.samples.schema.get_field_index("label")
    rare = replace(
        jaffe,
        table=jaffe.samples.set_column(place, "label", pa.array(names)),
        card=jaffe.card | {"classes": ["angry", "happy"]},
        class_set=ClassSet.of(["angry", "happy"]),
    )
    for dataset, asked, words in (
        (fer, 5, "has an official test set"),
        (jaffe, 11, "11 are more than jaffe's 10 people; use at most 10"),
        (prepared["mug"], 3, "3 are more than mug's 2 people; 3 are needed, so leave it out"),
        (without_subjects(jaffe), ONE_SUBJECT, "has no subject for"),
        (rare, 3, "has no training image of angry, of which jaffe has 1 images, of 1 people"),
    ):
        with pytest.raises(CrossferError, match=words) as error:
            folds_of(dataset, asked)
        assert "\n" not in str(error.value)
    for changes, words in (
        ({"folds": 2}, "folds: an integer of at least 3 or leave-one-subject-out"),
        ({"folds": {"jaffe": "all"}}, "folds: an integer of at least 3"),
        ({"protocols": ["together"]}, "cannot be combined with protocols"),
    ):
        with pytest.raises(CrossferError, match=words):
            check_experiment(SMALL | changes)
    other = check_experiment(SMALL | {"folds": {"mug": 3}, "data": data})
    with pytest.raises(CrossferError, match=r"folds\.mug: no such target; choose among jaffe"):
        run_experiment(other, data.parent / "never")
    for key, value in (("sizes", [1, 1, 8]), ("seed", 3)):
        drawn = SMALL | {"targets": [{"path": "jaffe", key: value}]}
        with pytest.raises(CrossferError, match=f"{key} of jaffe has no effect, since folds"):
            plan_all(check_experiment(drawn), fer, [jaffe], Arithmetic("cpu", "32-true"))
    with pytest.raises(CrossferError, match="tune on images"):
        search(check_experiment(SMALL | {"data": data}), data.parent / "never")


def test_all_folds_are_one_test_set(finished: tuple[Path, Results]) -> None:
    out, results = finished
    jaffe = results.targets[0]
    labels = [run.label for run in results.runs]
    assert sum("BL" in label for label in labels) == 1
    assert sum("fold 2 of 3" in label for label in labels) == 2
    assert (jaffe.test_subjects, len(jaffe.folds)) == (10, 3)
    for row in results.results:
        assert len(row.runs) == (1 if row.strategy == BL else 3)
        assert row.on_target.test.images == row.on_target.validation.images == jaffe.images
        right, on_source = np.zeros(jaffe.images), []
        runs = row.runs if len(row.runs) == 3 else row.runs * 3
        for run, fold in zip(runs, jaffe.folds, strict=True):
            folder = out / results.run(run).folder
            said = load_predictions(folder, fold, "test")
            right[said.rows] += decide(said.probabilities) == said.labels
            said = load_predictions(folder, results.source.fingerprint, "test")
            on_source.append(accuracy(said.labels, decide(said.probabilities)))
        assert row.on_target.test.accuracy == pytest.approx(100 * right.mean())
        assert row.on_source.test.accuracy == pytest.approx(np.mean(on_source))
        low, high = row.on_target.test.interval or (0, 0)
        assert low < row.on_target.test.accuracy < high
    for compared in results.comparisons:
        of_one_network = compared.side == "target"
        assert (compared.paired.p_images is not None) == of_one_network


def test_flips_name_the_network_that_flipped_them(finished: tuple[Path, Results]) -> None:
    out, results = finished
    row = next(row for row in results.results if row.strategy == "FC")
    with (out / "flips.csv").open() as file:
        flips = [line for line in csv.DictReader(file) if line["strategy"] == "FC"]
    for side, times in (("target", 1), ("source", 3)):
        change = row.change(side)
        own = [line for line in flips if line["side"] == side]
        assert len(own) == round(times * sum(change.flips.positive + change.flips.negative))
        assert {line["run"] for line in own} <= set(row.runs)
    fold = dict(zip(row.runs, results.targets[0].folds, strict=True))
    for line in (line for line in flips if line["side"] == "target"):
        said = load_predictions(out / results.run(line["run"]).folder, fold[line["run"]], "test")
        assert int(line["row"]) in said.rows


def test_every_command_understands_folds(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = finished
    monkeypatch.setattr(
        "crossfer.report.verdict.guesses", lambda measured: False
    )  # so small a network does
    assert {one.state for one in status(out)} == {"finished"}
    assert not any(verdict.problems for verdict in verify(out))
    fold = next(run.key for run in results.runs if "fold 1 of 3" in run.label)
    assert verify(out, [fold], retrain=True)[0].checked[-1] == "retrained with the same bits"
    assert load_results(out) == results
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "3 folds of 10 people" in page
    assert not any(
        "cross-validation" in line for line in explain(results, results.recommendations[0])
    )
    for command in (
        ["recommend", out],
        ["gate", out, "--strategy", "FC", "--by", "subject"],
        ["report", out],
    ):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output


def test_started_again_or_with_other_folds_only_what_is_new_is_trained(
    finished: tuple[Path, Results], data: Path, tmp_path: Path
) -> None:
    out, results = finished
    before = {file.parent.name: file.stat().st_mtime_ns for file in out.glob("runs/*/run.json")}
    run_experiment(check_experiment(SMALL | {"data": data}), out)
    after = {file.parent.name: file.stat().st_mtime_ns for file in out.glob("runs/*/run.json")}
    assert before == after
    cached = SMALL | {
        "data": data,
        "cache": out / "runs",
        "folds": {"jaffe": 4},
        "strategies": ["HEAD"],
    }
    others = run_experiment(check_experiment(cached), tmp_path / "other")
    baseline = {run.key for run in results.runs if run.strategy == BL}
    assert baseline == {run.key for run in others.runs if run.strategy == BL}
    assert len(others.runs) == 5
    assert others.results[0].on_target.test.accuracy == results.results[0].on_target.test.accuracy
    assert not any(verdict.problems for verdict in verify(out))


def test_of_several_seeds_folds_are_averaged_first() -> None:
    """Networks of one seed are no independent trainings: as many folds as you like add no certainty."""
    rng = np.random.default_rng(0)
    seeds = rng.random((3, 1, 400)) < np.array([0.5, 0.6, 0.7])[:, None, None]
    many = np.repeat(seeds, 5, axis=1).reshape(15, 400)
    one = accuracy_interval(seeds[:, 0])
    assert accuracy_interval(many, folds=5) == pytest.approx(one)
    low, high = accuracy_interval(many)
    assert one[0] < low and high < one[1]
    # Of one seed its folds are all there is: their spread counts.
    folds = np.stack([rng.random(400) < share for share in (0.5, 0.6, 0.7)])
    before = np.repeat(folds[:1], 3, axis=0)
    assert np.ptp(change_interval(folds, before, folds=3)) > np.ptp(
        change_interval(folds[:1] ^ True, before[:1])
    )


def test_a_dataset_opens_with_its_folds_as_it_was(
    finished: tuple[Path, Results], data: Path
) -> None:
    _, results = finished
    dataset = open_dataset(data / "jaffe")
    again = tuple(fold.fingerprint for fold in folds_of(dataset, 3))
    assert again == results.targets[0].folds

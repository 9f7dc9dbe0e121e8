"""Classes are data: names, spellings, sets of classes; the whole path with any number of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from crossfer.classes import FER7, FER8, PRESETS, RAFDB11, ClassSet, canonical, in_order
from crossfer.cli import app
from crossfer.datasets import Preparation, in_memory, open_dataset, prepare
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment, run_experiment


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Anger", "angry"),
        (" HAPPY ", "happy"),
        ("0_Angry", "angry"),
        ("3. joy", "happy"),
        ("05-Suprise", "surprise"),
        ("Contemptuous", "contempt"),
        ("Happily_Surprised", "happily surprised"),
        ("No Face", "no-face"),
        ("Bored", "bored"),
        ("3_bored", "3 bored"),
        ("Very-Bored", "very bored"),
        ("-1", "-1"),
        ("7", "7"),
        ("BÖSE", "böse"),
    ],
)
def test_a_name_has_one_spelling(written: str, name: str) -> None:
    assert canonical(written) == name
    assert canonical(name) == name


def test_a_class_set_says_which_labels_belong_to_which_class() -> None:
    mine = ClassSet.of({"positive": "Joy", "negative": ["Anger", "sad"]})
    assert mine.names == ("positive", "negative")
    assert [mine.index_of(label) for label in ("happy", "sad", "angry", "fear")] == [0, 1, 1, None]
    assert ClassSet.of(mine.as_config()) == mine and pickle.loads(pickle.dumps(mine)) == mine
    assert {mine: 1}[ClassSet.of({"positive": ["happy"], "negative": ["sad", "angry"]})] == 1
    assert mine != ClassSet.of({"negative": ["sad", "angry"], "positive": ["happy"]}), (
        "order counts"
    )
    for name, preset in PRESETS.items():
        assert ClassSet.of(name) == preset and preset.as_config() == name
    assert ClassSet.of([*FER7]) == PRESETS["fer7"] and ClassSet.of([*FER8]) == PRESETS["fer8"]
    assert PRESETS["valence3"].index_of("surprise") is None
    assert PRESETS["valence3"].index_of("contempt") == 0
    assert ClassSet.of(["bored", "happy"]).as_config() == ["bored", "happy"]
    assert in_order(["zen", "neutral", "bored", "angry", "zen"]) == [
        "angry",
        "neutral",
        "bored",
        "zen",
    ]


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ("fer9", "'fer9' is unknown; choose fer7, fer8, valence3, rafdb11"),
        (["happy", "joy"], "happy is listed twice"),
        (["happy"], "happy; at least two are needed"),
        ([], "none; at least two"),
        ({"good": ["happy"], "bad": ["sad", "joy"]}, "happy is listed under good and bad"),
        ({"good": ["happy"], "bad": []}, "bad has no label; write bad: "),
        (["happy", 3], "3 is not a valid class name"),
        (["happy", "label"], "no class can be called label"),
        (7, "write a preset, a list of names"),
    ],
)
def test_bad_classes_are_one_line(classes: Any, why: str) -> None:
    config = {"name": "x", "source": "a", "targets": ["b"], "classes": classes}
    with pytest.raises(CrossferError) as error:
        check_experiment(config, "x.yaml")
    assert str(error.value).startswith("x.yaml: classes: ") and why in str(error.value)
    assert "\n" not in str(error.value)


def noise(labels: tuple[str, ...], each: int, seed: int) -> tuple[Any, list[str]]:
    """Return pictures of noise, a shade a class, and their labels."""
    names = [label for label in labels for _ in range(each)]
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (len(names), 48, 48), np.uint8)
    return images, names


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two prepared datasets of the eight labels, and two of RAF-DB's eleven."""
    folder = tmp_path_factory.mktemp("data")
    how = Preparation(faces="cropped", sizes=(0.5, 0.25, 0.25))
    for kind, labels in (("basic", FER8), ("compound", RAFDB11)):
        for seed, name in enumerate(("source", "target")):
            pictures = in_memory(noise(labels, 8, seed), name=f"{kind}-{name}")
            prepare(pictures, folder / f"{kind}-{name}", how)
    return folder


def configuration(data: Path, kind: str, classes: Any) -> dict[str, Any]:
    return {
        "name": "classes",
        "data": data,
        "source": f"{kind}-source",
        "targets": [f"{kind}-target"],
        "classes": classes,
        "model": {"width": 0.02},
        "strategies": ["FC", "FU"],
        "fractions": [1.0],
        "recipes": {"default": {"epochs": 1, "batch_size": 8}},
        "copies": "count",
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("kind", "classes", "names", "left_out"),
    [
        ("basic", ["sad", "joy"], ["sad", "happy"], 48),
        ("basic", "valence3", ["negative", "neutral", "positive"], 8),
        ("basic", "fer8", [*FER8], 0),
        ("compound", "rafdb11", [*RAFDB11], 0),
    ],
    ids=["2", "3", "8", "11"],
)
def test_the_whole_path_with_any_number_of_classes(
    kind: str, classes: Any, names: list[str], left_out: int, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    results = run_experiment(check_experiment(configuration(data, kind, classes)), out)
    assert not results.failed
    assert results.classes == tuple(names)
    for dataset in results.datasets:
        assert dataset.classes == tuple(names)
        assert sum(dataset.left_out.values()) == left_out
        assert sum(map(sum, (c.values() for c in dataset.counts.values()))) == (
            dataset.images - left_out
        )
    for row in results.results:
        for side in (row.on_source.test, row.on_target.test):
            assert np.array(side.confusion).shape == (len(names), len(names))
            assert len(side.recall) == len(names)
    table = pyarrow.parquet.read_table(next(out.rglob("predictions.parquet")))
    assert table.column_names[-len(names) :] == names
    assert np.allclose(sum(table.column(name).to_numpy() for name in names), 1, atol=1e-4)
    assert results.config["classes"] == (classes if isinstance(classes, str) else names)

    if len(names) in (2, 11):  # the fewest and the most
        check_commands(out, names)


def check_commands(out: Path, names: list[str]) -> None:
    runner = CliRunner()
    for command, good in (
        ("recommend", (0,)),
        ("gate", (0, 1)),
        ("report", (0,)),
        ("verify", (0,)),
    ):
        told = runner.invoke(app, [command, str(out)])
        assert told.exit_code in good, (command, told.output, told.exception)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in names)
    choice = json.loads(runner.invoke(app, ["recommend", str(out), "--json"]).output)
    assert choice


def test_what_a_class_means_makes_the_identity_of_a_run(data: Path, tmp_path: Path) -> None:
    from crossfer.experiment.identity import Arithmetic
    from crossfer.experiment.opening import open_datasets
    from crossfer.experiment.plan import plan
    from crossfer.experiment.progress import Progress

    def keys(classes: Any) -> set[str]:
        experiment = check_experiment(configuration(data, "basic", classes))
        source, *targets = open_datasets(experiment, tmp_path, Progress())
        return {run.key for run in plan(experiment, source, targets, Arithmetic("cpu", "32-true"))}

    two = {"good": ["happy"], "bad": ["sad"]}
    assert keys(two) == keys({"good": ["joy"], "bad": "sadness"}), "the same, otherwise written"
    others: list[Any] = [
        {"good": ["happy"], "bad": ["sad", "angry"]},
        {"bad": ["sad"], "good": ["happy"]},
        {"good": ["happy"], "evil": ["sad"]},
        ["happy", "sad"],
    ]
    for other in others:
        assert not keys(two) & keys(other), other


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        (
            ["happy", "bored"],
            r"classes: no dataset has images of bored \(label bored\); their labels",
        ),
        (
            {"good": ["happy", "hapy"], "bad": ["sad"]},
            "classes: no dataset has the label hapy; their labels are angry, disgust",
        ),
        (
            "rafdb11",
            r"basic-source: none of its labels \(angry, .*\) belongs to a class of the experiment",
        ),
    ],
)
def test_classes_that_the_datasets_do_not_have_are_refused(
    classes: Any, why: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(CrossferError, match=why):
        run_experiment(check_experiment(configuration(data, "basic", classes)), tmp_path / "out")


def test_a_class_that_only_the_deployed_model_has_is_kept(data: Path) -> None:
    from crossfer.experiment.opening import check_classes

    datasets, classes = [open_dataset(data / "basic-source")], ClassSet.of(["happy", "bored"])
    check_classes(classes, datasets, kept={"bored"})
    with pytest.raises(CrossferError, match="no dataset has images of bored"):
        check_classes(classes, datasets, kept={"happy"})

"""Two classifiers, whoever trained them, are compared on the same pictures, and a gate decides."""

from __future__ import annotations

import csv
import html
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from crossfer.datasets import Dataset, Preparation, open_dataset, prepare
from crossfer.deploy import load
from crossfer.deploy.compare import (
    ClassifierComparison,
    CompareOptions,
    Pictures,
    compare,
    measure_latency,
    read,
)
from crossfer.deploy.models import open_model
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.comparing import on_dataset
from crossfer.evaluation.latency import latency_ratio, ratio_draws
from crossfer.evaluation.spread import spreads
from crossfer.framing import Framing
from crossfer.networks import NetworkConfig
from crossfer.report.compared import measures, write_page
from tests import tiny_onnx
from tests.commands import crossfer, refused
from tests.pixel_networks import STEP, classifier, exported, onnx_file

CLASSES = ("angry", "happy", "sad", "neutral")
EACH, PEOPLE = 100, 20
RIGHT = {"angry": (60, 80), "happy": (70, 95), "sad": (58, 11), "neutral": (70, 90)}
"""How many of 100 images the old and the new network are right about."""


def answers() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return labels, and what the old and the new network say."""
    labels = np.repeat(np.arange(len(CLASSES)), EACH)
    said = [labels.copy(), labels.copy()]
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for which in (0, 1):
            wrong = rng.permutation(EACH)[RIGHT[name][which] :]
            said[which][label * EACH + wrong] = (label + 1) % len(CLASSES)
    return labels, said[0], said[1]


LABELS, OLD, NEW = answers()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return 400 test pictures of 20 people and two cameras, whose first pixels are the answers."""
    raw, rng = tmp_path_factory.mktemp("raw") / "faces", np.random.default_rng(1)
    raw.mkdir()
    rows = [("image", "label", "subject", "split", "camera")]
    for i, (label, old, new) in enumerate(zip(LABELS, OLD, NEW, strict=True)):
        pixels = rng.integers(0, 256, (48, 48), np.uint8)
        pixels[0, :2] = STEP * old, STEP * new
        Image.fromarray(pixels).save(raw / f"{i}.png")
        rows.append((f"{i}.png", CLASSES[label], f"p{i % PEOPLE}", "test", "AB"[i % 2]))
    for i, split in enumerate(("training", "validation")):
        Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(raw / f"{split}.png")
        rows.append((f"{split}.png", CLASSES[i], f"other{i}", split, "A"))
    with (raw / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    return prepare(raw, raw.parent / "data", Preparation(faces="cropped"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the old network as a bundle, and the new one in every other form."""
    folder = tmp_path_factory.mktemp("networks")
    torch.save(classifier(CLASSES, column=1).network.state_dict(), folder / "new.pth")
    described = {
        "classes": [name.title() for name in CLASSES],
        "normalisation": {"mean": [0], "deviation": [1], "white": 255},
    }
    factory = {
        "network": "tests.pixel_networks:says",
        "arguments": {"column": 1},
        "weights": "new.pth",
        "input": [1, 48, 48],
    }
    (folder / "factory.yaml").write_text(yaml.safe_dump({**described, **factory}))
    (folder / "theirs.yaml").write_text(yaml.safe_dump(described))
    return {
        "old": classifier(CLASSES, column=0).save(folder / "old"),
        "exported": exported(folder / "exported", CLASSES, column=1),
        "onnx": onnx_file(folder / "theirs.onnx", 4, column=1),
        "factory": folder / "factory.yaml",
        "bundle": classifier(CLASSES, column=1).save(folder / "new"),
    }


def test_what_a_network_answers_with_is_part_of_its_identity(
    networks: dict[str, Path], tmp_path: Path
) -> None:
    """The same weights with another normalisation or other classes are another classifier."""
    for name in ("factory.yaml", "theirs.yaml", "new.pth", "theirs.onnx"):
        shutil.copy(networks["factory"].parent / name, tmp_path / name)
    for name in ("factory.yaml", "theirs.yaml"):
        file, found = tmp_path / name, set()
        content = yaml.safe_load(file.read_text())
        other = {"normalisation": {"mean": [0.5], "deviation": [1], "white": 255}}
        for changes in ({}, {}, other, {"classes": content["classes"][::-1]}):
            file.write_text(yaml.safe_dump(content | changes))
            model = open_model(file if name == "factory.yaml" else tmp_path / "theirs.onnx")
            found.add(model.engine.identity)
        assert len(found) == 3


@pytest.fixture(scope="module")
def comparison(data: Dataset, networks: dict[str, Path]) -> ClassifierComparison:
    models = [open_model(networks[name]) for name in ("old", "exported")]
    how = CompareOptions(by=("camera",), rounds=20, batch=4)
    return compare(models[0], models[1], [(data, data)], how)


def test_numbers_are_those_of_an_independent_calculation(
    comparison: ClassifierComparison, data: Dataset
) -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    (one,) = comparison.found.datasets
    for network, said in ((one.old, OLD), (one.new, NEW)):
        assert network.accuracy == pytest.approx(100 * np.mean(said == LABELS))
        assert network.balanced_accuracy == pytest.approx(
            100 * balanced_accuracy_score(LABELS, said)
        )
        assert network.macro_f1 == pytest.approx(100 * f1_score(LABELS, said, average="macro"))
    assert one.new.recall == pytest.approx([80, 95, 11, 90])
    won, lost = (OLD != LABELS) & (NEW == LABELS), (OLD == LABELS) & (NEW != LABELS)
    pair = one.difference.paired
    assert (pair.gained, pair.lost, pair.people) == (won.sum(), lost.sum(), PEOPLE)
    exact = binomtest(int(won.sum()), int(won.sum() + lost.sum())).pvalue
    assert pair.p_images == pytest.approx(exact)
    assert pair.test == "bootstrap" and 0.001 < pair.p < 1
    assert pair.interval[0] < pair.difference < pair.interval[1]
    test = data.rows("test")
    assert data.column("camera", test) == data.column("group.camera", test) == ["A", "B"] * 200
    assert data.column("site", test) is None and "camera" in data.columns
    cameras = np.arange(len(LABELS)) % 2
    for camera, group in enumerate(one.groups):
        own = cameras == camera
        assert (group.column, group.value, group.images) == ("camera", "AB"[camera], 200)
        assert group.new == pytest.approx(100 * np.mean(NEW[own] == LABELS[own]))
    for spread in one.spreads.values():
        assert spread.old[0] < spread.old[1] and spread.change[0] < spread.change[1]


def test_mirrored_the_new_one_is_compared_as_it_would_predict(
    data: Dataset, networks: dict[str, Path]
) -> None:
    old, new = open_model(networks["old"]), open_model(networks["exported"])
    (one,) = compare(old, new.mirrored, [(data, data)], CompareOptions(rounds=20)).found.datasets
    faces = np.asarray(data.images[data.rows("test")])
    both = new.engine(faces) + new.engine(faces[:, :, ::-1].copy())
    assert one.new.accuracy == pytest.approx(100 * np.mean(both.argmax(1) == LABELS))


def test_every_form_of_a_network_answers_alike(
    data: Dataset, networks: dict[str, Path], comparison: ClassifierComparison
) -> None:
    old, (one,) = open_model(networks["old"]), comparison.found.datasets
    for form in ("onnx", "factory", "bundle"):
        new = open_model(networks[form])
        assert new.classes == CLASSES and new.parameters == 4 or form == "onnx"
        (found,) = compare(old, new, [(data, data)], CompareOptions(rounds=20)).found.datasets
        assert found.evidence == replace(one.evidence, groups={})
        assert found.new.calibration_error == pytest.approx(one.new.calibration_error, abs=1e-3)


def test_without_a_flip_no_interval_of_zero_width_is_claimed(
    data: Dataset, networks: dict[str, Path]
) -> None:
    """The accuracy has a conservative one, the means over classes have none."""
    old = open_model(networks["old"])
    (one,) = compare(old, old, [(data, data)], CompareOptions(rounds=20)).found.datasets
    accuracy, balanced, f1, calibration = (change for *_, change in measures(one))
    assert balanced == f1 == (0.0, None)
    for _, interval in (accuracy, calibration):
        assert interval and interval[0] < 0 < interval[1]


def test_the_intervals_hold_the_truth() -> None:
    """Of 60 made-up test sets of 30 people, about 57 should; the calibration error's true value is 10."""
    rng, held = np.random.default_rng(0), np.zeros(3)
    for _ in range(60):
        labels, hard = rng.integers(0, 2, 600), rng.normal(0, 0.05, 30).repeat(20)
        right = rng.random((2, 600)) < np.clip([[0.8], [0.7]] + hard, 0, 1)
        said = np.where(right, labels, 1 - labels)
        old, new = (Answers.of(labels, np.eye(2)[s] * 0.8 + 0.1) for s in said)
        found = spreads(old, new, np.arange(30).repeat(20))
        recall, error = found["balanced_accuracy"], found["calibration_error"]
        held += [
            low <= truth <= high
            for (low, high), truth in ((recall.old, 80), (recall.change, -10), (error.old, 10))
        ]
    assert (held >= 52).all(), held


def test_a_class_that_falls_does_not_pass_unseen(
    data: Dataset, networks: dict[str, Path], tmp_path: Path
) -> None:
    """From 58 to 11 %, while the accuracy rises."""
    file, page, flips = (tmp_path / name for name in ("c.json", "c.html", "flips.csv"))
    files = ("--json", file, "--html", page, "--flips", flips)
    asked = ("compare", networks["old"], networks["exported"], data.folder, "--rounds", 20)
    told = crossfer(*asked, "--by", "camera", *files)
    assert told.exit_code == 0, told.exception
    words = " ".join(told.stdout.split())
    warning = "sad falls from 58 to 11 % on faces (−47.0 points, 100 images"
    assert f"WARNING: {warning}" in words
    shown = page.read_text()
    assert warning in shown.split("<main>")[0] and "data:image" not in shown
    assert [shown.count(f"<caption>{who}</caption>") for who in ("old", "new")] == [1, 1]
    assert shown.count('class="matrix"') == 2 and ">89</td>" in shown, "what sad was taken for"
    gate = crossfer("gate", file, "--max-drop", 1)
    assert gate.exit_code == 0 and f"WARNING: {warning}" in gate.stdout
    junit = tmp_path / "reports" / "gate.xml"
    gate = crossfer("gate", file, "--max-drop", 1, "--max-class-drop", 10, "--junit", junit)
    assert gate.exit_code == 1
    assert "FAIL  faces, recall of sad: -47.0 points measured" in gate.stdout
    assert (
        'failures="1"' in junit.read_text()
        and warning in junit.read_text().split("<system-out>")[1]
    )
    with flips.open(newline="") as table:
        rows = list(csv.DictReader(table))
    kinds = [row["flip"] for row in rows]
    assert kinds.count("won") == ((OLD != LABELS) & (NEW == LABELS)).sum()
    assert kinds.count("lost") == ((OLD == LABELS) & (NEW != LABELS)).sum()
    for row in rows:
        i = int(Path(row["origin"]).stem)
        assert (row["label"], row["old"], row["new"]) == tuple(
            CLASSES[x[i]] for x in (LABELS, OLD, NEW)
        )
    told = crossfer(*asked, "--html", page, "--pictures")
    assert told.exit_code == 0 and "data:image/png" in page.read_text()


def test_a_dataset_without_the_column_of_the_groups_is_named_wherever_it_is_left_out(
    comparison: ClassifierComparison, tmp_path: Path
) -> None:
    told = "other: has no column camera, so nothing is said of its groups."
    (_, before, after), (one,) = comparison.answers[0], comparison.found.datasets
    facts = {name: getattr(one, name) for name in ("title", "stand_in", "fingerprint", "split")}
    known = ([None] * len(LABELS), [""] * len(LABELS))
    other = on_dataset(
        {"name": "other", "left_out": {}, **facts},
        *(before, after, CLASSES, range(len(CLASSES)), *known, {"camera": None}),
    )
    found = replace(comparison.found, datasets=(one, other))
    write_page(found, tmp_path / "c.html")
    assert told in html.unescape((tmp_path / "c.html").read_text())
    file = tmp_path / "c.json"
    file.write_text(json.dumps(found.as_json()))
    for options in ([], ["--json"]):
        assert told in crossfer("gate", file, "--by", "camera", *options).stdout


def test_the_gate_asks_of_groups_latency_and_size(
    comparison: ClassifierComparison, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    times = comparison.found.latency
    rng = np.random.default_rng(0)
    old = tuple((1 + rng.random(100)).tolist())
    new = tuple((1.2 * t * (0.9 + 0.2 * rng.random())) for t in old)
    found = replace(comparison.found, latency=replace(times, old=old, new=new))
    file.write_text(json.dumps(found.as_json()))
    assert read(file) == found

    def verdicts(*options: object) -> dict[str, dict[str, Any]]:
        drop = () if "--target" in options else ("--max-drop", 20)
        told = crossfer("gate", file, "--json", *drop, *options)
        (answer,) = json.loads(told.stdout)["answers"]
        found = {one["about"]: one for one in answer["criteria"]}
        passed = all(one["verdict"] == "pass" for one in found.values())
        assert told.exit_code == (0 if passed else 1)
        return found

    asked = verdicts("--max-latency-ratio", 1.5, "--max-size-ratio", 1000, "--by", "camera")
    assert {name: one["verdict"] for name, one in asked.items()} == dict.fromkeys(
        ("accuracy", "camera = A", "camera = B", "latency", "size"), "pass"
    )
    assert 1.15 < asked["latency"]["measured"] <= asked["latency"]["bound"] < 1.3
    assert verdicts("--max-latency-ratio", 1.1)["latency"]["verdict"] == "fail"
    close = latency_ratio(old, new) + 0.002
    needed = verdicts("--max-latency-ratio", close)["latency"]
    assert needed["verdict"] == "not proven" and needed["needed"] > 100
    words = crossfer("gate", file, "--max-latency-ratio", close).stdout
    assert "not enough measurements to prove it: 100; you need about" in words
    assert verdicts("--max-size-ratio", 1e-6)["size"]["verdict"] == "fail"
    gained = verdicts("--target", "faces", "--min-target-gain", 90)["accuracy"]
    assert (gained["limit"], gained["verdict"]) == (90, "fail")


def test_a_batch_that_no_memory_holds_is_refused(data: Dataset, networks: dict[str, Path]) -> None:
    model, rows = open_model(networks["exported"]), np.arange(4)
    how = CompareOptions(batch=10**15)
    with pytest.raises(CrossferError, match=r"--batch 1000000000000000: .*; use fewer"):
        measure_latency(model, model, Pictures("faces", data, data, rows, rows), how)


def test_what_slows_the_machine_down_meets_both() -> None:
    """The load triples for the second half: the ratio of rounds does not see it."""
    rng = np.random.default_rng(0)
    load = np.repeat([1.0, 3.0], 100)
    old = (load * (1 + 0.1 * rng.random(200))).tolist()
    new = (1.1 * load * (1 + 0.1 * rng.random(200))).tolist()
    assert latency_ratio(old, new) == pytest.approx(1.1, abs=0.02)
    low, high = np.quantile(ratio_draws(old, new), [0.025, 0.975])
    assert 1.07 < low < 1.1 < high < 1.13


def test_a_class_that_one_alone_can_say(data: Dataset, networks: dict[str, Path]) -> None:
    """The old network is never right about it; with --shared such images are left out."""
    old = open_model(networks["old"])
    few = classifier(("angry", "happy", "sad"), column=0)
    folder = networks["old"].parent / "few"
    (one,) = compare(
        open_model(few.save(folder)), old, [(data, data)], CompareOptions(rounds=20)
    ).found.datasets
    assert one.old.recall[3] == 0 and one.new.recall[3] == 70
    found = compare(
        open_model(folder), old, [(data, data)], CompareOptions(rounds=20, shared=True)
    ).found
    (one,) = found.datasets
    assert one.left_out == {"neutral": 100} and one.new.images == 300
    assert found.notes == ("only the new network has neutral: images of them are left out",)
    file = folder / "shared.json"
    drawn = replace(found, datasets=(replace(one, stand_in=True),))
    file.write_text(json.dumps(drawn.as_json()))
    (decision,) = json.loads(crossfer("gate", file, "--json").stdout)["answers"]
    assert decision["remarks"] == [
        "only the new network has neutral: images of them are left out.",
        "faces: left out, label in none of the compared classes: neutral 100.",
        "Drawn stand-ins: these numbers say nothing about real faces.",
    ]


def test_a_classifier_brings_what_labels_its_classes_stand_for(
    data: Dataset, tmp_path: Path
) -> None:
    """Trained with `{good: [happy], bad: [angry, sad]}`, it is measured on the dataset's own labels."""
    labels = {"happy": "good", "angry": "bad", "sad": "bad"}
    folders = [
        classifier(("bad", "good"), own, column=column).save(tmp_path / name)
        for column, (name, own) in enumerate(
            {"old": labels, "new": labels, "other": labels | {"sad": "good"}}.items()
        )
    ]
    old, new, other = map(open_model, folders)
    (one,) = compare(old, new, [(data, data)], CompareOptions(rounds=20)).found.datasets
    assert (one.classes, one.left_out) == (("bad", "good"), {"neutral": 100})
    bad = np.isin(LABELS[LABELS != 3], (0, 2))
    assert one.evidence.labels == tuple(np.where(bad, 0, 1))
    with pytest.raises(CrossferError, match="sad is bad for one.*--label sad=CLASS"):
        compare(old, other, [(data, data)], CompareOptions(rounds=20))
    chosen = CompareOptions(rounds=20, labels={"sad": "good"})
    (one,) = compare(old, other, [(data, data)], chosen).found.datasets
    assert one.evidence.labels.count(0) == EACH


def test_a_label_that_no_image_has_is_refused(data: Dataset, networks: dict[str, Path]) -> None:
    old, typing_error = networks["old"], ("--label", "smiling=happy")
    for command in (
        ("compare", old, networks["exported"], data.folder),
        ("assess", old, data.folder, "--source", data.folder),
        ("remember", old, data.folder, "--out", data.folder.parent / "memory"),
    ):
        said = refused(*command, *typing_error)
        assert said.startswith("--label smiling=happy: no image of ")
        assert said.endswith("the labels are angry, happy, neutral, sad")
    twice = ("--label", "sad=happy", "--label", "Sad=angry")
    assert "it is happy already" in refused("compare", old, old, data.folder, *twice)


def test_classes_in_another_order_are_noticed(data: Dataset, networks: dict[str, Path]) -> None:
    folder = networks["old"].parent / "mixed"
    mixed = classifier(("happy", "angry", "neutral", "sad"), column=0).save(folder)
    (one,) = compare(
        open_model(mixed), open_model(networks["old"]), [(data, data)], CompareOptions(rounds=20)
    ).found.datasets
    assert one.notes and "with its classes in another order" in one.notes[0]


def test_networks_that_read_faces_of_other_sizes(
    data: Dataset, networks: dict[str, Path], tmp_path: Path
) -> None:
    """The same pictures, prepared for each, are matched by where they came from."""
    raw = Path(data.folder).parent / "faces"
    how = Preparation(faces="cropped", side=96, channels=3)
    larger = prepare(raw, tmp_path / "larger", how)
    wide = tmp_path / "wide.yaml"
    weights = tmp_path / "wide.pth"
    torch.save(classifier(CLASSES, column=1).network.state_dict(), weights)
    said = {
        "network": "tests.pixel_networks:says",
        "arguments": {"column": 1},
        "weights": "wide.pth",
        "input": [3, 96, 96],
        "classes": list(CLASSES),
        "normalisation": "per-image",
    }
    wide.write_text(yaml.safe_dump(said))
    told = refused("compare", networks["old"], wide, data.folder)
    assert "its faces are 48×48" in told and "reads 96×96×3" in told
    assert "--side 96 --colour" in told
    asked = ("compare", networks["old"], wide, data.folder, "--rounds", 20)
    done = crossfer(*asked, "--new-data", larger.folder)
    assert done.exit_code == 0, done.exception


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("this is a text", "not an ONNX model that ONNX Runtime can run"),
        (tiny_onnx.network(("faces", "more")).SerializeToString(), "has 2 inputs (faces, more)"),
        (tiny_onnx.network().SerializeToString(), "the meaning of its outputs is unknown"),
    ],
)
def test_a_wrong_onnx_file_is_one_line(
    data: Dataset, networks: dict[str, Path], tmp_path: Path, content: Any, words: str
) -> None:
    file = tmp_path / "theirs.onnx"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    for command in (
        ("compare", networks["old"], file, data.folder),
        ("predict", file, data.folder),
    ):
        said = refused(*command)
        assert str(file) in said and words in said


def test_what_is_compared_predicts(networks: dict[str, Path]) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8)
    found = [load(networks[name]).predict(faces) for name in ("onnx", "factory", "bundle")]
    assert all(np.allclose(found[0], other, atol=1e-5) for other in found)


def test_what_is_read_is_not_replaced(data: Dataset, networks: dict[str, Path]) -> None:
    both = ("compare", networks["old"], networks["exported"], data.folder)
    card = data.folder / "dataset.json"
    for option, file, words in (
        ("--json", data.folder, "a folder; name a file"),
        ("--html", card / "page.html", "is a file, not a folder"),
        ("--flips", card, "which is read; name another file"),
    ):
        assert words in refused(*both, option, file)


def test_what_cannot_be_compared_is_one_line(
    data: Dataset, networks: dict[str, Path], tmp_path: Path
) -> None:
    old, new = networks["old"], networks["bundle"]
    later = classifier(CLASSES).save(tmp_path / "later") / "classifier.json"
    later.write_text(json.dumps(json.loads(later.read_text()) | {"format": 99}))
    assert "has format 99, but this version reads 1" in refused(
        "compare", old, later.parent, data.folder
    )
    assert "choose among" in refused("compare", old, new, data.folder, "--by", "site")
    assert "not a prepared dataset" in refused("compare", old, new, tmp_path)
    assert "no such file or folder" in refused("compare", old, tmp_path / "no", data.folder)
    assert "--split tests" in refused("compare", old, new, data.folder, "--split", "tests")
    assert "named twice" in refused("compare", old, new, data.folder, data.folder)
    assert "--rounds 3" in refused("compare", old, new, data.folder, "--rounds", 3)
    assert "name it with --html" in refused("compare", old, new, data.folder, "--pictures")
    yes = classifier(("yes", "no"), column=0).save(tmp_path / "other")
    assert "no class in common" in refused("compare", old, yes, data.folder)
    for text, words in (
        ("network: timm:resnet18", "untrained network"),
        ("networks: study", "networks: unknown key"),
        ("model: {network: study}", "without model: itself"),
        ("[a", "not valid YAML"),
        ("network: study\nclasses: [a, b]\nclasses: [b, a]", "the key 'classes' is repeated"),
        ("network: study\nweights: gone.pth", "gone.pth"),
        ("network: tests.pixel_networks:says\nweights: as-built\nclasses: [a, b]", "normalisation"),
    ):
        file = tmp_path / "model.yaml"
        file.write_text(text)
        said = refused("compare", old, file, data.folder)
        assert words in said and str(tmp_path) in said
    weights = networks["factory"].parent / "new.pth"
    assert "name a YAML file" in refused("compare", old, weights, data.folder)


def test_what_the_gate_cannot_read_is_one_line(
    comparison: ClassifierComparison, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    found = comparison.found.as_json()
    (one,) = found["datasets"]
    for content, words in (
        ("{", "not a comparison"),
        (json.dumps({"kind": "experiment"}), "not a comparison"),
        (json.dumps(found | {"format": 0}), "has format 0"),
        (json.dumps(found | {"classes": 3}), "damaged (classes)"),
        (json.dumps(found | {"datasets": []}), "damaged (datasets)"),
        (json.dumps(found | {"datasets": [one, one]}), "damaged (datasets)"),
        (json.dumps(found | {"latency": found["latency"] | {"new": []}}), "damaged (latency)"),
        (
            json.dumps(found | {"datasets": [one | {"evidence": one["evidence"] | {"new": [0]}}]}),
            "damaged (faces: evidence)",
        ),
    ):
        file.write_text(content)
        assert words in refused("gate", file)
    said = one["evidence"]
    for changes, words in (
        ({"old": found["old"] | {"bytes": 0}}, "damaged (bytes)"),
        ({"latency": found["latency"] | {"old": [0.0] * 20}}, "damaged (latency)"),
        ({"classes": found["classes"][:3]}, "damaged (faces: classes)"),
        (
            {"datasets": [one | {"evidence": said | {"new": [4, *said["new"][1:]]}}]},
            "damaged (faces: evidence)",
        ),
        ({"datasets": [one | {"split": "training"}]}, "training images of faces; compare on the"),
    ):
        file.write_text(json.dumps(found | changes))
        assert words in refused("gate", file)
    file.write_text(json.dumps(found))
    assert "no such file or folder" in refused("gate", tmp_path / "no", "--max-latency-ratio", 1)
    assert "compare again with --by age" in refused("gate", file, "--by", "age")
    assert "choose among faces" in refused("gate", file, "--target", "nobody")
    vain = refused("gate", file, "--target", "faces", "--max-drop", 5)
    assert "--max-drop: faces is the only dataset, and --target asks a gain of it" in vain
    assert "with --target" in refused("gate", file, "--min-target-gain", 1)
    assert "--strategy" in refused("gate", file, "--strategy", "FC")
    assert "not measured in an experiment" in refused("gate", tmp_path, "--max-latency-ratio", 1)


def test_damaged_data_are_refused(data: Dataset, networks: dict[str, Path], tmp_path: Path) -> None:

    copy = shutil.copytree(data.folder, tmp_path / "copy")
    images = np.load(copy / "images.npy")
    images[0] += 1
    np.save(copy / "images.npy", images)
    assert len(open_dataset(copy).images) == len(images)
    assert "changed or damaged" in refused("compare", networks["old"], networks["bundle"], copy)


def test_faces_are_cut_out_for_a_described_network_as_it_says(
    data: Dataset, networks: dict[str, Path], tmp_path: Path
) -> None:
    """Where it does not, `predict` says what is assumed, once; a bundle says it itself."""
    for name in ("theirs.yaml", "theirs.onnx"):
        shutil.copy(networks["onnx"].parent / name, tmp_path / name)
    file, description = tmp_path / "theirs.onnx", tmp_path / "theirs.yaml"
    said = yaml.safe_load(description.read_text())
    assumed = open_model(file)
    assert assumed.framing is None
    picture = data.folder.parent / "faces" / "0.png"
    note = "no framing is described, so faces are cut out with the eyes 0.42 of the side apart"
    assert crossfer("predict", file, picture, picture).stdout.count(note) == 1
    assert note not in crossfer("predict", file, picture, "--cropped").stdout
    for framing, why in (
        ({"eyes": 0.3}, "write a mapping; the keys are side, channels, eye_distance, eye_height"),
        ({"eye_distance": 3}, "framing: eye_distance is 3: must be between 0.1 and 0.8"),
        ({"side": 64}, "framing: side is 64, but the network reads 48×48 gray"),
        ({"eye_height": "low"}, "framing.eye_height"),
    ):
        description.write_text(yaml.safe_dump(said | {"framing": framing}))
        assert why in refused("predict", file, picture)
    framing = Framing(48, 1, 0.3, 0.35)
    own = {"eye_distance": 0.3, "eye_height": 0.35}
    description.write_text(yaml.safe_dump(said | {"framing": own}))
    model = open_model(file)
    assert model.framing == model.engine.framing == framing
    assert model.engine.identity != assumed.engine.identity
    assert note not in crossfer("predict", file, picture).stdout
    bundle = classifier(CLASSES, column=0)
    bundle.framing = framing
    description.write_text(yaml.safe_dump({"network": f"bundle:{bundle.save(tmp_path / 'b')}"}))
    assert open_model(description).engine.framing == framing
    other = vars(Framing())
    assert NetworkConfig(f"bundle:{tmp_path / 'b'}", framing=other).framed == Framing()

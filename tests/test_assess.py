"""Do I need an update?  What can be said of new faces before anybody has labelled them."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from crossfer.adaptation import untrained
from crossfer.app.opening import pages_of
from crossfer.datasets import Dataset, Preparation, open_dataset, prepare
from crossfer.deploy.assess import _with_head, assess, of_memory, of_source
from crossfer.deploy.checks import unchecked
from crossfer.deploy.compare import class_set_of
from crossfer.deploy.models import open_model
from crossfer.deploy.pytorch import TorchEngine
from crossfer.errors import CrossferError
from crossfer.evaluation.drift import (
    FeatureDrift,
    Features,
    feature_drift,
    input_drift,
    pixels_of,
)
from crossfer.evaluation.estimate import (
    BinnedScores,
    Estimate,
    LabelledScores,
    difference_of_confidences,
    estimates,
    negative_entropy,
    thresholded_confidence,
)
from crossfer.memory.file import load_memory
from crossfer.networks import Classifier, Preprocessing
from crossfer.networks.config import NetworkConfig
from crossfer.report.assessed import answer, curve
from tests.browser import asked, served
from tests.commands import crossfer, refused
from tests.pixel_networks import STEP, classifier, exported, onnx_file
from tests.tiny_networks import read_head

CLASSES = ("angry", "happy", "sad", "neutral")


def said(count: int, sure: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return answers, and a truth that is drawn from them: they are calibrated."""
    rng = np.random.default_rng(seed)
    logits = sure * rng.normal(size=(count, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p.astype(np.float32), (p.cumsum(1) > rng.random((count, 1))).argmax(1)


def test_on_the_labelled_images_themselves_both_estimates_are_the_accuracy() -> None:
    p, labels = said(200, 2.0, 0)
    for estimate in estimates(LabelledScores.of(p, labels), p, resamples=20):
        assert estimate.accuracy == pytest.approx(100 * (p.argmax(1) == labels).mean())


def test_the_threshold_leaves_as_many_below_as_are_wrong() -> None:
    p, labels = said(300, 2.0, 1)
    new, _ = said(500, 1.0, 2)
    right, scores = p.argmax(1) == labels, negative_entropy(p)
    ones = np.ones(300), np.ones(500)
    found = thresholded_confidence(scores, right, ones[0], negative_entropy(new), ones[1])
    threshold = np.sort(scores)[(~right).sum()]
    assert (scores < threshold).mean() == (~right).mean()
    assert found == pytest.approx(100 * (negative_entropy(new) >= threshold).mean())
    scores_twice, right_twice = np.concatenate([scores, scores]), np.concatenate([right, right])
    assert found == thresholded_confidence(
        scores_twice, right_twice, np.ones(600), negative_entropy(new), 2 * ones[1]
    )
    doubled = np.arange(300) < 100  # a weight of 2 is an image that is there twice
    weights = np.where(doubled, 2.0, 1.0)
    scores_more = np.concatenate([scores, scores[doubled]])
    right_more = np.concatenate([right, right[doubled]])
    assert thresholded_confidence(
        scores, right, weights, negative_entropy(new), ones[1]
    ) == thresholded_confidence(
        scores_more, right_more, np.ones(400), negative_entropy(new), ones[1]
    )


def test_less_confidence_is_taken_for_as_much_less_accuracy() -> None:
    right = np.array([True, True, True, False])
    found = difference_of_confidences(
        np.array([0.9, 0.9, 0.8, 0.6]), right, np.ones(4), np.array([0.5, 0.7]), np.ones(2)
    )
    assert found == pytest.approx(100 * (0.75 - (0.8 - 0.6)))


def test_where_confidence_can_be_trusted_the_truth_lies_in_the_interval() -> None:
    inside = 0
    for seed in range(10):
        (p, labels), (new, truth) = said(400, 2.0, 2 * seed), said(300, 1.2, 2 * seed + 1)
        _, by_difference = estimates(LabelledScores.of(p, labels), new, resamples=200)
        low, high = by_difference.interval
        inside += low <= 100 * (new.argmax(1) == truth).mean() <= high
    assert inside >= 9


@pytest.mark.parametrize(("sure", "right"), [(0.99, True), (0.45, False)])
def test_where_all_seem_right_or_wrong_errors_are_possible(sure: float, right: bool) -> None:
    (p, labels), alike = said(500, 2.0, 0), np.array([[sure, 1 - sure - 0.001, 0.001]] * 20)
    by_threshold, _ = estimates(LabelledScores.of(p[:, :3], labels % 3), alike, resamples=200)
    low, high = by_threshold.interval
    assert low < 90 if right else high > 10


def test_few_people_make_an_estimate_less_sure() -> None:
    (p, labels), (new, _) = said(400, 2.0, 0), said(300, 1.2, 1)
    who = np.repeat(np.arange(6), 50)
    one, other = (
        estimates(LabelledScores.of(p, labels), np.sort(new, 0), people, resamples=200)[1].interval
        for people in (None, who)
    )
    assert other[1] - other[0] > 2 * (one[1] - one[0])


def test_errors_of_one_person_are_alike() -> None:
    """Ten people, each of whom the network knows well or badly: a correlation of 0.13 within a person."""
    inside = np.zeros(2, int)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (p, labels), (new, _) = said(600, 1.0, 2 * seed), said(300, 1.0, 2 * seed + 1)
        who = np.repeat(np.arange(10), 30)
        sure = new.max(1)
        liked = np.log(sure / (1 - sure)) + rng.normal(size=10)[who]
        right = rng.random(300) < 1 / (1 + np.exp(-liked))
        for number, found in enumerate(
            estimates(LabelledScores.of(p, labels), new, who, resamples=200)
        ):
            inside[number] += found.interval[0] <= 100 * right.mean() <= found.interval[1]
    assert inside.min() >= 18, "with independent errors 13"


def test_drift_is_seen_where_there_is_some_and_only_there() -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(40, 160, (60, 48, 48), np.uint8)
    brightness, contrast, sharpness = input_drift(pixels_of(faces), pixels_of(faces + 50))
    assert brightness.deviations > 5 and brightness.new - brightness.source == pytest.approx(
        50 / 255
    )
    assert contrast.deviations == sharpness.deviations == pytest.approx(0, abs=1e-9)
    own, other = rng.normal(size=(2000, 8)), rng.normal(size=(1000, 8))
    usual = Features.of(own)
    assert feature_drift(usual, other).deviations < 0.05
    moved = feature_drift(usual, other + 0.5)
    assert moved.deviations == pytest.approx(0.5, abs=0.05)
    assert moved.interval[0] < 0.5 < moved.interval[1] and moved.interval[0] > 0.4
    # Ten faces of each of twenty people, none of whom the source has: whole people are drawn.
    people = np.repeat(np.arange(20), 10)
    alike = 0.6 * rng.normal(size=(20, 8))[people] + 0.8 * rng.normal(size=(200, 8))
    assert feature_drift(usual, alike, people).interval[0] < 0.1
    few = rng.normal(size=(12, 30))  # fewer images than features
    assert feature_drift(Features.of(few), few).deviations == 0


def written(folder: Path, noise: float, unlabelled: bool, count: int = 240) -> Dataset:
    """Prepare pictures whose first pixel a network reads, the less clearly the more noise there is."""
    raw, rng = folder / "raw", np.random.default_rng(int(noise))
    raw.mkdir(parents=True)
    rows = [("image", "label", "subject", "split")]
    for i in range(count):
        label = i % 4
        pixels = rng.integers(0, 256, (48, 48), np.uint8)
        pixels[0, 0] = np.clip(STEP * label + rng.normal(scale=noise), 0, 255)
        Image.fromarray(pixels).save(raw / f"{i}.png")
        split = ("training", "validation", "validation", "test")[i // 4 % 4]
        name = "unlabelled" if unlabelled and split == "training" else CLASSES[label]
        rows.append((f"{i}.png", name, f"p{i // 4}", split))
    with (raw / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    return prepare(raw, folder / "data", Preparation(faces="cropped"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network, its source, and new faces that it reads less well."""
    folder = tmp_path_factory.mktemp("assess")
    written(folder / "source", 3.0, False)
    written(folder / "new", 9.0, True)
    classifier(CLASSES).save(folder / "network")
    return folder


def test_the_command_answers_and_writes_all_of_it(place: Path) -> None:
    json_file = place / "out" / "assessed.json"
    done = crossfer(
        "assess",
        place / "network",
        place / "new/data",
        "--source",
        place / "source/data",
        "--json",
        json_file,
    )
    assert done.exit_code == 0, done.exception
    # The network is sure and often wrong here: that, no estimate can see.
    assert done.stdout.startswith("Do I need an update? It cannot be told without labels.")
    content = json.loads(json_file.read_text())
    assert content["verdict"] == "unclear" and content["images"] == 240 and content["truth"] is None
    truth = {one["method"]: one["interval"] for one in content["estimates"]}
    assert set(truth) == {"ATC", "DoC"}
    assert [one["measure"] for one in content["inputs"]] == ["brightness", "contrast", "sharpness"]


def test_no_estimate_looks_at_a_label_of_the_new_faces(place: Path) -> None:
    model = open_model(place / "network")
    class_set = class_set_of(model.classes, {}, model)
    source, new = (open_dataset(place / name / "data") for name in ("source", "new"))
    known = of_source(model, source, class_set)
    column = new.samples.schema.get_field_index("label")
    labels = new.samples.column("label").to_pylist()
    others = [name if name == "unlabelled" else "happy" for name in labels]
    changed = replace(new, table=new.samples.set_column(column, "label", [others]))
    first, second = (assess(model, one, known, class_set) for one in (new, changed))
    assert first == replace(second, lacks=first.lacks)
    sure = (Estimate("ATC", 80.0, (70.0, 89.0)), Estimate("DoC", 82.0, (75.0, 88.0)))
    worse = replace(first, estimates=sure, known=replace(first.known, accuracy=92.0))
    assert worse.verdict == "worse" and answer(worse)[0].endswith("here than on the source.")
    assert answer(worse)[1].startswith("Estimated accuracy on these faces: 70 to 89 %")
    alike = replace(worse, known=replace(first.known, accuracy=71.0), inputs=(), features=None)
    assert alike.verdict == "as good"
    drifted = replace(alike, features=FeatureDrift(0.5, (0.4, 0.6)))
    assert (
        drifted.verdict == "unclear" and "features (0.5 standard deviations)" in answer(drifted)[2]
    )


def test_a_folder_of_pictures_is_assessed_as_it_is(place: Path) -> None:
    found = place / "folder.json"
    done = crossfer(
        "assess", place / "network", place / "new/raw", "--cropped",
        "--source", place / "source/data", "--json", found,
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    content, model = json.loads(found.read_text()), open_model(place / "network")
    class_set = class_set_of(model.classes, {}, model)
    known = of_source(model, open_dataset(place / "source/data"), class_set)
    same = assess(model, open_dataset(place / "new/data"), known, class_set)
    assert content["people"] is None and content["images"] == same.images
    assert [one["accuracy"] for one in content["estimates"]] == [
        one.accuracy for one in same.estimates
    ]


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """Return a network with a linear last layer, and faces."""
    folder = tmp_path_factory.mktemp("linear")
    network = untrained(lambda: NetworkConfig("study", width=0.05).build(CLASSES), 0)
    with torch.no_grad():
        network.network.get_parameter("fc3.weight").mul_(300)  # its answers are more or less sure
    network.eval().save(folder / "network")
    return folder / "network", written(folder / "faces", 3.0, False, 320)


def test_a_memory_file_stands_for_the_source(
    linear: tuple[Path, Dataset], place: Path, tmp_path: Path
) -> None:
    network, source = linear
    file, json_file = tmp_path / "memory.safetensors", tmp_path / "assessed.json"
    done = crossfer("remember", network, source.folder, "--out", file)
    assert done.exit_code == 0, done.exception
    assert " % of 160 validation images; compare this with the accuracy" in done.stdout
    model, new = open_model(network), open_dataset(place / "new/data")
    class_set = class_set_of(model.classes, {}, model)
    by_faces = assess(model, new, of_source(model, source, class_set), class_set)
    done = crossfer("assess", network, new.folder, "--memory", file, "--json", json_file)
    assert done.exit_code == 0, done.exception
    found = json.loads(json_file.read_text())
    assert found["source"] == source.name and found["known"]["images"] == 160
    assert found["known"]["accuracy"] == by_faces.known.accuracy
    assert [one["accuracy"] for one in found["estimates"]] == [
        pytest.approx(one.accuracy, abs=4) for one in by_faces.estimates
    ]
    assert found["inputs"] == json.loads(json.dumps(by_faces.as_json()["inputs"]))
    assert found["classes"] == json.loads(json.dumps(by_faces.as_json()["classes"]))
    again = assess(model, source, of_memory(model, file), class_set)
    assert again.features and again.features.deviations < 0.2
    both = (found["features"]["deviations"], by_faces.features and by_faces.features.deviations)
    assert both[0] == pytest.approx(both[1], rel=0.02)

    assert "leave one out" in refused(
        "assess", network, new.folder, "--memory", file, "--source", source.folder
    )
    assert "--labels: needs the source" in refused(
        "assess", network, source.folder, "--memory", file, "--labels"
    )
    assert "made for another model" in refused(
        "assess", place / "network", new.folder, "--memory", file
    )
    memory = load_memory(file)
    replace(memory, calibration=None).save(file)
    assert "says nothing of validation faces; make it again" in refused(
        "assess", network, new.folder, "--memory", file
    )


def test_answers_in_groups_give_the_same_estimates_and_name_no_image() -> None:
    (p, labels), (new, _) = said(3000, 2.0, 0), said(500, 1.2, 1)
    answers = LabelledScores.of(p, labels)
    grouped = BinnedScores.of(answers)
    assert (
        len(grouped.scores["ATC"]) == 100
        and sum(grouped.right["DoC"]) == (p.argmax(1) == labels).sum()
    )
    pairs = zip(estimates(answers, new), estimates(grouped.answers(), new), strict=True)
    for one, other in pairs:
        assert other.accuracy == pytest.approx(one.accuracy, abs=0.5)
        assert other.interval == pytest.approx(one.interval, abs=1)
    assert len(BinnedScores.of(LabelledScores.of(p[:59], labels[:59])).scores["ATC"]) == 2


def test_labels_draw_a_curve(linear: tuple[Path, Dataset]) -> None:
    folder, data = linear
    model = open_model(folder)
    class_set = class_set_of(model.classes, {}, model)
    known = of_source(model, data, class_set)
    found = assess(model, data, known, class_set, curve=True)
    assert [point.draws for point in found.curve] == [1, 3, 3, 1]
    for point, wanted in zip(found.curve, (0, 25, 50, 80), strict=True):
        assert abs(point.images - wanted) <= 4  # whole people are drawn
    assert found.curve[0].accuracy == pytest.approx(found.curve[0].lowest)
    # In words: what the fewest labels bring that help in every draw, or that none do.
    now, few, some, every = (
        replace(
            one, images=n, accuracy=40.0 + gain, lowest=40.0 + gain - 2, source_change=-gain / 10
        )
        for one, n, gain in zip(found.curve, (0, 25, 50, 80), (0, 2, 5, 9), strict=True)
    )
    said = curve(replace(found, curve=(now, few, some, every)))
    assert said.startswith(
        "50 labels would help: +5.0 points here (+4 of 80 test images), −0.5 on "
    )
    assert "all 80 give +4.0 more" in said
    said = curve(replace(found, curve=(now, few)))
    lacking = curve(replace(found, curve=(now, few), lacks=("fear",)))
    assert "among all classes of the network, fear too" in lacking and "fear" not in said
    assert said.startswith("No number of labels up to 25 gained more than 2 points in every draw")


def test_a_head_that_is_not_called_shows_no_features() -> None:
    """What needs none is assessed nevertheless."""

    class Own:
        """A model whose head is read, not called."""

        pytorch = Classifier(read_head(), preprocessing=Preprocessing(3, 32)).eval()

    assert _with_head(cast(Any, Own())) is None


def test_what_cannot_be_assessed_is_said_in_one_line(place: Path, tmp_path: Path) -> None:
    network, new, source = place / "network", place / "new/data", place / "source/data"
    assert "name the dataset that it was trained on with --source" in refused(
        "assess", network, new
    )
    assert "trains a linear last layer" in refused(
        "assess", network, source, "--source", source, "--labels"
    )
    assert "so this has no effect" in refused("assess", network, new, "--cropped")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "contains no picture" in refused("assess", network, empty, "--source", source)
    Image.fromarray(np.full((300, 300), 90, np.uint8)).save(empty / "wall.jpg")
    said = refused("assess", network, empty, "--source", source)
    assert f"first: {empty / 'wall.jpg'}: no face found" in said and "add --cropped" in said
    assert "prepare them (`crossfer prepare`), then name the dataset" in refused(
        "assess", network, empty, "--source", source, "--labels"
    )


def test_pictures_that_are_left_out_are_named(place: Path, tmp_path: Path) -> None:
    """And a picture without a suffix is recognised by its first bytes."""
    for number, file in enumerate(sorted((place / "new/raw").glob("*.png"))[:4]):
        shutil.copy(file, tmp_path / f"a{number}")
    (tmp_path / "broken.jpg").write_bytes(b"none")
    (tmp_path / "clip.mp4").write_bytes(b"none")
    (tmp_path / "notes.txt").write_text("none")
    source = place / "source/data"
    done = crossfer("assess", place / "network", tmp_path, "--source", source, "--cropped")
    assert f"{tmp_path.name}: 4 faces." in done.stdout
    assert f"can be read: 1 (first: {tmp_path / 'broken.jpg'})." in done.stdout
    assert "videos, skipped: 1; extract their frames" in done.stdout
    assert "neither pictures nor videos, skipped: 1" in done.stdout


def test_a_classifier_that_is_read_wrongly_is_not_remembered(place: Path, tmp_path: Path) -> None:
    """The source's images are deleted afterwards; assess deletes nothing, and warns."""
    source, file = place / "source/data", tmp_path / "memory.safetensors"
    classifier((*CLASSES[2:], *CLASSES[:2])).save(tmp_path / "order")
    said = refused("remember", tmp_path / "order", source, "--out", file)
    assert "the order of its classes seems wrong: on raw's validation set" in said
    done = crossfer("assess", tmp_path / "order", source, "--source", source)
    assert done.exit_code == 0 and done.stdout.startswith("WARNING: the order of its classes")

    classifier(("joie", "peur", "tristesse", "neutral")).save(tmp_path / "french")
    for command in (
        ("remember", tmp_path / "french", source, "--out", file),
        ("assess", tmp_path / "french", source, "--source", source),
    ):
        said = refused(*command)
        assert "no image of joie, peur, tristesse, 3 of the 4 classes" in said
        assert "--label LABEL=CLASS" in said
    classifier(("angry", "happy", "tristesse", "neutral")).save(tmp_path / "mixed")
    done = crossfer("assess", tmp_path / "mixed", source, "--source", source)
    assert "raw: left out, label in no class: sad 60." in done.stdout
    assert "25 % of these faces are labelled sad, none of the network's classes" in done.stdout
    assert "raw: no image of tristesse." in done.stdout

    described = tmp_path / "expects.yaml"
    described.write_text(f"network: bundle:{place / 'network'}\nexpect: 0.5\n")
    for command in (
        ("remember", described, source, "--out", file),
        ("assess", described, source, "--source", source),
    ):
        assert "on raw's test set, not 50 %" in refused(*command)
    model = replace(open_model(described), name="theirs")
    untested: Any = SimpleNamespace(name="raw", rows=lambda split: [])
    told = [unchecked(model, one) for one in (open_dataset(source), untested, None)]
    assert told == [
        [],
        ["theirs: expect: is not checked here: raw has no test image of its classes"],
        ["theirs: expect: is not checked here: it is the accuracy on its source's test set"],
    ]
    done = crossfer("predict", described, place / "source/raw/0.png", "--cropped")
    assert "expect: is not checked here" in done.stdout
    with served(pages_of([described])) as address:
        assert "expect: is not checked here" in asked(address, "/try")[1]
    file.write_bytes(b"all that is left")
    assert "already exists" in refused("remember", place / "network", source, "--out", file)
    assert file.read_bytes() == b"all that is left"


def test_an_onnx_file_gives_features(tmp_path: Path) -> None:
    """It is converted for them, and answers as it does in ONNX Runtime."""
    onnx_file(tmp_path / "theirs.onnx", len(CLASSES))
    told = f"classes: [{', '.join(CLASSES)}]\nnormalisation: {{mean: [0], deviation: [1], white: 255}}\n"
    (tmp_path / "theirs.yaml").write_text(told)
    (tmp_path / "named.yaml").write_text(f"{told}network: onnx:theirs.onnx\n")
    (tmp_path / "measured.yaml").write_text(f"{told}network: onnxruntime:theirs.onnx\n")
    images = np.random.default_rng(0).integers(0, 40, (8, 48, 48), np.uint8)
    for name in ("theirs.onnx", "named.yaml", "measured.yaml"):
        model = open_model(tmp_path / name)
        assert np.allclose(model.pytorch.predict(images), model.engine(images), atol=1e-5)
    assert isinstance(model.engine, TorchEngine)
    model.engine.classifier.save(tmp_path / "bundle")  # as a run that only measures it
    with pytest.raises(CrossferError, match="runs in ONNX Runtime, so it has no PyTorch"):
        _ = open_model(tmp_path / "bundle").pytorch
    exported(tmp_path / "exported", CLASSES)
    with pytest.raises(CrossferError, match="name the bundle or run that it was exported from"):
        _ = open_model(tmp_path / "exported").pytorch

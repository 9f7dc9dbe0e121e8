"""A classifier for other programs: it answers as PyTorch does, alone, or is not written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor, nn

import crossfer
from crossfer.adaptation import adapt
from crossfer.cli import main
from crossfer.datasets import Dataset
from crossfer.deploy import export as exporting
from crossfer.deploy.card import VariantCheck, model_card
from crossfer.deploy.export import ExportOptions, drawn_faces, export
from crossfer.errors import CrossferError
from crossfer.framing import Framing
from crossfer.machine import Machine
from crossfer.memory import statistics
from crossfer.memory.file import Memory
from crossfer.networks import Classifier, Preprocessing, Spec, load, normalise, study_cnn
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE
from crossfer.strategies import STRATEGIES
from crossfer.training import Faces, Recipe


@pytest.fixture(scope="module")
def classifier(prepared: dict[str, Dataset]) -> Classifier:
    """Return a narrow study network that has learnt a little: rounding changes few of its answers."""
    torch.manual_seed(0)
    network = study_cnn(width=0.1)
    classifier = Classifier(network, spec=Spec("study", {"width": 0.1}))
    source = prepared["fer2013"]
    images = normalise(torch.tensor(source.images))
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(12):
        for rows in torch.randperm(len(images)).reshape(-1, 32):
            loss = nn.functional.cross_entropy(
                classifier(images[rows]), torch.from_numpy(source.labels)[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return classifier.eval()


@pytest.fixture(scope="module")
def exported(
    classifier: Classifier, prepared: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("out") / "exported"
    what = ExportOptions(
        True,
        True,
        calibrate=[prepared["fer2013"]],
        measure=[prepared["jaffe"]],
        least_equal=0.5,
    )
    export(classifier, out, what, origin="a test")
    return out


def test_images_that_a_measured_accuracy_leaves_out_are_counted_in_the_card(
    classifier: Classifier, prepared: dict[str, Dataset]
) -> None:
    engine: Any = lambda faces: np.ones((len(faces), 2), np.float32)  # noqa: E731
    engine.classes, engine.labels = ("happy", "sad"), {"happy": "happy", "sad": "sad"}
    found = exporting._accuracy(engine, prepared["jaffe"])
    assert found.images + sum(found.left_out.values()) == len(prepared["jaffe"].rows("test"))
    check = VariantCheck(0, 1, 1, 1, 1, [found])
    card = model_card("mine", classifier, {"fp32": check}, (), (), "", "")
    count = found.left_out["angry"]
    assert count and f"images left out, label in no class: angry {count}, " in card


def test_every_variant_answers_as_pytorch_does(
    exported: Path, classifier: Classifier, prepared: dict[str, Dataset]
) -> None:
    faces = np.array(prepared["fer2013"].images)
    expected = classifier.predict(faces)
    assert len({*expected.argmax(1)}) > 3
    for variant, most, least_equal in [("fp32", 1e-4, 1), ("fp16", 2e-2, 0.98), ("int8", 0.6, 0.8)]:
        model = crossfer.load(exported, variant)
        answers = model.predict(faces)
        assert model.classes == classifier.classes
        assert abs(answers - expected).max() < most
        assert (answers.argmax(1) == expected.argmax(1)).mean() >= least_equal
        assert model.predict(faces[:1]) == pytest.approx(answers[:1], abs=1e-5)
    sizes = [(exported / f"model{v}.onnx").stat().st_size for v in ("", ".fp16", ".int8")]
    assert sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.4 * sizes[0]


def test_heads_that_were_calculated_are_exported_too(
    classifier: Classifier,
    prepared: dict[str, Dataset],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Random projections and a head behind them, discriminants, templates: all are layers of the network."""
    monkeypatch.setattr(statistics, "PER_DIRECTION", 1)
    machine, source = Machine.of("cpu", "32-true"), prepared["fer2013"]
    past = Faces.from_numpy(source.images, source.labels)
    new = Faces.from_numpy(prepared["jaffe"].images, prepared["jaffe"].labels)
    memory = Memory.of(classifier, past, machine)
    for name in ("RIDGE+RP", "SLDA", "T3A"):
        strategy, out = STRATEGIES[name], tmp_path / name
        given = memory if strategy.memory else None
        model = adapt(
            strategy, classifier, classifier, {"target": new}, {}, Recipe(), 0, machine, given
        ).model
        bundle = load(model.save(tmp_path / f"{name} bundle"))
        export(bundle, out, ExportOptions(), origin="a test")
        faces = new.images.numpy()
        answers = crossfer.load(out).predict(faces)
        assert abs(answers - model.predict(faces)).max() < 1e-4
        assert abs(answers - classifier.predict(faces)).max() > 1e-2


def test_the_folder_tests_itself_with_numpy_and_onnx_runtime_alone(exported: Path) -> None:
    blocked = "import sys\nfor name in ('torch', 'crossfer', 'cv2'): sys.modules[name] = None\n"
    code = f"{blocked}import runpy\nrunpy.run_path({str(exported / 'test_model.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.split("\n")] == [
        *("fp32", "fp16", "int8", "passed", "")
    ]


def test_the_network_takes_bytes_in_batches_of_any_size(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("faces", "tensor(uint8)", [48, 48])
    assert (answer.name, answer.type, answer.shape[1:]) == ("probabilities", "tensor(float)", [7])
    card = json.loads((exported / "model.json").read_text())
    assert card["framing"] == vars(Framing())
    assert card["input"] == {"name": "faces", "type": "uint8", "shape": ["n", 48, 48]}


def test_the_card_is_one_that_hugging_face_reads(exported: Path) -> None:
    _, header, text = (exported / "README.md").read_text().split("---\n", 2)
    read = yaml.safe_load(header)
    (model,) = read["model-index"]
    (result,) = model["results"]
    assert model["name"] == "exported"
    assert result["dataset"]["name"] == "jaffe (stand-in)"
    (metric,) = result["metrics"]
    assert metric["type"] == "accuracy" and 0 <= metric["value"] <= 1
    assert "95 % interval" in metric["name"]
    assert read["pipeline_tag"] == "image-classification"
    for said in (
        "Trained as: a test",
        "one thread, ONNX Runtime on ",
        "2 February 2025",
        "| int8 |",
    ):
        assert said in text
    assert "Licence: " in text
    table = [line for line in text.splitlines() if line.startswith("| jaffe (stand-in) |")]
    assert len(table) == 1 and table[0].count("–") == 3


def test_a_bundle_is_exported_and_both_are_used_alike(
    classifier: Classifier, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    photo = portrait(LAB_JAFFE, 0, 3)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    bundle, out = classifier.save(tmp_path / "bundle"), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["crossfer", "export", str(bundle), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert said[0].startswith("fp32: ") and said[1:] == [f"written: {out}"]
    answers = [crossfer.load(folder).analyze(tmp_path / "photo.png") for folder in (bundle, out)]
    (before,), (after,) = answers
    assert before["emotion"] == pytest.approx(after["emotion"], abs=1e-3)
    assert before["region"] == after["region"]
    assert crossfer.load(bundle).classifier.spec == classifier.spec
    with pytest.raises(CrossferError, match="an exported classifier has no PyTorch network"):
        _ = crossfer.load(out).classifier


class Colours(nn.Module):
    """A network of colour faces that answers with a tuple, and knows a class more than is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(images.mean((2, 3))), images


def test_colours_their_order_and_unanswerable_classes_are_exported(tmp_path: Path) -> None:
    how = Preprocessing(3, 64, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), order="BGR")
    classifier = Classifier(Colours(), ("sad", "happy", "fear"), ((2, 3), (0,), ()), how, answers=4)
    export(classifier, tmp_path / "out")
    model = crossfer.load(tmp_path / "out")
    faces = drawn_faces(classifier.framing)
    expected = classifier.predict(faces)
    assert faces.shape[1:] == (64, 64, 3) and not expected[:, 2].any()
    assert model.predict(faces) == pytest.approx(expected, abs=1e-5)
    assert "sets above" not in (tmp_path / "out" / "README.md").read_text(), "none is listed"


class ByItsValues(nn.Module):
    """A network that tracing gets wrong: which way it goes depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48 * 48, 7)

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.head(images.flatten(1))
        return said if len(images) == 2 else 50 * said


def test_a_network_that_is_traced_wrongly_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(CrossferError, match=r"fp32: probabilities differ from PyTorch's by up to"):
        export(Classifier(ByItsValues()), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_variant_that_answers_differently_is_refused(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exporting.LEAST_EQUAL, "fp16", 1.1)
    with pytest.raises(CrossferError, match="fp16: agrees with PyTorch on .*--least-equal"):
        export(classifier, tmp_path / "out", ExportOptions(half=True))
    assert not list(tmp_path.iterdir())
    with pytest.raises(CrossferError, match="int8: an answer is not a number; leave this variant"):
        exporting._check_parity("int8", float("nan"), 1.0, None)


def test_what_cannot_be_exported_is_one_line(
    classifier: Classifier, prepared: dict[str, Dataset], tmp_path: Path, capfd: Any
) -> None:
    def refused(words: str, **changes: Any) -> None:
        asked: dict[str, Any] = {"classifier": classifier, "out": tmp_path / "out"} | changes
        with pytest.raises(CrossferError, match=words) as error:
            export(**asked)
        assert "\n" not in str(error.value)

    with pytest.raises(CrossferError, match="--int8: needs --calibrate"):
        ExportOptions(int8=True)
    wide = Classifier(nn.Flatten(), preprocessing=Preprocessing(side=64))
    refused(
        "jaffe: its faces are 48×48, but the classifier reads 64×64",
        classifier=wide,
        what=ExportOptions(measure=[prepared["jaffe"]]),
    )
    other = Classifier(study_cnn(0.05, classes=2), ("bored", "keen"))
    refused(
        "jaffe: has no test face of the classes bored, keen",
        classifier=other,
        what=ExportOptions(measure=[prepared["jaffe"]]),
    )
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Linear(25, 7))
    refused("cannot be written as ONNX: .* adaptive_avg_pool2d", classifier=Classifier(pooled))
    assert not any(capfd.readouterr())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused("already exists", out=tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]

"""A class that is new to a model: its head grows, every strategy works, the old answers stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import crossfer
from crossfer.adaptation import adapt, untrained, with_classes
from crossfer.classes import FER7, FER8, ClassSet
from crossfer.cli import app
from crossfer.errors import CrossferError
from crossfer.evaluation.rows import Results
from crossfer.experiment import load_results
from crossfer.machine import Machine
from crossfer.memory.file import Memory
from crossfer.memory.penalties import L2SP, Distillation
from crossfer.networks import Classifier, NetworkConfig, Spec, check_network, grow, load
from crossfer.networks.layers import NamedLayers
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.weights import save_tensors
from crossfer.strategies import STRATEGIES
from crossfer.training import Faces, Recipe, features, train
from tests import tiny_networks

RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=0.01)
SPEC = Spec(arguments={"width": 0.05})


def deployed() -> Classifier:
    """Return a network of seven classes, in another order, where eight are asked for."""
    outputs = ((6,), (5,), (4,), (3,), (2,), (1,), (0,), ())
    return untrained(lambda: Classifier(SPEC.build(), FER8, outputs, spec=SPEC), 0).eval()


def faces(count: int, classes: int, seed: int = 0) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % classes)


def test_the_new_row_points_where_the_new_features_do_and_the_others_stay(tmp_path: Path) -> None:
    before, given = deployed(), torch.rand(5, 51, generator=torch.Generator().manual_seed(1))
    after = grow(before, {"contempt": given})
    assert after.outputs == (*before.outputs[:7], (7,)) and after.answers == 8
    head, old = after.network.get_submodule("fc3"), before.network.get_submodule("fc3")
    assert isinstance(head, nn.Linear) and isinstance(old, nn.Linear)
    direction = F.normalize(F.normalize(given).mean(0), dim=0)
    assert torch.allclose(F.normalize(head.weight[7], dim=0), direction, atol=1e-6)
    assert torch.isclose(head.weight[7].norm(), old.weight.norm(dim=1).mean())
    logits = head(given)
    assert torch.isclose(logits[:, 7].mean(), logits[:, :7].max(1).values.mean(), atol=1e-5)
    images = torch.randn(3, 1, 48, 48)
    assert torch.allclose(after(images)[:, :7], before(images)[:, :7], atol=1e-6)
    shown = faces(4, 7).images.numpy()
    again = load(after.save(tmp_path))
    assert np.array_equal(again.predict(shown), after.predict(shown))
    with pytest.raises(ValueError, match="happy is not new"):
        grow(after, {"happy": given})


def test_a_head_that_does_not_give_the_outputs_cannot_grow() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 4, 48), nn.Linear(4, 14)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(images).flatten(1))[:, :7]

    model = Classifier(Twice(), FER8, (*((i,) for i in range(7)), ()))
    with pytest.raises(
        CrossferError, match="its last linear layer head does not produce its 7 outputs"
    ):
        grow(model, {"contempt": torch.ones(1, 4)})


class Auxiliary(tiny_networks.WithAnIdleHead):
    """Answers with its logits, and those of an auxiliary head."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        """Return two tensors of logits (N, outputs)."""
        found = self.pool(self.stages(self.stem(images))).flatten(1)
        return self.head(found), self.idle(found)


class Normalised(tiny_networks.Residual):
    """Its head is followed by a layer of as many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(7)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.norm(super().forward(images))


class LogProbabilities(tiny_networks.Residual):
    """Answers with logarithms of probabilities."""

    def forward(self, images: Tensor) -> Tensor:
        """Return them."""
        return super().forward(images).log_softmax(1)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Auxiliary, r"in its last linear layer idle, the old classes have other.* model.FC: \["),
        (Normalised, "in its last linear layer head, the old classes have other logits"),
        (tiny_networks.cosine, "its last layer head is no plain torch.nn.Linear"),
        (tiny_networks.weight_normalised, "its last layer head is no plain torch.nn.Linear"),
        (tiny_networks.read_head, "the network has head, but does not call it"),
        (tiny_networks.fully_convolutional, "no linear layer .* so that it can learn a new class"),
    ],
)
def test_a_new_class_leaves_the_old_logits_or_is_refused_in_one_line(
    build: Callable[[], nn.Module], said: str
) -> None:
    """An auxiliary head of as many outputs would take the place of the one that answers."""
    channels = 1 if build is tiny_networks.fully_convolutional else 3
    how, outputs = Preprocessing(channels, 32), (*((i,) for i in range(7)), ())
    model = untrained(lambda: Classifier(build(), FER8, outputs, how), 0).eval()
    shown = Faces(torch.zeros(2, *how.image_shape, dtype=torch.uint8), torch.tensor([7, 7]))
    with pytest.raises(CrossferError, match=said):
        with_classes(model, shown, Machine.of("cpu"))


def test_a_network_of_log_probabilities_and_one_whose_head_is_named_can_grow() -> None:
    outputs, shown = (*((i,) for i in range(7)), ()), torch.randn(2, 3, 32, 32)
    for build, named in ((LogProbabilities, NamedLayers()), (Auxiliary, NamedLayers(("head",)))):
        model = untrained(
            lambda build=build, named=named: Classifier(
                build(), FER8, outputs, Preprocessing(3, 32), layers=named
            ),
            0,
        ).eval()
        after = grow(model, {"contempt": torch.rand(3, 64)})
        with torch.no_grad():
            old, new = (one(shown)[:, :7].softmax(1) for one in (model, after))
        assert torch.allclose(old, new, atol=1e-5)


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory.of(deployed(), faces(2100, 7), Machine.of("cpu", "32-true"))


LABELLED = [name for name, strategy in STRATEGIES.items() if not strategy.unlabelled]


@pytest.mark.parametrize("name", LABELLED)
def test_every_strategy_learns_a_class_that_is_new_to_the_model(name: str, memory: Memory) -> None:
    strategy, machine, start = STRATEGIES[name], Machine.of("cpu", "32-true"), deployed()
    if strategy.layers == "none" and "ER-50" in name:
        strategy = STRATEGIES["MIX+WiSE"]  # merged in the same way
    sides = {"source": faces(21, 7), "target": faces(16, 8, 1)}
    untouched = {key: value.clone() for key, value in start.state_dict().items()}
    begin = start
    if strategy.start in STRATEGIES:
        begin = adapt(STRATEGIES["RE"], start, start, sides, sides, RECIPE, 0, machine).model
    read = memory if strategy.memory else None
    model = adapt(strategy, begin, start, sides, sides, RECIPE, 0, machine, read).model
    answers = crossfer.predict(model, sides["target"].images, machine)
    assert answers.shape == (16, 8) and bool(answers.isfinite().all())
    assert model.outputs[7] == (7,) and bool((answers[:, 7] > 0).all())
    assert start.outputs[7] == ()
    assert all(torch.equal(value, untouched[key]) for key, value in start.state_dict().items())


def test_without_images_of_it_nothing_grows() -> None:
    start, sides = deployed(), {"target": faces(14, 7)}
    model = adapt(STRATEGIES["FC"], start, start, sides, sides, RECIPE, 0, Machine.of("cpu")).model
    assert model.outputs == start.outputs


@torch.no_grad()
def test_what_holds_the_network_back_leaves_the_new_class_free() -> None:
    machine, start, shown = Machine.of("cpu", "32-true"), deployed(), faces(8, 8)
    given = features(start, "fc3", shown.images, machine)
    grown = grow(start, {"contempt": given})
    images, rows = torch.randn(4, 1, 48, 48), torch.arange(4)
    for penalty in (Distillation(), L2SP()):
        term = penalty.term(start, shown, None, 0, machine)
        assert float(term(grown, images, grown(images), rows)) == pytest.approx(0, abs=1e-6)
        grown.network.get_parameter("fc3.bias")[7] += 3
        assert float(term(grown, images, grown(images), rows)) == pytest.approx(0, abs=1e-6)
        grown.network.get_parameter("fc3.bias")[2] += 3
        assert float(term(grown, images, grown(images), rows)) > 0.01
        grown = grow(start, {"contempt": given})
    assert FER8[:7] == FER7


def test_a_model_of_finer_classes_is_understood_through_the_map(tmp_path: Path) -> None:
    """Its probabilities of a class's members are summed, and nothing counts as new that it can say."""
    config = NetworkConfig(width=0.05, weights=tmp_path / "w.safetensors", classes=FER7)
    save_tensors(untrained(config.build, 0).network.state_dict(), tmp_path / "w.safetensors")
    shown = faces(6, 7).images.numpy()
    fine = config.deployed().eval().predict(shown)
    coarse = config.deployed("valence3").eval()
    assert coarse.unknown == () and coarse.outputs == ((0, 1, 2, 4), (6,), (3,))
    expected = np.stack([fine[:, [0, 1, 2, 4]].sum(1), fine[:, 6], fine[:, 3]], 1)
    expected /= expected.sum(1, keepdims=True)  # surprise is never the answer
    assert np.allclose(coarse.predict(shown), expected, atol=1e-6)
    assert np.array_equal(load(coarse.save(tmp_path / "b")).predict(shown), coarse.predict(shown))
    said = check_network(config, ["FC"], Machine.of("cpu"), "valence3")
    assert said[2:5] == [
        "negative is its angry, disgust, fear, sad",
        "positive is its happy",
        "never predicted, because in no class of the experiment: surprise",
    ]
    wanted = {"positive": ["happy"], "negative": ["sad", "angry"], "contempt": ["contempt"]}
    grown = grow(config.deployed(ClassSet.of(wanted)), {"contempt": torch.ones(1, 51)})
    assert grown.outputs == ((3,), (0, 4), (7,)) and grown.unknown == ()


def test_integrity_is_over_the_old_classes_and_the_report_speaks_of_both(tmp_path: Path) -> None:
    """Through the command line, from an earlier result: its folder is the model."""
    stripes = np.arange(48) * 2 * np.pi / 48
    for name, labels in (("old", FER7), ("both", FER8)):
        for number in range(20 * len(labels)):
            label, noise = (
                number % len(labels),
                np.random.default_rng(number).normal(0, 30, (48, 48)),
            )
            picture = 128 + 80 * np.sin(stripes * (label + 1)) + noise
            (folder := tmp_path / "raw" / name / labels[label]).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), picture.clip(0, 255))
        how = crossfer.Preparation(faces="cropped")
        crossfer.prepare(tmp_path / "raw" / name, tmp_path / name, how)

    def run(name: str, **changes: Any) -> Results:
        told: dict[str, Any] = {
            "source": "both",
            "targets": ["old"],
            "copies": "ignore",
            "fractions": [1.0],
        }
        told |= {"strategies": ["FC"], "recipes": {"default": {"epochs": 2, "batch_size": 32}}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(told | {"data": "."} | changes))
        given = ["run", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / name / "runs")]
        (tmp_path / name).mkdir(exist_ok=True)
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, done.output
        return load_results(tmp_path / name / "runs")

    first = run("first", model={"width": 0.05}, source="old", targets=["both"])
    assert first.new_classes == () and first.network[0].startswith("network study: reads 48×48")
    place = f"./first/runs/{first.run(first.results[0].runs[0]).folder}"
    results = run("second", model=place, classes="fer8", source="both", targets=["old"])
    assert results.new_classes == ("contempt",)
    (row, *_) = [row for row in results.summary if row.strategy == "FC"]
    assert sum(row.on_source.test.confusion[7]) == 0 < sum(row.on_source.test.confusion[0])
    third = run("third", model=place, classes="fer8", source="old", targets=["both"])
    page = (tmp_path / "third/runs/report.html").read_text(encoding="utf-8")
    assert "New class contempt: " in page and "has images of them: contempt" in page
    assert "Accuracy on the other classes there:" in page and third.network[1].endswith("neutral")
    for name in ("second", "third"):
        done = CliRunner().invoke(app, ["verify", str(tmp_path / name / "runs")])
        assert done.exit_code == 0, done.output


def test_nothing_is_learnt_from_classes_that_a_network_cannot_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contempt is in the source only: MIX sees the other faces, and measures by them."""
    seen: dict[str, Any] = {}

    def note(model: Classifier, shown: Faces, validation: Any, *rest: Any, **options: Any) -> Any:
        seen.update(shown=shown, validation=validation)
        return train(model, shown, validation, *rest, **options)

    monkeypatch.setattr("crossfer.adaptation.train", note)
    start = deployed()
    source, target = faces(32, 8), faces(14, 7, seed=1)
    sets = {"source": faces(16, 8, seed=2), "target": faces(14, 7, seed=3)}
    training = {"source": source, "target": target}
    machine = Machine.of("cpu", "32-true")
    adapt(STRATEGIES["MIX"], start, start, training, sets, RECIPE, 0, machine)
    assert FER8[7] == "contempt" and start.unknown == ("contempt",)
    for shown in (seen["shown"], seen["validation"]["source"]):
        assert 7 not in shown.labels and not shown.known[:, 7].any() and shown.known[:, :7].all()
    assert len(seen["shown"]) == 28 + 14 and len(seen["validation"]["source"]) == 14

"""Any network: its layers are found, every strategy works on it, what is adapted goes back to its owner."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossfer import standins
from crossfer.adaptation import adapt, untrained
from crossfer.classes import FER7
from crossfer.datasets import Dataset, Preparation, open_dataset, prepare
from crossfer.errors import CrossferError
from crossfer.experiment import (
    Progress,
    check_experiment,
    load_experiment,
    load_results,
    run_experiment,
)
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.opening import check_framing
from crossfer.experiment.plan import Run, plan
from crossfer.framing import Framing
from crossfer.machine import Machine
from crossfer.networks import (
    Classifier,
    NetworkConfig,
    Normalisation,
    Preprocessing,
    check_network,
    load,
    normalise,
    study_cnn,
)
from crossfer.networks.answers import problem_of
from crossfer.networks.flop import training_flop
from crossfer.networks.layers import (
    LAYERS,
    channels_last,
    fully_connected,
    last_convolution,
    last_layer,
    train_only,
    training_mode,
)
from crossfer.report import write_report
from crossfer.strategies import STRATEGIES
from crossfer.training import Faces, Recipe, predict, train
from crossfer.training.split import split_frozen
from tests import tiny_networks
from tests.tiny_networks import Next, Residual, Vision

COLOUR, SMALL, GRAY = (3, 64, 64), (3, 32, 32), (1, 32, 32)
ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "residual": (Residual, COLOUR),
    "transformer": (Vision, GRAY),
    "next": (Next, GRAY),
}
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.01)


def faces(shape: tuple[int, int, int], count: int = 28, seed: int = 0) -> Faces:
    channels, *size = shape
    generator = torch.Generator().manual_seed(seed)
    dimensions = (count, *size) if channels == 1 else (count, *size, channels)
    images = torch.randint(0, 256, dimensions, generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


def tiny(name: str) -> tuple[Classifier, tuple[int, int, int]]:
    build, shape = ZOO[name]
    how = Preprocessing(1 if shape[0] == 1 else 3, shape[1])
    return untrained(lambda: Classifier(build(), preprocessing=how), 0).eval(), shape


def test_the_model_may_be_described_in_a_file_of_its_own(tmp_path: Path) -> None:
    """As for `crossfer predict`; paths are relative to the file that names them."""
    (tmp_path / "models").mkdir()
    keys = "network: study\nweights: old.safetensors\nclasses: [happy, sad]\n"
    (tmp_path / "models" / "deployed.yaml").write_text(keys)
    file = tmp_path / "experiment.yaml"
    file.write_text("{source: a, targets: [b], model: models/deployed.yaml}")
    model = load_experiment(file).model
    assert model.weights_file == tmp_path / "models" / "old.safetensors"
    assert model.classes == ("happy", "sad")
    file.write_text("{source: a, targets: [b], model: nowhere.yaml}")
    with pytest.raises(CrossferError, match=r"nowhere\.yaml: cannot be read"):
        load_experiment(file)


def network(factory: str = "Residual", **changes: Any) -> NetworkConfig:
    told = {"classes": FER7, "normalisation": "per-image"} if "weights" in changes else {}
    given: dict[str, Any] = {"input": COLOUR, **told, **changes}
    return NetworkConfig(network=f"tests.tiny_networks:{factory}", **given)


def test_the_fully_connected_layers_and_the_last_convolution_are_found() -> None:
    residual, vision, convnext = Residual(), Vision(), Next()
    assert fully_connected(residual) == last_layer(residual) == ["head"]
    assert last_convolution(residual) == ["stages.2.conv2", "stages.2.bn2"]
    assert fully_connected(vision) == ["head"]
    block = last_convolution(vision)
    assert block[-1] == "norm" and "blocks.2.self_attn" in block and "blocks.2.linear2" in block
    assert all(name == "norm" or name.startswith("blocks.2.") for name in block)
    assert fully_connected(convnext) == ["fc.0", "fc.2"]
    assert last_convolution(convnext) == ["blocks.1.0", "blocks.1.1"]
    assert fully_connected(Vision(depth=1)) == ["head"]


def test_layers_can_be_named_one_by_one_or_by_what_holds_them() -> None:
    named = network("Vision", input=GRAY, FC=["blocks.2.linear2", "head"], CL=["blocks.1"])
    model = named.build()
    assert model.layer_names("FC") == ["blocks.2.linear2", "head"]
    convolution = [n for n in model.layer_names("all") if n.startswith("blocks.1.")]
    assert model.layer_names("FC+CL") == convolution + model.layer_names("FC")
    assert copy.deepcopy(model).layer_names("FC") == model.layer_names("FC")
    for key, kinds in (("FC", []), ("CL", LAYERS)):
        wrong = network("Vision", input=GRAY, **{key: ("blocks.9",)})
        with pytest.raises(CrossferError, match=rf"model.{key}: .* no layer blocks.9; there are "):
            check_network(wrong, kinds, Machine.of("cpu"))
    convolutional = network("fully_convolutional", input=GRAY)
    with pytest.raises(CrossferError, match="FC trains no layer: .* name its FC layers"):
        check_network(convolutional, ["FC"], Machine.of("cpu"))
    named = network("fully_convolutional", input=GRAY, FC=("5",), CL=("3",))
    check_network(named, LAYERS, Machine.of("cpu"))


@pytest.mark.parametrize(
    ("strategy", "factory", "lacks"),
    [
        ("T3A", "fully_convolutional", "T3A: needs the network's last linear layer"),
        ("ER-50-herding", "fully_convolutional", "ER-50-herding: needs the network's last"),
        ("SLDA", "fully_convolutional", "SLDA: needs the network's last linear layer"),
        ("AdaBN", "Vision", "AdaBN: the network has no batch normalisation"),
        (
            "T3A",
            "scaled",
            "T3A: .* last layer 1 does not give its outputs.* name the one that does",
        ),
        ("RIDGE", "scaled", "RIDGE: .* last layer 1 does not give its outputs"),
        ("T3A", "cosine", "T3A: its last layer head is no plain torch.nn.Linear"),
        ("RIDGE", "weight_normalised", "RIDGE: its last layer head is no plain torch.nn.Linear"),
        ("ER-50-herding", "read_head", "ER-50-herding: the network has head, but does not call it"),
        ("LoRA-8", "fully_convolutional", "LoRA-8: the network has no linear layer"),
        ("LoRA-8", "Residual", "LoRA-8: no trained linear layer is larger than an adapter"),
    ],
)
def test_what_a_strategy_needs_untrained_is_checked_before_anything_runs(
    strategy: str, factory: str, lacks: str, data: Path, tmp_path: Path
) -> None:
    model: dict[str, Any] = {"network": f"tests.tiny_networks:{factory}", "input": GRAY}
    if factory in ("Residual", "cosine", "weight_normalised", "read_head"):
        model["arguments"] = {"channels": 1}
    content = {"name": "x", "source": "fer2013", "targets": ["jaffe"], "data": data}
    experiment = check_experiment(content | {"model": model, "strategies": [strategy]})
    with pytest.raises(CrossferError, match=lacks):
        run_experiment(experiment, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("strategy", ["FC", "FC+CL", "RE"])
def test_what_is_frozen_stays_bit_for_bit_in_any_network(name: str, strategy: str) -> None:
    deployed, shape = tiny(name)
    before = {key: value.clone() for key, value in deployed.state_dict().items()}
    sides = {"target": faces(shape)}
    recipe = Recipe(epochs=1, batch_size=8, views=1)
    trained = adapt(
        STRATEGIES[strategy],
        deployed,
        deployed,
        sides,
        sides,
        recipe,
        0,
        Machine.of("cpu"),
        keep="last",
    )
    layers = {f"network.{n}".rstrip(".") for n in deployed.layer_names(STRATEGIES[strategy].layers)}
    learns = {
        f"{layer}.{name}"
        for layer in layers
        for name, _ in deployed.get_submodule(layer).named_parameters(recurse=False)
    }
    for key, value in trained.model.state_dict().items():
        layer = key.rpartition(".")[0]
        if key in {n.lstrip(".") for n in learns}:
            assert not torch.equal(value, before[key]), key
        elif layer not in layers:
            assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    "strategy", ["LwF", "L2-SP", "EWC", "WiSE-FT", "ER-50-herding", "MIX+WiSE"]
)
def test_every_kind_of_memory_works_on_any_network(name: str, strategy: str) -> None:
    deployed, shape = tiny(name)
    sides = {"source": faces(shape, 21, 1), "target": faces(shape, 14, 2)}
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.01)
    trained = adapt(
        STRATEGIES[strategy], deployed, deployed, sides, sides, recipe, 0, Machine.of("cpu")
    )
    answers = predict(trained.model, sides["target"].images, Machine.of("cpu"))
    assert answers.shape == (14, 7) and bool(answers.isfinite().all())


def test_dropout_and_statistics_of_frozen_parts_rest_inside_other_modules_too() -> None:
    model = Vision()
    train_only(model, ["head"])
    training_mode(model)
    assert not any(m.training for block in model.blocks for m in block.modules())
    train_only(model, last_convolution(model) + fully_connected(model))
    training_mode(model)
    last, *_, first = reversed(model.blocks)
    assert all(m.training for m in last.modules()) and not any(m.training for m in first.modules())


def test_a_network_that_flattens_with_view_is_trained_in_the_layout_it_knows() -> None:
    images = normalise(faces(COLOUR, 2).images)
    assert channels_last(Residual(), images).get_parameter("stem.0.weight").is_contiguous()
    study = channels_last(study_cnn(0.1), torch.zeros(2, 1, 48, 48))
    assert not study.get_parameter("conv5.weight").is_contiguous()


def test_a_network_with_group_norm_adapts_its_normalisations() -> None:
    """In channels-last layout PyTorch ends the process: the first one's input needs no gradient."""

    def grouped() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3),
            nn.GroupNorm(2, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7),
        )  # fmt: skip

    how = Preprocessing(3, 32)
    start, sides = (
        untrained(lambda: Classifier(grouped(), preprocessing=how), 0),
        {"target": faces(COLOUR)},
    )
    before = start.get_parameter("network.1.weight").clone()
    recipe = Recipe(epochs=1, batch_size=8)
    adapted = adapt(STRATEGIES["TENT"], start, start, sides, {}, recipe, 0, Machine.of("cpu"))
    assert not torch.equal(adapted.model.get_parameter("network.1.weight"), before)
    shown = torch.zeros(2, 3, 32, 32)
    assert not channels_last(start, shown).get_parameter("network.0.weight").is_contiguous()


class Dropping(Residual):
    """Drops features by a function, and has statistics of the batch among them."""

    def forward(self, images: Tensor) -> Tensor:
        found = self.pool(self.stages(self.stem(images))).flatten(1)
        return self.head(nn.functional.dropout(found - found.mean(0), 0.5, self.training))


class Tied(Residual):
    """Uses its head's weight before its head."""

    def forward(self, images: Tensor) -> Tensor:
        found = self.pool(self.stages(self.stem(images))).flatten(1)
        return self.head(found * self.head.weight.mean())


class Written(nn.Module):
    """A network as in many a tutorial: functions between modules, one pooling in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)
        self.fc1, self.fc2 = nn.Linear(144, 10), nn.Linear(10, 7)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.conv1(images).relu())
        x = self.pool(self.conv2(x).relu())
        x = nn.functional.dropout(self.fc1(x.view(x.size(0), -1)).relu(), 0.3, self.training)
        return self.fc2(x)


CUT_AT: list[tuple[nn.Module, str, str, bool]] = [
    (Residual(), "head", "head", True),
    (Residual(), "FC+CL", "stages.2", False),
    (Vision(3), "FC", "head", True),
    (Vision(3), "FC+CL", "blocks.2", False),
    (tiny_networks.wrapped(), "FC+CL", "backbone.stages.2", False),
    (
        tiny_networks.Averaging(),
        "FC",
        "head",
        False,
    ),  # its answers, not its features, are of the batch
    (Dropping(), "FC", "pool", False),  # what the head is given is of the batch, and by chance
    (Tied(), "FC", "pool", False),  # what the head is given depends on what trains
    (Written(), "FC", "fc1", False),
    (Written(), "FC+CL", "conv2", False),
]


@pytest.mark.parametrize(("network", "trained", "layer", "is_plain"), CUT_AT)
def test_any_network_is_cut_and_trained_to_the_same_weights(
    network: nn.Module, trained: str, layer: str, is_plain: bool
) -> None:
    """A plain sequence is left where nothing but layers follows; otherwise the network's own code runs."""
    how, machine = Preprocessing(3, 32), Machine.of("cpu", "32-true")
    model = untrained(lambda: Classifier(network, preprocessing=how), 0).eval()
    model.train_only(trained)
    before = copy.deepcopy(model.state_dict())
    shown, sides = faces(SMALL, 14), {"target": faces(SMALL, 9, 1)}
    split = split_frozen(model, shown.images)
    assert split and split.layer == layer
    assert (type(split.rest.network) is nn.Sequential) == is_plain
    images = normalise(shown.images, how)
    assert torch.equal(split.rest.eval()(split.frozen(images)), model(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    recipe = Recipe(epochs=3, batch_size=7, learning_rate=0.01, views=2, averaging=0.5)
    cached = train(model, shown, sides, recipe, 0, machine, keep="last")
    anew = train(model, shown, sides, recipe, 0, machine, keep="last", reuse=False)
    assert cached.cached and not anew.cached
    for name, tensor in cached.model.state_dict().items():
        assert torch.allclose(tensor.float(), anew.model.state_dict()[name].float(), atol=1e-5), (
            name
        )
    changed = {n for n, t in anew.model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed and all(n in split.rest.state_dict() for n in changed)


@pytest.mark.parametrize("network", [Residual(), Vision(3)])
def test_frozen_parts_of_any_network_see_each_version_of_an_image_once(network: nn.Module) -> None:
    seen = 0

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(given[0]) if len(given[0]) > 3 else 0  # on three at most a cut is tried

    model = Classifier(network, preprocessing=Preprocessing(3, 32)).eval()
    model.train_only("FC+CL")
    next(network.children()).register_forward_pre_hook(count)
    recipe = Recipe(epochs=6, batch_size=7, learning_rate=0.01, views=2)
    sides = {"target": faces(SMALL, 9, 1)}
    train(model, faces(SMALL, 14), sides, recipe, 0, Machine.of("cpu"))
    assert seen == 2 * 14 + 9


def test_a_network_that_cannot_be_cut_trains_as_a_whole() -> None:
    """Its answers follow from more than any one module is given."""

    class Twofold(Residual):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + images.mean((1, 2, 3))[:, None]

    model = Classifier(Twofold(), preprocessing=Preprocessing(3, 32)).eval()
    model.train_only("FC")
    shown = faces(SMALL, 14)
    assert split_frozen(model, shown.images) is None
    assert not train(model, shown, {}, RECIPE, 0, Machine.of("cpu"), keep="last").cached


def test_the_parts_keep_the_conventions_of_the_whole() -> None:
    model = NetworkConfig(width=0.1, classes=tuple(reversed(FER7))).build().eval()
    model.train_only("FC")
    images = torch.randn(2, 1, 48, 48)
    split = split_frozen(model, images)
    assert split and torch.equal(split.rest(split.frozen(images)), model(images))


@pytest.mark.parametrize("name", ZOO)
def test_the_work_of_any_network_is_counted(name: str) -> None:
    model, shape = tiny(name)
    whole = training_flop(model, shape)
    model.train_only("head")
    assert 0 < training_flop(model, shape) < whole


def test_work_is_counted_where_the_network_makes_tensors_of_its_own() -> None:
    class Sinus(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            scale = (
                torch.arange(4, dtype=torch.float32).max().item()
            )  # no number on the meta device
            return super().forward(images.flatten(1) * scale)

    assert training_flop(Sinus(16, 7), (1, 4, 4)) == 2 * 2 * 16 * 7


def test_its_own_order_of_classes_and_its_own_normalisation_are_respected() -> None:
    """Contempt, which is none of the seven, is never the answer."""
    theirs = ("neutral", "Happiness", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    how = Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    told = network(arguments={"outputs": 8}, classes=theirs, normalisation=how)
    model, shown, machine = (
        untrained(told.build, 0).eval(),
        faces(COLOUR, 5),
        Machine.of("cpu", "32-true"),
    )
    alone = Residual(outputs=8).eval()
    alone.load_state_dict(model.network.state_dict())
    pixels = shown.images.permute(0, 3, 1, 2) / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (how.mean, how.deviation))
    with torch.no_grad():
        logits = alone(((pixels - mean) / deviation).contiguous())
    expected = logits[:, [6, 5, 4, 1, 2, 3, 0]].softmax(1)
    assert torch.allclose(predict(model, shown.images, machine), expected, atol=1e-5)
    trained = train(model, shown, {}, RECIPE, 0, machine, keep="last").model
    assert (trained.outputs, trained.preprocessing) == (model.outputs, model.preprocessing)
    alone.load_state_dict(trained.network.state_dict())


def test_colours_are_standardised_together() -> None:
    shown = normalise(faces(COLOUR, 3).images)
    assert shown.shape == (3, 3, 64, 64)
    assert torch.allclose(shown.mean((1, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(shown.std((1, 2, 3), correction=0), torch.ones(3), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "nets.tiny"}, "or package.module:function"),
        ({"width": 0.5}, "width: only for the study's network"),
        (
            {"network": "study", "arguments": {"a": 1}, "input": (1, 48, 48)},
            "arguments: .*name another network",
        ),
        ({"input": (2, 48, 48)}, "input: channels"),
        ({"input": (3, 48, 64)}, "input: channels"),
        ({"classes": (*FER7, "happy")}, "classes: happy is listed twice"),
        ({"classes": (*FER7, "joy")}, "happy and joy are spellings of happy; write joy 2"),
        ({"normalisation": Normalisation((0.5,), (0.5,))}, "each of 3 channels"),
        ({"arguments": {"a": object()}}, "arguments: only strings"),
        ({"network": "caffe:x y"}, "write study, timm:NAME, .* or package.module:function"),
        ({"weights": Path("w.pt")}, "classes: missing; list the classes"),
        ({"weights": Path("as-built"), "classes": FER7}, "normalisation: missing.*or per-image"),
        ({"network": "onnx:x.onnx"}, "classes: missing"),
        ({"network": "timm:resnet18", "weights": Path("w.pt")}, "classes: missing"),
        ({"expect": 0.6}, "expect: only for a deployed network"),
        (
            {"weights": Path("w"), "classes": FER7, "normalisation": "per-image", "expect": 58.0},
            "expect: must be a fraction",
        ),
        ({"framing": []}, r"framing: \[\]: write a mapping"),
    ],
)
def test_a_network_that_makes_no_sense_says_so(changes: dict[str, Any], words: str) -> None:
    content: dict[str, Any] = {"network": "nets:tiny", "input": COLOUR} | changes
    with pytest.raises(ValueError, match=words):
        NetworkConfig(**content)


def test_a_framing_without_keys_is_none_and_one_that_is_no_number_is_refused() -> None:
    assert network(framing={}).framed is None
    for value in ("0.4", None, True):
        wrong = network(framing={"eye_distance": value})
        with pytest.raises(CrossferError, match=f"eye_distance is {value!r}: must be a number"):
            wrong.build()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (network("missing"), "model.network: tests.tiny_networks:missing failed: AttributeError"),
        (NetworkConfig(network="no_such:module"), "model.network: .*no module no_such on Python"),
        (network("no_network"), "returns str, not a torch.nn.Module"),
        (network(arguments={"depth": 3}), "failed: TypeError.*depth"),
        (network(arguments={"outputs": 8}), r"returns \(2, 8\) for two faces, not \(2, 7\)"),
        (network(input=GRAY), "model.input: .* fails on faces of 1×32×32: RuntimeError"),
        (network("softmaxed", input=GRAY), "returns probabilities"),
        (
            network("patched"),
            "does not change its results: a copy still uses the original's layers",
        ),
        (network("body_without_gradient"), r"no gradient reaches all \(stem.0.weight, stem.0.bias"),
        (network("blind_head"), r"no gradient reaches all \(head.weight\)"),
    ],
)
def test_what_does_not_work_is_found_before_anything_runs(wrong: NetworkConfig, words: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(CrossferError, match=words) as error:
        check_network(wrong, ["all"], Machine.of("cpu"))
    assert "\n" not in str(error.value)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("damaged", ["head.bias", "stem.1.running_var"])
def test_a_deployed_network_that_answers_nan_is_refused(damaged: str, tmp_path: Path) -> None:
    """A running statistic is used where networks are measured, and only there."""
    state = untrained(Residual, 0).state_dict()
    state[damaged][0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CrossferError, match=r"^model.weights: .* returns NaN.*damaged"):
        check_network(network(weights=tmp_path / "w.safetensors"), ["all"], Machine.of("cpu"))


def test_wherever_a_network_is_deployed_it_must_answer_with_logits() -> None:
    """A second softmax would make all its answers uncertain, and nobody would notice."""
    for source, problem in (
        ("softmaxed", "returns probabilities"),
        ("Residual", "fails on faces of"),
    ):
        with pytest.raises(CrossferError, match=problem):
            network(source, weights="as-built", input=GRAY).deployed()


@pytest.mark.parametrize(
    ("shape", "answers", "words"),
    [
        ((2, 7, 1, 1), 7, r"have it flatten them: \.flatten\(1\)"),
        ((2, 1, 7), 7, r"have it flatten them: \.flatten\(1\)"),
        ((2, 1), 2, r"for one logit x return two, torch\.cat\(\[torch\.zeros_like\(x\), x\], 1\)"),
        ((2,), 7, "not the most probable class"),
        ((2, 8), 7, "list its 8 outputs in model.classes"),
        ((2, 8, 8), 7, "one row of logits for a face"),
    ],
)
def test_logits_of_another_shape_say_what_to_do(
    shape: tuple[int, ...], answers: int, words: str
) -> None:
    problem = problem_of(torch.randn(shape), answers)
    assert problem and str(shape) in problem and re.search(words, problem)


def test_percentages_are_no_logits() -> None:
    logits = torch.randn(2, 7)
    assert problem_of(logits, 7) is None
    assert "probabilities" in (problem_of(100 * logits.softmax(1), 7) or "")


def test_a_network_that_mixes_faces_is_refused() -> None:
    with pytest.raises(CrossferError, match="a face another result alone than in a batch"):
        check_network(network("averaging"), ["FC"], Machine.of("cpu"))


def test_layers_that_are_the_same_have_one_name() -> None:
    """So that strategies which train the same layers alike are one run."""
    one_head, two = network("Residual"), network("Next", input=(1, 32, 32))
    same = {kind: one_head.same_layers(kind) for kind in LAYERS}
    assert same == {kind: "head" if kind == "FC" else kind for kind in LAYERS}
    assert [two.same_layers(kind) for kind in LAYERS] == list(LAYERS)
    assert NetworkConfig().same_layers("FC") == "FC"


def test_a_mean_beyond_white_is_refused() -> None:
    with pytest.raises(ValueError, match="set white: 255 if mean and deviation refer to bytes"):
        Normalisation((127.5,), (127.5,))
    Normalisation((127.5,), (127.5,), white=255)


def test_what_would_train_is_said_and_an_idle_head_is_no_head() -> None:
    """An auxiliary head that takes no part in the answer may rest, unless it is taken for the head."""
    said = check_network(network("with_an_idle_head"), ["all"], Machine.of("cpu"))
    assert said[0].startswith(
        "network tests.tiny_networks:with_an_idle_head: reads 64×64 RGB, each"
    )
    with pytest.raises(CrossferError, match=r"no gradient reaches FC \(idle.weight, idle.bias\)"):
        check_network(network("with_an_idle_head"), ["FC"], Machine.of("cpu"))
    named = network("with_an_idle_head", FC=("head",))
    lines = check_network(named, ["FC", "head", "FC+CL"], Machine.of("cpu"))
    assert lines.pop(2).startswith(
        "weights: BL is trained on the source, starting from the network's own"
    )
    assert lines[2] == "FC and head, the same layers, train head: 455 parameters"
    assert lines[3].startswith("FC+CL trains stages.2.conv2, stages.2.bn2, head: ")
    said = check_network(network("with_features"), ["none"], Machine.of("cpu"))
    assert said[1].endswith("neutral (its [1])")
    fewer = network("Residual", arguments={"outputs": 3}, classes=("happy", "sad", "angry"))
    said = check_network(fewer, ["all"], Machine.of("cpu"))
    assert said[1:3] == [
        "answers with happy, sad, angry",
        "new classes, where a target has images of them: disgust, fear, surprise, neutral",
    ]


def test_on_a_cpu_no_gpu_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: Any) -> None:
        raise AssertionError("its generator is none of ours")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_rng_state", touched)
    check_network(network(), ["all"], Machine.of("cpu"))


def test_weights_are_read_from_whatever_a_training_script_left(tmp_path: Path) -> None:
    trained = untrained(Residual, 3)
    state = trained.state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    lightning = {f"model._orig_mod.{name}": tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"epoch": 3, "model": parallel, "optimizer": {}}, tmp_path / "parallel.pth")
    torch.save({"state_dict": lightning, "epoch": 3}, tmp_path / "lightning.ckpt")
    torch.save({"net": state, "acc": 71.4, "epoch": 9}, tmp_path / "net.pth")
    torch.save({"model_state": {"weights": state}}, tmp_path / "deep.pth")
    beside = {f"model.net.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": beside | {"loss.weight": torch.ones(7)}}, tmp_path / "loss.ckpt")
    for file in tmp_path.iterdir():
        model = network(weights=file).deployed()
        assert all(torch.equal(v, state[k]) for k, v in model.network.state_dict().items()), file


def test_of_several_weights_the_running_mean_is_taken_or_the_user_is_asked(tmp_path: Path) -> None:
    raw, mean = (untrained(Residual, seed).state_dict() for seed in (1, 2))
    file = tmp_path / "both.pth"
    torch.save({"state_dict": raw, "state_dict_ema": mean, "optimizer": {"state": {}}}, file)
    model, said = network(weights=file).deployed_and_said()
    assert torch.equal(model.network.get_parameter("head.weight"), mean["head.weight"])
    line = "weights: using state_dict_ema, the EMA; weights_key: state_dict uses the others"
    assert said == [line]
    model = network(weights=file, weights_key="state_dict").deployed()
    assert torch.equal(model.network.get_parameter("head.weight"), raw["head.weight"])
    both = {
        f"{who}.{n}": t for who, s in (("teacher", raw), ("student", mean)) for n, t in s.items()
    }
    torch.save(both, file)
    with pytest.raises(
        CrossferError, match=r"several sets of weights that fit \(student., teacher."
    ):
        network(weights=file).deployed()
    model = network(weights=file, weights_key="teacher.").deployed()
    assert torch.equal(model.network.get_parameter("head.weight"), raw["head.weight"])
    torch.save({"nets": both, "epoch": 3}, file)
    with pytest.raises(CrossferError, match=r"that fit \(nets.student., nets.teacher."):
        network(weights=file).deployed()
    model = network(weights=file, weights_key="nets.teacher.").deployed()
    assert torch.equal(model.network.get_parameter("head.weight"), raw["head.weight"])


@pytest.mark.parametrize("name", ["", "wrapped"])
def test_a_key_that_the_file_of_weights_lacks_is_refused(name: str, tmp_path: Path) -> None:
    """Also where the network's names have a prefix that the file's lack."""
    file = tmp_path / "w.pt"
    torch.save({"model": untrained(Residual, 1).state_dict()}, file)
    where = (name,) if name else ()
    with pytest.raises(CrossferError, match="weights_key: .*no such key 'ema'; there are model$"):
        network(*where, weights=file, weights_key="ema").deployed()
    network(*where, weights=file, weights_key="model").deployed()


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    save_file(untrained(Residual, 4).state_dict(), tmp_path / "model.bin")
    read = network(weights=tmp_path / "model.bin").deployed().network.state_dict()
    assert all(torch.equal(read[k], v) for k, v in untrained(Residual, 4).state_dict().items())


def test_a_prefix_that_the_file_lacks_is_added(tmp_path: Path) -> None:
    inner = untrained(Residual, 4).state_dict()
    save_file(inner, tmp_path / "w.safetensors")
    model = network("wrapped", weights=tmp_path / "w.safetensors").deployed().network
    assert torch.equal(model.get_parameter("backbone.head.bias"), inner["head.bias"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.pt", b"", "is empty"),
        (
            "w.pth",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "Git LFS pointer",
        ),
        ("w.pt", b"\x89HDF\r\n\x1a\n", "holds a Keras model"),
        ("w.bin", b"\x1c\x00\x00\x00TFL3", "is a TensorFlow Lite model"),
        ("w.onnx", b"\x08\x07", "is an ONNX model; write model: onnx:w.onnx"),
        ("w.pt", b"<!DOCTYPE html><html>", "is a web page"),
    ],
)
def test_a_foreign_file_is_named_as_what_it_is(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CrossferError, match=words):
        network(weights=tmp_path / name).deployed()


def test_weights_of_other_names_show_both(tmp_path: Path) -> None:
    renamed = {name.replace("stages", "layers"): t for name, t in Residual().state_dict().items()}
    save_file(renamed, tmp_path / "w.safetensors")
    words = (
        r"its names are .*; the network's are stem.0.weight, stem.0.bias, stem.1.weight, … \(\d+\)"
    )
    with pytest.raises(CrossferError, match=words):
        network(weights=tmp_path / "w.safetensors").deployed()


def test_weights_that_a_factory_brings_are_deployed_as_built() -> None:
    built = network(weights=Path("as-built"), arguments={"width": 4})
    assert built.is_deployed and len(built.weights_digest) == 64
    assert built.weights_digest != network(weights=Path("as-built")).weights_digest
    eyes = network(
        weights=Path("as-built"), arguments={"width": 4, "outputs": 2}, classes=("open", "closed")
    )
    assert len(eyes.weights_digest) == 64 and eyes.same_layers("FC") == "head", "of any classes"


def test_weights_that_do_not_fit_or_could_run_code_are_refused(tmp_path: Path) -> None:
    def said(weights: Path, **changes: Any) -> str:
        with pytest.raises(CrossferError) as error:
            check_network(network(weights=weights, **changes), [], Machine.of("cpu"))
        assert str(error.value).startswith(f"model.weights: {weights}: ")
        return str(error.value)

    program = torch.export.export(nn.Linear(1, 1), (torch.zeros(1, 1),))
    torch.export.save(program, tmp_path / "program.pt2")
    assert "is a program of torch.export" in said(tmp_path / "program.pt2")
    save_file(Residual().state_dict(), tmp_path / "w.safetensors")
    assert "size mismatch for stem.0.weight" in said(
        tmp_path / "w.safetensors", arguments={"width": 4}
    )
    assert "no such file" in said(tmp_path / "none.safetensors")
    assert "no such file" in said(tmp_path / "none.pt")
    torch.save(Residual(), tmp_path / "whole.pt")
    assert "not a file of tensors only" in said(tmp_path / "whole.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    assert "cannot be read" in said(tmp_path / "torn.safetensors")
    (tmp_path / "torn.pt").write_bytes(b"torn")
    assert "not a file of tensors only" in said(tmp_path / "torn.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "no state dictionary" in said(tmp_path / "list.pt")


class Heard(Progress):
    images = 0

    def step(self, run: Run, images: int) -> None:
        self.images += images


@pytest.fixture(scope="module")
def owner(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of somebody with a deployed network: its code, its weights, a configuration."""
    folder = tmp_path_factory.mktemp("owner")
    code = Path(tiny_networks.__file__).read_text(encoding="utf-8")
    (folder / "their_networks.py").write_text(code, encoding="utf-8")
    torch.save({"state_dict": untrained(Residual, 5).state_dict()}, folder / "deployed.pth")
    (folder / "experiment.yaml").write_text(
        f"""
data: {raw}
source: fer2013
targets: [{{path: jaffe, faces: cropped}}]
strategies: [FC, FC+CL, LwF, WiSE-FT]
fractions: [1.0]
model:
  network: their_networks:Residual
  arguments: {{width: 8}}
  weights: deployed.pth
  input: [3, 32, 32]
  normalisation: {{mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225]}}
  classes: [neutral, happy, sad, surprise, fear, disgust, anger]
  framing: {{eye_distance: 0.3, eye_height: 0.35}}
recipes:
  default: {{epochs: 1, batch_size: 16}}
precision: 32-true
""",
        encoding="utf-8",
    )
    return folder


def assert_as_recorded(run: Path, datasets: Path) -> None:
    """The documented way to load a result gives what was measured."""
    table = pa.parquet.read_table(run / "predictions.parquet")
    classifier = load(run)
    recorded = np.column_stack([table.column(name).to_numpy() for name in classifier.classes])
    fingerprints = table.column("fingerprint").to_numpy(zero_copy_only=False)
    for folder in datasets.iterdir():
        dataset = open_dataset(folder)
        of_it = fingerprints == dataset.fingerprint
        faces = dataset.images[table.column("row").to_numpy()[of_it]]
        assert np.allclose(classifier.predict(faces), recorded[of_it], atol=1e-5)


def test_a_deployed_network_is_adapted_and_goes_back_to_its_owner(
    owner: Path, tmp_path: Path
) -> None:
    """From code and weights beside a configuration to a report, and weights that its factory loads."""
    experiment, heard = load_experiment(owner / "experiment.yaml"), Heard()
    results = run_experiment(experiment, tmp_path / "out", heard)
    report = write_report(results, tmp_path / "out").read_text(encoding="utf-8")
    assert "their_networks:Residual(width=8); the old model is deployed" in report
    runs = {(run.strategy, run.seed): run for run in results.runs}
    assert len(runs) == 6  # RE too, which WiSE-FT starts from
    deployed = untrained(Residual, 5).state_dict()
    for (name, _), run in runs.items():
        weights = load_file(tmp_path / "out" / run.folder / "model.safetensors")
        mine = Residual(width=8)
        mine.load_state_dict(weights)
        # The source was cropped by somebody else, so that only the user knows the framing.
        assert load(tmp_path / "out" / run.folder).framing == Framing(32, 3, 0.3, 0.35)
        if name == "BL":
            assert all(torch.equal(weights[key], deployed[key]) for key in deployed)
            assert run.cost.images_seen == run.cost.flop == run.training_images == 0
            assert "recipe" not in run.identity  # the source is: it is remembered there
            arguments = run.identity["network"] | {"weights": run.identity["weights"]}
            assert arguments["network"] == "their_networks:Residual"
            assert arguments["arguments"] == {"width": 8} and len(arguments["weights"]) == 64
        elif name == "FC":
            changed = [key for key in deployed if not torch.equal(weights[key], deployed[key])]
            assert changed == ["head.weight", "head.bias"]
    for run in results.runs:
        assert_as_recorded(tmp_path / "out" / run.folder, tmp_path / "out/datasets")
    shown = {row.strategy for row in results.summary}
    assert shown == {"BL", "FC", "FC+CL", "LwF", "RE", "WiSE-FT"}
    assert load_results(tmp_path / "out") == results
    heard.images = 0
    assert run_experiment(experiment, tmp_path / "out", heard).summary == results.summary
    assert heard.images == 0


def test_other_weights_are_another_baseline_and_a_new_network_is_another_run(
    owner: Path, raw: Path, tmp_path: Path
) -> None:
    def keys(**changes: Any) -> list[str]:
        model = {"network": "their_networks:Residual", "folder": owner, "input": (3, 32, 32)}
        model |= {"classes": FER7, "normalisation": "per-image"}
        content = {"name": "x", "source": "a", "targets": ["b"], "fractions": [1.0]}
        experiment = check_experiment(content | {"model": model | changes})
        return [run.key for run in plan(experiment, source, [target], Arithmetic("cpu", "32-true"))]

    how = Preparation(channels=3, side=32, faces="cropped")
    source, target = (prepare(raw / n, tmp_path / n, how) for n in ("fer2013", "jaffe"))
    trained, deployed = keys(), keys(weights="deployed.pth")
    assert trained[4] == deployed[4], "FU starts at random: no weights enter it"
    assert not set(trained[:4]) & set(deployed[:4])
    save_file(untrained(Residual, 6).state_dict(), tmp_path / "other.safetensors")
    others = keys(weights=tmp_path / "other.safetensors")
    assert not set(others[:4]) & set(deployed[:4])
    assert not set(keys(arguments={"width": 4})) & set(trained)


def test_faces_that_the_network_does_not_read_are_refused(
    owner: Path, raw: Path, tmp_path: Path
) -> None:
    prepare(raw / "jaffe", tmp_path / "gray", Preparation(faces="cropped"))
    changes = {"data": raw, "targets": [tmp_path / "gray"]}
    content = load_experiment(owner / "experiment.yaml").model_dump(by_alias=True)
    with pytest.raises(
        CrossferError, match=r"48×48, but model.input reads 32×32×3.*--side 32 --colour"
    ):
        run_experiment(check_experiment(content | changes), tmp_path / "out")


def test_a_source_framed_otherwise_than_the_user_says_is_refused(
    prepared: dict[str, Dataset],
) -> None:
    source = prepared["mug"]
    assert source.card["faces"]["mode"] == "find"
    check_framing(network(input=None), source)
    check_framing(network(framing={"eye_distance": 0.42}), source)
    with pytest.raises(
        CrossferError, match="eyes are at 0.3,0.42 .* prepare it with --eyes 0.3,0.42"
    ):
        check_framing(network(framing={"eye_distance": 0.3}), source)


def test_a_source_may_be_there_for_measuring_alone(owner: Path, raw: Path, tmp_path: Path) -> None:
    """A deployed network, new photographs, and a few old ones to see what it forgets."""
    content = load_experiment(owner / "experiment.yaml").model_dump(by_alias=True)
    changes = {
        "source": {"path": raw / "jaffe", "name": "old", "faces": "cropped", "sizes": (0, 40, 60)},
        "targets": [{"path": raw / "jaffe", "faces": "cropped", "seed": 1}],
        "strategies": ["FC"],
        "seeds": [0],
    }
    results = run_experiment(check_experiment(content | changes), tmp_path / "out")
    assert sum(results.datasets[0].counts["training"].values()) == 0
    assert [row.strategy for row in results.summary] == ["BL", "FC"]
    with pytest.raises(CrossferError, match="its training set is empty"):
        run_experiment(
            check_experiment(content | changes | {"strategies": ["WF"]}), tmp_path / "other"
        )
    changes["source"] = changes["source"] | {"sizes": (0, 0, 100)}
    with pytest.raises(CrossferError, match=r"validation set is empty; .* --sizes 0,20,80, since"):
        run_experiment(check_experiment(content | changes), tmp_path / "tested")


def test_stand_ins_in_colour_reach_a_network_in_colour(tmp_path: Path) -> None:
    standins.write("tfeid", tmp_path / "tfeid", images=7)
    dataset = prepare(tmp_path / "tfeid", tmp_path / "out", Preparation(channels=3, side=64))
    assert dataset.images.shape[1:] == network().preprocessing.image_shape
    assert (dataset.images[..., 0] != dataset.images[..., 2]).any()

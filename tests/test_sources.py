"""Networks of the usual libraries: found, read as their own configuration says, trained, and kept."""

from __future__ import annotations

import copy
import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from crossfer.adaptation import adapt, untrained
from crossfer.classes import FER7, FER8, ClassSet
from crossfer.deploy.export import export as exported
from crossfer.deploy.models import Model, open_model
from crossfer.errors import CrossferError
from crossfer.experiment import load_experiment
from crossfer.external_data import AT_ONCE, digest_of, files_of
from crossfer.files import digest
from crossfer.machine import Machine
from crossfer.memory import statistics
from crossfer.memory.file import Memory
from crossfer.networks import (
    LAYERS,
    Classifier,
    NetworkConfig,
    Normalisation,
    Preprocessing,
    Spec,
    check_network,
    load,
    normalise,
)
from crossfer.networks.config import outputs_by_class
from crossfer.strategies import STRATEGIES
from crossfer.training import Faces, Recipe
from crossfer.training.cut import cut_of
from tests import tiny_onnx
from tests.commands import crossfer, refused
from tests.tiny_networks import Residual

FAMILIES = {
    "ResNet": "resnet18",
    "EfficientNet": "efficientnet_b0",
    "MobileNet": "mobilenetv3_small_050",
    "ConvNeXt": "convnext_atto",
    "ViT": "vit_tiny_patch16_224",
    "Swin": "swin_tiny_patch4_window7_224",
}
STUDYS = ("none", "head", "FC", "FC+CL", "all")
"""Layers that every network has; normalisations, some have none."""
DOCS = Path(__file__).parent.parent / "docs/networks.md"
GRAY = (1, 32, 32)


def needs(*names: str) -> None:
    from crossfer.networks.hubs import library

    for name in names:
        try:
            library(name)
        except CrossferError as error:
            pytest.skip(str(error))


def round_trip(config: NetworkConfig, folder: Path) -> Classifier:
    """Save and load; the same bits come back, without the source's own weights."""
    before = untrained(config.build, 1).eval()
    after = load(before.save(folder))
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (2, *before.preprocessing.image_shape), np.uint8)
    assert np.array_equal(after.predict(shown), before.predict(shown))
    return after


def table() -> str:
    """Return the table of docs/networks.md: what FC and CL are in each family."""
    rows = ["| | `model:` | Input | FC | CL |", "|---|---|---|---|---|"]
    for family, name in FAMILIES.items():
        model = NetworkConfig(network=f"timm:{name}").build()
        dense = model.layer_names("FC")
        last = [layer for layer in model.layer_names("FC+CL") if layer not in dense]
        block = re.match(r"(.*blocks\.\d+)\.", last[0])
        if block and all(layer.startswith(f"{block[1]}.") for layer in last[:-1]) and len(last) > 2:
            last = [f"{block[1]} (the block)", last[-1]]
        side = model.preprocessing.side
        cells = [", ".join(f"`{layer}`" for layer in part) for part in (dense, last)]
        cells[1] = cells[1].replace(" (the block)`", "` (the block)")
        rows.append(f"| {family} | `timm:{name}` | {side}×{side} | {' | '.join(cells)} |")
    return "\n".join(rows)


def test_the_layers_of_every_family_of_timm_are_as_documented() -> None:
    needs("timm")
    assert table() in DOCS.read_text(encoding="utf-8"), table()


def test_a_network_of_timm_reads_pixels_as_it_was_trained_and_comes_back(tmp_path: Path) -> None:
    needs("timm")
    config = NetworkConfig(network="timm:resnet10t", input=(3, 32, 32))
    how = config.preprocessing
    assert how.mean == (0.485, 0.456, 0.406) and how.input_shape == (3, 32, 32)
    said = check_network(config, LAYERS, Machine.of("cpu"))
    assert said[0] == (
        "network timm:resnet10t: reads 32×32 RGB, mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225"
    )
    assert "head and FC, the same layers, train fc: 3,591 parameters" in said
    assert round_trip(config, tmp_path).spec is not None
    gray = NetworkConfig(network="timm:resnet10t", input=GRAY, normalisation="per-image")
    assert gray.build(FER8)(torch.zeros(2, 1, 32, 32)).shape == (2, 8)
    with pytest.raises(CrossferError, match="timm:no_such failed: RuntimeError: Unknown model"):
        NetworkConfig(network="timm:no_such").build()


def test_a_network_of_torchvision_too(tmp_path: Path) -> None:
    needs("torchvision")
    config = NetworkConfig(network="torchvision:mobilenet_v3_small", input=(3, 32, 32))
    assert config.preprocessing.deviation == (0.229, 0.224, 0.225)
    model = round_trip(config, tmp_path)
    assert model.layer_names("FC") == ["classifier.0", "classifier.3"]


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("a server was asked")


def test_a_bundle_opens_no_other_file_and_asks_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("timm", "torchvision", "transformers")
    monkeypatch.setattr("socket.getaddrinfo", forbidden)
    arguments = {
        "checkpoint_path": str(tmp_path / "none.pth"),
        "pretrained": True,
        "num_classes": 7,
    }
    assert Spec("timm:resnet10t", arguments).build(bare=True)
    assert Spec("torchvision:lraspp_mobilenet_v3_large").build(bare=True)
    config: dict[str, Any] = {"model_type": "timm_wrapper", "architecture": "resnet10t"}
    config["model_args"] = {"checkpoint_path": arguments["checkpoint_path"]}
    config["auto_map"] = {"AutoModelForImageClassification": "x/y--code.Net"}
    assert Spec("transformers:x/y", {"config": config}).build(bare=True)
    for network, given in (
        ("timm:hf-hub:no/such", {}),
        ("transformers:x/y", {"config": config | {"architecture": "hf-hub:no/such"}}),
    ):
        with pytest.raises(CrossferError, match="not on this machine, and a bundle asks no server"):
            Spec(network, given).build(bare=True)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny ViT of transformers whose author named eight emotions."""
    needs("transformers")
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("vit")
    names = ["anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(
        **sizes, intermediate_size=32, image_size=32, patch_size=8, id2label=dict(enumerate(names))
    )
    torch.manual_seed(3)
    ViTForImageClassification(config).save_pretrained(folder)
    how: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32},
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(how))
    return folder


def test_a_network_of_transformers_says_itself_how_it_is_used(
    deployed: Path, tmp_path: Path
) -> None:
    config = NetworkConfig(network=f"transformers:{deployed.name}", folder=deployed.parent)
    assert config.is_deployed
    assert config.preprocessing.mean == (0.5,) * 3 and config.preprocessing.white == 1
    assert config.outputs == (
        "angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise",
    )  # fmt: skip
    model = config.deployed()
    assert model.outputs == tuple((i,) for i in (0, 2, 3, 4, 6, 7, 5))
    assert check_network(config, LAYERS, Machine.of("cpu"))[1].endswith("(its .logits)")
    again = round_trip(config, tmp_path / "bundle")
    weights = model.network.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in again.network.state_dict().items())
    start = NetworkConfig(network=config.network, folder=config.folder, weights=Path("start"))
    assert not start.is_deployed and start.build(("yes", "no")).answers == 2
    nowhere = NetworkConfig(network=f"transformers:{tmp_path}", classes=FER7)
    with pytest.raises(
        CrossferError, match=r"^model.network: .* no such folder with a config.json"
    ):
        nowhere.build()
    told = config.built(FER7), start.built(FER7)
    (weights_file,) = deployed.glob("*.safetensors")
    with weights_file.open("ab") as content:
        content.write(b"x")
    # Other weights are another start, too.
    assert all(one.built(FER7) != then for one, then in zip((config, start), told, strict=True))
    (deployed / "preprocessor_config.json").rename(tmp_path / "away.json")
    try:
        other = NetworkConfig(network=config.network, folder=config.folder)
        with pytest.raises(CrossferError, match="it has no preprocessor_config.json"):
            other.build()
    finally:
        (tmp_path / "away.json").rename(deployed / "preprocessor_config.json")


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("efficientnet", {"image_processor_type": "EfficientNetImageProcessor", "include_top": True}),
        ("efficientnet", {
            "image_processor_type": "EfficientNetImageProcessor", "include_top": False,
            "rescale_offset": True, "rescale_factor": 1 / 127.5,
        }),
        ("mobilevit", {"image_processor_type": "MobileViTImageProcessor", "crop_size": 32}),
        ("vit", {"image_processor_type": "ViTImageProcessor", "do_rescale": False}),
        ("vit", {"image_processor_type": "ViTImageProcessor", "do_normalize": False}),
        ("convnext", {"image_processor_type": "ConvNextImageProcessor", "image_mean": 0.4}),
    ],
)  # fmt: skip
def test_a_network_of_transformers_gets_the_pixels_of_its_own_processor(
    kind: str, how: dict[str, Any], tmp_path: Path
) -> None:
    needs("transformers")
    from transformers import AutoImageProcessor

    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "image_size": 32}))
    size = {"shortest_edge": 32} if kind == "convnext" else {"height": 32, "width": 32}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size, **how}))
    faces = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(
        list(faces.numpy()), return_tensors="pt", do_resize=False, do_center_crop=False
    )["pixel_values"]
    ours = normalise(faces, NetworkConfig(f"transformers:{tmp_path}").preprocessing)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_processor_that_does_more_than_normalise_is_refused(tmp_path: Path) -> None:
    needs("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 32}))
    how = {"image_processor_type": "ImageGPTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(how))
    with pytest.raises(CrossferError, match=r"its preprocessor \(ImageGPTImageProcessor\)"):
        NetworkConfig(f"transformers:{tmp_path}").preprocessing  # noqa: B018


def export(model: nn.Module, file: Path, inputs: int = 1) -> None:
    shown = torch.zeros(2, *GRAY)
    torch.onnx.export(
        model.eval(), (shown,) * inputs, str(file), dynamo=False, input_names=["a", "b"][:inputs],
        dynamic_axes={name: {0: "N"} for name in ("a", "b")[:inputs]},
    )  # fmt: skip


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(900, 7)
    )


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_is_trained_and_kept(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime", "onnx2torch")
    model = untrained(lambda: nn.Sequential(small(), nn.Softmax(1)), 2).eval()
    export(model, tmp_path / "deployed.onnx")
    told: dict[str, Any] = {
        "classes": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
        "normalisation": Normalisation((0.5,), (0.25,)), "folder": tmp_path,
    }  # fmt: skip
    config = NetworkConfig(network="onnx:deployed.onnx", **told)
    check_network(config, STUDYS, Machine.of("cpu", "32-true"))
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    with torch.no_grad():
        theirs = model((torch.from_numpy(shown)[:, None] / 255 - 0.5) / 0.25).numpy()
    ours = config.deployed().eval().predict(shown)
    assert np.allclose(ours, theirs[:, [6, 5, 4, 1, 2, 3, 0]], atol=1e-5)
    round_trip(config, tmp_path / "bundle")
    (tmp_path / "deployed.onnx").unlink()
    assert np.array_equal(load(tmp_path / "bundle").predict(shown), ours)
    assert config.outputs[0] == "neutral" and FER7[0] == "angry"


@pytest.mark.filterwarnings("ignore")
def test_weights_in_a_file_beside_an_onnx_file_belong_to_it(tmp_path: Path) -> None:
    """As recent exporters write them: ``network.onnx`` and ``network.onnx.data``."""
    needs("onnx", "onnxruntime", "onnx2torch")
    import onnx

    configs, graphs, models = [], set(), []
    for seed in (1, 2):
        file = tmp_path / str(seed) / "network.onnx"
        file.parent.mkdir()
        export(untrained(small, seed).eval(), file)
        onnx.save_model(
            onnx.load(file), file, save_as_external_data=True, size_threshold=0, location="data"
        )
        graphs.add(digest(file))
        told: dict[str, Any] = {"classes": FER7, "normalisation": "per-image"}
        configs.append(NetworkConfig(f"onnxruntime:{file}", **told))
        file.with_suffix(".json").write_text(json.dumps(told))
        models.append(open_model(file))
    assert len(graphs) == 1, "only the weights differ"
    assert configs[0].built(FER7) != configs[1].built(FER7)
    assert models[0].engine.identity != models[1].engine.identity
    assert models[0].bytes > 4 * (models[0].parameters or 0)
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    before = configs[0].deployed().eval().predict(shown)
    configs[0].deployed().save(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "1")
    bundle = load(tmp_path / "bundle")
    assert np.array_equal(bundle.predict(shown), before)
    with pytest.raises(CrossferError, match="runs in ONNX Runtime, and only a network in PyTorch"):
        exported(bundle, tmp_path / "exported")


def entry(name: str, field: int = 13) -> bytes:
    """Return the location of a tensor's external data as protobuf writes it."""
    onnx = pytest.importorskip("onnx")
    value = onnx.StringStringEntryProto(key="location", value=name)
    tensor = onnx.TensorProto(external_data=[value])
    return bytes([8 * field + 2]) + tensor.SerializeToString()[1:]


def test_files_of_weights_are_those_that_tensors_name(tmp_path: Path) -> None:
    """With long names, too; never the graph itself or what lies outside its folder."""
    graph = tmp_path / "folder" / "network.onnx"
    long = "w" * 140
    names = ("data", "below/data", long, "x" * 127, "y" * 128, "ümlaut")
    (graph.parent / "below").mkdir(parents=True)
    for name in (*names, "../outside", "remark", long[:127], long[:12]):
        (graph.parent / name).write_text(name)
    outside = ("../outside", str(tmp_path / "outside"), "below/../data", "network.onnx", "missing")
    strange = ("z" * 5000, "nul\0", "", ".", "./network.onnx")
    tensors = b"".join(map(entry, (*names, "./data", *outside, *strange)))
    graph.write_bytes(tensors + entry("remark", field=14) + entry("data")[:-1])
    assert files_of(graph) == [graph, *(graph.parent / name for name in sorted(names))]
    graph.write_bytes(entry("remark", field=14))
    assert files_of(graph) == [graph] and digest_of(graph) == digest(graph)


@pytest.mark.parametrize("name", ["w" * 100, "w" * 200])
def test_a_name_of_weights_may_lie_anywhere_in_the_graph(name: str, tmp_path: Path) -> None:
    """Also where one piece of the file ends and the next one begins."""
    graph, one = tmp_path / "network.onnx", entry(name)
    for short in (*range(1, len(name)), len(name)):
        (tmp_path / name[:short]).touch()
    for inside in (*range(20), len(one) // 2, len(one) - 1, len(one)):
        graph.write_bytes(bytes(AT_ONCE - inside) + one + bytes(AT_ONCE))
        assert files_of(graph) == [graph, tmp_path / name], inside


def keras(file: Path, activation: str = "Relu") -> NetworkConfig:
    """Write what tf2onnx makes of a Keras model: images (N, H, W, C), and heads of MatMul and Add."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    shapes = {"w": (8, 1, 3, 3), "b": (8,), "w1": (8, 16), "b1": (16,), "w2": (16, 7), "b2": (7,)}
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Transpose", ["images"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["1", "w", "b"], {"kernel_shape": [3, 3]}), (activation, ["2"], {}),
        ("GlobalAveragePool", ["3"], {}), ("Flatten", ["4"], {}), ("MatMul", ["5", "w1"], {}),
        ("Add", ["6", "b1"], {}), ("Relu", ["7"], {}), ("MatMul", ["8", "w2"], {}),
        ("Add", ["b2", "9"], {}), ("Softmax", ["10"], {}),
    ]  # fmt: skip
    nodes = [
        helper.make_node(op, given, [str(i)], **how) for i, (op, given, how) in enumerate(steps, 1)
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "keras", [value("images", TensorProto.FLOAT, ["N", 32, 32, 1])],
        [value("11", TensorProto.FLOAT, ["N", 7])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, file)
    return NetworkConfig(f"onnx:{file}", classes=FER7, normalisation="per-image")


def test_an_onnx_file_of_keras_is_trained_and_its_head_is_found(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime", "onnx2torch")
    config = keras(tmp_path / "keras.onnx")
    said = check_network(config, STUDYS, Machine.of("cpu", "32-true"))
    assert "FC trains network.Add, network.Add_1: 263 parameters" in said
    other = replace(config, network=config.network.replace("onnx", "onnxruntime", 1))
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    ours, theirs = config.deployed().predict(shown), other.deployed().predict(shown)
    assert np.allclose(ours, theirs, atol=1e-6)
    key = other.built(FER7)
    keras(tmp_path / "keras.onnx", "Sigmoid")  # the same weights, another network
    assert other.built(FER7) != key


def test_an_onnx_file_of_two_dense_layers_learns_from_a_memory_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind the cut is copied for training, and is given the memory's features then too."""
    needs("onnx", "onnxruntime", "onnx2torch")
    monkeypatch.setattr(statistics, "PER_DIRECTION", 1)
    (tmp_path / "two.onnx").write_bytes(tiny_onnx.two_dense().SerializeToString())
    config = NetworkConfig(f"onnx:{tmp_path / 'two.onnx'}", classes=FER7, normalisation="per-image")
    start, machine = config.deployed(), Machine.of("cpu", "32-true")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (140, 32, 32), generator=generator, dtype=torch.uint8)
    faces = Faces(images, torch.arange(140) % 7)
    cut = cut_of(start)
    given = cut.features(start, images[:3], machine)
    assert cut.layer == "hidden"
    assert torch.allclose(copy.deepcopy(cut.rest)(given), cut.rest(given))
    memory, recipe = Memory.of(start, faces, machine), Recipe(epochs=1, batch_size=32)
    sides = {"target": faces}
    learnt = adapt(STRATEGIES["GFR"], start, start, sides, sides, recipe, 0, machine, memory).model
    assert not np.allclose(learnt.predict(images), start.predict(images), atol=1e-5)


def test_an_onnx_file_that_cannot_be_converted_is_measured_as_it_is(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime", "onnx2torch")
    config = keras(tmp_path / "odd.onnx", "Shrink")
    with pytest.raises(
        CrossferError, match=r"or only measure it: model: onnxruntime:odd.onnx with"
    ):
        config.build()
    other = replace(config, network=f"onnxruntime:{tmp_path / 'odd.onnx'}")
    machine = Machine.of("cpu", "32-true")
    assert check_network(other, ["none"], machine)[1].startswith("answers with angry")
    with pytest.raises(CrossferError, match=r"it can be measured but not trained; set strategies"):
        check_network(other, ["none", "FC"], machine)
    round_trip(other, tmp_path / "bundle")


def test_an_onnx_file_of_channels_last_is_compared_as_it_is_run(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime")
    config = keras(tmp_path / "keras.onnx")
    described = {"classes": list(FER7), "normalisation": "per-image"}
    (tmp_path / "keras.yaml").write_text(yaml.safe_dump(described))
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    ours = replace(config, network=f"onnxruntime:{tmp_path / 'keras.onnx'}").deployed()
    theirs = open_model(tmp_path / "keras.onnx").engine(shown)
    assert np.allclose(ours.predict(shown), theirs, atol=1e-6)


class Several(nn.Module):
    """Gives features, probabilities and the most probable class; clipped, no softmax is its last step."""

    def __init__(self, clipped: bool) -> None:
        super().__init__()
        self.clipped, (*layers, self.last) = clipped, small()
        self.features = nn.Sequential(*layers)

    def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.features(a)
        probabilities = self.last(features).softmax(1)
        if self.clipped:
            probabilities = probabilities.clip(0, 1)
        return features, probabilities, probabilities.argmax(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("fixed", "clipped"), [(True, False), (False, True)])
def test_of_several_outputs_the_one_of_the_classes_is_read_in_any_batch(
    fixed: bool, clipped: bool, tmp_path: Path
) -> None:
    needs("onnx", "onnxruntime")
    torch.manual_seed(0)
    network = Several(clipped).eval()
    names: dict[str, Any] = {"input_names": ["a"], "output_names": ["f", "p", "c"]}
    axes = {} if fixed else {name: {0: "N"} for name in ("a", "f", "p", "c")}
    file = tmp_path / "several.onnx"
    torch.onnx.export(
        network, (torch.zeros(2, *GRAY),), str(file), dynamo=False, dynamic_axes=axes, **names
    )
    config = NetworkConfig(f"onnxruntime:{file}", classes=FER7, normalisation="per-image")
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(shown), config.preprocessing))[1].numpy()
    bundle = config.deployed().save(tmp_path / "bundle")
    assert np.allclose(load(bundle).predict(shown), expected, atol=1e-5)


class Two(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a + b).flatten(1)[:, :7]


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime", "onnx2torch")
    export(Two(), tmp_path / "two.onnx", inputs=2)
    (tmp_path / "torn.onnx").write_bytes(b"torn")
    half = tmp_path / "half.onnx"
    shown = torch.zeros(2, *GRAY, dtype=torch.float16)
    torch.onnx.export(small().half().eval(), (shown,), str(half), dynamo=False)

    def said(name: str) -> str:
        config = NetworkConfig(
            network=f"onnx:{name}", folder=tmp_path, classes=FER7, normalisation="per-image"
        )
        with pytest.raises(CrossferError) as error:
            config.build()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "it has 2 inputs (a, b); it must have exactly one, a batch of images" in said("two.onnx")
    assert "not a readable ONNX model" in said("torn.onnx")
    assert "its input is float16; it must be float32 images" in said("half.onnx")
    assert "no such file" in said("none.onnx")
    (tmp_path / "bytes.onnx").write_bytes(tiny_onnx.network().SerializeToString())
    assert "write model.json beside it instead of a description" in said("bytes.onnx")


def test_a_library_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(
        CrossferError, match=r"torchvision is not installed: pip install 'crossfer\["
    ):
        NetworkConfig(network="timm:resnet18").build()


def test_a_file_may_lie_in_the_user_s_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Spec("onnx:~/x.onnx", folder=Path("/elsewhere")).file == tmp_path / "x.onnx"


def test_a_file_of_pytorch_s_present_exporter_is_trained(tmp_path: Path) -> None:
    """It writes opset 18 or later: axes as an input, Gelu as one operator, newer attributes.

    Linear layers of tokens train, but are none of the fully connected ones.
    """
    needs("onnx", "onnxruntime", "onnx2torch")
    import onnx
    from onnx import helper, numpy_helper

    rng, number = np.random.default_rng(0), numpy_helper.from_array
    weights = {
        "w": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "mix": rng.normal(size=(30, 30)).astype(np.float32),
        "shift": rng.normal(size=30).astype(np.float32),
        "axes": np.array([2, 3]),
        "shape": np.array([-1, 4]),
        "head": rng.normal(size=(7, 4)).astype(np.float32),
        "bias": np.zeros(7, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["given", "w"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("MatMul", ["a", "mix"], ["mixed"], "mixing"),
        helper.make_node("Add", ["mixed", "shift"], ["shifted"], "shifting"),
        helper.make_node("Gelu", ["shifted"], ["b"]),
        helper.make_node(
            "AveragePool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2], dilations=[1, 1]
        ),
        helper.make_node("ReduceMean", ["c", "axes"], ["d"], noop_with_empty_axes=0, keepdims=1),
        helper.make_node("Reshape", ["d", "shape"], ["e"], allowzero=1),
        helper.make_node("Gemm", ["e", "head", "bias"], ["answers"], transB=1),
    ]
    told = {"given": ["n", *GRAY], "answers": ["n", 7]}
    given, answers = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in told.items()
    )
    graph = helper.make_graph(
        nodes, "newer", [given], [answers], [number(value, name) for name, value in weights.items()]
    )
    file = tmp_path / "newer.onnx"
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)
    config = NetworkConfig(f"onnx:{file}", classes=FER7, normalisation="per-image")
    said = check_network(config, ["FC", "FC+CL", "all"], Machine.of("cpu"))
    assert "FC trains Gemm: 35 parameters" in said
    assert f"all trains Conv, shifting, Gemm: {4 * 9 + 30 * 31 + 35:,} parameters" in said
    shown = np.random.default_rng(1).integers(0, 256, (5, 32, 32), np.uint8)
    measured = replace(config, network=f"onnxruntime:{file}").deployed()
    assert np.allclose(config.deployed().predict(shown), measured.predict(shown), atol=1e-6)


@pytest.mark.parametrize("kind", ["number", "text"])
def test_other_outputs_of_an_onnx_file_do_not_matter(kind: str, tmp_path: Path) -> None:
    """Such as a loss, or the name of the class: neither is a vector for each face."""
    needs("onnx", "onnxruntime")
    import onnx
    from onnx import TensorProto, helper

    config = keras(tmp_path / "keras.onnx")
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    expected = open_model_of(config, tmp_path).engine(shown)
    model = onnx.load(tmp_path / "keras.onnx")
    if kind == "number":
        model.graph.node.append(helper.make_node("ReduceMean", ["8"], ["other"], keepdims=0))
        value = helper.make_tensor_value_info("other", TensorProto.FLOAT, [])
    else:
        names = helper.make_tensor("names", TensorProto.STRING, [2], np.array([b"happy", b"sad"]))
        model.graph.node.append(helper.make_node("Constant", [], ["other"], value=names))
        value = helper.make_tensor_value_info("other", TensorProto.STRING, [2])
    model.graph.output.insert(0, value)
    onnx.save(model, tmp_path / "keras.onnx")
    assert np.allclose(open_model_of(config, tmp_path).engine(shown), expected, atol=1e-6)


def open_model_of(config: NetworkConfig, folder: Path) -> Model:
    """Open a file with a description beside it, as `compare` does."""
    described = {"classes": list(config.classes), "normalisation": "per-image"}
    (folder / "keras.yaml").write_text(yaml.safe_dump(described))
    return open_model(folder / "keras.onnx")


def of_any_size(file: Path, *ending: Any, kind: Any = None) -> None:
    """Write a convolution, a mean over axes that a node holds, a linear layer, and what `ending` adds."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"w": (4, 1, 3, 3), "head": (4, 7), "bias": (7,)}
    axes = numpy_helper.from_array(np.array([2, 3]))
    nodes = [
        helper.make_node("Conv", ["given", "w"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Constant", [], ["axes"], value=axes),
        helper.make_node("ReduceMean", ["a", "axes"], ["b"], keepdims=0),
        helper.make_node("Gemm", ["b", "head", "bias"], ["logits"]),
        *ending,
    ]
    shape = ["n", 1, "height", "width"]
    given = helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, shape)
    last = nodes[-1].output[0]
    said = kind or helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["n", 7])
    constants = [
        numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)
        for name, size in weights.items()
    ]
    graph = helper.make_graph(
        nodes, "made", [given], [helper.make_value_info(last, said)], constants
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), file)


def test_an_onnx_file_of_images_of_any_size_is_used_with_the_size_that_is_given(
    tmp_path: Path,
) -> None:
    needs("onnx", "onnxruntime", "onnx2torch")
    of_any_size(tmp_path / "any.onnx")
    told: dict[str, Any] = {"classes": FER7, "normalisation": "per-image", "folder": tmp_path}
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    said = []
    for kind in ("onnx", "onnxruntime"):
        with pytest.raises(
            CrossferError, match=r"model.input: missing; .* reads images of any size"
        ):
            NetworkConfig(f"{kind}:any.onnx", **told).deployed()
        config = NetworkConfig(f"{kind}:any.onnx", input=GRAY, **told)
        model = config.deployed()
        said.append(model.predict(shown))
        again = load(model.save(tmp_path / f"bundle of {kind}"))
        assert np.array_equal(again.predict(shown), said[-1])
    assert np.allclose(*said, atol=1e-6)


@pytest.mark.parametrize("what", ["clip", "cast", "percent"])
def test_what_follows_a_softmax_does_not_hide_it(what: str, tmp_path: Path) -> None:
    needs("onnx", "onnxruntime", "onnx2torch")
    from onnx import TensorProto, helper, numpy_helper

    number = helper.make_node(
        "Constant", [], ["hundred"], value=numpy_helper.from_array(np.array([100], np.float32))
    )
    after: dict[str, list[Any]] = {
        "clip": [helper.make_node("Clip", ["p"], ["end"])],
        "cast": [helper.make_node("Cast", ["p"], ["end"], to=TensorProto.FLOAT)],
        "percent": [number, helper.make_node("Mul", ["p", "hundred"], ["end"])],
    }
    file = tmp_path / "soft.onnx"
    of_any_size(tmp_path / "plain.onnx")
    of_any_size(file, helper.make_node("Softmax", ["logits"], ["p"], axis=1), *after[what])
    told: dict[str, Any] = {"classes": FER7, "normalisation": "per-image", "folder": tmp_path}
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    expected = NetworkConfig("onnx:plain.onnx", input=GRAY, **told).deployed().predict(shown)
    measured = NetworkConfig("onnxruntime:soft.onnx", input=GRAY, **told).deployed()
    assert np.allclose(measured.predict(shown), expected, atol=1e-5)
    trained = NetworkConfig("onnx:soft.onnx", input=GRAY, **told)
    if what == "percent":
        with pytest.raises(CrossferError, match="returns probabilities; it must return logits"):
            trained.deployed()
    else:
        assert np.allclose(trained.deployed().predict(shown), expected, atol=1e-5)


def test_an_onnx_file_without_scores_says_how_to_export_it(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime")
    from onnx import TensorProto, helper

    number = helper.make_tensor_type_proto(TensorProto.INT64, ["n"])
    score = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    scores = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, score))
    zipped = helper.make_node(
        "ZipMap", ["logits"], ["z"], domain="ai.onnx.ml", classlabels_int64s=list(range(7))
    )
    best = helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0)
    told: dict[str, Any] = {"classes": FER7, "normalisation": "per-image", "folder": tmp_path}
    for name, node, kind, words in (
        ("zip", zipped, scores, r"\(z\) has a score of every class; .* zipmap=False"),
        ("best", best, number, r"\(best\) has a score of every class; .* \(such as ArgMax\)"),
    ):
        of_any_size(tmp_path / f"{name}.onnx", node, kind=kind)
        with pytest.raises(CrossferError, match=words):
            NetworkConfig(f"onnxruntime:{name}.onnx", input=GRAY, **told).deployed()


def test_modules_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    """Two deployed models are compared, each with a my_net.py beside it."""
    for number, name in enumerate(("old", "new"), 1):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layers_of_my_net.py").write_text(f"SIZE = {number}\n")
        (tmp_path / name / "my_net.py").write_text(
            "from torch import nn\n\n\ndef build():\n"
            "    from layers_of_my_net import SIZE\n    return nn.Linear(SIZE, 7)\n"
        )
    for name, size in (("old", 1), ("new", 2), ("old", 1)):
        network = Spec("my_net:build", folder=tmp_path / name).build()
        assert isinstance(network, nn.Linear) and network.in_features == size
    (tmp_path / "old" / "asked_for_later.py").write_text("")
    Spec("my_net:build", folder=tmp_path / "new").build()
    importlib.import_module("asked_for_later")  # as a network of the other folder may
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "my_part.py").write_text(
        "from torch import nn\n\n\nclass Part(nn.Identity):\n    pass\n"
    )
    (tmp_path / "my_whole.py").write_text("from torch import nn\n\nbuild = nn.Identity\n")
    Spec("my_whole:build", folder=tmp_path).build()
    one, other = (Spec("my_part:Part", folder=tmp_path / "inside").build() for _ in range(2))
    assert type(one) is type(other), "its folder lies in that of another"


def test_a_bundle_and_its_factory_may_be_moved_together(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "my_moved.py").write_text("from torch import nn\n\nbuild = nn.Flatten\n")
    spec = Spec("my_moved:build", folder=old)
    Classifier(spec.build(), preprocessing=Preprocessing(side=16), spec=spec, answers=256).save(
        old / "bundle"
    )
    old.rename(new)
    del sys.modules["my_moved"]
    assert load(new / "bundle").spec == Spec("my_moved:build", folder=new)
    (new / "my_moved.py").rename(new / "bundle" / "my_moved.py")
    assert load(new / "bundle").spec == Spec("my_moved:build", folder=new / "bundle")
    (new / "bundle" / "my_moved.py").unlink()
    del sys.modules["my_moved"]
    with pytest.raises(
        CrossferError,
        match=f"no module my_moved in {old} or on Python's path; put my_moved.py there",
    ):
        load(new / "bundle")


def test_a_described_onnx_file_is_exported(tmp_path: Path) -> None:
    """What reads normalised images becomes what reads bytes; either file names the network."""
    needs("onnx", "onnxruntime", "onnx2torch")
    export(untrained(small, 1).eval(), tmp_path / "net.onnx")
    description = tmp_path / "net.yaml"
    told: dict[str, Any] = {"classes": list(FER7), "normalisation": "per-image"}
    description.write_text(yaml.safe_dump(told | {"framing": {"eye_height": 0.3}}))
    out = tmp_path / "exported"
    done = crossfer("export", tmp_path / "net.onnx", "--out", out)
    assert done.exit_code == 0, done.exception
    theirs, ours = open_model(tmp_path / "net.onnx"), open_model(out)
    assert ours.framing == theirs.framing
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    assert np.allclose(ours.engine(shown), theirs.engine(shown), atol=1e-5)
    again = refused("export", out, "--out", tmp_path / "again")
    assert again == (
        f"{out}: exported classifier, fp32: has no PyTorch network; name the bundle or run that it was "
        "exported from"
    )
    assert np.array_equal(open_model(description).engine(shown), theirs.engine(shown))
    file = tmp_path / "experiment.yaml"
    for name in ("net.yaml", "net.onnx", "./net.onnx"):
        file.write_text(f"{{source: a, targets: [b], model: {name}}}")
        model = load_experiment(file).model
        assert (model.network, model.folder) == ("onnx:net.onnx", tmp_path)
        assert model.classes == FER7 and model.framed == theirs.framing
    description.unlink()
    with pytest.raises(CrossferError, match=r"model: classes: missing; list the classes"):
        load_experiment(file)
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(CrossferError, match=r"net\.onnx: no such file"):
        load_experiment(file)


def test_outputs_that_mean_no_expression_are_never_predicted(tmp_path: Path) -> None:
    """FER+ has ten outputs, two of which are no class of anything."""
    save_file(untrained(Residual, 0).state_dict(), tmp_path / "old.safetensors")
    names = ["neutral", "happiness", "surprise", "sadness", "anger", "unknown", "NF"]
    description = tmp_path / "ferplus.yaml"
    told = {
        "network": "tests.tiny_networks:Residual",
        "weights": "old.safetensors",
        "classes": names,
    }
    told |= {"input": [3, 32, 32], "normalisation": "per-image"}
    description.write_text(yaml.safe_dump(told))
    model = open_model(description)
    assert model.classes == ("neutral", "happy", "surprise", "sad", "angry")
    said = model.engine(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    assert said.shape == (4, 5) and np.allclose(said.sum(1), 1)


def test_two_spellings_of_one_class_are_refused_with_a_remedy_that_works() -> None:
    def of(*names: str) -> NetworkConfig:
        return NetworkConfig("a:b", classes=names, weights=Path("x.pt"), normalisation="per-image")

    with pytest.raises(
        ValueError, match=r"Joy and happiness are spellings of happy; write happiness 2"
    ):
        of("Joy", "sad", "happiness")
    assert of("Joy", "sad", "happiness 2").outputs == ("happy", "sad", "happiness 2")
    both = ClassSet.of({"happy": ["happy", "happiness 2"], "sad": ["sad"]})
    assert outputs_by_class(both, ("happy", "sad", "happiness 2")) == [[0, 2], [1]]

"""Exported classifiers of a few numbers, made without PyTorch: they go by how bright a face is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("dark", "medium", "bright")
FRAMING = {"side": 48, "channels": 1, "eye_distance": 0.42, "eye_height": 0.42}


def network(
    inputs: Sequence[str] = ("faces",),
    kind: int = TensorProto.UINT8,
    outputs: int = 3,
    channels: int = 1,
    most: float | None = None,
) -> onnx.ModelProto:
    """Return a network: softmax of the mean pixel (of colours, the first) times a number for each output.

    A face that is brighter than `most` on average is answered with NaN.
    """
    numbers = np.linspace(-0.02, 0.02, outputs, dtype=np.float32)[None]
    shape: list[str | int | None] = ["n", 48, 48, *([3] if channels == 3 else [])]
    nodes = [
        helper.make_node("Cast", [inputs[0]], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "by channel"], ["channels"]),
        helper.make_node("Gather", ["channels", "first"], ["column"], axis=1),
        helper.make_node("MatMul", ["column", "numbers"], ["logits"]),
        helper.make_node(
            "Softmax", ["logits"], ["probabilities" if most is None else "said"], axis=1
        ),
    ]
    if most is not None:
        nodes += [
            helper.make_node("Sub", ["most", "column"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Div", ["root", "root"], ["one"]),
            helper.make_node("Mul", ["said", "one"], ["probabilities"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", outputs])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([-1, channels], np.int64), "by channel"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(numbers, "numbers"),
            *(
                []
                if most is None
                else [numpy_helper.from_array(np.array([[most]], np.float32), "most")]
            ),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def two_dense() -> onnx.ModelProto:
    """Return a network of a convolution and two dense layers: float (N, 1, 32, 32) to 7 logits."""
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 1, 3, 3), "w1": (16, 8), "b1": (16,), "w2": (7, 16), "b2": (7,)}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w1", "b1"], ["e"], "hidden", transB=1),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "two dense layers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 7])],
        [
            numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def write(folder: Path, model: onnx.ModelProto | None = None, **card: Any) -> Path:
    """Write an exported classifier; keywords change its card."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes((model or network()).SerializeToString())
    return write_card(folder, **card)


def write_card(folder: Path, **card: Any) -> Path:
    """Write what an exported classifier says of itself, beside its ``model.onnx``."""
    content = {
        "format": 1,
        "classes": CLASSES,
        "framing": FRAMING,
        "models": {"fp32": {"file": "model.onnx"}},
    }
    (folder / "model.json").write_text(json.dumps(content | card))
    return folder

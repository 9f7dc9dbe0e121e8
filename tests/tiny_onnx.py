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

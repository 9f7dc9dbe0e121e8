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
    inputs: Sequence[str] = ("faces",), kind: int = TensorProto.UINT8, outputs: int = 3
) -> onnx.ModelProto:
    """Return a network: softmax of the mean pixel times a number for each output."""
    numbers = np.linspace(-0.02, 0.02, outputs, dtype=np.float32)[None]
    nodes = [
        helper.make_node("Cast", [inputs[0]], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "numbers"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, ["n", 48, 48]) for name in inputs],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", outputs])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([1], np.int64), "last"),
            numpy_helper.from_array(numbers, "numbers"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write(folder: Path, model: onnx.ModelProto | None = None, **card: Any) -> Path:
    """Write an exported classifier; keywords change its card."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes((model or network()).SerializeToString())
    content = {
        "format": 1,
        "classes": CLASSES,
        "framing": FRAMING,
        "models": {"fp32": {"file": "model.onnx"}},
    }
    (folder / "model.json").write_text(json.dumps(content | card))
    return folder

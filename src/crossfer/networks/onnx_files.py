"""ONNX files as networks that can be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfer.errors import CrossferError
from crossfer.networks.hubs import Own, library
from crossfer.networks.preprocessing import Preprocessing

LARGEST_DIFFERENCE = 1e-3
"""Between the converted network's answers and ONNX Runtime's, as a share of the largest of these."""


def of_onnx(file: Path) -> Own:
    """Return how large the faces are that a file's network reads; it says nothing of normalisation.

    Raises
    ------
    CrossferError
        If the file is not one network of one batch of images.
    """
    channels, side = _shape(_read(file), file)
    return Own(Preprocessing(channels, side))  # type: ignore[arg-type]


def from_onnx(file: Path, check: bool = True) -> nn.Module:
    """Convert an ONNX file to a PyTorch network that gives logits, checked against ONNX Runtime.

    A softmax at its end is left out, so that it can be trained.

    Raises
    ------
    CrossferError
        If it is no such network, it cannot be converted, or the two answer differently.
    """
    onnx2torch = library("onnx2torch")
    model = _read(file)
    channels, side = _shape(model, file)
    _without_softmax(model)
    try:
        network: nn.Module = onnx2torch.convert(model)
    except Exception as error:
        raise CrossferError(
            f"it cannot be made trainable ({type(error).__name__}: {error}); "
            "give its PyTorch code as a factory instead"
        ) from None
    if check:
        chance = torch.Generator().manual_seed(0)
        images = torch.randn(2, channels, side, side, generator=chance)
        _check(network.eval(), model, images, file)
    return network


def _read(file: Path) -> Any:
    onnx = library("onnx")
    if not file.is_file():
        raise CrossferError(f"{file}: no such file")
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except Exception as error:
        raise CrossferError(f"{file}: not an ONNX model ({type(error).__name__})") from None
    return model


def _shape(model: Any, file: Path) -> tuple[int, int]:
    """Return channels and side of the one input, images (N, C, H, W)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [part for part in model.graph.input if part.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(part.name for part in inputs)
        raise CrossferError(
            f"{file}: it has {len(inputs)} inputs ({names}); one batch of images is read"
        )
    sizes = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim]
    if len(sizes) != 4 or sizes[1] not in (1, 3) or not sizes[2] == sizes[3] > 0:
        shape = "×".join(str(size or "?") for size in sizes)
        raise CrossferError(
            f"{file}: its input is {shape}; it must be images N×C×H×W with C 1 or 3 and H = W, fixed"
        )
    return sizes[1], sizes[2]


def _without_softmax(model: Any) -> None:
    output = model.graph.output[0]
    made = {name: node for node in model.graph.node for name in node.output}
    last = made.get(output.name)
    if last is not None and last.op_type in ("Softmax", "LogSoftmax"):
        output.name = last.input[0]
        model.graph.node.remove(last)


def _check(network: nn.Module, model: Any, images: Tensor, file: Path) -> None:
    runtime = library("onnxruntime")
    runtime.set_default_logger_severity(4)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    try:
        theirs = torch.from_numpy(
            session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
        )
        with torch.no_grad():
            ours = network(images)
        ours = ours[0] if isinstance(ours, (tuple, list)) else ours
    except Exception as error:
        raise CrossferError(
            f"{file}: it fails on two faces at once ({type(error).__name__}); "
            "export it with a dynamic batch size"
        ) from None
    scale = theirs.abs().max().clamp_min(1e-6)
    difference = float((ours - theirs).abs().max() / scale) if ours.shape == theirs.shape else 1.0
    if not difference <= LARGEST_DIFFERENCE:
        raise CrossferError(
            f"{file}: converted, it answers otherwise than in ONNX Runtime (by {difference:.1%}); "
            "give its PyTorch code as a factory instead"
        )

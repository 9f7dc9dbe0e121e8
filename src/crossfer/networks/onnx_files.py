"""ONNX files as networks: converted to PyTorch for training, or run in ONNX Runtime."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.shape_prop import ShapeProp

from crossfer.errors import CrossferError
from crossfer.external_data import files_of
from crossfer.networks.answers import are_probabilities
from crossfer.networks.hubs import Own, library
from crossfer.networks.layers import OfTokens
from crossfer.networks.preprocessing import Preprocessing

RUNTIME = "onnxruntime"
OPSET = 17
"""The latest whose operators onnx2torch converts, nearly all."""
NEWER = {"AveragePool": "dilations", "Reshape": "allowzero", "Split": "num_outputs"}
"""Attributes that operators have since then, or that onnx2torch lacks; the defaults do nearly always."""
LARGEST_DIFFERENCE = 1e-3
"""Maximum difference of the converted network's outputs from ONNX Runtime's, relative to the largest."""


def of_onnx(file: Path) -> Own:
    """Return the input size of a file's network, if it is fixed; ONNX does not describe normalisation.

    Raises
    ------
    CrossferError
        If the file is not a network with one batch of images as input.
    """
    images = _images(_read(file), file)
    if not images.side:
        return Own()
    return Own(Preprocessing(images.channels, images.side))  # pyrefly: ignore[bad-argument-type]  # which checks channels


def from_onnx(file: Path, check: bool = True, side: int = 0) -> nn.Module:
    """Convert an ONNX file to a PyTorch network with logits, checked against ONNX Runtime.

    A final softmax is removed, so that the network can be trained.  Networks that read images (N, H, W, C),
    such as exports of Keras, are supported.  `side` is that of the images if the file has none.

    Raises
    ------
    CrossferError
        If it is not such a network, it cannot be converted, or the outputs differ.
    """
    onnx2torch = library("onnx2torch")
    model = _read(file)
    images = _images(model, file, side)
    _without_softmax(model)
    shown = images.drawn()
    try:
        converted: GraphModule = onnx2torch.convert(_in_older_operators(model))
    except Exception as error:
        raise CrossferError(
            f"it cannot be made trainable ({type(error).__name__}: {error}); give its PyTorch code as a "
            f"factory, or only measure it: model: {RUNTIME}:{file.name} with strategies: [BL]"
        ) from None
    network = ChannelsLast(converted) if images.last else converted
    try:
        with torch.no_grad():
            network.eval()(shown)
            _with_linear_layers(converted, shown.permute(0, 2, 3, 1) if images.last else shown)
    except Exception as error:
        raise CrossferError(
            f"{file}: it fails on two faces at once ({type(error).__name__}); "
            "export it with a dynamic batch size"
        ) from None
    if check:
        first = model.graph.output[0].name
        runtime = RuntimeNetwork(model.SerializeToString(), images.last, {first: False})
        _check(network.eval(), runtime, shown, file)
    return network


def copy_whole(graph: Path, place: Path) -> None:
    """Copy an ONNX file; external data are stored in the copy itself."""
    if len(files_of(graph)) == 1:
        shutil.copyfile(graph, place)
    else:
        onnx = library("onnx")
        onnx.save_model(onnx.load(graph), place)


class ChannelsLast(nn.Module):
    """A network that reads images (N, H, W, C), given them as (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return the network's output."""
        return self.network(images.permute(0, 2, 3, 1))


class RuntimeNetwork(nn.Module):
    """A network that runs in ONNX Runtime on the CPU: it can be measured, but not trained.

    It uses as many threads as PyTorch does when it is opened.

    Parameters
    ----------
    content
        The serialised model.
    last
        Whether it reads images (N, H, W, C).
    outputs
        Names of the outputs that it returns, and whether they are probabilities, of which it returns the
        logarithms; by default all, as they are.
    """

    def __init__(
        self, content: bytes, last: bool = False, outputs: Mapping[str, bool] | None = None
    ) -> None:
        super().__init__()
        self.content, self.last = content, last
        self.device = nn.Parameter(torch.empty(0), requires_grad=False)  # its device
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
        self.session = runtime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        (given,) = self.session.get_inputs()
        self.fixed = given.shape[0] if isinstance(given.shape[0], int) else None
        names = [output.name for output in self.session.get_outputs()]
        self.outputs = dict.fromkeys(names, False) if outputs is None else dict(outputs)

    @classmethod
    def of(cls, file: Path, side: int = 0) -> Self:
        """Open a file; a final softmax is removed, and outputs that are no vectors are ignored.

        Raises
        ------
        CrossferError
            If it is not such a network, or no output is a vector of numbers for each image.
        """
        model = _read(file)
        images = _images(model, file, side)
        _without_softmax(model)
        content = model.SerializeToString()
        whole, shown = cls(content, images.last), images.drawn()
        answers = zip(whole.outputs, whole._run(shown[: whole.fixed]), strict=True)
        found = {
            name: are_probabilities(torch.from_numpy(answer))
            for name, answer in answers
            if isinstance(answer, np.ndarray) and answer.dtype.kind == "f" and answer.ndim > 1
        }
        if not found:
            zipped = any(node.op_type == "ZipMap" for node in model.graph.node)
            remedy = (
                "scikit-learn's ZipMap makes dictionaries of them, so export it with zipmap=False"
                if zipped
                else "export it without the last step (such as ArgMax)"
            )
            raise CrossferError(
                f"{file}: no output ({', '.join(whole.outputs)}) has a score of every class; {remedy}"
            )
        return cls(content, images.last, found)

    def __deepcopy__(self, memo: Any) -> RuntimeNetwork:
        return RuntimeNetwork(self.content, self.last, self.outputs)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Return the output of images float (N, C, H, W): float (N, outputs); all if there are several."""
        parts = images.detach().float().cpu().split(self.fixed or max(1, len(images)))
        said = [[answer[: len(part)] for answer in self._run(part)] for part in parts]
        found = []
        for softmaxed, answers in zip(self.outputs.values(), zip(*said, strict=True), strict=True):
            answer = torch.from_numpy(np.concatenate(answers)).to(images.device)
            smallest = torch.finfo(torch.float32).tiny
            found.append(answer.clamp_min(smallest).log() if softmaxed else answer)
        return found[0] if len(found) == 1 else found

    def _run(self, images: Tensor) -> list[NDArray[Any]]:
        """Return the outputs of some images; a fixed batch is filled up with the same images."""
        shown = (images.permute(0, 2, 3, 1) if self.last else images).contiguous().numpy()
        if self.fixed:
            shown = np.resize(shown, (self.fixed, *shown.shape[1:]))
        given = {self.session.get_inputs()[0].name: shown}
        return list(self.session.run(list(self.outputs), given))


class Images(NamedTuple):
    """The input of a network."""

    channels: int
    side: int
    last: bool
    """Whether channels come last: (N, H, W, C)."""

    def drawn(self) -> Tensor:
        """Return two random ones, always the same: float (2, C, H, W)."""
        chance = torch.Generator().manual_seed(0)
        return torch.randn(2, self.channels, self.side, self.side, generator=chance)


def _read(file: Path) -> Any:
    onnx = library("onnx")
    if not file.is_file():
        raise CrossferError(f"{file}: no such file")
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except Exception as error:
        raise CrossferError(f"{file}: not a readable ONNX model ({type(error).__name__})") from None
    return model


def _images(model: Any, file: Path, side: int = 0) -> Images:
    """Return the shape of the one input; if its size is not fixed, with this side."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [part for part in model.graph.input if part.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(part.name for part in inputs)
        raise CrossferError(
            f"{file}: it has {len(inputs)} inputs ({names}); it must have exactly one, a batch of "
            "images"
        )
    kinds = library("onnx").TensorProto
    kind = inputs[0].type.tensor_type.elem_type
    if kind == kinds.UINT8:
        raise CrossferError(
            f"{file}: its input is uint8; for predict and compare write model.json beside it instead of a "
            "description (docs/deploy.md), or export it with float32 images as its input"
        )
    if kind != kinds.FLOAT:
        raise CrossferError(
            f"{file}: its input is {kinds.DataType.Name(kind).lower()}; it must be float32 images, so export "
            "it with such an input"
        )
    sizes = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim]
    for last in (False, True):
        if len(sizes) == 4:
            channels, *size = (sizes[3], *sizes[1:3]) if last else sizes[1:]
            height, width = (one or max(size) or side for one in size)
            if channels in (1, 3) and height == width:
                return Images(channels, height, last)
    shape = "×".join(str(size or "?") for size in sizes)
    raise CrossferError(
        f"{file}: its input is {shape}; it must be images N×C×H×W or N×H×W×C with C 1 or 3 and H = W"
    )


def _in_older_operators(model: Any) -> Any:
    """Return a model in the operators of opset 17, where they can express it; otherwise as it is.

    PyTorch exports in opset 18 or later, of which onnx2torch lacks many operators.
    """
    onnx = library("onnx")
    older = copy.deepcopy(model)
    default = [opset for opset in older.opset_import if opset.domain in ("", "ai.onnx")]
    if not default or default[0].version <= OPSET:
        return model
    default[0].version = OPSET
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in older.graph.initializer
    }
    for node in older.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    nodes = [new for node in older.graph.node for new in _older(node, constants)]
    del older.graph.node[:]
    older.graph.node.extend(nodes)
    try:
        onnx.checker.check_model(older)
    except Exception:  # an operator or a way to call it that is newer
        return model
    return older


def _older(node: Any, constants: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Write a node with operators of opset 17, where it is known how; `_check` compares the results."""
    helper, kind = library("onnx").helper, node.op_type
    reduces = kind.startswith("Reduce") and kind != "ReduceSum"
    told = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if kind == "Gelu" and told.get("approximate", b"none") == b"none":
        return _gelu(node.input[0], node.output[0])
    if reduces and len(node.input) == 2 and node.input[1] in constants:
        node.attribute.append(helper.make_attribute("axes", constants[node.input.pop()].tolist()))
    newer = "noop_with_empty_axes" if reduces else NEWER.get(kind)
    kept = [attribute for attribute in node.attribute if attribute.name != newer]
    del node.attribute[:]
    node.attribute.extend(kept)
    return [node]


def _gelu(x: str, y: str) -> list[Any]:
    """Return the nodes of y = x/2 · (1 + erf(x/√2)), from the names of x and y."""
    node = library("onnx").helper.make_node
    numbers = {"half": 0.5, "root": math.sqrt(0.5), "one": 1.0}
    return [
        *(node("Constant", [], [f"{y}/{name}"], value_float=n) for name, n in numbers.items()),
        node("Mul", [x, f"{y}/root"], [f"{y}/scaled"]),
        node("Erf", [f"{y}/scaled"], [f"{y}/erf"]),
        node("Add", [f"{y}/erf", f"{y}/one"], [f"{y}/above"]),
        node("Mul", [x, f"{y}/half"], [f"{y}/halved"]),
        node("Mul", [f"{y}/halved", f"{y}/above"], [y]),
    ]


def _without_softmax(model: Any) -> None:
    """Have outputs that are a softmax's give what it is given; others may go on reading it.

    After it, clipping is left out, and the type may be changed.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    read = {name for node in model.graph.node for name in node.input}
    for output in model.graph.output:
        cast, last = None, made.get(output.name)
        while last is not None and last.op_type in ("Cast", "Clip", "Identity"):
            if last.op_type == "Cast" and cast is None:
                cast = last
            last = made.get(last.input[0])
        if last is None or last.op_type not in ("Softmax", "LogSoftmax"):
            continue
        if cast is not None:
            cast.input[0], output.name = last.input[0], cast.output[0]
            continue
        direct = output.name in last.output
        output.name = last.input[0]
        if direct and not read & set(last.output):
            model.graph.node.remove(last)


def _with_linear_layers(network: GraphModule, shown: Tensor) -> None:
    """Have products with constant matrices be linear layers, and constants added to them their biases.

    Keras exports its heads so, and PyTorch the linear layers of a transformer; as constants they would not
    train.  `shown` is an input, which tells them apart.
    """
    ShapeProp(network.eval()).propagate(shown)
    for product in list(network.graph.nodes):
        weight = (
            _constant(network, product.args[1]) if _is(network, product, "OnnxMatMul") else None
        )
        if weight is None or weight.ndim != 2:
            continue
        last, bias = product, None
        users = list(product.users)
        if len(users) == 1 and _is(network, users[0], "OnnxBinaryMathOperation"):
            operation = network.get_submodule(users[0].target).math_op_function
            other = next((arg for arg in users[0].args if arg is not product), None)
            added = _constant(network, other) if operation is torch.add else None
            if added is not None and added.shape == weight.shape[1:]:
                last, bias = users[0], added
        tokens = len(product.meta["tensor_meta"].shape) > 2
        linear = (OfTokens if tokens else nn.Linear)(*weight.shape, bias=bias is not None)
        linear.load_state_dict({"weight": weight.T} | ({} if bias is None else {"bias": bias}))
        network.set_submodule(last.target, linear)
        last.args = (product.args[0],)
    network.graph.eliminate_dead_code()
    read = {node.target for node in network.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in network.named_buffers() if name.startswith("initializers.")]:
        if name not in read:
            delattr(network.get_submodule("initializers"), name.rpartition(".")[2])
    network.delete_all_unused_submodules()
    network.recompile()


def _is(network: GraphModule, node: Node, kind: str) -> bool:
    """Tell whether a node calls a layer that onnx2torch calls so."""
    if node.op != "call_module":
        return False
    return type(network.get_submodule(str(node.target))).__name__ == kind


def _constant(network: GraphModule, node: Any) -> Tensor | None:
    """Return a constant of the file; None for anything else."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    return network.get_buffer(str(node.target))


def _check(network: nn.Module, runtime: RuntimeNetwork, images: Tensor, file: Path) -> None:
    with torch.no_grad():
        ours, theirs = network(images), runtime(images)
    ours, theirs = (x[0] if isinstance(x, (tuple, list)) else x for x in (ours, theirs))
    scale = theirs.abs().max().clamp_min(1e-6)
    difference = float((ours - theirs).abs().max() / scale) if ours.shape == theirs.shape else 1.0
    if not difference <= LARGEST_DIFFERENCE:
        raise CrossferError(
            f"{file}: after conversion its results differ from ONNX Runtime's (by "
            f"{difference:.1%}); give its PyTorch code as a factory, or only measure it: model: "
            f"{RUNTIME}:{file.name} with strategies: [BL]"
        )

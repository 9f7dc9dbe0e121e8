"""The study's network; the layers of any network, and the conventions that its weights do not tell.

A model is any `torch.nn.Module` that maps normalised images, float (N, C, H, W), to logits (N, classes).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from crossfer.classes import FER7 as EMOTIONS

INPUT = (48, 48)
"""The faces that the study's network reads: gray, height and width in pixels."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Conventions:
    """What the weights of a network do not tell: how it reads pixels, orders its answers, names its layers.

    Parameters
    ----------
    mean, deviation
        Of each channel, of pixels as numbers from 0 to 1: what it standardises images by.  Where they are
        empty, every image is standardised by its own.
    outputs
        For each of the seven emotions the output that stands for it; empty where they are in our order.
    fully_connected, last_convolution
        Names of its modules, where module order does not tell.
    """

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    outputs: tuple[int, ...] = ()
    fully_connected: tuple[str, ...] = ()
    last_convolution: tuple[str, ...] = ()


def follow(model: nn.Module, conventions: Conventions) -> nn.Module:
    """Tell a network its conventions; its copies keep them, its weights are the same under the same names.

    From now on it answers with the seven emotions in our order.
    """
    if conventions.outputs and not conventions_of(model).outputs:
        model.register_forward_hook(_in_our_order)
    model._conventions = conventions  # type: ignore[assignment]
    return model


def conventions_of(model: nn.Module) -> Conventions:
    """Return the conventions that a network follows."""
    told = getattr(model, "_conventions", None)
    return told if isinstance(told, Conventions) else Conventions()


def _in_our_order(model: nn.Module, images: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return torch.stack([logits[:, output] for output in conventions_of(model).outputs], 1)


def study_cnn(width: float = 1.0) -> nn.Sequential:
    """Build the network of the study (section II.A, Fig. 1) with random weights.

    Five unpadded convolutions (64 filters of 2×2 twice, 128 of 3×3 three times), each with batch
    normalisation and ReLU, 2×2 max-pooling after the second and the fifth, and three fully connected
    layers (2048, 1024, 7) with dropout 0.5 after the first two.  Unpadded convolutions are the only
    reading that gives the paper's 19.2 M parameters: 8,192 features, 19,271,431 trainable.

    Parameters
    ----------
    width
        Multiplies every number of filters and units; 1.0 is the study.  Narrower networks serve
        demonstrations and tests.

    Returns
    -------
    torch.nn.Sequential
        Takes float (N, 1, 48, 48); returns float (N, 7).
    """

    def scaled(units: int) -> int:
        return max(1, round(units * width))

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = 1, INPUT[0]
    for index, (filters, kernel) in enumerate([(64, 2), (64, 2), (128, 3), (128, 3), (128, 3)], 1):
        layers[f"conv{index}"] = nn.Conv2d(channels, scaled(filters), kernel)
        layers[f"norm{index}"] = nn.BatchNorm2d(scaled(filters))
        layers[f"relu{index}"] = nn.ReLU(inplace=True)
        channels, side = scaled(filters), side - kernel + 1
        if index in (2, 5):
            layers[f"pool{index}"] = nn.MaxPool2d(2)
            side //= 2
    layers["flatten"] = nn.Flatten()
    features = channels * side * side
    for index, units in enumerate([2048, 1024], 1):
        layers[f"fc{index}"] = nn.Linear(features, scaled(units))
        layers[f"fc{index}_relu"] = nn.ReLU(inplace=True)
        layers[f"fc{index}_dropout"] = nn.Dropout(0.5)
        features = scaled(units)
    layers["fc3"] = nn.Linear(features, len(EMOTIONS))
    return nn.Sequential(layers)


def layers_in_order(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a sequence's layers and their names; one that stands in several places, in each of them."""
    return [(name, layer) for name, layer in network._modules.items() if layer is not None]


def is_just(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Tell whether a layer is of one of some kinds exactly, and nobody listens to it."""
    listeners = (
        layer._forward_pre_hooks,
        layer._forward_hooks,
        layer._backward_pre_hooks,
        layer._backward_hooks,
    )
    return type(layer) in kinds and not any(listeners)


def layers_with_parameters(model: nn.Module) -> list[str]:
    """Name every module that owns parameters itself, in module order."""
    return [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]


def fully_connected(model: nn.Module) -> list[str]:
    """Name "the fully connected layers" of a network: the linear layers after its last convolution.

    Linear layers in the block of the last convolution, as in ConvNeXt, are part of the block; in a
    transformer they are those after its last block.

    Raises
    ------
    ValueError
        If the network has no linear layer there.
    """
    if named := conventions_of(model).fully_connected:
        return _within(model, named)
    modules = dict(model.named_modules())
    last = _last_attention(modules) or _last_convolution(modules)
    for body in (_block(modules, last), last):
        after = _after(model, body)
        if linear := [name for name in after if isinstance(modules[name], nn.Linear)]:
            return linear
    raise ValueError(
        "the network has no linear layer after its last convolution; name its FC layers"
    )


def last_convolution(model: nn.Module) -> list[str]:
    """Name "the last convolution" of a network, with the normalisation that directly follows it.

    In a transformer it is the last block that stands in its place.

    Raises
    ------
    ValueError
        If the network has no convolution.
    """
    if named := conventions_of(model).last_convolution:
        return _within(model, named)
    modules = dict(model.named_modules())
    if attention := _last_attention(modules):
        body = _block(modules, attention)
    else:
        body = _last_convolution(modules)
    if not body:
        raise ValueError("the network has no convolution; name its CL layers")
    follower = _after(model, body)[:1]
    return [
        *_within(model, [body]),
        *(name for name in follower if isinstance(modules[name], NORMALISATIONS)),
    ]


def _last_convolution(modules: dict[str, nn.Module]) -> str:
    """Name the last convolution in module order; empty where there is none."""
    return next((n for n in reversed(modules) if isinstance(modules[n], CONVOLUTIONS)), "")


def _last_attention(modules: dict[str, nn.Module]) -> str:
    """Name the last attention after the last convolution, the outermost where they are nested."""
    names = list(modules)
    names = names[names.index(_last_convolution(modules)) + 1 :]
    found = [name for name in names if "attention" in type(modules[name]).__name__.lower()]
    return next((n for n in reversed(found) if not any(n.startswith(f"{o}.") for o in found)), "")


def _block(modules: dict[str, nn.Module], name: str) -> str:
    """Name the block that a layer is part of.

    Of attention it is the module around it; of a convolution the nearest module around it that has a
    brother of its kind, or else the convolution itself.
    """
    if name and not isinstance(modules[name], CONVOLUTIONS):
        return name.rpartition(".")[0] or name
    around = name.rpartition(".")[0]
    while around:
        parent = modules[around.rpartition(".")[0]]
        kinds = [type(child) for child in parent.children()]
        if kinds.count(type(modules[around])) > 1:
            return around
        around = around.rpartition(".")[0]
    return name


def _within(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Name the layers of some modules, in module order.

    Raises
    ------
    ValueError
        If a name is none of the network's modules, or there is nothing to train in one.
    """
    layers = layers_with_parameters(model)
    parts = {name: {n for n in layers if n == name or n.startswith(f"{name}.")} for name in names}
    if empty := [name for name, part in parts.items() if not part]:
        raise ValueError(f"the network has no layer {', '.join(empty)}")
    chosen = set().union(*parts.values())
    return [name for name in layers if name in chosen]


def _after(model: nn.Module, name: str) -> list[str]:
    """Name the layers behind a module; all of them where the name is empty."""
    layers = layers_with_parameters(model)
    return layers[layers.index(_within(model, [name])[-1]) + 1 :] if name else layers


def last_layer(model: nn.Module) -> list[str]:
    """Name the head of a network: the last of its fully connected layers."""
    return fully_connected(model)[-1:]


LAYERS: Mapping[str, Callable[[nn.Module], list[str]]] = {
    "none": lambda model: [],
    "head": last_layer,
    "FC": fully_connected,
    "FC+CL": lambda model: last_convolution(model) + fully_connected(model),
    "all": layers_with_parameters,
}
"""The layers that a strategy may train, found in any network by module order."""


def training_flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of one image's training step, as much as trains.

    Forward through every layer, backward from the loss to the first layer that trains: matrix products and
    convolutions, as `torch.utils.flop_counter` counts them (a multiply-add is two).  Nothing is calculated
    where the network does without.

    Parameters
    ----------
    model
        With the parameters that train requiring gradients; if none does, one pass forward is counted.
    shape
        Of an image: channels, height, width.
    """
    try:
        return _flop(copy.deepcopy(model).to("meta"), shape)
    except RuntimeError:  # its forward pass needs numbers, or makes tensors of its own
        return _flop(copy.deepcopy(model).cpu(), shape)


def _flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, _plain_attention():
        logits = model.eval()(torch.zeros(1, *shape, device=device))
        if logits.requires_grad:
            logits.sum().backward()
    return int(counter.get_total_flops())


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Calculate transformer layers step by step: their fused kernels are counted by nobody."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def train_only(model: nn.Module, layers: Iterable[str]) -> None:
    """Freeze every layer but the named ones: only their parameters will require gradients.

    Parameters
    ----------
    layers
        Module names as `torch.nn.Module.named_modules` gives them.

    Raises
    ------
    ValueError
        If a name is none of the network's layers.
    """
    chosen = set(layers)
    unknown = chosen - set(layers_with_parameters(model))
    if unknown:
        raise ValueError(f"the network has no layer {', '.join(sorted(unknown))}")
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(name in chosen)


def channels_last(model: nn.Module, images: Tensor) -> nn.Module:
    """Copy a network for training: its convolutions channels last, which is faster, if it bears that.

    Many a network flattens what its convolutions give with ``view``, which knows one layout only; then the
    copy is like the network.

    Parameters
    ----------
    images
        A few as the network reads them, float (N, C, H, W), to try it on.
    """
    fast = copy.deepcopy(model)
    for module in fast.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            fast.eval()(images.to(next(fast.parameters()).device))
    except RuntimeError:
        return copy.deepcopy(model)
    return fast


def training_mode(model: nn.Module) -> None:
    """Put a partly frozen network into training mode without touching its frozen layers.

    "The parameters of the other layers are not modified" (section II.B): a frozen layer's batch-norm
    statistics must not move either, so every module with parameters of which none trains, and every
    module before the first one that trains (dropout included), stays in evaluation mode.
    """
    started = False
    for module in model.modules():
        own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
        inside = [parameter.requires_grad for parameter in module.parameters()]
        started = started or any(own)
        module.training = any(inside) if inside else started

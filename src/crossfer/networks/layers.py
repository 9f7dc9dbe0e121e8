"""Find the layers of a network by kind (FC, CL, …), and freeze the others."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from crossfer.errors import CrossferError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
GATE_TYPES = re.compile(
    r"^SE(?=[A-Z]|$)|Squeeze|Excit|^(Effective|Lightweight)?(SE|CBAM|ECA|GatherExcite|GlobalContext)"
    r"|(Channel|Spatial)(Attention|Attn|Gate)"
)
GATE_NAMES = re.compile(r"^(se|squeeze|excit(e|ation)|se_(squeeze|excite)|fc_(squeeze|excite))\d*$")
"""Channel attention (Hu et al., Squeeze-and-Excitation Networks, CVPR 2018) and similar gates."""


Model = TypeVar("Model", bound=nn.Module)


class OfTokens(nn.Linear):
    """A linear layer of each token in a block of a transformer: it is none of the fully connected layers."""


@dataclass(frozen=True)
class NamedLayers:
    """Names of a network's fully connected layers and last convolution; empty: found by module order."""

    FC: tuple[str, ...] = ()
    CL: tuple[str, ...] = ()


def layers_in_order(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a sequence's layers and their names, a shared layer in each of its places."""
    return [(name, layer) for name, layer in network._modules.items() if layer is not None]


def is_just(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Tell whether a layer is exactly of one of these types and has no hooks."""
    listeners = (
        layer._forward_pre_hooks,
        layer._forward_hooks,
        layer._backward_pre_hooks,
        layer._backward_hooks,
    )
    return type(layer) in kinds and not any(listeners)


def is_just_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Tell whether a layer multiplies with its weight, adds its bias, and does no more: PyTorch's or ours."""
    return type(layer).__module__.startswith(("torch.nn.", "crossfer.")) and _is_plain(layer)


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Tell whether a layer is linear, has no hooks, and a weight that is not made of other parameters."""
    linear = isinstance(layer, nn.Linear) and "weight" in layer._parameters
    return linear and is_just(layer, type(layer))


def plain_linear(network: nn.Module, name: str) -> nn.Linear:
    """Return a layer that a `torch.nn.Linear` with other weights, or with more rows, can stand in for.

    Raises
    ------
    CrossferError
        If it is none: a convolution, a class with a ``forward`` of its own, a normalised weight, or hooks.
    """
    layer = network.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise CrossferError(
            f"model: its last layer {name} is a {type(layer).__name__}, not a linear layer; if another one "
            "is its head, name it, model.FC: [its name]"
        )
    # timm's, which its mobile networks have, casts its weight when it is scripted, and only then.
    theirs = ("torch.nn.", "crossfer.", "timm.layers.linear")
    own = type(layer).forward is not nn.Linear.forward
    if not _is_plain(layer) or (own and not type(layer).__module__.startswith(theirs)):
        raise CrossferError(
            f"model: its last layer {name} is no plain torch.nn.Linear (it has a forward of its own, a "
            "normalised weight or hooks), so its weight cannot be replaced; build it with a plain one"
        )
    return layer


def layers_with_parameters(model: nn.Module) -> list[str]:
    """Return the names of all modules with parameters of their own, in module order."""
    return [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]


FOUND = NamedLayers()
"""Layers are found by module order."""


def fully_connected(model: nn.Module, named: NamedLayers = FOUND) -> list[str]:
    """Return "the fully connected layers" of a network: the linear layers after its last convolution.

    Linear layers in the block of the last convolution, as in ConvNeXt, belong to the block.  In a
    transformer, they are the linear layers after its last block.  Squeeze-and-excitation layers are ignored.

    Raises
    ------
    ValueError
        If the network has no linear layer there.
    """
    if named.FC:
        return _within(model, named.FC)
    modules = _modules(model)
    last = _last_attention(modules) or _last_convolution(modules)
    for body in (_block(modules, last), last):
        after = _after(model, body)
        linear = [name for name in after if isinstance(modules.get(name), nn.Linear)]
        if linear := [name for name in linear if not isinstance(modules[name], OfTokens)]:
            return linear
    raise ValueError(
        "the network has no linear layer after its last convolution; name its FC layers"
    )


def last_convolution(model: nn.Module, named: NamedLayers = FOUND) -> list[str]:
    """Return "the last convolution" of a network, with the normalisation that directly follows it.

    In a transformer it is the last block.

    Raises
    ------
    ValueError
        If the network has no convolution.
    """
    if named.CL:
        return _within(model, named.CL)
    modules = _modules(model)
    if attention := _last_attention(modules):
        body = _block(modules, attention)
    else:
        body = _last_convolution(modules)
    if not body:
        raise ValueError("the network has no convolution; name its CL layers")
    follower = _after(model, body)[:1]
    return [
        *_within(model, [body]),
        *(name for name in follower if isinstance(modules.get(name), NORMALISATIONS)),
    ]


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return a network's modules by name, without gates such as squeeze-and-excitation."""
    gates: list[str] = []
    for name, module in model.named_modules():
        gate = GATE_TYPES.search(type(module).__name__) or GATE_NAMES.search(
            name.rpartition(".")[2]
        )
        if name and (gate or _is_bottleneck_of_sigmoid(module)):
            gates.append(name)
    return {
        name: module
        for name, module in model.named_modules()
        if not any(name == gate or name.startswith(f"{gate}.") for gate in gates)
    }


def _is_bottleneck_of_sigmoid(module: nn.Module) -> bool:
    """Tell whether a module is a gate: a bottleneck of two layers with a sigmoid."""
    layers = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    if len(layers) != 2 or not any(
        isinstance(m, (nn.Sigmoid, nn.Hardsigmoid)) for m in module.modules()
    ):
        return False
    (wide, narrow), (again, widened) = (
        (m.in_features, m.out_features)
        if isinstance(m, nn.Linear)
        else (m.in_channels, m.out_channels)
        for m in layers
    )
    return narrow == again and wide == widened > narrow


def _last_convolution(modules: dict[str, nn.Module]) -> str:
    """Return the name of the last convolution in module order; empty if there is none."""
    return next((n for n in reversed(modules) if isinstance(modules[n], CONVOLUTIONS)), "")


def _last_attention(modules: dict[str, nn.Module]) -> str:
    """Return the name of the last attention after the last convolution, the outermost of nested ones."""
    names = list(modules)
    names = names[names.index(_last_convolution(modules)) + 1 :]
    found = [name for name in names if "attention" in type(modules[name]).__name__.lower()]
    return next((n for n in reversed(found) if not any(n.startswith(f"{o}.") for o in found)), "")


def _block(modules: dict[str, nn.Module], name: str) -> str:
    """Return the name of the block that contains a layer.

    For attention it is the parent module; for a convolution the nearest ancestor with a sibling of its type,
    or the convolution itself.
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
    """Return the layers in some modules, in module order.

    Raises
    ------
    ValueError
        If a module does not exist or has no parameters.
    """
    layers = layers_with_parameters(model)
    parts = {name: {n for n in layers if n == name or n.startswith(f"{name}.")} for name in names}
    if empty := [name for name, part in parts.items() if not part]:
        raise ValueError(f"the network has no layer {', '.join(empty)}")
    chosen = set().union(*parts.values())
    return [name for name in layers if name in chosen]


def _after(model: nn.Module, name: str) -> list[str]:
    """Return the layers after a module; all layers for an empty name."""
    layers = layers_with_parameters(model)
    return layers[layers.index(_within(model, [name])[-1]) + 1 :] if name else layers


def last_layer(model: nn.Module, named: NamedLayers = FOUND) -> list[str]:
    """Return the head of a network: the last of its fully connected layers."""
    return fully_connected(model, named)[-1:]


def normalisations(model: nn.Module, named: NamedLayers = FOUND) -> list[str]:
    """Return the normalisations of a network that have weights (scale and shift).

    Raises
    ------
    ValueError
        If the network has none.
    """
    modules = dict(model.named_modules())
    found = [n for n in layers_with_parameters(model) if isinstance(modules[n], NORMALISATIONS)]
    if not found:
        raise ValueError("the network has no normalisation with weights")
    return found


def body(model: nn.Module, named: NamedLayers = FOUND) -> list[str]:
    """Return every layer of a network but its head."""
    head = last_layer(model, named)
    return [name for name in layers_with_parameters(model) if name not in head]


LAYERS: Mapping[str, Callable[[nn.Module, NamedLayers], list[str]]] = {
    "none": lambda model, named: [],
    "norms": normalisations,
    "head": last_layer,
    "FC": fully_connected,
    "FC+CL": lambda model, named: last_convolution(model, named) + fully_connected(model, named),
    "body": body,
    "all": lambda model, named: layers_with_parameters(model),
}
"""The kinds of layers that a strategy may train; each function returns their names."""


def train_only(model: nn.Module, layers: Iterable[str]) -> None:
    """Freeze all layers but the named ones: only their parameters require gradients.

    Parameters
    ----------
    layers
        Module names, as in `torch.nn.Module.named_modules`.

    Raises
    ------
    ValueError
        If a name is not one of the network's layers.
    """
    chosen = set(layers)
    unknown = chosen - set(layers_with_parameters(model))
    if unknown:
        raise ValueError(f"the network has no layer {', '.join(sorted(unknown))}")
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(name in chosen)


def channels_last(model: Model, images: Tensor) -> Model:
    """Copy a network for training, with its convolutions in channels-last layout if it works with it.

    Channels last is faster, but fails in networks that flatten features with ``view``, and PyTorch crashes
    where a `torch.nn.GroupNorm` trains behind frozen layers; for these the layout is not changed.

    Parameters
    ----------
    images
        A few normalised images, float (N, C, H, W), to try it on.
    """
    fast = copy.deepcopy(model)
    if _trains_group_norm_behind_frozen(fast):
        return fast
    for module in fast.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    try:
        with torch.no_grad():
            fast.eval()(images.to(next(fast.parameters()).device))
    except RuntimeError:
        return copy.deepcopy(model)
    return fast


def _trains_group_norm_behind_frozen(model: nn.Module) -> bool:
    """Tell whether a group normalisation may train on an input that needs no gradient.

    PyTorch 2.13 ends the process there: on a CPU, the backward pass of `torch.nn.GroupNorm` for an input in
    channels-last layout writes the input's gradient also if there is none.
    """
    parameters = [parameter.requires_grad for parameter in model.parameters()]
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    return not all(parameters) and any(p.requires_grad for n in norms for p in n.parameters())


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

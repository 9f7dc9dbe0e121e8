"""The study's network, and the names of the layers of any network.

A model is any `torch.nn.Module` that maps normalised images, float (N, C, H, W), to logits (N, classes).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from crossfer.emotions import EMOTIONS

INPUT = (48, 48)
"""The faces that the study's network reads: gray, height and width in pixels."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def study_cnn(width: float = 1.0, classes: int = len(EMOTIONS)) -> nn.Sequential:
    """Build the network of the study (section II.A, Fig. 1) with random weights.

    Five unpadded convolutions (64 filters of 2×2 twice, 128 of 3×3 three times), each with batch
    normalisation and ReLU, 2×2 max-pooling after the second and the fifth, and three fully connected
    layers (2048, 1024, classes) with dropout 0.5 after the first two.  Unpadded convolutions are
    the only reading that gives the paper's 19.2 M parameters: 8,192 features, 19,271,431 trainable.

    Parameters
    ----------
    width
        Multiplies every number of filters and units; 1.0 is the study.  Narrower networks serve
        demonstrations and tests.
    classes
        Number of logits.

    Returns
    -------
    torch.nn.Sequential
        Takes float (N, 1, 48, 48); returns float (N, classes).
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
    layers["fc3"] = nn.Linear(features, classes)
    return nn.Sequential(layers)


def layers_with_parameters(model: nn.Module) -> list[str]:
    """Name every module that owns parameters itself, in module order."""
    return [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]


def fully_connected(model: nn.Module) -> list[str]:
    """Name "the fully connected layers" of a network: the linear layers after its last convolution.

    Raises
    ------
    ValueError
        If the network has no linear layer there.
    """
    modules = dict(model.named_modules())
    names = layers_with_parameters(model)
    convolutions = [i for i, name in enumerate(names) if isinstance(modules[name], CONVOLUTIONS)]
    after = names[convolutions[-1] + 1 :] if convolutions else names
    linear = [name for name in after if isinstance(modules[name], nn.Linear)]
    if not linear:
        raise ValueError("this network has no linear layer after its last convolution")
    return linear


def last_convolution(model: nn.Module) -> list[str]:
    """Name "the last convolution" of a network, with the normalisation that directly follows it.

    Raises
    ------
    ValueError
        If the network has no convolution.
    """
    modules = dict(model.named_modules())
    names = layers_with_parameters(model)
    convolutions = [i for i, name in enumerate(names) if isinstance(modules[name], CONVOLUTIONS)]
    if not convolutions:
        raise ValueError("this network has no convolution")
    last = convolutions[-1]
    follower = names[last + 1 : last + 2]
    return [names[last], *(name for name in follower if isinstance(modules[name], NORMALISATIONS))]


def last_layer(model: nn.Module) -> list[str]:
    """Name the head of a network: the last of its fully connected layers."""
    return fully_connected(model)[-1:]


def training_flop(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of one image's training step, as much as trains.

    Forward through every layer, backward from the loss to the first layer that trains: matrix products and
    convolutions, as `torch.utils.flop_counter` counts them (a multiply-add is two).  Nothing is calculated.

    Parameters
    ----------
    model
        With the parameters that train requiring gradients; if none does, one pass forward is counted.
    shape
        Of an image: channels, height, width.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        logits = ghost(torch.empty(1, *shape, device="meta"))
        if logits.requires_grad:
            logits.sum().backward()
    return int(counter.get_total_flops())


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

"""What a CPU does in one go: normalisation, ReLU and pooling as one layer; eight chances of dropout at once.

The loops are in `crossfer.training.backends.cpu.kernels`.  Nothing but rounding differs from PyTorch's own
layers (and dropout's chances, which are others), which still calculate wherever the loops cannot: on another
device, with other types, in another layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from crossfer.networks.layers import is_just, layers_in_order
from crossfer.training.backends.cpu.descent import Linear
from crossfer.training.backends.cpu.kernels import kernels, moments

SHORT_ROW = 512
"""The most numbers in a row of pixels that is processed as one pixel: they stay in a core's first cache."""


def fuse(network: nn.Module) -> nn.Module:
    """Put layers in the place of those that a CPU is slow at.

    One in the place of a batch normalisation, a ReLU and a 2×2 max-pooling in a row; a `Dropout`; and a
    `crossfer.training.backends.cpu.descent.Linear`.  Only as far as a network is a sequence, of sequences
    perhaps: elsewhere its own code may want what lies between two layers.  Parameters and buffers stay, under
    their names.

    Parameters
    ----------
    network
        Changed in place: what has become part of another layer is an identity.

    Returns
    -------
    torch.nn.Module
        The network.
    """
    if type(network).forward is not nn.Sequential.forward:
        return network
    children = layers_in_order(network)
    padded = [*children, ("", nn.Identity()), ("", nn.Identity())]
    for index in range(len(children)):
        (name, layer), (relu_name, relu), (pool_name, pool) = padded[index : index + 3]
        fuse(layer)
        if isinstance(layer, nn.BatchNorm2d) and _is_usual(layer) and is_just(relu, nn.ReLU):
            halves = is_just(pool, nn.MaxPool2d) and str(pool) == str(nn.MaxPool2d(2))
            network.add_module(name, NormReluPool(layer, 2 if halves else 1))
            network.add_module(relu_name, nn.Identity())
            if halves:
                network.add_module(pool_name, nn.Identity())
        elif isinstance(layer, nn.Dropout) and is_just(layer, nn.Dropout):
            network.add_module(name, Dropout(layer.p).train(layer.training))
        elif isinstance(layer, nn.Linear) and is_just(layer, nn.Linear) and _is_single(layer):
            network.add_module(name, Linear(layer))
    return network


def _is_usual(norm: nn.BatchNorm2d) -> bool:
    """Tell whether a batch normalisation is as PyTorch makes them unless asked otherwise."""
    asked = norm.affine, norm.track_running_stats, norm.momentum is not None
    return is_just(norm, nn.BatchNorm2d) and all(asked)


def _is_single(layer: nn.Linear) -> bool:
    """Tell whether a layer's weight is in single precision."""
    return layer.weight.dtype == torch.float32


class NormReluPool(nn.BatchNorm2d):
    """A batch normalisation that does the ReLU and the max-pooling behind it on the way.

    Parameters
    ----------
    norm
        The normalisation that it stands for; parameters and buffers are shared.
    side
        Of the pooling windows, which lie one beside the other; 1 is no pooling.
    """

    def __init__(self, norm: nn.BatchNorm2d, side: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.training, self.side = norm.training, side

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W), by their own moments in training; return (N, C, H // side, W // side)."""
        if not self._suits(images):
            y = F.relu(super().forward(images))
            return F.max_pool2d(y, self.side) if self.side > 1 else y
        weight, bias, mean, variance = self.weight, self.bias, self.running_mean, self.running_var
        assert mean is not None and variance is not None and self.num_batches_tracked is not None
        if not self.training:
            scale = weight * (variance + self.eps).rsqrt()
            return _forward(images, scale, bias - mean * scale, self.side)
        y, batch_mean, batch_variance = _Training.apply(images, weight, bias, self.eps, self.side)
        count = images.numel() // len(weight)
        assert self.momentum is not None
        with torch.no_grad():
            mean.lerp_(batch_mean, self.momentum)
            variance.lerp_(batch_variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        return y

    def _suits(self, images: Tensor) -> bool:
        """Tell whether the loops are made for such images and for what is asked of them."""
        learns = images.requires_grad or self.weight.requires_grad or self.bias.requires_grad
        return (
            images.device.type == "cpu"
            and images.dtype in (torch.float32, torch.bfloat16)
            and images.ndim == 4
            and images.is_contiguous(memory_format=torch.channels_last)
            and images.numel() > len(self.weight)
            and (self.training or not (learns and torch.is_grad_enabled()))
        )


class Dropout(nn.Dropout):
    """Dropout that takes a byte for every number, and draws eight bytes at a time.

    A rate that is no multiple of 1/256, and another device, are left to PyTorch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Set numbers to zero with probability p and scale the others to the same sum, in training."""
        threshold = 256 * self.p
        if not (self.training and 0 < self.p < 1 and threshold.is_integer() and x.is_cpu):
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.uint8)[: x.numel()] >= int(threshold)
        return x * (kept.view(x.shape).to(x.dtype) / (1 - self.p))


class _Training(torch.autograd.Function):
    """The layer in training: gives the images, and their mean and variance of every channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, side: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Around a number near the mean, squares lose nothing.
        pivot = x[0, :, 0, 0].float()
        count = x.numel() // len(pivot)
        first, second = _sums(moments, _joined(x, 1), [x], [pivot]) / count
        mean, variance = (first + pivot).float(), (second - first**2).clamp_min(0).float()
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse
        shift = bias - mean * scale
        ctx.save_for_backward(x, scale, shift, mean, inverse)
        ctx.side = side
        ctx.mark_non_differentiable(mean, variance)
        return _forward(x, scale, shift, side), mean, variance

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]  # of three results
        ctx: Any, dy: Tensor, *unused: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """As Ioffe and Szegedy, Batch Normalization, 2015, section 3; g is what passes the ReLU.

        With ``n`` numbers a channel, ``dx = scale (g - sum(g) / n - x̂ sum(g x̂) / n)``, which is linear in
        g and x.
        """
        x, scale, shift, mean, inverse = ctx.saved_tensors
        dy, dx = dy.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
        loops, joined = kernels(ctx.side), _joined(x, ctx.side)
        of_bias, of_x = _sums(loops.slopes, joined, [x, dy], [scale, shift, mean]).float()
        count = x.numel() // len(scale)
        of_weight = of_x * inverse
        slope = -scale * inverse * of_weight / count
        offset = -scale * of_bias / count - slope * mean
        vectors = (_vector(values, joined) for values in (scale, shift, slope, offset))
        loops.backward(_array(x, joined), _array(dy, joined), *vectors, _array(dx, joined))
        return dx, of_weight, of_bias, None, None


def _forward(x: Tensor, scale: Tensor, shift: Tensor, side: int) -> Tensor:
    images, channels, height, width = x.shape
    y = torch.empty(
        (images, channels, height // side, width // side),
        dtype=x.dtype,
        memory_format=torch.channels_last,
    )
    joined = _joined(x, side)
    vectors = (_vector(values, joined) for values in (scale, shift))
    kernels(side).forward(_array(x, joined), *vectors, _array(y, joined))
    return y


def _sums(
    loop: Callable[..., None], joined: int, images: list[Tensor], vectors: list[Tensor]
) -> Tensor:
    """Return the two sums of a loop over all images, float64 (2, C)."""
    count, channels = images[0].shape[:2]
    sums = np.empty((count, 2, joined * channels), np.float32)
    loop(*(_array(x, joined) for x in images), *(_vector(v, joined) for v in vectors), sums)
    return torch.from_numpy(sums).view(count, 2, joined, channels).sum((0, 2), dtype=torch.float64)


def _joined(images: Tensor, side: int) -> int:
    """Return how many pixels of (N, C, H, W) a loop takes as one: a whole row if it is short and not pooled.

    Each pixel costs a loop some nanoseconds, as much as 64 of its numbers.
    """
    _, channels, _, width = images.shape
    return width if side == 1 and width * channels <= SHORT_ROW else 1


def _array(images: Tensor, joined: int) -> NDArray[Any]:
    """View images, (N, C, H, W) with channels last, as the loops do: (N, H, W / joined, joined * C)."""
    count, channels, height, width = images.shape
    shape = (count, height, width // joined, joined * channels)
    pixels = images.detach().permute(0, 2, 3, 1).view(shape)
    return (pixels.view(torch.uint16) if images.dtype == torch.bfloat16 else pixels).numpy()


def _vector(values: Tensor, joined: int) -> NDArray[np.float32]:
    """Return a number for each channel, as often as pixels are joined: float32 (joined * C,)."""
    values = values.detach()
    return (values.repeat(joined) if joined > 1 else values).numpy()

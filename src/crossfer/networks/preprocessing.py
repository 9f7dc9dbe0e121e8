"""Preprocessing of pixels: channels, order, range, normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from crossfer.framing import SIDE


@dataclass(frozen=True)
class Preprocessing:
    """How a network reads pixels.

    Parameters
    ----------
    channels
        1 for gray, 3 for colour.
    side
        Of its square faces, in pixels.
    mean, deviation
        Of each channel in the network's own order, of pixels as numbers from 0 to `white`: what it
        standardises images by.  Where they are empty, every image is standardised by its own.
    white
        The number that the brightest pixel has before `mean` and `deviation` are applied: 1 in most
        networks, 255 where they read bytes.
    order
        Of the colours.

    Raises
    ------
    ValueError
        If a value is impossible: the field is named.
    """

    channels: Literal[1, 3] = 1
    side: int = SIDE
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    white: float = 1.0
    order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or self.side < 8:
            raise ValueError("input: channels (1 or 3), height, width; square, of 8 pixels or more")
        if (self.mean or self.deviation) and {len(self.mean), len(self.deviation)} != {
            self.channels
        }:
            raise ValueError(
                f"normalisation: a mean and deviation for each of {self.channels} channels"
            )
        if self.deviation and min(self.deviation) <= 0:
            raise ValueError("normalisation: every deviation must be above 0")
        if self.white <= 0:
            raise ValueError("normalisation: white must be above 0")
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f"normalisation: order is {self.order!r}: RGB or BGR")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` wrote and JSON made lists of."""
        lists = {key: tuple(content[key]) for key in ("mean", "deviation")}
        return cls(**{**content, **lists})

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one face: (H, W) gray or (H, W, 3) RGB."""
        return (self.side, self.side) if self.channels == 1 else (self.side, self.side, 3)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one face as the network is given it: channels, height, width."""
        return (self.channels, self.side, self.side)

    def __str__(self) -> str:
        """Say it in a few words, for people."""
        colours = "gray" if self.channels == 1 else self.order
        if not self.mean:
            how = "each image standardised by its own mean and deviation"
        else:
            mean, deviation = (
                ", ".join(f"{v:g}" for v in vs) for vs in (self.mean, self.deviation)
            )
            scale = f" of pixels up to {self.white:g}" if self.white != 1 else ""
            how = f"mean {mean} and deviation {deviation}{scale}"
        return f"{self.side}×{self.side} {colours}, {how}"


def normalise(images: Tensor, how: Preprocessing | None = None) -> Tensor:
    """Bring pixels to what a network reads.

    Parameters
    ----------
    images
        uint8 or float (N, H, W) gray, or (N, H, W, 3) RGB, 0–255.
    how
        How the network reads pixels; by default every image is standardised by its own mean and deviation,
        so that no dataset's statistics are involved.

    Returns
    -------
    Tensor
        float32 (N, C, H, W); standardised by its own, an image has mean 0 and deviation 1 (0 everywhere
        where it is flat).
    """
    values = images.float()
    if how and how.order == "BGR" and images.ndim == 4:
        values = values.flip(-1)
    if how and how.mean:
        # Made where the images are: a number from the host would stop a GPU.
        mean, deviation = (
            torch.stack([values.new_full((), 255 / how.white * number) for number in numbers])
            for numbers in (how.mean, how.deviation)
        )
        if images.ndim == 3:
            values = values[..., None]
        return ((values - mean) / deviation).permute(0, 3, 1, 2).contiguous()
    of_image = tuple(range(1, images.ndim))
    mean = values.mean(of_image, keepdim=True)
    deviation = values.std(of_image, keepdim=True, correction=0).clamp_min(1.0)
    normal = (values - mean) / deviation
    return normal.unsqueeze(1) if images.ndim == 3 else normal.permute(0, 3, 1, 2).contiguous()

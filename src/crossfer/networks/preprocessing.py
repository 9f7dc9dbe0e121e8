"""Preprocessing of pixels: channels, order, range, normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from crossfer.framing import SIDE, shape_of
from crossfer.strict import Strict

PER_IMAGE = "per-image"
MAPPED = "{mean: […], deviation: […], white: 1}"


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a network: channels, size, normalisation.

    Parameters
    ----------
    channels
        1 for gray, 3 for colour.
    side
        Side of the square faces, in pixels.
    mean, deviation
        Mean and standard deviation of each channel, in the network's order, for pixels from 0 to `white`;
        empty: every image is standardised by its own mean and deviation.
    white
        Value of the brightest pixel before normalisation: usually 1, or 255 for networks that read bytes.
    order
        Order of the colours.

    Raises
    ------
    ValueError
        If a value is invalid; the message names the field.
    """

    channels: Literal[1, 3] = 1
    side: int = SIDE
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    white: float = 1.0
    order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or self.side < 16:
            raise ValueError(
                "input: channels (1 or 3), height, width; square, of 16 pixels or more"
            )
        if (self.mean or self.deviation) and {len(self.mean), len(self.deviation)} != {
            self.channels
        }:
            raise ValueError(
                f"normalisation: a mean and deviation for each of {self.channels} channels"
            )
        if not all(map(math.isfinite, (*self.mean, *self.deviation, self.white))):
            raise ValueError("normalisation: mean, deviation and white must be finite numbers")
        if self.deviation and min(self.deviation) <= 0:
            raise ValueError("normalisation: every deviation must be above 0")
        if self.white <= 0:
            raise ValueError("normalisation: white must be above 0")
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f"normalisation: order is {self.order!r}: RGB or BGR")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the object that `dataclasses.asdict` and JSON wrote."""
        lists: dict[str, Any] = {key: tuple(content[key]) for key in ("mean", "deviation")}
        return cls(**{**content, **lists})

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one face: (H, W) gray or (H, W, 3) RGB."""
        return shape_of(self.side, self.channels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of the network's input for one face: channels, height, width."""
        return (self.channels, self.side, self.side)

    def __str__(self) -> str:
        """Return a short description for people."""
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


@dataclass(frozen=True)
class Normalisation(Strict):
    """Normalisation of pixels, as a configuration has it: see `Preprocessing`."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    white: float = 1.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.mean, *self.deviation, self.white))):
            raise ValueError("mean, deviation and white must be numbers")
        if any(mean > self.white for mean in self.mean):
            raise ValueError(
                f"mean {max(self.mean):g} exceeds white: {self.white:g}; set white: 255 if mean "
                "and deviation refer to bytes"
            )

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Read it from a mapping.

        Raises
        ------
        ValueError
            If a key is unknown or missing, or a value is no number.
        """
        if not {"mean", "deviation"} <= told.keys() <= {"mean", "deviation", "white"}:
            raise ValueError(f"normalisation: write {MAPPED}")
        try:
            sizes = {key: tuple(map(float, told[key])) for key in ("mean", "deviation")}
            return cls(**sizes, white=float(told.get("white", 1.0)))
        except TypeError:
            raise ValueError(f"normalisation: write {MAPPED}") from None


def normalise(images: Tensor, how: Preprocessing | None = None) -> Tensor:
    """Normalise pixels for a network.

    Parameters
    ----------
    images
        uint8 or float (N, H, W) gray, or (N, H, W, 3) RGB, 0–255.
    how
        Preprocessing of the network; by default every image is standardised by its own mean and deviation, so
        that no dataset's statistics are involved.

    Returns
    -------
    Tensor
        float32 (N, C, H, W); with the default, each image has mean 0 and deviation 1 (a constant image is 0).
    """
    values = images.float()
    if how and how.order == "BGR" and images.ndim == 4:
        values = values.flip(-1)
    if how and how.mean:
        # Created on the images' device: a copy from the host would synchronise a GPU.
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

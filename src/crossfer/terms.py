"""Names that several modules share: the baseline, levels of past data, needs of methods, the two sides."""

from __future__ import annotations

from typing import Final, Literal, get_args

BL: Final = "BL"
"""The baseline: the network before any adaptation, with which every strategy is compared."""

PastData = Literal["none", "statistics", "some per class", "all source"]
"""What a strategy needs, or a user has, of the source's training images."""

PAST_DATA: tuple[PastData, ...] = get_args(PastData)
"""From the least to the most."""

Needs = tuple[Literal["norms", "head", "outputs", "plain", "bias"], ...]
"""Of a network: batch normalisation; a linear last layer, that gives the outputs, is plain, has a bias."""

Side = Literal["source", "target"]
SIDES: tuple[Side, ...] = get_args(Side)

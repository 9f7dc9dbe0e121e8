"""Names that several rooms share: the baseline, what is left of the past, the two sides."""

from __future__ import annotations

from typing import Final, Literal, get_args

BL: Final = "BL"
"""The strategy that every other is compared with: the network before any adaptation."""

PastData = Literal["none", "statistics", "some per class", "all source"]
"""What a strategy needs, or a user has, of the source's training images."""

PAST_DATA: tuple[PastData, ...] = get_args(PastData)
"""From the least to the most."""

Side = Literal["source", "target"]
SIDES: tuple[Side, ...] = get_args(Side)

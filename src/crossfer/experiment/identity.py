"""What identifies a run: all the values that determine its weights, whatever fields are added to them.

A dataclass says in ``NOT_IDENTITY`` which of its fields determine nothing: names, and words for people.
Every other field enters the identity, so a new one cannot be forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from lightning_fabric import Fabric

from crossfer.training.machine import Precision, precision_of

RULES = 9
"""Raised whenever the same configuration would give other weights: it enters every run's identity."""


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are calculated; another kind of device or precision gives other bits.

    What changes no more than rounding is not part of it, and is recorded with every run instead: the
    processor, the number of threads, the versions of packages.

    Parameters
    ----------
    device
        ``"cpu"``, ``"cuda"`` or ``"mps"``.
    precision
        ``"32-true"`` or ``"bf16-mixed"``.
    """

    device: str
    precision: Precision

    @classmethod
    def of(cls, fabric: Fabric) -> Arithmetic:
        """Return that of a machine."""
        return cls(fabric.device.type, precision_of(fabric))


def described(value: Any) -> Any:
    """Return a value as what JSON can hold: of a dataclass all fields but those in its ``NOT_IDENTITY``."""
    if is_dataclass(value):
        left_out: frozenset[str] = getattr(value, "NOT_IDENTITY", frozenset())
        return {
            field.name: described(getattr(value, field.name))
            for field in fields(value)
            if field.name not in left_out
        }
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of an identity")


def key_of(identity: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits that identify a run, of what determines its weights."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""The identity of a run: all values that determine its weights.

A dataclass lists in ``NOT_IDENTITY`` the fields that do not determine weights, such as names and
descriptions. Every other field is part of the identity, so a new field cannot be forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from crossfer.machine import Machine, Precision

RULES = 9
"""Part of every identity; raised whenever a configuration would give other weights, but for rounding."""


@dataclass(frozen=True)
class Arithmetic:
    """The kind of device and the precision, which determine the bits of results.

    Processor, number of threads and package versions change only rounding; they are recorded with every run
    instead.

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
    def of(cls, machine: Machine) -> Arithmetic:
        """Return the arithmetic of a machine."""
        return cls(machine.device.type, machine.precision)


def described(value: Any) -> Any:
    """Return a value for JSON; of a dataclass, all fields but those in its ``NOT_IDENTITY``."""
    if is_dataclass(value):
        left_out: frozenset[str] = getattr(value, "NOT_IDENTITY", frozenset())
        return {
            field.name: described(getattr(value, field.name))
            for field in fields(value)
            if field.name not in left_out
        }
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [described(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of an identity")


def key_of(identity: Mapping[str, Any]) -> str:
    """Return the key of a run: sixteen hexadecimal digits, a hash of its identity."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

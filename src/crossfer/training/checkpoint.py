"""Checkpoints: the state of an unfinished training, written atomically (safetensors, JSON)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from crossfer.networks.weights import content_digest, save_tensors
from crossfer.training.trainer import State

SHARE_OF_TIME = 0.02
FIRST_TAKES = 1.0
"""Seconds; what the first checkpoint of a training is expected to take."""

TENSORS = ("weights", "momenta", "averaged", "kept", "best", "inside")
PROGRESS = ("kept_epoch", "history", "images_seen", "seconds", "step")
"""The two parts of a state: tensors, and the rest."""

Facts = Mapping[str, Any]
"""What is stored beside each state, such as the number of threads; JSON."""


@dataclass
class Checkpoints:
    """The file of one training's last checkpoint.

    They take less than 2 % of the time: the next is due when there is room for as much as the last took.
    """

    file: Path
    _began: float = field(default_factory=time.monotonic)
    _spent: float = 0.0
    _next: float = FIRST_TAKES
    facts: Facts = field(default_factory=dict)

    def save_if_due(self, standing: Callable[[], State]) -> None:
        """Write the state as it stands, if there is time for it."""
        now = time.monotonic()
        if (now - self._began) * SHARE_OF_TIME < self._spent + self._next:
            return
        self.save(standing())
        self._next = time.monotonic() - now
        self._spent += self._next

    def save(self, state: State) -> None:
        """Write a state in the place of the last."""
        tensors = {
            f"{part}/{name}": tensor.detach().cpu()
            for part in TENSORS
            for name, tensor in getattr(state, part).items()
        }
        progress = {key: getattr(state, key) for key in PROGRESS}
        told = {"progress": json.dumps(progress), "facts": json.dumps(self.facts)}
        save_tensors(tensors, self.file, told | {"digest": content_digest(tensors, told)})

    def load(self) -> State | None:
        """Return the last state, or None where there is none that can be read."""
        found = read_checkpoint(self.file)
        return found[0] if found else None


def read_checkpoint(file: Path) -> tuple[State, Facts] | None:
    """Return a checkpoint's state and facts, or None where there is none that can be read."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in TENSORS}
    try:
        with safe_open(file, "pt") as content:
            told = dict(content.metadata())
            # Copied: Windows would not replace a file that is in use.
            tensors = {key: content.get_tensor(key).clone() for key in content.keys()}  # noqa: SIM118
        digest = told.pop("digest", None)  # not in those of earlier versions
        if digest and digest != content_digest(tensors, told):
            return None
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = tensor
        return State(**(parts | json.loads(told["progress"]))), json.loads(told.get("facts", "{}"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None

"""Checkpoints: the state of an unfinished training, written atomically (safetensors, JSON)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from crossfer.networks.weights import save_tensors
from crossfer.training.trainer import State

SHARE_OF_TIME = 0.02
FIRST_TAKES = 1.0
"""Seconds; what the first checkpoint of a training is expected to take."""

TENSORS = ("weights", "momenta", "averaged", "kept", "best", "inside")
PROGRESS = ("kept_epoch", "history", "images_seen", "seconds", "step")
"""The two parts of a state: tensors, and the rest."""


@dataclass
class Checkpoints:
    """The file of one training's last checkpoint.

    They take less than 2 % of the time: the next is due when there is room for as much as the last took.
    """

    file: Path
    _began: float = field(default_factory=time.monotonic)
    _spent: float = 0.0
    _next: float = FIRST_TAKES

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
        tensors = {f"{part}/{n}": t for part in TENSORS for n, t in getattr(state, part).items()}
        progress = json.dumps({key: getattr(state, key) for key in PROGRESS})
        save_tensors(tensors, self.file, {"progress": progress})

    def load(self) -> State | None:
        """Return the last state, or None where there is none that can be read."""
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in TENSORS}
        try:
            with safe_open(self.file, "pt") as content:
                progress = json.loads(content.metadata()["progress"])
                for key in content.keys():  # noqa: SIM118  (no mapping)
                    part, name = key.split("/", 1)
                    parts[part][name] = content.get_tensor(key)
            return State(**(parts | progress))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

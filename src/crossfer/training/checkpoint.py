"""Weights and half-finished trainings on disk: safetensors and JSON, written beside and renamed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossfer.errors import CrossferError
from crossfer.training.loop import State

SHARE_OF_TIME = 0.02
TENSORS, PROGRESS = "tensors.safetensors", "progress.json"
PARTS = ("weights", "momenta", "averaged", "best")


def save_weights(model: nn.Module, file: Path) -> None:
    """Write a network's weights, batch-norm statistics included, atomically."""
    _save(model.state_dict(), file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Read weights into a network of the same shape.

    Raises
    ------
    CrossferError
        If the file is missing or damaged, or belongs to another network.
    """
    try:
        model.load_state_dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise CrossferError(f"{file}: cannot be read ({error})") from None
    except RuntimeError as error:
        raise CrossferError(f"{file}: weights of another network ({error})") from None


@dataclass
class Checkpoints:
    """The folder of one training's last checkpoint.

    Saving is skipped while it would take more than 2 % of the time.
    """

    folder: Path
    _last: float = 0.0
    _took: float = 0.2

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    def save_if_due(self, state: State) -> None:
        """Write a state, unless the last one is too recent."""
        began = time.monotonic()
        if (began - self._last) * SHARE_OF_TIME < self._took:
            return
        self.save(state)
        self._last = time.monotonic()
        self._took = self._last - began

    def save(self, state: State) -> None:
        """Write a state: a folder beside, then renamed over the old one."""
        partial = self.folder.with_name(self.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors = {f"{part}/{n}": t for part in PARTS for n, t in getattr(state, part).items()}
        _save(tensors, partial / TENSORS)
        progress = {
            "best_epoch": state.best_epoch,
            "history": state.history,
            "images_seen": state.images_seen,
            "seconds": state.seconds,
        }
        (partial / PROGRESS).write_text(json.dumps(progress))
        self.remove()
        partial.rename(self.folder)

    def load(self) -> State | None:
        """Return the last state, or None where there is none that can be read."""
        try:
            progress = json.loads((self.folder / PROGRESS).read_text())
            tensors = load_file(self.folder / TENSORS)
            parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
            for key, tensor in tensors.items():
                part, name = key.split("/", 1)
                parts[part][name] = tensor
            return State(**(parts | progress))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def remove(self) -> None:
        """Forget the checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    partial = file.with_name(file.name + ".partial")
    contiguous = {
        name: tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    save_file(contiguous, partial)
    os.replace(partial, file)

"""Files of tensors: read from whatever a training script left, written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossfer.errors import CrossferError, one_line
from crossfer.files import written

STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where a training script's checkpoint keeps the weights, beside its optimiser and the like."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before the name of every tensor."""


def save_tensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors as safetensors, whole or not at all.

    Raises
    ------
    OSError
        If there is no room or no permission.
    """
    contiguous = {
        # A copy each: safetensors refuses layers that share their weights.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with written(file) as beside:
        try:
            save_file(contiguous, beside, metadata)
        except SafetensorError as error:  # its text alone says what the system said
            told = re.search(r"os error (\d+)", str(error))
            code = int(told[1]) if told else errno.EIO
            raise OSError(code, os.strerror(code) if told else str(error)) from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a file of tensors; nothing in it is executed.

    Raises
    ------
    CrossferError
        If it is missing, damaged, or more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files, which are refused below
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CrossferError(f"model.weights: {file}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CrossferError(f"model.weights: {file}: cannot be read ({one_line(error)})") from None
    except Exception:  # whatever a file that holds more than tensors makes of the reader
        raise CrossferError(
            f"model.weights: {file}: not a file of tensors alone, and nothing else is loaded; write one "
            "with safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        ) from None
    for key in STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise CrossferError(
            f"model.weights: {file}: holds no state dictionary; "
            "write one with torch.save(model.state_dict(), …)"
        )
    return dict(content)


def without_prefix(tensors: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Take away what wrappers put before every name, as far as the network has no such names itself."""
    wanted = set(wanted)
    for prefix in (p for _ in PREFIXES for p in PREFIXES):  # in whichever order they wrapped it
        if not tensors.keys() & wanted and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors

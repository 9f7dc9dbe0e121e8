"""Read weights from checkpoints of any training script; write them atomically."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossfer.errors import CrossferError, one_line, some_of
from crossfer.files import written

AVERAGED = re.compile(r"ema|averag|swa", re.I)
"""Matches keys of averaged weights (EMA, SWA)."""

WRAPPED = re.compile(r"module\.|_orig_mod\.")
"""Parts of names that DataParallel and torch.compile add."""


class Weights(NamedTuple):
    """Tensors under a network's names, and notes about how they were found."""

    tensors: dict[str, Tensor]
    said: list[str]


def save_tensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors as safetensors, atomically.

    Raises
    ------
    OSError
        If the disk is full or not writable.
    """
    contiguous = {
        # Copies, since safetensors refuses tensors that share memory.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with written(file) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        try:
            save_file(contiguous, beside, metadata)
            beside.chmod(mode)  # as of any other file; safetensors lets only its owner read it
        except SafetensorError as error:  # the error of the system is only in its text
            told = re.search(r"os error (\d+)", str(error))
            code = int(told[1]) if told else errno.EIO
            raise OSError(code, os.strerror(code) if told else str(error)) from None


def content_digest(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> str:
    """Return the SHA-256 of tensors on the CPU and of what a file says beside them, in hexadecimal digits."""
    sha = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def read_weights(file: Path, wanted: Collection[str], key: str = "") -> Weights:
    """Read a network's weights from a file of tensors, without executing code.

    Parameters
    ----------
    file
        A ``.safetensors`` file, or a ``.pt``, ``.pth`` or ``.ckpt`` file with tensors and plain values only.
    wanted
        The network's names.  A common prefix is removed or added if needed.
    key
        The key, or prefix of names, of one of several sets of weights.  By default the set that fits; if
        weights and their average fit, the average.

    Raises
    ------
    CrossferError
        If it is missing, damaged, contains code, or does not fit the network.
    """
    content = _content(file)
    sets = dict(_sets(content))
    if not sets:
        raise CrossferError(
            f"model.weights: {file}: contains no state dictionary; write one with "
            "torch.save(model.state_dict(), …)"
        )
    chosen = {place: s for place, s in sets.items() if not key or place == key}
    fitting: dict[str, Weights] = {}
    for place, tensors in (chosen or sets).items():
        for found, fitted in _fitting(tensors, wanted):
            name = ".".join(filter(None, (place, found)))
            if not key or key in (place, found, name):
                fitting[name] = fitted
    if not fitting:
        _check_key(file, sets, key)
        place, tensors = max((chosen or sets).items(), key=lambda item: len(item[1]))
        raise CrossferError(f"model.weights: {file}: {_misfit(list(tensors), list(wanted), place)}")
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    averaged = [place for place in fitting if AVERAGED.search(place)]
    if len(averaged) == 1:
        others = ", ".join(place for place in fitting if place not in averaged)
        said = f"weights: using {averaged[0]}, the EMA; weights_key: {others} uses the others"
        return Weights(fitting[averaged[0]].tensors, [said])
    raise CrossferError(
        f"model.weights: {file}: contains several sets of weights that fit ({', '.join(fitting)}); "
        "choose one with model.weights_key"
    )


def _check_key(file: Path, sets: Mapping[str, Mapping[str, Tensor]], key: str) -> None:
    """Refuse a key that is neither that of a set nor the beginning of a name."""
    names = [".".join(filter(None, (place, name))) for place, own in sets.items() for name in own]
    names += [name for own in sets.values() for name in own]
    if not any(WRAPPED.sub("", name).startswith(key) for name in names):
        there = some_of([place for place in sets if place] or names, 4)
        raise CrossferError(f"model.weights_key: {file}: no such key {key!r}; there are {there}")


def _content(file: Path) -> Any:
    if foreign := _foreign(file):
        raise CrossferError(f"model.weights: {file}: {foreign}")
    try:
        if file.suffix == ".safetensors" or _is_safetensors(file):
            return dict(load_file(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid files are refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CrossferError(f"model.weights: {file}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CrossferError(f"model.weights: {file}: cannot be read ({one_line(error)})") from None
    except Exception:  # any error of the reader
        raise CrossferError(
            f"model.weights: {file}: not a file of tensors only, and nothing else is loaded; write "
            "one with safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        ) from None


def _is_safetensors(file: Path) -> bool:
    """Tell by a file's content whether it is one of safetensors: the length of a header in JSON, and that."""
    with file.open("rb") as content:
        head = content.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size


def _foreign(file: Path) -> str | None:
    """Describe a file that has no PyTorch weights; None if it may have."""
    try:
        with file.open("rb") as content:
            head = content.read(512)
    except OSError:
        return None  # reported where it is read
    here = "export PyTorch weights from there"
    if not head:
        return "is empty; copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if head.startswith(b"\x89HDF") or file.suffix in (".h5", ".keras"):
        return f"holds a Keras model; {here}, or convert it to ONNX and name it as onnx:FILE"
    if head[4:8] == b"TFL3" or file.suffix == ".tflite":
        return f"is a TensorFlow Lite model; {here}, or convert it to ONNX and name it as onnx:FILE"
    if file.suffix == ".onnx":
        return f"is an ONNX model; write model: onnx:{file.name} instead of weights"
    if re.match(rb"\s*<(!doctype|html)", head, re.I):
        return "is a web page, not a file of weights; download the file itself"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if file.suffix == ".pt2" or any(name.endswith("archive_format") for name in names):
            return f"is a program of torch.export; {here} with model.state_dict()"
        if any("/code/" in name for name in names):
            return f"is a TorchScript program, which is code; {here} with model.state_dict()"
        if not any(name.endswith("data.pkl") for name in names):
            return "is an archive of other files; unpack it and name the file of weights"
    return None


def _sets(content: Any, place: str = "", depth: int = 3) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping from names to tensors in a checkpoint, with its key."""
    if not isinstance(content, Mapping) or not content or not depth:
        return
    if all(isinstance(name, str) for name in content):
        values = [value for value in content.values() if isinstance(value, Tensor)]
        if len(values) == len(content):
            yield place, dict(content)
            return
    for key, value in content.items():
        yield from _sets(value, ".".join(filter(None, (place, str(key)))), depth - 1)


def _fitting(
    tensors: Mapping[str, Tensor], wanted: Collection[str]
) -> Iterator[tuple[str, Weights]]:
    """Yield tensors under the wanted names, for every prefix that can be removed or added."""
    plain = {WRAPPED.sub("", name): tensor for name, tensor in tensors.items()}
    names = {WRAPPED.sub("", name): name for name in wanted}
    first = next(iter(names), "")
    before = sorted({name[: -len(first)] for name in plain if first and name.endswith(first)})
    for found in before:
        if all(found + name in plain for name in names if not name.endswith("num_batches_tracked")):
            own = {name for name in plain if name.startswith(found)}
            if {name.removeprefix(found) for name in own} - names.keys():
                continue  # it has more tensors than the network
            others = [name for name in plain if name not in own]
            said = []
            if others:
                listed = some_of(others, 3)
                said = [
                    f"weights: {len(others)} tensors that the network does not have are ignored: "
                    f"{listed}"
                ]
            fitted = {
                name: plain[found + bare] for bare, name in names.items() if found + bare in plain
            }
            yield found, Weights(fitted, said)
    added = os.path.commonprefix(list(names)).rpartition(".")[0]
    while added and not before:
        if {f"{added}.{name}" for name in plain} == set(names):
            yield "", Weights({names[f"{added}.{n}"]: t for n, t in plain.items()}, [])
            return
        added = added.rpartition(".")[0]


def _misfit(theirs: list[str], ours: list[str], place: str) -> str:
    """Describe how names differ."""
    known = set(ours)
    bare = [name.rpartition(".")[2] for name in (theirs[:1] + ours[:1])]
    some = partial(some_of, most=3, counted=True)
    text = f"its names are {some(theirs)}; the network's are {some(ours)}"
    if place:
        text = f"{place}: {text}"
    missing, more = [n for n in ours if n not in theirs], [n for n in theirs if n not in known]
    if len(missing) < len(ours) / 2:
        if missing:
            text += f"; missing: {some(missing)}"
        if more:
            text += f"; too many: {some(more)}"
    elif len(theirs) == len(ours) and bare[0] == bare[1]:
        left, right = (names[0].rpartition(".")[0] for names in (theirs, ours))
        text += f"; the numbers agree, so they may be renamed ({left} → {right})"
    return text

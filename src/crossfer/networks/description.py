"""Files that describe a network: the keys of ``model:`` of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossfer.errors import CrossferError
from crossfer.yaml_files import read_yaml

DESCRIPTIONS = (".yaml", ".yml", ".json")
"""Suffixes of such files."""


def is_description(path: str) -> bool:
    """Tell whether it is the path of a file with the keys of ``model:``, or of an ONNX file."""
    return ":" not in path and Path(path).suffix.lower() in (*DESCRIPTIONS, ".onnx")


def read_description(file: Path) -> dict[str, Any]:
    """Read the keys of ``model:`` from a file; other files that they name are relative to its folder.

    An ONNX file has the description of the same name beside it, and that needs no ``network:``.

    Raises
    ------
    CrossferError
        If it cannot be read or is no mapping of these keys.
    """
    if file.suffix.lower() == ".onnx":
        if not file.is_file():
            raise CrossferError(f"{file}: no such file")
        _, content = read_beside(file)
        return content or {"network": f"onnx:{file.name}", "folder": file.parent}
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise CrossferError(
            f"{file}: not a mapping; write the keys of model: in an experiment: network:, "
            "weights:, …"
        )
    if isinstance(content.get("model"), dict):
        raise CrossferError(f"{file}: write the keys of model:, without model: itself")
    beside = file.with_suffix(".onnx")
    # An export's model.json has models:.
    if not content.keys() & {"network", "weights", "models"} and beside.is_file():
        content["network"] = f"onnx:{beside.name}"
    return content | {"folder": file.parent / str(content.get("folder") or "")}


def read_beside(onnx: Path) -> tuple[Path, dict[str, Any]]:
    """Return the description of an ONNX file, which has its name, and its keys; no keys if there is none.

    Raises
    ------
    CrossferError
        If it cannot be read, or describes another network.
    """
    beside = next((f for s in DESCRIPTIONS if (f := onnx.with_suffix(s)).is_file()), None)
    if beside is None:
        return onnx, {}
    content = read_description(beside)
    if content.get("network") != f"onnx:{onnx.name}":
        raise CrossferError(
            f"{beside}: describes another network than {onnx.name}; copy the ONNX file to another name, and "
            "write a description of that name beside it"
        )
    return beside, content

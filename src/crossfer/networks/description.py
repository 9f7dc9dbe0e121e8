"""Files that describe a network: the keys of ``model:`` of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossfer.errors import CrossferError
from crossfer.yaml_files import read_yaml

DESCRIPTIONS = (".yaml", ".yml", ".json")
"""Suffixes of such files."""


def is_description(path: str) -> bool:
    """Tell whether it is the path of a file with the keys of ``model:``, and no source of a network."""
    return ":" not in path and Path(path).suffix.lower() in DESCRIPTIONS


def read_description(file: Path) -> dict[str, Any]:
    """Read the keys of ``model:`` from a file; other files that they name are relative to its folder.

    Raises
    ------
    CrossferError
        If it cannot be read or is no mapping of these keys.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise CrossferError(
            f"{file}: not a mapping; write the keys of model: in an experiment: network:, "
            "weights:, …"
        )
    if isinstance(content.get("model"), dict):
        raise CrossferError(f"{file}: write the keys of model:, without model: itself")
    return content | {"folder": file.parent / str(content.get("folder") or "")}

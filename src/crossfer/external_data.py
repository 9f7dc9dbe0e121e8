"""ONNX files whose weights lie in other files (*external data*); read without the package onnx."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from crossfer.files import digest

LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])(?=(.{0,127}))", re.DOTALL)
"""An entry of a tensor's external data as protobuf writes it: the key, the length of the value, the value."""
AT_ONCE, ENTRY = 1 << 20, 150
"""Bytes that are searched at a time, and more than an entry has."""


def files_of(graph: Path) -> list[Path]:
    """Return an ONNX file and the files beside it that hold its weights."""
    names, before = set[str](), b""
    with graph.open("rb") as content:
        while part := content.read(AT_ONCE):
            for length, value in LOCATION.findall(before + part):
                names.add(value[: length[0]].decode(errors="replace"))
            before = part[-ENTRY:]
    beside = (graph.parent / name for name in sorted(names))
    return [graph, *(file for file in beside if file.is_file())]


def digest_of(graph: Path) -> str:
    """Return the SHA-256 of an ONNX file; with external data, of the digests of all its files."""
    digests = [digest(file) for file in files_of(graph)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )

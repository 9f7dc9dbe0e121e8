"""ONNX files whose weights lie in other files (*external data*); read without the package onnx."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from crossfer.files import digest

LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
"""The key of an entry as protobuf writes it, and the length of the value that follows."""
EXTERNAL_DATA = b"j"
"""What precedes such an entry, and its length, in a tensor: elsewhere, ``location`` is only a remark."""
AT_ONCE, ENTRY = 1 << 20, 1 << 15
"""Bytes that are searched at a time, and more than an entry has."""


def files_of(graph: Path) -> list[Path]:
    """Return an ONNX file and the files that hold its weights, beside it or below its folder."""
    names, text = set[str](), b""
    with graph.open("rb") as content:
        while part := content.read(AT_ONCE):
            text = text[-ENTRY:] + part
            names.update(_locations(text))
    paths = [Path(name) for name in sorted({Path(name).as_posix() for name in names})]
    inside = [graph.parent / path for path in paths if not path.anchor and ".." not in path.parts]
    beside = [file for file in inside if os.path.isfile(file) and not file.samefile(graph)]
    return [graph, *beside]


def _locations(text: bytes) -> list[str]:
    """Return the names of files in a piece of an ONNX file that contains their entries as a whole."""
    found = []
    for match in LOCATION.finditer(text):
        low, high = (*match[1], 0)[:2]
        length, begin = low % 128 + 128 * high, match.end()
        value = text[begin : begin + length]
        entry = EXTERNAL_DATA + _varint(begin - match.start() + length)
        if len(value) == length and text.endswith(entry, 0, match.start()):
            found.append(value.decode(errors="replace"))
    return found


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    low, high = number % 128, number // 128
    return bytes([low + 128]) + _varint(high) if high else bytes([low])


def digest_of(graph: Path) -> str:
    """Return the SHA-256 of an ONNX file; with external data, of the digests of all its files."""
    digests = [digest(file) for file in files_of(graph)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )

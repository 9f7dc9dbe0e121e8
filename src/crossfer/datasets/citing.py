"""What is cited for a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossfer.datasets.readers import READERS
from crossfer.references import DATASET

FOUND = "detector"
"""What is cited where faces were found."""


def keywords_of(citation: str, stand_in: bool, faces: Mapping[str, Any]) -> set[str]:
    """Return the keywords of `crossfer.references` for a prepared dataset.

    Parameters
    ----------
    citation, stand_in, faces
        As its card says.  Drawn faces that stand in for a dataset are not that dataset.
    """
    found = {FOUND} if faces.get("mode") not in (None, "cropped") else set[str]()
    if stand_in:
        return found
    return found | {
        DATASET + name
        for name, reader in READERS.items()
        if reader.citation and reader.citation in citation
    }

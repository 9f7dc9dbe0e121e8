"""Small drawn datasets in the real layouts, prepared once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfer import standins
from crossfer.datasets import Dataset, prepare

SIZES = {"fer2013": 160, "jaffe": 84, "mug": 12}


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with raw stand-ins: fer2013 (the source), jaffe and mug."""
    folder = tmp_path_factory.mktemp("raw")
    for name, images in SIZES.items():
        standins.write(name, folder / name, images=images)
    return folder


@pytest.fixture(scope="session")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Return the same stand-ins, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    return {name: prepare(raw / name, folder / name) for name in SIZES}

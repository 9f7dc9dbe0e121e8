"""Small drawn datasets in the real layouts, prepared once for all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Workers of one thread each do not wait for one another; read when PyTorch and Numba are imported.
for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402

from crossfer import standins  # noqa: E402
from crossfer.datasets import Dataset, prepare  # noqa: E402

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

"""Small drawn datasets in the real layouts, prepared once for all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Workers of one thread each do not wait for one another; read when PyTorch and Numba are imported.
for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402

from crossfer import standins  # noqa: E402
from crossfer.datasets import Dataset, open_dataset, prepare  # noqa: E402

SIZES = {"fer2013": 160, "jaffe": 84, "mug": 12}


WHOLE = ("run_experiment", "subprocess")
"""A module that imports one of these trains whole experiments, or starts programmes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take longer: ``pytest -m "not whole"`` leaves them out."""
    for item in items:
        if any(hasattr(getattr(item, "module", None), name) for name in WHOLE):
            item.add_marker("whole")


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of the session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def raw(together: Path) -> Path:
    """Return a folder with raw stand-ins: fer2013 (the source), jaffe and mug."""
    folder = together / "raw"
    with FileLock(together / "raw.lock"):
        for name, images in SIZES.items():
            if not (folder / name).exists():
                standins.write(name, folder / name, images=images)
    return folder


@pytest.fixture(scope="session")
def prepared(raw: Path, together: Path) -> dict[str, Dataset]:
    """Return the same stand-ins, prepared."""
    folder = together / "prepared"
    with FileLock(together / "prepared.lock"):
        for name in SIZES:
            if not (folder / name).exists():
                prepare(raw / name, folder / name)
    return {name: open_dataset(folder / name) for name in SIZES}

"""Small drawn datasets in the real layouts, prepared once for all tests."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Workers of one thread each do not wait for one another; read when PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import typer.testing  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import settings  # noqa: E402

from crossfer import standins  # noqa: E402
from crossfer.datasets import Dataset, open_dataset, prepare  # noqa: E402
from crossfer.deploy import export  # noqa: E402
from crossfer.evaluation import intervals, spread  # noqa: E402
from crossfer.processor import available_cores  # noqa: E402
from tests import IMPORTED  # noqa: E402

settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("quick")  # unless asked otherwise: pytest --hypothesis-profile thorough

SIZES = {"fer2013": 160, "jaffe": 84, "mug": 12}


WHOLE = ("run_experiment", "subprocess")
"""A module that imports one of these trains whole experiments, or starts programmes."""

LONGEST = (
    "survival", "networks", "docs", "experiment", "ray", "report", "search", "training", "protocols",
    "compare", "label_pages", "growth", "verify", "app", "export", "inputs", "cli", "backends", "assess",
)  # fmt: skip
"""Modules that take longest, the longest first; but the second one does without the first's faces."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what trains whole experiments; begin with what takes longest, so that workers end together.

    ``pytest -m "not whole"`` leaves whole experiments out.
    """
    for item in items:
        if any(hasattr(getattr(item, "module", None), name) for name in WHOLE):
            item.add_marker("whole")
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Do not search what was imported for garbage, again and again: 5 to 10 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have as many workers as processors that may be used."""
    return available_cores()


@pytest.fixture(scope="module", autouse=True)
def imported_once() -> Iterator[None]:
    """Have processes forked from one that has imported everything, where users' import anew (*spawn*).

    It saves six seconds each.  Modules about processes themselves override this: `tests/test_executors.py`.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    context_of, forked = multiprocessing.get_context, multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(list(IMPORTED))

    def context(method: str | None = None) -> Any:
        return forked if method == "spawn" else context_of(method)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", context)
        yield


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """Have Typer build a command line, and an export its drawn faces, once and not for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        patch.setattr(export, "drawn_faces", functools.cache(export.drawn_faces))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_failure() -> Iterator[None]:
    """Do not wait for the disk: tests see what a killed process leaves, not what is left without power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Have intervals of accuracies drawn from a tenth of the resamples.

    Modules about the intervals themselves override this: `tests/test_statistics.py`.
    """
    fewer = {**(intervals.resample.__kwdefaults__ or {}), "resamples": intervals.RESAMPLES // 10}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals.resample, "__kwdefaults__", fewer)
        patch.setattr(spread, "RESAMPLES", spread.RESAMPLES // 10)
        yield


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


@pytest.fixture(scope="session")
def data(prepared: dict[str, Dataset]) -> Path:
    """Return the folder with all of them: where an experiment finds them by their names."""
    return prepared["fer2013"].folder.parent

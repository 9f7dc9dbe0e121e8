"""Small drawn datasets in the real layouts, prepared once for all tests."""

from __future__ import annotations

import functools
import gc
import hashlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings

from crossfer.processor import available_cores
from tests import IMPORTED

# The process that only hands tests to workers reads this file too, so PyTorch is imported in fixtures.
if TYPE_CHECKING:
    from crossfer.datasets import Dataset

# Workers of one thread each do not wait for one another; read when PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("quick")  # unless asked otherwise: pytest --hypothesis-profile thorough

SIZES = {"fer2013": 160, "jaffe": 84, "mug": 7}


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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Do not search what is imported for garbage, again and again: 5 to 10 % of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Nor later."""
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
    import typer.testing

    from crossfer.deploy import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        patch.setattr(export, "drawn_faces", functools.cache(export.drawn_faces))
        yield


@pytest.fixture(scope="session", autouse=True)
def found_once(together: Path) -> Iterator[None]:
    """Have faces looked for in a picture once, by whichever worker meets it first.

    Modules about finding them undo this: `tests/test_faces.py`.
    """
    from crossfer.datasets.detector import Detector

    found, find = together / "found", Detector.__call__
    found.mkdir(exist_ok=True)

    @functools.wraps(find)
    def find_once(detector: Any, image: Any) -> Any:
        what = repr((detector._smallest, image.shape, image.dtype.str)).encode() + image.tobytes()
        file = found / hashlib.sha256(what).hexdigest()
        if not file.exists():
            own = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            own.write_bytes(pickle.dumps(find(detector, image)))
            own.replace(file)
        return pickle.loads(file.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "__call__", find_once)
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
    from crossfer.evaluation import intervals, spread

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
    from crossfer import standins

    folder = together / "raw"
    with FileLock(together / "raw.lock"):
        for name, images in SIZES.items():
            if not (folder / name).exists():
                standins.write(name, folder / name, images=images)
    return folder


@pytest.fixture(scope="session")
def prepared(raw: Path, together: Path) -> dict[str, Dataset]:
    """Return the same stand-ins, prepared."""
    from crossfer.datasets import open_dataset, prepare

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

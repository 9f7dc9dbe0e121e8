"""How far an experiment is: from its folder alone, from any machine that sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from crossfer.errors import CrossferError
from crossfer.experiment.names import ERROR, LOCKS, RUN
from crossfer.files import write_json

PLAN = "plan.json"
"""The runs of an experiment, written as soon as they are known."""

State = Literal["finished", "running", "interrupted", "failed", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """How far one run is.

    Parameters
    ----------
    key, label
        Which.
    state
        ``interrupted``: it goes on from its checkpoint when the experiment does.
    detail
        Which process trains it, or why it failed; often empty.
    """

    key: str
    label: str
    state: State
    detail: str = ""


def write_plan(out: Path, runs_folder: Path, runs: Sequence[tuple[str, str]]) -> None:
    """Write down the keys and labels of an experiment's runs, and where they lie, seen from its folder."""
    listed = [{"key": key, "label": label} for key, label in runs]
    place = Path(os.path.relpath(runs_folder, out)).as_posix()
    write_json(out / PLAN, {"runs_folder": place, "runs": listed})


def status(out: Path) -> list[RunStatus]:
    """Return how far each run of an experiment is.

    Raises
    ------
    CrossferError
        If the folder holds no experiment, or one whose data are still being prepared.
    """
    try:
        content = json.loads((out / PLAN).read_text(encoding="utf-8"))
        runs_folder = out / content["runs_folder"]
        listed = [(str(run["key"]), str(run["label"])) for run in content["runs"]]
    except FileNotFoundError:
        raise CrossferError(
            f"{out}: no experiment whose runs are known; it may still prepare its data"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CrossferError(
            f"{out / PLAN}: damaged ({error!r}); run the experiment again"
        ) from None
    return [_status_of(key, label, runs_folder) for key, label in listed]


def _status_of(key: str, label: str, runs_folder: Path) -> RunStatus:
    folder = next(runs_folder.glob(f"*-{key}"), None)
    if owner := _owner(runs_folder / LOCKS / key):
        return RunStatus(key, label, "running", owner)
    if folder is None:
        return RunStatus(key, label, "waiting")
    if (folder / RUN).is_file():
        return RunStatus(key, label, "finished")
    with suppress(OSError):
        last = (folder / ERROR).read_text(encoding="utf-8").strip().splitlines()
        return RunStatus(key, label, "failed", last[-1] if last else "")
    return RunStatus(key, label, "interrupted")


def _owner(lock: Path) -> str:
    """Return who holds a lock; empty if nobody does."""
    if not lock.exists():
        return ""
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        with suppress(OSError):
            return lock.with_name(f"{lock.name}.owner").read_text(encoding="utf-8")
        return "another process"
    held.release()
    return ""

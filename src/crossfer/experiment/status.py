"""The state of an experiment, from its folder alone."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from crossfer.errors import CrossferError
from crossfer.executors.slurm import Job, queued
from crossfer.experiment.folder import place_of
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.names import ERROR, LOCKS
from crossfer.files import parsed, write_json
from crossfer.provenance import versions
from crossfer.run_folder import RUN

PLAN = "plan.json"
"""The runs of an experiment, written when they are planned."""
SLURM = "slurm"
"""The folder of SLURM's jobs and logs, in the experiment's folder."""

State = Literal["finished", "running", "queued", "interrupted", "failed", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Parameters
    ----------
    key, label
        The run.
    state
        ``interrupted``: it resumes from its checkpoint with the experiment; ``queued``: it is in SLURM's
        queue.
    detail
        The process or job that trains it, or why it failed; may be empty.
    """

    key: str
    label: str
    state: State
    detail: str = ""


def write_plan(
    out: Path, runs_folder: Path, runs: Sequence[tuple[str, str]], arithmetic: Arithmetic
) -> None:
    """Write an experiment's runs (keys and labels), their folder and arithmetic, and the version."""
    listed = [{"key": key, "label": label} for key, label in runs]
    content = {
        "runs_folder": place_of(runs_folder, out),
        "runs": listed,
        "arithmetic": asdict(arithmetic),
    }
    write_json(out / PLAN, content | {"crossfer": versions()["crossfer"]})


def planned_arithmetic(out: Path) -> Arithmetic:
    """Return the arithmetic of an experiment's runs, which is the same on every machine.

    Raises
    ------
    CrossferError
        If there is no plan, or another version of crossfer made it.
    """
    content, ours = _read_plan(out), versions()["crossfer"]
    theirs = content.get("crossfer", "an earlier version")
    if theirs != ours:
        raise CrossferError(
            f"{out}: planned by crossfer {theirs}, but this machine has {ours}; install the same "
            "version"
        )
    return Arithmetic(**content["arithmetic"])


def status(out: str | Path) -> list[RunStatus]:
    """Return the state of each run of an experiment, from its folder.

    Raises
    ------
    CrossferError
        If the folder contains no planned experiment.
    """
    out = Path(out)
    content, jobs = _read_plan(out), queued(out / SLURM)
    runs_folder = out / content["runs_folder"]
    return [
        _status_of(run["key"], run["label"], runs_folder, jobs.get(run["key"]))
        for run in content["runs"]
    ]


def _read_plan(out: Path) -> dict[str, Any]:
    try:
        content = parsed((out / PLAN).read_text(encoding="utf-8"))
        runs = [{"key": str(run["key"]), "label": str(run["label"])} for run in content["runs"]]
        return {**content, "runs_folder": str(content["runs_folder"]), "runs": runs}
    except FileNotFoundError:
        raise CrossferError(
            f"{out}: no planned experiment; it may still be preparing its data"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CrossferError(
            f"{out / PLAN}: damaged ({error!r}); run the experiment again"
        ) from None


def _status_of(key: str, label: str, runs_folder: Path, job: Job | None) -> RunStatus:
    folder = next(runs_folder.glob(f"*-{key}"), None)
    if folder and (folder / RUN).is_file():
        return RunStatus(key, label, "finished")
    if owner := _owner(runs_folder / LOCKS / key):
        return RunStatus(key, label, "running", f"{owner}, {job}" if job else owner)
    if job:
        return RunStatus(key, label, "running" if job.runs else "queued", str(job))
    if folder is None:
        return RunStatus(key, label, "waiting")
    with suppress(OSError):
        last = (folder / ERROR).read_text(encoding="utf-8").strip().splitlines()
        return RunStatus(key, label, "failed", last[-1] if last else "")
    return RunStatus(key, label, "interrupted")


def _owner(lock: Path) -> str:
    """Return the holder of a lock; empty if it is free, or if nobody says that they hold it."""
    if not lock.exists():
        return ""
    owner = ""
    with suppress(OSError):
        owner = lock.with_name(f"{lock.name}.owner").read_text(encoding="utf-8")
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        return owner or "another process"
    except OSError as error:  # somebody else's experiment, or a read-only disk
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return owner and f"{owner}, unless it has ended: this user may not open its lock"
    held.release()
    return ""

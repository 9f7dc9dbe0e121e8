"""Resume an interrupted training: whether its checkpoint is of use, and with how many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossfer.experiment.folder import CHECKPOINT, folder_of
from crossfer.experiment.plan import Run
from crossfer.machine import Machine, describe, threads_of
from crossfer.networks.classifier import WEIGHTS
from crossfer.run_folder import read_run
from crossfer.training.checkpoint import Facts, read_checkpoint

ELSEWHERE = ("processor", "instructions", "device")
"""If one of these differs, rounding differs, and training amplifies it."""
SYSTEM = (*ELSEWHERE, "devices", "torch")
"""What should not change while a training is interrupted, or its bits change, too."""


@contextmanager
def begun(
    run: Run, folder: Path, runs_folder: Path, machine: Machine, say: Callable[[str], None]
) -> Iterator[Facts]:
    """Yield what the checkpoints of a training say, which then begins or resumes with them.

    On a CPU it resumes with the number of threads that it began with, which affects rounding.  An unusable
    checkpoint is removed.

    Parameters
    ----------
    run, folder
        The run, and its folder.
    runs_folder
        The folder of run folders.
    machine
        Device and precision.
    say
        Called with what is unusual.

    Returns
    -------
    Facts
        ``key``; ``starts_from``: SHA-256 of the weights of each run that it needs, by key; ``machine``;
        ``resumed``: the other systems on which it was trained before, if any.
    """
    single = run.devices == 1 and machine.device.type == "cpu"
    now = describe(machine) | {"devices": run.devices}
    facts: dict[str, Any] = {
        "key": run.key,
        "starts_from": {
            above.key: read_run(folder_of(above, runs_folder))["files"].get(WEIGHTS)
            for above in run.needed
        },
        "machine": {name: now[name] for name in (*SYSTEM, "threads")},
        "resumed": [],
    }
    if before := _before(folder, facts, say):
        then, facts["resumed"] = before["machine"], before["resumed"]
        if any(then[name] != now[name] for name in SYSTEM):
            facts["resumed"] = [*before["resumed"], then]
            say(f"resumes {on_other_system(then, now)}, so its bits may differ")
        if single:
            facts["machine"]["threads"] = then["threads"]
    threads = facts["machine"]["threads"]
    if threads == now["threads"]:
        yield facts
        return
    say(
        f"resumes with {threads} thread{'' if threads == 1 else 's'}, as it began, for the same bits"
    )
    with threads_of(threads):
        yield facts


def discard(folder: Path, why: str, say: Callable[[str], None]) -> None:
    """Remove the checkpoint of a training, which begins again."""
    (folder / CHECKPOINT).unlink()
    say(f"its checkpoint {why}, so it is trained from the beginning")


def on_other_system(then: Facts, now: Facts) -> str:
    """Say how the system on which a training resumed differs from the one before."""
    other = [f"{name} was {then[name]}" for name in SYSTEM if then[name] != now.get(name)]
    return f"on another system ({', '.join(other)})"


def _before(folder: Path, facts: Facts, say: Callable[[str], None]) -> Facts | None:
    """Return the facts of the checkpoint, None if there are none."""
    if not (folder / CHECKPOINT).exists():
        return None
    found = read_checkpoint(folder / CHECKPOINT)
    if found is None:
        discard(folder, "is damaged", say)
        return None
    before = found[1]
    if before and any(before[name] != facts[name] for name in ("key", "starts_from")):
        discard(folder, "started from other weights", say)
        return None
    return before or None  # one of an earlier version has none

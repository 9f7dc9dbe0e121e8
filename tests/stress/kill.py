"""Kill an experiment again and again: what comes of it must be what an undisturbed one gives, bit for bit.

    python -m tests.stress.kill --rounds 50

Every round starts the same small experiment in a process of its own, from raw files to the report, and kills
it (``SIGKILL``) until it ends by itself: in one half of the rounds by the clock, at any instruction whatever,
in the other just before the n-th thing that it does to the file system, so that writes and renames have their
turn.  (There it has no workers: it would not see what they write.)  Checkpoints are taken after every step in
one half, and as rarely as always in the other.

Compared are the names and the bytes of all files.  Of JSON and CSV files, what is `MEASURED` is left out; the
report shows it, so it need only be whole.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfer import standins
from tests import IMPORTED

MEASURED = frozenset({"seconds", "evaluation_seconds", "peak_memory_bytes", "history.csv"})
"""Honest times and memory, and the hash of a file with times: no two trainings share them."""

CHANGES = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"})
"""Python's audit events of what changes the file system (`open` only where it is for writing)."""

FACES = {"fer2013": 105, "jaffe": 63}
EXPERIMENT = """
source: fer2013
targets: [{path: jaffe, faces: cropped}]
strategies:
- FC
- {name: few old, start: baseline, layers: all, data: source+target, exemplars: 3, share: 0.5}
- {name: held, start: baseline, layers: all, data: target, penalty: {kind: ewc, samples: 8}, merge: true}
fractions: [1.0]
model: {width: 0.03}
device: cpu
recipes:
  default: {epochs: 2, batch_size: 16}
  FC: {views: 2}
  few old: {averaging: 0.9}
"""
MOST_KILLS = 40
"""Of one round; then it may end."""

PROCESSES = multiprocessing.get_context("forkserver")  # each a real one, without importing anew


@dataclass(frozen=True)
class Outcome:
    """What a round found: how often it was killed, how often inside an epoch, and the files that differ."""

    kills: int
    inside: int
    differing: list[str]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crossfer-kill-"))
    write_raw(folder / "raw")
    found: Counter[str] = Counter()
    for number, outcome in enumerate(rounds(folder, arguments.rounds, arguments.seed)):
        found.update(kills=outcome.kills, inside=outcome.inside, wrong=bool(outcome.differing))
        verdict = f"DIFFERENT: {', '.join(outcome.differing)}" if outcome.differing else "the same"
        print(f"round {number}: {outcome.kills} kills, {verdict}", flush=True)
    print(
        f"{arguments.rounds} rounds, {found['kills']} kills, {found['inside']} of them with a checkpoint "
        f"inside an epoch; {found['wrong']} rounds differ"
    )
    if found["wrong"]:
        sys.exit(f"look into {folder}")
    shutil.rmtree(folder)


def write_raw(raw: Path) -> None:
    """Draw the raw datasets."""
    for name, images in FACES.items():
        standins.write(name, raw / name, images=images)


def rounds(folder: Path, count: int, seed: int, most_kills: int = MOST_KILLS) -> Iterator[Outcome]:
    """Yield what each round found; ``folder/raw`` holds the raw datasets."""
    PROCESSES.set_forkserver_preload(list(IMPORTED))
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    whole = folder / "whole"
    warm = PROCESSES.Process(target=int)  # the first waits for the imports
    warm.start()
    warm.join()
    began = time.monotonic()
    changes = PROCESSES.Value("q", 0)
    assert run(whole, changes=changes) == 0, (folder / "log").read_text()
    seconds, expected = time.monotonic() - began, contents(whole)
    draw = random.Random(seed)
    for number in range(count):
        out = folder / f"round-{number}"
        always, by_clock = number % 2 == 0, number % 4 > 1
        kills = inside = 0
        while True:
            spared = kills >= most_kills
            after = math.inf if spared or not by_clock else draw.uniform(0, seconds)
            change = 0 if spared or by_clock else draw.randint(1, changes.value)
            workers = "auto" if by_clock or spared else "1"
            status = run(out, always, after, change, workers=workers)
            if status == -signal.SIGKILL:
                kills += 1
            elif kills or status:
                break
            else:  # the first kill was drawn for later than its end
                shutil.rmtree(out)
                continue
            inside += any(map(is_inside, out.glob("runs/*/checkpoint.safetensors")))
        assert status == 0, (folder / "log").read_text()
        found = contents(out)
        names = sorted(expected.keys() | found.keys())
        differing = [name for name in names if expected.get(name) != found.get(name)]
        if not differing:
            shutil.rmtree(out)
        yield Outcome(kills, inside, differing)


def run(
    out: Path,
    always: bool = False,
    after: float = math.inf,
    change: int = 0,
    changes: Any = None,
    workers: str = "1",
) -> int:
    """Run the experiment in a process, killed after some seconds or before a change; return its status."""
    process = PROCESSES.Process(target=experiment, args=(out, always, change, changes, workers))
    process.start()
    process.join(None if after == math.inf else after)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def experiment(out: Path, always: bool, change: int, changes: Any, workers: str) -> None:
    """Do what ``crossfer run`` does; die before a change, or count them all."""
    from crossfer import cli
    from crossfer.training import checkpoint

    with (out.parent / "log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if always:
        checkpoint.SHARE_OF_TIME = math.inf
    left = change

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in CHANGES or (event == "open" and not arguments[2] & os.O_ACCMODE):
            return
        left -= 1
        if changes is not None:
            changes.value += 1
        elif left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    folder = out.parent
    sys.argv = ["crossfer", "run", str(folder / "experiment.yaml")]
    sys.argv += ["--data", str(folder / "raw"), "--out", str(out), "--workers", workers]
    cli.main()


def contents(folder: Path) -> dict[str, Any]:
    """Return what every file of an experiment says, by its name, without what is measured."""
    return {
        file.relative_to(folder).as_posix(): _content(file)
        for file in folder.rglob("*")
        if file.is_file() and ".lock" not in file.as_posix()
    }


def is_inside(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was taken in the middle of an epoch."""
    from crossfer.training.checkpoint import Checkpoints

    state = Checkpoints(checkpoint).load()
    return state is not None and state.step > 0


def _content(file: Path) -> Any:
    if file.suffix == ".json":
        return _unmeasured(json.loads(file.read_text()))
    if file.suffix == ".csv":
        with file.open(newline="") as text:
            return [_unmeasured(row) for row in csv.DictReader(text)]
    if file.name == "report.html":
        return file.read_text().rstrip().endswith("</html>")
    return file.read_bytes()


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmeasured(item) for key, item in value.items() if key not in MEASURED}
    return [_unmeasured(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()

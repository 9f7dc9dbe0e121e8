"""What an executor costs by itself: a thousand runs that only wait.

    python benchmarks/executors.py [--runs 1000] [--seconds 0.2] [--workers 1 8 64] [--ray 0 50]

The graph is an experiment's: one run in twenty is a baseline that nineteen others wait for.  With one
worker it is `run_here`, otherwise `run_in_processes`, and with ``--ray`` a cluster of this machine, where
each task is sent so many megabytes, as the files of 512 photographs are.  Of the head, the process that
walks the graph, are reported the CPU time of each run, which other work does not change, and the growth of
its memory; and how much longer it all took than the waiting alone, workers starting included.  Then, the
files: how long it takes to find one run's folder among all, as often as a run does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crossfer.executors import (
    Events,
    Failure,
    Slurm,
    Task,
    Work,
    run_here,
    run_in_processes,
    run_on_slurm,
)
from crossfer.executors.graph import Emit, levels
from crossfer.executors.ray import Carry, Ray, run_on_ray

BASELINE = 20
"""Runs that share a baseline, with it."""


def opened(seconds: float) -> Work:
    """Make a worker ready whose runs wait, and tell of two steps."""

    def work(key: str, tell: Emit) -> None:
        for _ in range(2):
            time.sleep(seconds / 2)
            tell("step", 100)

    return work


def graph(runs: int) -> list[Task]:
    """Return the tasks of an experiment."""
    return [Task(str(n), (str(n - n % BASELINE),) if n % BASELINE else ()) for n in range(runs)]


def megabytes() -> float:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(runs: int, seconds: float, workers: int) -> str:
    """Carry out the graph; return a row of the table."""
    run: Callable[..., dict[str, Failure]] = (
        run_here if workers == 1 else partial(run_in_processes, workers=workers)
    )
    before, cpu, began = megabytes(), time.process_time(), time.perf_counter()
    assert not run(graph(runs), partial(opened, seconds), Events())
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    ideal = runs * seconds / workers
    return f"| {workers} | {1000 * cpu / runs:.2f} | {megabytes() - before:.0f} | {ideal:.0f} | {took:.0f} |"


@dataclass(frozen=True)
class Parcels:
    """How a task travels that waits, and is sent a parcel."""

    root: Path
    seconds: float
    size: int
    packages: tuple[str, ...] = ("crossfer",)

    @property
    def open_there(self) -> Callable[[], Carry]:
        """What makes a process of a node ready."""
        return partial(unpacked, self.seconds)

    def pack(self, key: str, whole: bool, again: bool) -> bytes:
        """Return the parcel."""
        return bytes(self.size)

    def unpack(self, key: str, made: object) -> None:
        """Nothing comes back."""


def unpacked(seconds: float) -> Carry:
    """Make a worker ready that is sent parcels."""
    work = opened(seconds)

    def carry(key: str, sent: bytes, tell: Emit) -> tuple[None, None]:
        work(key, tell)
        return None, None

    return carry


class Driver(Events):
    """Looks at the process that is connected to Ray: CPU seconds, and the highest resident memory in MB."""

    seen: list[tuple[float, float]]

    def __init__(self) -> None:
        self.seen = []

    def succeeded(self, key: str) -> None:
        """Look."""
        (driver,) = multiprocessing.active_children()
        place = Path(f"/proc/{driver.pid}")
        ticks = place.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
        lines = place.joinpath("status").read_text().splitlines()
        memory = next(int(line.split()[1]) for line in lines if "VmHWM" in line) / 1024
        self.seen.append((sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), memory))


def on_ray(runs: int, seconds: float, megabytes: int) -> str:
    """Carry out the graph on a Ray cluster of this machine; return a row of the table."""
    driver = Driver()
    with tempfile.TemporaryDirectory() as name:
        travel = Parcels(Path(name), seconds, megabytes * 2**20)
        began = time.perf_counter()
        assert not run_on_ray(graph(runs), driver, Ray(), travel)
        took = time.perf_counter() - began
    (cpu, memory), *_, (last_cpu, last_memory) = driver.seen
    spent, cores = 1000 * (last_cpu - cpu) / (runs - 1), len(os.sched_getaffinity(0))
    return (
        f"| {cores} (Ray, {megabytes} MB sent) | {spent:.2f} | {last_memory - memory:.0f} | "
        f"{runs * seconds / cores:.0f} | {took:.0f} |"
    )


SBATCH = """
cat > /dev/null
echo x >> arrays; number=$(wc -l < arrays)
for option in "$@"; do case "$option" in --array=*) last=${option##*-};; esac; done
seq -f "$number|%g|RUNNING|(n1)" 0 $last >> queue
echo $number
"""
SQUEUE = """
head -n 64 queue | while IFS='|' read array index rest; do touch done/$array-$index; done
tail -n +65 queue > rest
mv rest queue
cat queue
"""


def on_slurm(runs: int) -> str:
    """Watch the graph as jobs of shell scripts that end 64 at each look; return a row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), os.environ["PATH"]
        (folder / "done").mkdir()
        for program, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (folder / program).write_text(f"#!/bin/bash\ncd {folder}\n{text}")
            (folder / program).chmod(0o755)
        tasks, numbers = graph(runs), dict[str, str]()
        for array, level in enumerate(levels(tasks), 1):
            numbers |= {key: f"{array}-{index}" for index, key in enumerate(level)}

        def is_done(key: str) -> bool:
            return (folder / "done" / numbers[key]).exists()

        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
        before, cpu, began = megabytes(), time.process_time(), time.perf_counter()
        assert not run_on_slurm(tasks, ["true"], is_done, Events(), Slurm(), folder / "slurm", 0)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        os.environ["PATH"] = path
    spent, grown = 1000 * cpu / runs, megabytes() - before
    return f"| 64 (SLURM, simulated) | {spent:.2f} | {grown:.0f} | 0 | {took:.0f} |"


def lookups(folders: int) -> str:
    """Return how long it takes to find one of so many folders."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for number in range(folders):
            (place / f"FC-jaffe-100-seed-0-{number:016x}").mkdir()
        began = time.process_time()
        for number in range(0, folders, folders // 50):
            next(place.glob(f"*-{number:016x}"))
        return f"| {folders:,} | {20 * (time.process_time() - began):.2f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--ray", type=int, nargs="*", default=[], metavar="MB")
    asked = parser.parse_args()
    print("| workers | head, CPU ms a run | head, MB more | waiting alone, s | took, s |")
    print("|--:|--:|--:|--:|--:|")
    for workers in asked.workers:
        print(measure(asked.runs, asked.seconds, workers), flush=True)
    print(on_slurm(asked.runs), flush=True)
    for size in asked.ray:
        print(on_ray(asked.runs, asked.seconds, size), flush=True)
    print("\n| run folders | to find one, CPU ms |\n|--:|--:|")
    for folders in (500, 5_000, 50_000):
        print(lookups(folders), flush=True)


if __name__ == "__main__":
    main()

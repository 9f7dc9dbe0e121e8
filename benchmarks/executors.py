"""What an executor costs by itself: a thousand runs that only wait.

    python benchmarks/executors.py [--runs 1000] [--seconds 0.2] [--workers 1 8 64] [--ray]

The graph is an experiment's: one run in twenty is a baseline that nineteen others wait for.  With one worker
it is `run_here`, otherwise `run_in_processes`, and with ``--ray`` a cluster of this machine.  Of the head,
the process that walks the graph, are reported the CPU time of each run, which other work does not
change, and the growth of its memory; and how much longer it all took than the waiting alone, workers starting
included.  Then, the files: how long it takes to find one run's folder among all, as often as a run does.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from crossfer.executors import Events, Failure, Task, Work, run_here, run_in_processes
from crossfer.executors.graph import Tell

BASELINE = 20
"""Runs that share a baseline, with it."""


def opened(seconds: float) -> Work:
    """Make a worker ready whose runs wait, and tell of two steps."""

    def work(key: str, tell: Tell) -> None:
        for _ in range(2):
            time.sleep(seconds / 2)
            tell("step", 100)

    return work


def copied(seconds: float, copy: Path) -> Work:
    """Make a worker ready on a node that does not see the folder; here all do."""
    return opened(seconds)


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


def on_ray(runs: int, seconds: float) -> str:
    """Carry out the graph on a Ray cluster of this machine; return a row of the table."""
    from crossfer.executors.copies import Files, marked
    from crossfer.executors.ray import Ray, run_on_ray

    tasks = graph(runs)
    with tempfile.TemporaryDirectory() as name, marked(Path(name)) as mark:
        folder = Path(name)
        files = Files(
            folder,
            mark,
            partial(opened, seconds),
            partial(copied, seconds),
            always={},
            needs={task.key: {} for task in tasks},
            makes={task.key: (task.key, folder / task.key) for task in tasks},
            last="",
        )
        cpu, began = children(), time.perf_counter()
        assert not run_on_ray(tasks, Events(), Ray(), files)
        took = time.perf_counter() - began
    cores = len(os.sched_getaffinity(0))
    spent = 1000 * (children() - cpu) / runs
    return f"| {cores}, of Ray | {spent:.2f} | | {runs * seconds / cores:.0f} | {took:.0f} |"


def children() -> float:
    """Return the CPU time of child processes that have ended: Ray's driver is one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    parser.add_argument("--ray", action="store_true")
    asked = parser.parse_args()
    print("| workers | head, CPU ms a run | head, MB more | waiting alone, s | took, s |")
    print("|--:|--:|--:|--:|--:|")
    for workers in asked.workers:
        print(measure(asked.runs, asked.seconds, workers), flush=True)
    if asked.ray:
        print(on_ray(asked.runs, asked.seconds), flush=True)
    print("\n| run folders | to find one, CPU ms |\n|--:|--:|")
    for folders in (500, 5_000, 50_000):
        print(lookups(folders), flush=True)


if __name__ == "__main__":
    main()

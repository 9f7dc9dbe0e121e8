"""One process with all threads, or as many processes of one thread: which is faster on a CPU.

    .venv/bin/python benchmarks/workers.py [--busy]

Each process trains the study's network on random faces of 48×48, a batch of 32 at a time.  The arrangements
are measured in turn, several rounds; with --busy another process of low priority (nice 10) computes on every
core meanwhile.  Reported are images per second of all processes together: the median, and its ratio to one
process of all threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

BATCH = 32
CONTEXT = multiprocessing.get_context("spawn")


def train(threads: int, seconds: float, together: Barrier, told: Queue[float]) -> None:
    """Take steps for some seconds, once all processes are ready; tell images per second."""
    import torch

    from crossfer.adaptation import untrained
    from crossfer.machine import Machine
    from crossfer.networks import Classifier, study_cnn
    from crossfer.training import Faces, Recipe
    from crossfer.training.trainer import Training

    torch.set_num_threads(threads)
    faces = Faces(
        torch.randint(0, 256, (20 * BATCH, 48, 48), dtype=torch.uint8),
        torch.arange(20 * BATCH) % 7,
    )
    model = untrained(lambda: Classifier(study_cnn()), 0)
    recipe = Recipe(epochs=1000, batch_size=BATCH)
    training = Training(model, faces, {}, recipe, 0, Machine.of("cpu"), keep="last")
    rows = torch.arange(BATCH)
    for _ in range(3):
        training.advance(rows)
    together.wait()
    images, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        training.advance(rows)
        images += BATCH
    told.put(images / (time.perf_counter() - began))


def measure(processes: int, threads: int, seconds: float) -> float:
    """Return images per second of some processes together."""
    told: Queue[float] = CONTEXT.Queue()
    together = CONTEXT.Barrier(processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    workers = [
        CONTEXT.Process(target=train, args=(threads, seconds, together, told))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    rates = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def spin() -> None:
    """Compute for ever, politely."""
    os.nice(10)
    while True:
        sum(range(100_000))


@contextmanager
def other_work(cores: int, wanted: bool) -> Iterator[None]:
    """Keep every core busy meanwhile."""
    others: list[SpawnProcess] = [CONTEXT.Process(target=spin, daemon=True) for _ in range(cores)]
    for other in others if wanted else ():
        other.start()
    try:
        yield
    finally:
        for other in others if wanted else ():
            other.terminate()


def main() -> None:
    """Measure the arrangements in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--busy", action="store_true")
    asked = parser.parse_args()
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    arrangements = [(1, cores), (cores, 1), (cores, cores)]
    found: dict[tuple[int, int], list[float]] = {one: [] for one in arrangements}
    with other_work(cores, asked.busy):
        for _ in range(asked.rounds):
            for one in arrangements:
                found[one].append(measure(*one, asked.seconds))
    first = statistics.median(found[arrangements[0]])
    print("| processes | threads of each | images/s together | ratio |\n|--:|--:|--:|--:|")
    for (processes, threads), rates in found.items():
        rate = statistics.median(rates)
        print(f"| {processes} | {threads} | {rate:.0f} | {rate / first:.2f} |")


if __name__ == "__main__":
    main()

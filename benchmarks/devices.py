"""How much faster one training is on several devices; on a CPU, each is a process of one thread.

    python benchmarks/devices.py [--devices 2] [--batches 32 128 512] [--rounds 3]

The study's network on random faces of 48×48, in single precision.  Each arrangement trains for some seconds,
in turn.  Reported are images per second, medians over rounds, and the ratio to one device of one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from functools import partial

os.environ["OMP_NUM_THREADS"] = "1"  # of processes that are started

import torch

from crossfer.adaptation import untrained
from crossfer.machine import Machine
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Faces, Recipe
from crossfer.training.devices import OnStep, Stopping, on_devices
from crossfer.training.trainer import Training


def rate(
    machine: Machine, on_step: OnStep, stopping: Stopping, batch: int, seconds: float
) -> float:
    """Train for some seconds; return images per second of all devices together."""
    faces = Faces(
        torch.randint(0, 256, (4 * batch, 48, 48), dtype=torch.uint8), torch.arange(4 * batch) % 7
    )
    model = untrained(lambda: Classifier(study_cnn()), 0)
    recipe = Recipe(epochs=1000, batch_size=batch)
    training = Training(model, faces, {}, recipe, 0, machine, keep="last")
    rows = torch.arange(batch)

    def steps(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            training.advance(rows)
        return time.perf_counter() - began

    one = torch.tensor(steps(3) / 3)
    if machine.count > 1:
        torch.distributed.broadcast(one, 0)  # as many steps on each
    count = max(3, int(seconds / one))
    return count * batch / steps(count)


def main() -> None:
    """Measure the arrangements in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    asked = parser.parse_args()
    arrangements = [(1, 1), (asked.devices, 1)]
    machine = Machine.of(precision="32-true")
    if machine.device.type == "cpu":
        arrangements.insert(1, (1, asked.devices))
    print("| batch | devices | threads each | images/s | ratio |\n|--:|--:|--:|--:|--:|")
    for batch in asked.batches:
        found: dict[tuple[int, int], list[float]] = {one: [] for one in arrangements}
        for _ in range(asked.rounds):
            for devices, threads in arrangements:
                torch.set_num_threads(threads)
                work = partial(rate, batch=batch, seconds=asked.seconds)
                found[devices, threads].append(on_devices(devices, machine, work, lambda _: None))
        rates = {one: statistics.median(each) for one, each in found.items()}
        for (devices, threads), each in rates.items():
            ratio = each / rates[1, 1]
            print(f"| {batch} | {devices} | {threads} | {each:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()

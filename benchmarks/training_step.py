"""How fast one training step of the study's network is, and what makes it so.

    .venv/bin/python benchmarks/training_step.py

Every row is a process of its own and adds one thing to the row before; rows are measured in turn, several
rounds, and reported as the median ratio to the first (these machines are noisy: trust ratios, not seconds).
The last line is a limit: the rate of a large bfloat16 matrix product.  A step takes 1.1 GFLOP an image.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from crossfer.adaptation import untrained
from crossfer.machine import Machine, describe, keep_freed_memory
from crossfer.networks import study_cnn
from crossfer.processor import BRIEFLY
from crossfer.training.backends.cpu.descent import SGD
from crossfer.training.backends.cpu.layers import fuse

BATCH = 128
GFLOP_AN_IMAGE = 1.1
ROWS = (
    "plain fp32",
    "+ channels last",
    "+ bfloat16",
    "+ fused optimiser",
    "+ freed memory kept",
    "+ layers and descent for CPUs",
    "+ threads that spin briefly",
)


def relu_first(model: nn.Sequential) -> nn.Sequential:
    """Return the network with ReLU before batch normalisation instead of after it."""
    layers = dict(model.named_children())
    for index in range(1, 6):
        norm, relu = f"norm{index}", f"relu{index}"
        layers[norm], layers[relu] = layers[relu], layers[norm]
    return nn.Sequential(*layers.values())


def images_per_second(level: int, order: str) -> float:
    """Measure a step with the first `level` improvements."""
    model = untrained(study_cnn, 0)
    if order == "relu-first":
        model = relu_first(model)
    memory_format = torch.channels_last if level >= 1 else torch.contiguous_format
    model = model.to(memory_format=memory_format)  # pyrefly: ignore[no-matching-overload]
    if level >= 4:
        keep_freed_memory()
    if level >= 5:
        fuse(model)
    descent = SGD if level >= 5 else torch.optim.SGD
    optimizer = descent(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=level >= 3)
    images, labels = torch.randn(BATCH, 1, 48, 48), torch.arange(BATCH) % 7

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=level >= 2):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):
        step()
    began = time.perf_counter()
    for _ in range(5):
        step()
    return 5 * BATCH / (time.perf_counter() - began)


def matrix_product_gflops(side: int = 2048) -> float:
    """Measure a large bfloat16 matrix product."""
    a = torch.randn(side, side).bfloat16()
    for _ in range(3):
        a @ a
    began = time.perf_counter()
    for _ in range(10):
        a @ a
    return 10 * 2 * side**3 / (time.perf_counter() - began) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(images_per_second(int(arguments.one[0]), arguments.one[1]))
        return
    variants = [(str(level), "norm-first") for level in range(len(ROWS))] + [("4", "relu-first")]
    names = [*ROWS, "without the last, ReLU before norm"]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, variant in zip(names, variants, strict=True):
            command = [sys.executable, __file__, "--one", *variant]
            brief = BRIEFLY if variant[0] == "6" else {}
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | brief
            )
            rates[name].append(float(done.stdout))
    limit = matrix_product_gflops()
    print(describe(Machine.of("cpu")))
    for name in names:
        ratio = statistics.median(r / b for r, b in zip(rates[name], rates[ROWS[0]], strict=True))
        rate = statistics.median(rates[name])
        print(
            f"{name:38} {rate:7.0f} images/s  {ratio:5.2f}×  {rate * GFLOP_AN_IMAGE:6.0f} GFLOP/s"
        )
    print(f"{'limit: bfloat16 matrix product':38} {limit:34.0f} GFLOP/s")


if __name__ == "__main__":
    main()

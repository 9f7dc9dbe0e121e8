"""How many images a second a GPU trains on, and what makes it so fast.

    python benchmarks/gpu.py [--data data/fer2013] [--at-once 1 2 3]

The study's network, batch 128, augmentation included; noise in the place of faces unless there are some.
Every row is the median epoch of a training; "step alone" leaves out augmentation and everything around the
step.  The limit is a large matrix product in bfloat16, at 1.1 GFLOP
an image and step.  ``--at-once`` says how much several trainings in processes of their own do together.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from crossfer.adaptation import untrained
from crossfer.datasets import open_dataset
from crossfer.loading import faces_of
from crossfer.machine import Machine, Precision, describe
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Faces, Recipe, train
from crossfer.training.backends import BACKENDS, Plain
from crossfer.training.backends.cuda import WORTH_COMPILING

BATCH, IMAGES, EPOCHS = 128, 28_672, 4
GFLOP_AN_IMAGE = 1.1


def shown(data: Path | None) -> Faces:
    """Return faces of a prepared dataset, or noise."""
    if data:
        dataset = open_dataset(data)
        training = dataset.rows("training")
        return faces_of(dataset, training)[torch.randperm(len(training))[:IMAGES]]
    images = torch.randint(0, 256, (IMAGES, 48, 48), dtype=torch.uint8)
    return Faces(images, torch.randint(0, 7, (IMAGES,)))


def rate(
    data: Faces,
    *,
    batch: int = BATCH,
    precision: Precision = "bf16-mixed",
    deterministic: bool = True,
    epochs: int = EPOCHS,
) -> float:
    """Return images a second of crossfer's training; the first epoch warms up."""
    machine, times = Machine.of("cuda", precision, deterministic), [0.0]
    left = len(data)

    def step(count: int) -> None:
        nonlocal left
        left -= count
        if left < batch:
            torch.cuda.synchronize()
            times.append(time.perf_counter())
            left = len(data)

    recipe = Recipe(epochs=epochs, batch_size=batch)
    train(
        untrained(lambda: Classifier(study_cnn()), 0),
        data,
        {},
        recipe,
        0,
        machine,
        keep="last",
        on_step=step,
    )
    return len(data) / statistics.median(b - a for a, b in zip(times[1:], times[2:], strict=False))


def plain(data: Faces, precision: Precision) -> float:
    """Return images a second of an ordinary loop whose images are on the GPU already, unchanged."""
    Machine.of("cuda", "32-true", False)
    network = study_cnn().cuda().to(memory_format=torch.channels_last).train()  # pyrefly: ignore[no-matching-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    images, labels = data.images.cuda(), data.labels.cuda()

    def epoch() -> None:
        for rows in torch.randperm(len(labels), device="cuda").split(BATCH):
            batch = images[rows, None].float().div(255).sub(0.5).div(0.25)
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = cross_entropy(network(batch).float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return len(labels) / seconds(epoch, 3)


def step_alone(compiled: bool, batch: int = 256) -> float:
    """Return images a second of a step on the same images again and again, as a CUDA graph."""
    Machine.of("cuda", "bf16-mixed")
    network = study_cnn().cuda().to(memory_format=torch.channels_last).train()  # pyrefly: ignore[no-matching-overload]
    forward = BACKENDS["cuda"].compiled(network, WORTH_COMPILING if compiled else 0)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.02, momentum=0.9, nesterov=True, fused=True
    )
    images = torch.randn(batch, 1, 48, 48, device="cuda")
    labels = torch.randint(0, 7, (batch,), device="cuda")

    def step(rows: Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = forward(images).float()
        cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    recorded = BACKENDS["cuda"].wrap(step, network, None, torch.Generator("cuda"))
    return batch / seconds(lambda: [recorded(labels) for _ in range(100)], 3) * 100


def seconds(work: Callable[[], object], times: int) -> float:
    """Return the median time of some work, after a warm-up."""
    work()
    found = []
    for _ in range(times):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--at-once", type=int, nargs="*", default=[2, 3])
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = shown(given.data)
    if given.only:
        print(rate(data, epochs=6))
        return
    print(describe(Machine.of("cuda")), flush=True)
    graphs = BACKENDS["cuda"]
    show("plain PyTorch, single precision", plain(data, "32-true"))
    show("plain PyTorch, bfloat16", plain(data, "bf16-mixed"))
    BACKENDS["cuda"] = Plain()
    show("crossfer, bfloat16, started step by step", rate(data))
    BACKENDS["cuda"] = graphs
    show("crossfer, bfloat16, CUDA graph", rate(data))
    show("the same, single precision", rate(data, precision="32-true"))
    show("the same, bfloat16, deterministic: false", rate(data, deterministic=False))
    for batch in (64, 256, 512):
        show(f"the same, batches of {batch}", rate(data, batch=batch, deterministic=False))
    show("step alone, batches of 256", step_alone(False))
    show("the same, compiled", step_alone(True))
    side = 8192
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    show(
        "limit: bfloat16 matrix product",
        2 * side**3 / 1e9 / seconds(lambda: a @ a, 10) / GFLOP_AN_IMAGE,
    )
    for count in given.at_once:
        command = [
            sys.executable,
            __file__,
            "--only",
            *(["--data", str(given.data)] if given.data else []),
        ]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        show(
            f"{count} trainings at once, together",
            sum(float(one.communicate()[0]) for one in started),
        )


def show(name: str, images_per_second: float) -> None:
    """Print a row."""
    print(f"{name:45} {images_per_second:9,.0f} images/s", flush=True)


if __name__ == "__main__":
    main()

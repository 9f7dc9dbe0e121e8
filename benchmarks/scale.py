"""What one core does, and what one face costs the process that holds them all: the numbers of docs/scale.md.

    OMP_NUM_THREADS=1 python benchmarks/scale.py

Times are CPU times of one thread, which other work on the machine changes little.  What a picture costs in
memory is what a process holds when its dataset is about to be put in its place: many pictures against few,
each in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FEW, MANY = 4_000, 24_000


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def resident(mark: str = "VmRSS") -> int:
    """Return the resident memory of this process in kB: now, or the highest so far (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(mark))


def photographs(folder: Path) -> None:
    """Find and align faces in drawn photographs of 256×256."""
    from crossfer import standins
    from crossfer.datasets import prepare

    standins.write("jaffe", folder / "photographs", images=60)
    prepare(folder / "photographs", folder / "warm")
    taken = cpu_seconds(lambda: prepare(folder / "photographs", folder / "prepared"))
    print(
        f"| a photograph of 256×256: decoded, found, aligned, written | {1000 * taken / 60:.1f} ms |"
    )


def memory_of_a_picture(folder: Path) -> None:
    """Prepare tiny pictures, few and many."""
    place = folder / "pictures"
    for name in ("happy", "sad"):
        (place / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    peaks = {}
    for count, start in ((FEW, 0), (MANY, FEW)):
        for number in range(start, count):
            file = place / ("sad" if number % 2 else "happy") / f"person{number // 8}_{number}.png"
            cv2.imwrite(str(file), rng.integers(0, 256, (16, 16), np.uint8))
        command = [sys.executable, __file__, str(place), str(folder / f"tiny-{count}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[count] = int(done.stdout.split()[-1])
    grown = (peaks[MANY] - peaks[FEW]) * 1024 / (MANY - FEW)
    print(f"| memory of the process that prepares, a picture | {grown / 1000:.1f} kB |")


def training() -> None:
    """Train the study's network on random faces."""
    import torch

    from crossfer.adaptation import untrained
    from crossfer.machine import Machine
    from crossfer.networks import Classifier, study_cnn
    from crossfer.training import Faces, Recipe
    from crossfer.training.trainer import Training

    torch.set_num_threads(1)
    images = torch.randint(0, 256, (640, 48, 48), dtype=torch.uint8)
    model = untrained(lambda: Classifier(study_cnn()), 0)
    one = Training(
        model,
        Faces(images, torch.arange(640) % 7),
        {},
        Recipe(epochs=100),
        0,
        Machine.of("cpu"),
        keep="last",
    )
    rows = torch.arange(128)
    one.advance(rows)
    taken = cpu_seconds(lambda: [one.advance(rows) for _ in range(2)])
    print(f"| a training step of the study's network, an image | {1000 * taken / 256:.1f} ms |")


def people() -> None:
    """Number the people of a million faces."""
    from crossfer.evaluation.intervals import subject_codes

    names = [f"person {number // 8}" for number in range(1_000_000)]
    before = resident("VmHWM")
    taken = cpu_seconds(lambda: subject_codes(names))
    grown = (resident("VmHWM") - before) / 1e6
    print(f"| numbering who is in a million faces | {taken:.1f} s, {grown:.2f} GB for a moment |")


def hashing(folder: Path) -> None:
    """Hash a file as a dataset is, before it is used."""
    from crossfer.files import digest

    file = folder / "images"
    file.write_bytes(bytes(2**28))
    print(f"| SHA-256 | {2**28 / cpu_seconds(lambda: digest(file)) / 1e9:.2f} GB/s |")


def main() -> None:
    """Measure and print a table."""
    if len(sys.argv) > 1:
        from crossfer.datasets import Preparation, prepare

        module: Any = sys.modules["crossfer.datasets.prepare"]
        put_in_place = module.put_in_place

        def and_look(*where: Path) -> None:
            print(resident())
            put_in_place(*where)

        module.put_in_place = and_look
        prepare(sys.argv[1], sys.argv[2], Preparation(faces="cropped"))
        return
    print("| one core | |\n|---|--:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hashing(folder)
        people()
        training()
        photographs(folder)
        memory_of_a_picture(folder)


if __name__ == "__main__":
    main()

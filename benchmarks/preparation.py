"""Preparation, and datasets larger than one likes to copy.

    python benchmarks/preparation.py [--rounds 3] [--million]

Reading ``fer2013.csv`` (35,887 rows of noise in the real layout) with the obvious pandas code, and with
crossfer's whole preparation (recognised, decoded, hashed, divided, written), by turns; needs pandas, which
the development extra brings along.  Decoding a folder of pictures on one core and on all.  With
``--million``: a generated dataset of a million faces (2.3 GB, in a temporary folder), how long it takes to
open, and how much memory a process has when it trains on it: of its own, and mapped from the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from crossfer.classes import FER7
from crossfer.datasets import Preparation, open_dataset, prepare
from crossfer.datasets.dataset import DATASET_CARD, IMAGES, SAMPLES, sample_table
from crossfer.datasets.readers.fer2013 import read_rows

ROWS, PICTURES, MILLION = 35_887, 4_000, 1_000_000
USAGE = ("Training",) * 8 + ("PublicTest", "PrivateTest")


def write_csv(file: Path) -> None:
    """Write noise as FER2013 is written."""
    rng = np.random.default_rng(0)
    with file.open("w", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["emotion", "pixels", "Usage"])
        for row in range(ROWS):
            pixels = " ".join(map(str, rng.integers(0, 256, 48 * 48)))
            rows.writerow([row % 7, pixels, USAGE[row % len(USAGE)]])


def with_pandas(file: Path) -> None:
    """Read it as most tutorials do."""
    import pandas

    table = pandas.read_csv(file)
    pixels = table["pixels"].apply(lambda text: np.array(text.split(), dtype="uint8"))
    images = np.stack(pixels.to_list()).reshape(-1, 48, 48)
    labels = table["emotion"].to_numpy()
    assert len(images) == len(labels) == ROWS


def seconds(work: Callable[[], object]) -> float:
    """Time something once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(name: str, pairs: list[tuple[float, float]], what: tuple[str, str]) -> None:
    """Print the median ratio of times."""
    ratio = statistics.median(b / a for a, b in pairs)
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{name}: {what[0]} {first:.1f} s, {what[1]} {second:.1f} s: {ratio:.2f} of the time")


def read_csv(folder: Path, rounds: int) -> None:
    """Compare reading the table."""
    file = folder / "fer2013.csv"
    write_csv(file)
    how = Preparation(faces="cropped")
    times = [
        (
            seconds(lambda: with_pandas(file)),
            seconds(lambda: list(read_rows(file))),
            seconds(lambda number=number: prepare(file, folder / f"csv-{number}", how)),
        )
        for number in range(rounds)
    ]
    compare("fer2013.csv", [(a, b) for a, b, _ in times], ("pandas", "crossfer's reader"))
    whole = [(a, c) for a, _, c in times]
    compare("fer2013.csv", whole, ("pandas", "crossfer, all of the preparation"))


def decode(folder: Path, rounds: int) -> None:
    """Compare one core with all."""
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        place = folder / "pictures" / ("happy" if number % 2 else "sad")
        place.mkdir(parents=True, exist_ok=True)
        noise = cv2.GaussianBlur(rng.integers(0, 256, (640, 480, 3), np.uint8), (0, 0), 3)
        cv2.imwrite(str(place / f"{number}.jpg"), noise)
    code = (
        "import sys\nfrom crossfer.datasets import Preparation, prepare\n"
        "prepare(sys.argv[1], sys.argv[2], Preparation(faces='cropped'), replace=True)"
    )
    command = [sys.executable, "-c", code, str(folder / "pictures"), str(folder / "decoded")]
    pairs = [
        (
            seconds(lambda: subprocess.run(["taskset", "-c", "0", *command], check=True)),
            seconds(lambda: subprocess.run(command, check=True)),
        )
        for _ in range(rounds)
    ]
    compare(f"{PICTURES:,} JPEG files of 640×480", pairs, ("one core", "all cores"))


def million(folder: Path) -> None:
    """Generate a million faces, open them and train on them."""
    place = folder / "million"
    place.mkdir()
    shape = (MILLION, 48, 48)
    images = np.lib.format.open_memmap(place / IMAGES, "w+", np.uint8, shape)
    rng = np.random.default_rng(0)
    block = rng.integers(0, 256, (10_000, 48, 48), np.uint8)
    for start in range(0, MILLION, len(block)):
        images[start : start + len(block)] = block
    images.flush()
    del images
    import pyarrow.parquet

    zeros = [0.0] * MILLION
    columns = {
        "label": [FER7[row % 7] for row in range(MILLION)],
        "subject": [None] * MILLION,
        "split": ["test" if row % 100 == 0 else "training" for row in range(MILLION)],
        "origin": [f"{row}.png" for row in range(MILLION)],
        "sha256": [""] * MILLION,
        "found": ["cropped"] * MILLION,
        **dict.fromkeys(("left", "top", "width", "height", "roll", "score"), zeros),
    }
    pyarrow.parquet.write_table(sample_table(columns), place / SAMPLES)
    card = {
        **{key: "" for key in ("title", "licence", "citation", "raw", "raw_state")},
        "format": 4,
        "name": "million",
        "preparation": {},
        "faces": {
            "mode": "cropped",
            "framing": {"eye_distance": 0.4, "eye_height": 0.4},
            "found": {"cropped": MILLION},
        },
        "classes": list(FER7),
        "images": MILLION,
        "subjects": 0,
        "split": {"how": "", "asked": None, "reached": {}, "subjects_in_several_splits": 0},
        "skipped": {},
        "sha256": {},
        "fingerprint": "million",
    }
    (place / DATASET_CARD).write_text(json.dumps(card))
    done = subprocess.run(
        [sys.executable, __file__, "--train", str(place)],
        check=True,
        capture_output=True,
        text=True,
    )
    print(done.stdout.strip())


def resident(kind: str) -> float:
    """Return this process's resident memory in GB: ``RssAnon``, its own; ``RssFile``, mapped from files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1e6
    return float("nan")


def train_on(place: Path) -> None:
    """Open a dataset, train for 300 steps and report."""
    from crossfer.adaptation import untrained
    from crossfer.loading import faces_of
    from crossfer.machine import Machine
    from crossfer.networks import Classifier, study_cnn
    from crossfer.training import Recipe, train

    began = time.perf_counter()
    dataset = open_dataset(place)
    opened = time.perf_counter() - began
    training = faces_of(dataset, dataset.rows("training"))
    before, most, steps = resident("RssAnon"), 0.0, 0

    class Enough(Exception):
        """Enough steps."""

    def step(images: int) -> None:
        nonlocal most, steps
        steps += 1
        most = max(most, resident("RssAnon"))
        if steps == 300:
            raise Enough

    model = untrained(lambda: Classifier(study_cnn(width=0.1)), 0)
    with suppress(Enough):
        train(model, training, {}, Recipe(epochs=1), 0, Machine.of(), keep="last", on_step=step)
    size = dataset.images.nbytes / 1e9
    print(
        f"a million faces, {size:.1f} GB: opened in {1000 * opened:.0f} ms; trained {steps} steps; "
        f"memory of its own {before:.2f} GB before and at most {most:.2f} GB in training "
        f"({most / size:.0%} of the images' size), {resident('RssFile'):.2f} GB mapped from files"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", action="store_true", help="needs 2.4 GB on the disk")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.train:
        train_on(asked.train)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.million:
            million(folder)
        else:
            read_csv(folder, asked.rounds)
            decode(folder, asked.rounds)


if __name__ == "__main__":
    main()

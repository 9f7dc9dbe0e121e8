"""How long it takes from a command to its first result.

    python benchmarks/startup.py [--rounds 5]

- ``crossfer --help``
- ``crossfer run`` on prepared faces, up to the end of the first training step of a network of a tenth of the
  width, with two workers and with one; the compiled loops are cached, as after the first run on a machine
- for comparison, Python alone importing PyTorch

Reported are the median and the range of the seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from crossfer import standins
from crossfer.datasets import prepare
from crossfer.machine import Machine, describe

CROSSFER = [sys.executable, "-m", "crossfer"]
EXPERIMENT = """
source: fer2013
targets: [jaffe]
strategies: [BL, FU]
model: {width: 0.1}
recipes: {BL: {epochs: 9999}}
"""
FIRST_STEP = "0%"
"""What the log says of a training, once its first step is done."""


def until(command: list[str], said: str = "") -> float:
    """Return the seconds until a command has said something, or has ended; then it is stopped."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if said and said in line:
                break
        took = time.perf_counter() - began
        process.terminate()
        process.stdout.read()  # its workers end, too
    return took


def main() -> None:
    """Measure the commands in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dataset, images in (("fer2013", 600), ("jaffe", 84)):
            standins.write(dataset, folder / "raw" / dataset, images)
            prepare(folder / "raw" / dataset, folder / "data" / dataset)
        file = folder / "study.yaml"
        file.write_text(EXPERIMENT)
        run = [*CROSSFER, "run", str(file), "--data", str(folder / "data"), "--out"]
        found: dict[str, list[float]] = {}
        for number in range(asked.rounds + 1):  # the first warms up
            measured = {
                "import PyTorch": until([sys.executable, "-c", "import torch"]),
                "crossfer --help": until([*CROSSFER, "--help"]),
            }
            for workers in ("2", "1"):
                out = [str(folder / f"{workers}-{number}"), "--workers", workers]
                measured[f"crossfer run --workers {workers}"] = until([*run, *out], FIRST_STEP)
            if number:
                for what, seconds in measured.items():
                    found.setdefault(what, []).append(seconds)
    print(", ".join(f"{key} {value}" for key, value in describe(Machine.of()).items()))
    print("| | seconds, median | range |\n|---|--:|---|")
    for what, each in found.items():
        print(f"| {what} | {statistics.median(each):.2f} | {min(each):.2f}–{max(each):.2f} |")


if __name__ == "__main__":
    main()

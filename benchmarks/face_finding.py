"""How many photographs a second become faces: decoded, searched, aligned, written.

    .venv/bin/python benchmarks/face_finding.py

Drawn photographs of 256×256 (JAFFE's size) on all cores, as `crossfer.prepare` does it, beside one core that
decodes, searches and aligns alone: the ratio says how well the cores are used.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2

from crossfer import standins
from crossfer.datasets import Preparation, prepare
from crossfer.datasets.detector import Detector
from crossfer.datasets.faces import face_of
from crossfer.datasets.pictures import open_picture
from crossfer.framing import Framing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=210)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        standins.write("jaffe", top / "raw", images=asked.photographs)
        files = sorted((top / "raw").glob("*.tiff"))
        detector = Detector()
        face_of(open_picture(files[0]), None, Framing(), detector, 1.0)  # warm
        for number in range(asked.rounds):
            cv2.setNumThreads(1)
            began = time.perf_counter()
            found = [
                face_of(open_picture(file), None, Framing(), detector, 1.0).found for file in files
            ]
            alone = len(files) / (time.perf_counter() - began)
            began = time.perf_counter()
            prepare(top / "raw", top / f"out{number}", Preparation(faces="find"))
            together = len(files) / (time.perf_counter() - began)
            print(
                f"round {number + 1}: {together:.0f} photographs/s with prepare on {os.cpu_count()} "
                f"cores, {alone:.0f} on one core alone: {together / alone:.2f} times; "
                f"{1000 / alone:.1f} ms a photograph; a face found in "
                f"{sum(how != 'centre' for how in found)} of {len(found)}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""How many photographs a second are looked at, beside how many `crossfer.prepare` cuts faces from.

    .venv/bin/python benchmarks/predict_photos.py exported

Drawn photographs of 256×256 (JAFFE's size) on all cores.  Both decode, search and align; `prepare` writes a
dataset, `predict` asks the classifier and writes a table.  They take turns: the ratio is what counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import crossfer
from crossfer import standins
from crossfer.datasets import Preparation
from crossfer.deploy.output import table
from crossfer.deploy.predictor import PredictOptions, Predictor
from crossfer.deploy.sources import sources_in


def predict(model: Predictor, photographs: Path, out: Path) -> None:
    with sources_in([photographs]) as sources, table(out, model.classes, {}) as rows:
        for part in model.parts(sources.found, PredictOptions()):
            rows.add(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="an exported classifier, a bundle or a run")
    parser.add_argument("--variant", default="fp32")
    parser.add_argument("--photographs", type=int, default=210, help="at most 213")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    model = crossfer.load(asked.model, asked.variant)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        standins.write("jaffe", top / "raw", images=asked.photographs)
        photographs = sum(1 for _ in (top / "raw").iterdir())
        for number in range(asked.rounds):
            began = time.perf_counter()
            predict(model, top / "raw", top / f"faces{number}.csv")
            predicted = photographs / (time.perf_counter() - began)
            began = time.perf_counter()
            crossfer.prepare(top / "raw", top / f"out{number}", Preparation(faces="find"))
            prepared = photographs / (time.perf_counter() - began)
            print(
                f"round {number + 1}: {predicted:.0f} photographs/s with predict, {prepared:.0f} with "
                f"prepare, on {os.cpu_count()} cores: {predicted / prepared:.2f} times as many",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""One training epoch of the study's network: crossfer beside its peers, and two limits.

    python benchmarks/peers.py [--data data/fer2013] [--images 12800] [--rounds 3]

Each peer is installed into an environment of its own, under ``--environments``, never into the project's, and
trains in a process of its own; they take turns, round after round, so that a noisy machine treats all alike.
Reported are medians over rounds of the ratio to crossfer within the same round.  With ``--write`` the table
goes to docs/benchmarks.md, together with the machine's description.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crossfer.datasets import open_dataset
from crossfer.machine import Machine, describe
from crossfer.processor import BRIEFLY

HERE = Path(__file__).parent
GFLOP_AN_IMAGE = 1.1
TORCH = "torch==2.13.0"
TENSORFLOW = "tensorflow[and-cuda]" if shutil.which("nvidia-smi") else "tensorflow-cpu"


class Peer(NamedTuple):
    """What is measured: its script with an argument, its environment, and what that needs."""

    script: str
    environment: str = ""
    requirements: tuple[str, ...] = ()
    argument: str = ""


PLAIN, LIGHTNING = (TORCH, "numpy"), (TORCH, "lightning==2.6.6", "numpy")
PEERS = {
    "crossfer": Peer("ours.py"),
    "Keras 3 `fit`, TensorFlow": Peer(
        "keras_fit.py", "keras", ("keras==3.15.1", f"{TENSORFLOW}==2.21.0")
    ),
    "plain PyTorch loop, DataLoader, fp32": Peer("plain.py", "plain", PLAIN),
    "the same, tuned": Peer("plain.py", "plain", PLAIN, "tuned"),
    "Lightning Trainer, defaults": Peer("lightning_trainer.py", "lightning", LIGHTNING),
    "Lightning Trainer, tuned": Peer("lightning_trainer.py", "lightning", LIGHTNING, "tuned"),
    "Avalanche Naive": Peer("avalanche_naive.py", "avalanche", (TORCH, "avalanche-lib==0.6.0")),
}
"""*Tuned*: what PyTorch recommends for a CPU, see ``peers/network.py``.  Keras compiles by default."""

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"


def python_of(peer: Peer, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, made and filled if need be."""
    if not peer.environment:
        return Path(sys.executable)
    place = folder / peer.environment
    python = place / "bin" / "python"
    done = place / "installed"
    wanted = "\n".join(peer.requirements)
    if not done.is_file() or done.read_text() != wanted:
        print(f"installing {', '.join(peer.requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *peer.requirements], check=True)
        done.write_text(wanted)
    return python


def faces(data: Path | None, images: int, file: Path) -> str:
    """Write faces for everybody; return what they are."""
    rng = np.random.default_rng(0)
    if data:
        dataset = open_dataset(data)
        # At random: of one class alone the loss vanishes, and single precision crawls through denormals.
        rows = np.sort(rng.permutation(dataset.rows("training"))[:images])
        np.savez(file, images=dataset.images[rows], labels=dataset.labels[rows])
        return f"{len(rows):,} faces of {dataset.title}"
    np.savez(
        file,
        images=rng.integers(0, 256, (images, 48, 48), np.uint8),
        labels=rng.integers(0, 7, images),
    )
    return f"{images:,} images of noise"


def measured(python: Path, script: str, file: Path, *more: str) -> dict[str, float]:
    """Run one script; what it measured is its last line."""
    command = [python, HERE / "peers" / script, file, *more]
    ours = os.environ | BRIEFLY  # as the command line sets it
    environment = ours if python == Path(sys.executable) else None
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{script}: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a prepared dataset; noise otherwise")
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="only these peers, beside crossfer")
    parser.add_argument("--environments", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--write", action="store_true", help="put it into docs/benchmarks.md")
    asked = parser.parse_args()
    peers = {
        name: (peer, python_of(peer, asked.environments.resolve()))
        for name, peer in PEERS.items()
        if not asked.only or not peer.environment or peer.environment in asked.only
    }
    rates: dict[str, list[float]] = {name: [] for name in peers}
    limits: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "faces.npz"
        what = faces(asked.data, asked.images, file)
        for _ in range(asked.rounds):
            for name, (peer, python) in peers.items():
                more = [peer.argument] if peer.argument else []
                found = measured(python, peer.script, file, *more)
                rates[name].append(found["images_per_second"])
                print(f"{name}: {rates[name][-1]:.0f} images/s", flush=True)
            limits.append(measured(Path(sys.executable), "limits.py", file))
            print(limits[-1], flush=True)
    text = table(rates, limits, what, asked.rounds)
    print(text)
    if asked.write:
        page = HERE.parent / "docs" / "benchmarks.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def table(
    rates: dict[str, list[float]], limits: list[dict[str, float]], what: str, rounds: int
) -> str:
    """Return the table in Markdown."""
    ours = rates["crossfer"]
    facts = ", ".join(f"{key} {value}" for key, value in describe(Machine.of()).items())
    lines = [
        f"One epoch of {what}, batch 128, warm; median of {rounds} rounds. {facts}.",
        "",
        "| | images/s | crossfer is faster by |",
        "|---|---|---|",
    ]
    for name, found in rates.items():
        times = statistics.median(a / b for a, b in zip(ours, found, strict=True))
        lines.append(f"| {name} | {statistics.median(found):.0f} | {times:.2f}× |")
    shares = {
        "limit: the step alone, no data work": [
            a / limit["images_per_second"] for a, limit in zip(ours, limits, strict=True)
        ],
        **{
            f"limit: {name} matrix product": [
                a * GFLOP_AN_IMAGE / limit[f"{name}_gflops"]
                for a, limit in zip(ours, limits, strict=True)
            ]
            for name in ("bf16", "fp32")
        },
    }
    rate_of = {
        "limit: the step alone, no data work": lambda limit: limit["images_per_second"],
        "limit: bf16 matrix product": lambda limit: limit["bf16_gflops"] / GFLOP_AN_IMAGE,
        "limit: fp32 matrix product": lambda limit: limit["fp32_gflops"] / GFLOP_AN_IMAGE,
    }
    for name, share in shares.items():
        rate = statistics.median(rate_of[name](limit) for limit in limits)
        lines.append(f"| {name} | {rate:.0f} | reaches {statistics.median(share):.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

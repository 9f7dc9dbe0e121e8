"""A small experiment on drawn faces, and whether two of its folders hold the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from crossfer import standins

EXPERIMENT = """
source: fer2013
targets: [jaffe]
strategies: [FC, FU, {{name: long, start: baseline, layers: all, data: source+target}}]
fractions: [1.0]
model: {{width: 0.05}}
device: cpu
precision: 32-true
recipes:
  default: {{epochs: 3, batch_size: 16}}
  long: {{epochs: {epochs}}}
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def write_experiment(folder: Path, epochs: int) -> Path:
    """Draw the faces, and write the configuration; the strategy “long” trains for so many epochs."""
    for name, images in (("fer2013", 105), ("jaffe", 63)):
        if not (folder / "raw" / name).exists():
            standins.write(name, folder / "raw" / name, images=images)
    file = folder / "experiment.yaml"
    file.write_text(EXPERIMENT.format(epochs=epochs) + f"data: {folder / 'raw'}\n")
    return file


def crossfer(*arguments: str | Path, **environment: str) -> list[str]:
    """Run a command; return what it printed.  Any status but 0 ends all."""
    done = subprocess.run(
        command(*arguments), env=os.environ | environment, text=True, stdout=-1, stderr=-2
    )
    if done.returncode:
        sys.exit(f"crossfer {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}")
    return done.stdout.splitlines()


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of crossfer with these arguments."""
    return [sys.executable, "-m", "crossfer", *map(str, arguments)]


def states(out: Path) -> dict[str, tuple[str, str]]:
    """Return the state and detail of each run of an experiment, by label."""
    listed = json.loads("\n".join(crossfer("status", out, "--json")))
    return {one["label"]: (one["state"], one["detail"]) for one in listed}


def wait_for(
    what: str,
    happened: Callable[[], bool],
    seconds: float = 1500,
    by: subprocess.Popen[str] | subprocess.Popen[bytes] | None = None,
) -> None:
    """Wait for something; give up after a while, or when the process that shall do it has ended."""
    print(f"… {what}", flush=True)
    until = time.monotonic() + seconds
    while not happened():
        if by and by.poll() is not None:
            raise SystemExit(f"the command ended before it happened: {what}")
        if time.monotonic() > until:
            raise SystemExit(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(1)


def compare(out: Path, reference: Path) -> int:
    """End with an error unless both folders hold the same weights and results; return how many runs."""
    ours, theirs = (
        {file.parent.name: load_file(file) for file in (o / "runs").glob("*/model.safetensors")}
        for o in (out, reference)
    )
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name, tensors in theirs.items():
        assert tensors.keys() == ours[name].keys(), name
        assert all(tensor.equal(ours[name][key]) for key, tensor in tensors.items()), name
        assert (out / "runs" / name / "history.csv").exists()
    summaries = [json.loads((o / "results.json").read_text())["summary"] for o in (out, reference)]
    for summary in summaries:
        for row in summary:
            row.pop("cost")  # seconds
    assert summaries[0] == summaries[1]
    return len(ours)

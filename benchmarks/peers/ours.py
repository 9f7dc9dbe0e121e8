"""crossfer: one epoch of its training loop, augmentation included."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from crossfer.adaptation import untrained
from crossfer.models import study_cnn
from crossfer.training import Faces, Recipe, machine, train

faces = np.load(sys.argv[1])
everything = Faces.from_numpy(faces["images"], faces["labels"])
fabric = machine()
times: list[float] = []


def step(images: int) -> None:
    """Note when a step has ended."""
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()
    times.append(time.perf_counter())


# Two epochs; the first warms up.  What an experiment does besides (validation, checkpoints) is not in it.
epochs = Recipe(epochs=2, batch_size=128)
train(untrained(study_cnn, 0), everything, {}, epochs, 0, fabric, keep="last", on_step=step)
steps = len(times) // 2
seconds = times[-1] - times[steps - 1]
print(json.dumps({"images_per_second": steps * 128 / seconds}))

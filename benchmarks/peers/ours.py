"""crossfer: one epoch of its training loop, augmentation included."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from crossfer.adaptation import untrained
from crossfer.machine import Machine
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Faces, Recipe, train

faces = np.load(sys.argv[1])
everything = Faces.from_numpy(faces["images"], faces["labels"])
machine = Machine.of()
BATCH = 128
images = len(everything) // BATCH * BATCH  # whole batches, so that all are of this size
everything = everything[torch.arange(images)]
shown, times = 0, list[float]()


def step(count: int) -> None:
    """Note when an epoch has ended; a GPU is waited for then, not before."""
    global shown
    shown += count
    if shown % images == 0:
        if machine.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())


# Two epochs; the first warms up.  What an experiment does besides (validation, checkpoints) is not in it.
epochs = Recipe(epochs=2, batch_size=BATCH)
model = untrained(lambda: Classifier(study_cnn()), 0)
train(
    model,
    everything,
    {},
    epochs,
    0,
    machine,
    keep="last",
    on_step=step,
)
print(json.dumps({"images_per_second": images / (times[1] - times[0])}))

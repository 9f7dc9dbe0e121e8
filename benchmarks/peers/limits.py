"""Two limits: the same step without any data work, and large matrix products."""

from __future__ import annotations

import json
import time

import torch
from torch.nn.functional import cross_entropy

from crossfer.adaptation import untrained
from crossfer.machine import Machine
from crossfer.networks import Classifier, study_cnn
from crossfer.training import specialised
from crossfer.training.backends import backend_of
from crossfer.training.backends.cuda import Recorded

BATCH, STEPS, SIDE = 128, 20, 4096
machine = Machine.of()
device = machine.device
wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
images = torch.randn(BATCH, 1, 48, 48, device=device)
labels = torch.arange(BATCH, device=device) % 7
network = specialised(untrained(lambda: Classifier(study_cnn()), 0), images.cpu(), device).train()
optimizer = backend_of(device).descent(
    network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
)


def step(rows: torch.Tensor) -> None:
    """Train on the same images once more, whatever the rows."""
    with machine.autocast():
        logits = network(images).float()
    cross_entropy(logits, labels, label_smoothing=0.05).backward()
    optimizer.step()
    optimizer.zero_grad()


def rate(work, times: int) -> float:
    """Return how often a second something can be done."""
    for _ in range(max(2, times // 5)):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return times / (time.perf_counter() - began)


advance = Recorded(step, torch.Generator(device)) if device.type == "cuda" else step
found = {"images_per_second": BATCH * rate(lambda: advance(labels), STEPS)}
for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
    a = torch.randn(SIDE, SIDE, device=device).to(dtype)
    found[f"{name}_gflops"] = 2 * SIDE**3 / 1e9 * rate(lambda a=a: a @ a, 6)
print(json.dumps(found))

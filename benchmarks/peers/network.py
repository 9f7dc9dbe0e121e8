"""What the PyTorch peers share: the study's network, and faces as the obvious code reads them.

With ``tuned`` as second argument the network is what PyTorch's performance tuning guide recommends for a CPU:
channels last, ``torch.compile``, and bfloat16 where the processor multiplies in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

BATCH = 128
LEARNING_RATE, MOMENTUM = 0.02, 0.9
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TUNED = sys.argv[2:] == ["tuned"]
BF16 = TUNED and (
    DEVICE.type == "cuda"
    or torch.cpu._is_avx512_bf16_supported()
    or torch.cpu._is_amx_tile_supported()
)


def study_cnn() -> nn.Module:
    """Build the network of the study."""
    layers: list[nn.Module] = []
    channels = 1
    for index, (filters, kernel) in enumerate([(64, 2), (64, 2), (128, 3), (128, 3), (128, 3)], 1):
        layers += [nn.Conv2d(channels, filters, kernel), nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
        if index in (2, 5):
            layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for features, units in ((8192, 2048), (2048, 1024)):
        layers += [nn.Linear(features, units), nn.ReLU(), nn.Dropout(0.5)]
    network = nn.Sequential(*layers, nn.Linear(1024, 7)).to(DEVICE)
    if not TUNED:
        return network
    compiled: nn.Module = torch.compile(network.to(memory_format=torch.channels_last))
    return compiled


class Faces(Dataset):
    """Faces one by one, flipped and shifted by chance: what a dataset class usually looks like."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.targets = torch.tensor(images), torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        face = self.images[row].float().div(255).sub(0.5).div(0.25)[None]
        if torch.rand(()) < 0.5:
            face = face.flip(-1)
        dx, dy = torch.randint(-4, 5, (2,)).tolist()
        return face.roll((dy, dx), (-2, -1)), self.targets[row]


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of the benchmark."""
    return torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)


def measure(epoch: Callable[[np.ndarray, np.ndarray], None]) -> None:
    """Warm up on a tenth of the faces, then time one epoch of all of them; print images a second."""
    faces = np.load(sys.argv[1])
    images, labels = faces["images"], faces["labels"]
    tenth = len(labels) // 10 // BATCH * BATCH or BATCH
    epoch(images[:tenth], labels[:tenth])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    epoch(images, labels)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    print(json.dumps({"images_per_second": len(labels) / (time.perf_counter() - began)}))

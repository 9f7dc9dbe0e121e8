"""A plain PyTorch loop with a DataLoader, in single precision unless tuned."""

from __future__ import annotations

import torch
from network import BATCH, BF16, DEVICE, Faces, measure, sgd, study_cnn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

network = study_cnn()
optimizer = sgd(network)


def epoch(images, labels):
    """Show every face once."""
    network.train()
    for faces, targets in DataLoader(Faces(images, labels), BATCH, shuffle=True):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16):
            loss = cross_entropy(network(faces.to(DEVICE)), targets.to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


measure(epoch)

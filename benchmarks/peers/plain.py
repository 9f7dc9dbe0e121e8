"""A plain PyTorch loop with a DataLoader, in single precision."""

from __future__ import annotations

from network import BATCH, DEVICE, Faces, measure, sgd, study_cnn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

network = study_cnn().to(DEVICE)
optimizer = sgd(network)


def epoch(images, labels):  # type: ignore[no-untyped-def]
    """Show every face once."""
    network.train()
    for faces, targets in DataLoader(Faces(images, labels), BATCH, shuffle=True):
        loss = cross_entropy(network(faces.to(DEVICE)), targets.to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


measure(epoch)

"""A classifier in PyTorch that takes faces as they are cut out: what answers, and what is exported."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfer.deploy.engine import BATCH
from crossfer.framing import Framing
from crossfer.networks.classifier import Classifier
from crossfer.networks.preprocessing import normalise


class WholeFace(nn.Module):
    """Faces as they are cut out in, probabilities out.

    Parameters
    ----------
    classifier
        It is not changed: what is here is a copy, on the CPU and in evaluation mode.
    half
        Whether its network calculates with 16 bits; preprocessing and probabilities keep 32.
    """

    def __init__(self, classifier: Classifier, half: bool = False) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier).cpu()
        self.precision = torch.float16 if half else torch.float32
        self.to(self.precision).eval()

    def forward(self, faces: Tensor) -> Tensor:
        """Return probabilities float32 (N, classes) of faces uint8 (N, H, W) or (N, H, W, 3) RGB."""
        images = normalise(faces, self.classifier.preprocessing).to(self.precision)
        logits: Tensor = self.classifier(images)
        return logits.float().softmax(1)


class TorchEngine:
    """A classifier in PyTorch, on the CPU.

    Parameters
    ----------
    classifier
        It is not changed.
    identity
        Of its weights.
    """

    def __init__(self, classifier: Classifier, identity: str = "") -> None:
        self.classifier = classifier
        self.classes: tuple[str, ...] = classifier.classes
        self.framing: Framing = classifier.framing
        self.identity = identity
        self._network = WholeFace(classifier)

    @torch.no_grad()
    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes)."""
        found = np.empty((len(faces), len(self.classes)), np.float32)
        for start in range(0, len(faces), BATCH):
            part = torch.from_numpy(np.ascontiguousarray(faces[start : start + BATCH]))
            found[start : start + BATCH] = self._network(part).numpy()
        return found

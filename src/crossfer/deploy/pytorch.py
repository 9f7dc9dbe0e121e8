"""An engine that runs a classifier in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from crossfer.deploy.engine import BATCH
from crossfer.framing import Framing
from crossfer.networks.classifier import Classifier


class TorchEngine:
    """A classifier in PyTorch, on the device where it is.

    Parameters
    ----------
    classifier
        It is put into evaluation mode.
    identity
        Hash of its weights.
    parallel
        Whether several threads may call it at the same time; otherwise each call uses all cores, and two
        would slow each other down.
    """

    def __init__(self, classifier: Classifier, identity: str = "", parallel: bool = False) -> None:
        self.classifier, self.identity = classifier, identity
        self.classes: tuple[str, ...] = classifier.classes
        self.labels: Mapping[str, str] = classifier.labels
        self.framing: Framing = classifier.framing
        self._turn = nullcontext() if parallel else Lock()

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes)."""
        with self._turn:
            return self.classifier.predict(faces, BATCH)

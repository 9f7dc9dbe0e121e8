"""What a memory file says of the source's validation faces: `crossfer assess` compares new faces with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from crossfer.evaluation.drift import Features, Pixels, pixels_of
from crossfer.evaluation.estimate import GROUP, Answers, Grouped
from crossfer.networks import Classifier
from crossfer.training import Faces, predict
from crossfer.training.cut import Cut


@dataclass(frozen=True)
class Calibration:
    """How a classifier does on faces of the source that it has not learnt from; no single one is described.

    Parameters
    ----------
    name
        Of the source.
    answers
        How sure it is, and how often right, in groups of at least 20 faces.
    pixels
        Mean and standard deviation of their brightness, contrast and sharpness.
    features
        Mean and variance of what the head is given.
    """

    name: str
    answers: Grouped
    pixels: Pixels
    features: Features

    @classmethod
    def of(
        cls,
        network: Classifier,
        cut: Cut,
        faces: Faces,
        name: str,
        fabric: Fabric,
        at_once: int,
    ) -> Calibration | None:
        """Ask a classifier about validation faces, so many at a time; `None` where they are fewer than 20."""
        if len(faces) < GROUP:
            return None
        said, features = [], []
        for rows in torch.split(torch.arange(len(faces)), at_once):
            at_cut = cut.features(network, faces.images[rows], fabric)
            said.append(predict(cut.rest, at_cut, fabric).numpy())
            features.append(cut.penultimate(at_cut, fabric).numpy())
        answers = Answers.of(np.concatenate(said), faces.labels.cpu().numpy())
        people = None if faces.subjects is None else faces.subjects.cpu().numpy()
        usual = Features.of(np.concatenate(features), people)
        usual = replace(usual, mean=[float(f"{number:.7g}") for number in usual.mean])
        return cls(name, Grouped.of(answers), pixels_of(faces.images.cpu().numpy()), usual)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Return what `as_json` gave."""
        parts = {"answers": Grouped, "features": Features}
        return cls(**(dict(content) | {name: of(**content[name]) for name, of in parts.items()}))

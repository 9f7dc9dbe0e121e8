"""Statistics of the source's validation faces in a memory file, the reference of `crossfer assess`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crossfer.evaluation.drift import Features, Pixels, pixels_of
from crossfer.evaluation.estimate import GROUP, BinnedScores, LabelledScores
from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.training import Faces, predict
from crossfer.training.cut import Cut


@dataclass(frozen=True)
class Calibration:
    """Statistics of a classifier on validation faces of the source; no single face is described.

    Parameters
    ----------
    name
        Name of the source.
    answers
        Confidence and accuracy, in groups of at least 20 faces.
    pixels
        Mean and standard deviation of brightness, contrast and sharpness.
    features
        Mean and variance of the penultimate features.
    """

    name: str
    answers: BinnedScores
    pixels: Pixels
    features: Features

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the answer on each face is right, in no order: bool (N,)."""
        return next(iter(self.answers.answers().right.values()))

    @classmethod
    def of(
        cls,
        network: Classifier,
        cut: Cut,
        faces: Faces,
        name: str,
        machine: Machine,
        at_once: int,
    ) -> Calibration | None:
        """Measure a classifier on validation faces, in batches; ``None`` if they are fewer than 20.

        In single precision, as `crossfer.deploy.assess` measures what is compared with it.
        """
        if len(faces) < GROUP:
            return None
        machine, said, features = replace(machine, precision="32-true"), [], []
        portions = torch.split(torch.arange(len(faces)), at_once)
        for rows in portions:
            at_cut = cut.features(network, faces.images[rows], machine)
            said.append(predict(cut.rest, at_cut, machine).numpy())
            features.append(cut.penultimate(at_cut, machine).numpy())
        answers = LabelledScores.of(np.concatenate(said), faces.labels.cpu().numpy())
        people = None if faces.subjects is None else faces.subjects.cpu().numpy()
        usual = Features.of(np.concatenate(features), people)
        usual = replace(usual, mean=[float(f"{number:.7g}") for number in usual.mean])
        pixels = pixels_of(f for rows in portions for f in faces.images[rows].cpu().numpy())
        return cls(name, BinnedScores.of(answers), pixels, usual)

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON can store."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Return the object that `as_json` wrote."""
        parts: dict[str, Any] = {"answers": BinnedScores, "features": Features}
        return cls(**(dict(content) | {name: of(**content[name]) for name, of in parts.items()}))

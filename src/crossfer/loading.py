"""Images of a prepared dataset as training takes them."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray

from crossfer.datasets import Dataset
from crossfer.training import Faces


def faces_of(dataset: Dataset, rows: NDArray[np.int64]) -> Faces:
    """Return rows of a prepared dataset as faces, with their subjects; of a union, part after part."""
    # A part without a row would only add a mask of the classes that it has.
    parts = [(part, own) for part, own in dataset.divided(rows) if len(own)] or [(dataset, rows)]
    return reduce(add, (_taken(part, own) for part, own in parts))


def _taken(dataset: Dataset, rows: NDArray[np.int64]) -> Faces:
    subjects = dataset.people(rows)
    count = len(dataset.class_set)
    return replace(
        Faces.from_numpy(dataset.images, dataset.labels, dataset.classes, rows, count),
        subjects=None if subjects is None else torch.from_numpy(subjects),
    )

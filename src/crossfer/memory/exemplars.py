"""Select exemplars: at random, or by herding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.training import Faces, features, specialised

ExemplarChoice = Literal["random", "herding"]


def choose_exemplars(
    faces: Faces,
    per_class: int,
    how: ExemplarChoice,
    model: Classifier,
    seed: int,
    machine: Machine,
) -> Faces:
    """Select a few images of each class.

    Parameters
    ----------
    faces
        The source's training set.
    per_class
        Number of images per class; all of a class that has fewer.
    how
        ``"random"``: uniformly.  ``"herding"``: greedily, each time the image that brings the mean of the
        selected features closest to the mean of the class (Rebuffi et al., iCaRL, CVPR 2017, algorithm 4).
    model
        The network whose penultimate features herding uses.
    seed
        Seed of the random choice.
    machine
        Device and precision.

    Returns
    -------
    Faces
        At most classes × `per_class` faces, in their original order.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = faces.labels.cpu()
    network = model if how == "random" else specialised(model, faces.images, machine.device)
    head = "" if how == "random" else model.layer_names("head")[0]
    rows = []
    for label in torch.unique(labels):
        of_class = torch.nonzero(labels == label).flatten()
        if how == "random":
            order = torch.randperm(len(of_class), generator=generator)
        else:
            found = features(network, head, faces.images[of_class], machine)
            order = herd(found, per_class)
        rows.append(of_class[order[:per_class]])
    return faces[torch.cat(rows).sort().values]


def herd(points: Tensor, count: int) -> Tensor:
    """Select points whose running mean stays closest to the mean of all points.

    Parameters
    ----------
    points
        float (N, D); each is first scaled to length 1.
    count
        Number of points to select.

    Returns
    -------
    Tensor
        int64 (min(count, N),), in the order of selection.
    """
    points = nn.functional.normalize(points.float())
    mean = points.mean(0)
    total = torch.zeros_like(mean)
    chosen: list[int] = []
    left = torch.ones(len(points), dtype=torch.bool)
    for number in range(1, min(count, len(points)) + 1):
        distance = ((total + points) / number - mean).square().sum(1)
        best = int(distance.masked_fill(~left, torch.inf).argmin())
        chosen.append(best)
        left[best] = False
        total += points[best]
    return torch.tensor(chosen, dtype=torch.int64)

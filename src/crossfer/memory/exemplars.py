"""Choose exemplars: at random or by herding."""

from __future__ import annotations

from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crossfer.networks import Classifier
from crossfer.training import Faces, features, specialised

Choice = Literal["random", "herding"]


def choose_exemplars(
    faces: Faces, per_class: int, how: Choice, model: Classifier, seed: int, fabric: Fabric
) -> Faces:
    """Keep a few images of each class.

    Parameters
    ----------
    faces
        The source's training set.
    per_class
        How many to keep of each class, or all where there are fewer.
    how
        ``"random"``: drawn evenly.  ``"herding"``: one after the other, the one that brings the mean of the
        chosen features closest to the class's mean (Rebuffi et al., iCaRL, CVPR 2017, algorithm 4).
    model
        The network whose features herding looks at: the input of its last layer.
    seed
        Of the random choice.
    fabric
        Where to calculate features.

    Returns
    -------
    Faces
        At most classes × `per_class` of them, in their old order.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = faces.labels.cpu()
    network = model if how == "random" else specialised(model, faces.images, fabric.device)
    head = "" if how == "random" else model.layer_names("head")[0]
    rows = []
    for label in torch.unique(labels):
        of_class = torch.nonzero(labels == label).flatten()
        if how == "random":
            order = torch.randperm(len(of_class), generator=generator)
        else:
            found = features(network, head, faces.images[of_class], fabric)
            order = herd(found, per_class)
        rows.append(of_class[order[:per_class]])
    return faces[torch.cat(rows).sort().values]


def herd(points: Tensor, count: int) -> Tensor:
    """Order the points whose running means stay closest to the mean of all.

    Parameters
    ----------
    points
        float (N, D); scaled to length 1 each.
    count
        How many to choose, at most N.

    Returns
    -------
    Tensor
        int64 (min(count, N),), the best first.
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

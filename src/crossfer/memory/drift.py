"""Drift compensation: what is known of features follows the network when its earlier layers change.

Gomez-Villa et al., Exemplar-free Continual Representation Learning via Learnable Drift Compensation,
ECCV 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.training import specialised
from crossfer.training.cut import Cut, cut_of

RIDGE = 0.1
"""Relative to the mean variance of the features."""
MOST_IMAGES = 4096
"""Images that the drift is learned from: the cost grows with their number cubed."""


def compensated(
    samples: Tensor, old: Classifier, new: Classifier, images: Tensor, machine: Machine
) -> Tensor:
    """Move features of an old network at its cut to where a new network would have them.

    Parameters
    ----------
    samples
        Features at the cut, float32 (M, D).
    old, new
        The networks; they may differ in any weights.
    images
        The new images, as for `crossfer.training.predict`, from which the drift is learned.
    machine
        Device and precision.

    Returns
    -------
    Tensor
        float32 (M, D); the samples themselves where nothing before the cut has changed.
    """
    before, after = (_before(each, cut_of(each)) for each in (old, new))
    if all(torch.equal(value.cpu(), after[name].cpu()) for name, value in before.items()):
        return samples
    networks = (specialised(each, images, machine.device) for each in (old, new))
    return moved(samples, *(cut_of(each).features(each, images, machine) for each in networks))


def moved(samples: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Move features as those of some images have moved.

    A linear map from old features to new ones, learned on the new images, is applied to what is known of old
    ones.  In the paper it has no intercept and is learned by gradient descent, and class means are moved by
    it; here it is a ridge regression of the drift, so that directions in which the new images do not differ
    move as their mean does, and samples are moved.

    Parameters
    ----------
    samples
        float32 (M, D).
    before, after
        Features of the same images under both networks, float32 (N, D).

    Returns
    -------
    Tensor
        float32 (M, D).
    """
    rows = torch.randperm(len(before), generator=torch.Generator().manual_seed(0))[:MOST_IMAGES]
    before, drift = before[rows], (after - before)[rows]
    centre, shift = before.mean(0), drift.mean(0)
    about = before - centre
    # The dual form: as large as the number of images, not of features.
    products = (about @ about.T).double()
    products.diagonal().add_((RIDGE * products.trace() / about.shape[1]).clamp_min(1e-12))
    found = torch.linalg.solve(products, (drift - shift).double()).float()
    return samples + shift + ((samples - centre) @ about.T) @ found


def _before(classifier: Classifier, cut: Cut) -> dict[str, Tensor]:
    """Return the weights and buffers of the layers before a cut."""
    behind = cut.rest.state_dict()
    return {name: value for name, value in classifier.state_dict().items() if name not in behind}

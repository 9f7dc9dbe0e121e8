"""What a network says of images, whichever network: probabilities, features, how often it is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfer.machine import Machine
from crossfer.networks.classifier import Classifier
from crossfer.networks.prediction import outputs_of, probabilities_of
from crossfer.selection import Candidate
from crossfer.training.batches import Faces
from crossfer.training.devices import Devices
from crossfer.training.split import Body
from crossfer.training.stored import every


def predict(
    model: Classifier, images: Tensor, machine: Machine, batch_size: int | None = None
) -> Tensor:
    """Return the probability of every class for every image.

    Parameters
    ----------
    model
        Put into evaluation mode.
    images
        uint8 (N, H, W) or (N, H, W, 3); or float (N, …), what the model is given of them.
    machine
        Where to run.
    batch_size
        Images at a time; by default as many as memory allows.  Does not change the result beyond rounding.

    Returns
    -------
    Tensor
        float32 (N, classes) on the CPU, rows summing to 1.
    """
    if not len(images):
        return torch.empty(0, len(model.classes))
    return probabilities_of(model, images, model.preprocessing, batch_size, machine.autocast)


def features(model: Classifier, layer: str, images: Tensor, machine: Machine) -> Tensor:
    """Return what a layer is given, for every image.

    Parameters
    ----------
    layer
        The name of one of the network's modules.
    model, images, machine
        As for `predict`.

    Returns
    -------
    Tensor
        float32 (N, D) on the CPU: the layer's inputs, flattened.
    """
    body = Body(model.eval().network, layer)
    batches = outputs_of(body, images, model.preprocessing, autocast=machine.autocast)
    return torch.cat([given.float().flatten(1).cpu() for given in batches])


def judge(
    model: Classifier, faces: Faces, machine: Machine, given: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Judge a network's answers, image by image, among the classes that each face knows.

    Of several devices each answers for its share of the faces, and is told all.

    Parameters
    ----------
    model, faces, machine
        Who answers about what, and where.
    given
        What the model is given of the faces, where that is not their images.

    Returns
    -------
    right : Tensor
        bool (N,): whether the most probable class is the right one.
    likelihood : Tensor
        float32 (N,): the probability of the right class, above 0.
    """
    labels, devices = faces.labels.cpu(), Devices(machine)
    images = faces.images if given is None else given
    if len(faces) < devices.count:  # nothing to share
        probabilities = predict(model, images, machine)
    else:
        own = predict(model, every(images, devices.number, devices.count), machine)
        probabilities = devices.gather(own, len(faces))
    if faces.known is not None:
        probabilities = probabilities.masked_fill(~faces.known.cpu(), 0)
        probabilities /= probabilities.sum(1, keepdim=True).clamp_min(1e-12)
    likelihood = probabilities.gather(1, labels[:, None]).clamp_min(1e-12)
    return probabilities.argmax(1) == labels, likelihood[:, 0]


def measures(right: Tensor, likelihood: Tensor) -> dict[str, float]:
    """Return ``accuracy`` (0–1) and ``loss``, the mean cross-entropy (nats), of what was judged."""
    return {
        "accuracy": right.float().mean().item(),
        "loss": -likelihood.log().mean().item(),
    }


def candidate(judged: Mapping[str, Tensor], names: Iterable[str]) -> Candidate:
    """Return what `judged_on` found on sets of these names, for `crossfer.selection`."""
    likelihood, right = (
        {name: judged[f"{name}/{what}"].numpy() for name in names}
        for what in ("likelihood", "right")
    )
    return Candidate(likelihood, right)


def judged_on(
    model: Classifier,
    validation: Mapping[str, Faces],
    machine: Machine,
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Judge a network's answers on named sets: ``NAME/right`` and ``NAME/likelihood``, see `judge`."""
    found: dict[str, Tensor] = {}
    for name, faces in validation.items():
        judged = judge(model, faces, machine, (given or {}).get(name))
        found[f"{name}/right"], found[f"{name}/likelihood"] = judged
    return found


def people_in(validation: Mapping[str, Faces]) -> dict[str, NDArray[np.int64] | None]:
    """Return who is in each image of some sets, for `crossfer.selection`; None: everybody another."""
    return {
        name: None if faces.subjects is None else faces.subjects.cpu().numpy()
        for name, faces in validation.items()
    }

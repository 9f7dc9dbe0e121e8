"""What a network says of images, whichever network: probabilities, features, how often it is right."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from crossfer.networks.classifier import Classifier
from crossfer.networks.prediction import probabilities_of
from crossfer.training.batches import Faces


def predict(
    model: Classifier, images: Tensor, fabric: Fabric, batch_size: int | None = None
) -> Tensor:
    """Return the probability of every class for every image.

    Parameters
    ----------
    model
        Put into evaluation mode.
    images
        uint8 (N, H, W) or (N, H, W, 3); or float (N, …), what the model is given of them.
    fabric
        Where to run.
    batch_size
        Images at a time; by default as many as memory allows.  Does not change the result beyond rounding.

    Returns
    -------
    Tensor
        float32 (N, classes) on the CPU, rows summing to 1.
    """
    return probabilities_of(model, images, model.preprocessing, batch_size, fabric.autocast)


@torch.no_grad()
def features(
    model: Classifier, layer: str, images: Tensor, fabric: Fabric, batch_size: int | None = None
) -> Tensor:
    """Return what a layer is given, for every image.

    Parameters
    ----------
    layer
        The name of one of the network's modules.
    model, images, fabric, batch_size
        As for `predict`.

    Returns
    -------
    Tensor
        float32 (N, D) on the CPU: the layer's inputs, flattened.
    """
    found: list[Tensor] = []
    hook = model.network.get_submodule(layer).register_forward_pre_hook(
        lambda module, inputs: found.append(inputs[0].float().flatten(1).cpu())
    )
    try:
        predict(model, images, fabric, batch_size)
    finally:
        hook.remove()
    return torch.cat(found)


def measure(model: Classifier, faces: Faces, fabric: Fabric) -> dict[str, float]:
    """Return accuracy (0–1) and mean cross-entropy (nats) among the classes that each face knows."""
    labels = faces.labels.cpu()
    probabilities = predict(model, faces.images, fabric)
    if faces.known is not None:
        probabilities = probabilities.masked_fill(~faces.known.cpu(), 0)
        probabilities /= probabilities.sum(1, keepdim=True).clamp_min(1e-12)
    likelihood = probabilities.gather(1, labels[:, None]).clamp_min(1e-12)
    accuracy = (probabilities.argmax(1) == labels).float().mean().item()
    return {"accuracy": accuracy, "loss": -likelihood.log().mean().item()}


def accuracy(model: Classifier, faces: Faces, fabric: Fabric) -> float:
    """Return the share (0–1) of faces recognised, among the classes that they have."""
    return measure(model, faces, fabric)["accuracy"]

"""Where a classifier is cut for a memory: before its fully connected layers, which are given vectors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossfer.errors import CrossferError
from crossfer.machine import Machine
from crossfer.networks.classifier import Classifier
from crossfer.networks.experts import NOT_ADAPTED, Experts
from crossfer.networks.layers import layers_with_parameters
from crossfer.training.prediction import features
from crossfer.training.split import Body, ForwardTrace, as_it_was, noise


@dataclass(frozen=True)
class Cut:
    """Where a classifier is cut for a memory.

    Parameters
    ----------
    layer
        The first module behind the cut, by its name in the network: features are what it is given.
    rest
        From that module on, float (N, D) → logits; it shares the network's layers.
    head
        The last linear layer, by its name in the network.
    """

    layer: str
    rest: Classifier
    head: str

    def features(self, classifier: Classifier, images: Tensor, machine: Machine) -> Tensor:
        """Return what `layer` is given, float32 (N, D) on the CPU; images as for `predict`."""
        return features(classifier, self.layer, images, machine)

    def body(self, classifier: Classifier) -> nn.Module:
        """Return what turns normalised images, float (N, C, H, W), into features, float (N, D)."""
        return Body(classifier.network, self.layer)

    def penultimate(self, given: Tensor, machine: Machine) -> Tensor:
        """Return what the head is given, float32 (N, P), of features at the cut, float (N, D)."""
        return given if self.layer == self.head else features(self.rest, self.head, given, machine)

    def joined(self, classifier: Classifier, rest: Classifier) -> Classifier:
        """Return a copy of a classifier with the weights of another `rest` behind the cut."""
        whole = copy.deepcopy(classifier).cpu().eval()
        whole.load_state_dict(whole.state_dict() | rest.state_dict())
        return whole


@torch.no_grad()
def cut_of(classifier: Classifier) -> Cut:
    """Cut a classifier before its fully connected layers, or, where that cannot be, before its head.

    Raises
    ------
    CrossferError
        If there is no head, it is given no vector for each face, it does not give the network's outputs, or
        the network is a mixture of experts.
    """
    if isinstance(classifier.network, Experts):
        raise CrossferError(f"model: there is no memory file of it: {NOT_ADAPTED}")
    try:
        (head,) = classifier.layer_names("head")
    except ValueError as error:
        raise CrossferError(f"model: {error}") from None
    how = classifier.preprocessing
    device = next(classifier.parameters()).device
    pictures = torch.zeros(1, *how.image_shape, dtype=torch.uint8, device=device)
    with as_it_was(classifier):
        trial = ForwardTrace(classifier, noise(pictures, how), nn.Module.eval)
        around = _around(classifier, classifier.layer_names("FC")[0])
        if last := _rest_from(head, trial):
            rests = ((layer, _rest_from(layer, trial)) for layer in around)
            return next((Cut(at, rest, head) for at, rest in rests if rest), Cut(head, last, head))
    raise CrossferError(
        f"model: its last linear layer {head} does not map one vector per face to the outputs; "
        "name the layer that does, model.FC: [its name]"
    )


def check_cut(classifier: Classifier) -> None:
    """Refuse a classifier that has no memory file: see `cut_of`."""
    cut_of(classifier)


def _rest_from(layer: str, trial: ForwardTrace) -> Classifier | None:
    """Return what makes the answers of vectors that a layer is given, if anything does."""
    calls = [call for call in trial.calls if call.name == layer]
    if len(calls) == 1 and (given := calls[0].given) is not None and given.ndim == 2:
        return next(trial.rests(calls[0]), None)
    return None


def _around(classifier: Classifier, layer: str) -> Iterator[str]:
    """Yield the modules that begin with a layer, as far as parameters go: the outermost first."""
    parts = layer.split(".")
    for name in (".".join(parts[:depth]) for depth in range(1, len(parts) + 1)):
        inside = layers_with_parameters(classifier.network.get_submodule(name))
        if f"{name}.{inside[0]}".rstrip(".") == layer:
            yield name

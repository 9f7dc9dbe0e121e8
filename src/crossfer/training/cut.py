"""A classifier cut in two: what is given to its fully connected layers, and these alone.

What lies before the cut turns faces into features, vectors; what lies behind it, the `rest`, is a classifier
that reads features in the place of faces, so that everything that trains or measures classifiers works on it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crossfer.errors import CrossferError
from crossfer.networks.classifier import Classifier
from crossfer.networks.layers import layers_in_order, layers_with_parameters
from crossfer.networks.preprocessing import normalise
from crossfer.training.prediction import features


@dataclass(frozen=True)
class Cut:
    """Where a classifier is cut.

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

    @property
    def _before(self) -> str:
        """What stands before a name in `rest` to make it the network's."""
        return self.layer.rpartition(".")[0]

    def own(self, name: str) -> str:
        """Return the name in `rest.network` of a module behind the cut."""
        return name.removeprefix(f"{self._before}.") if self._before else name

    def features(self, classifier: Classifier, images: Tensor, fabric: Fabric) -> Tensor:
        """Return what `layer` is given, float32 (N, D) on the CPU; images as for `predict`."""
        return features(classifier, self.layer, images, fabric)

    def body(self, classifier: Classifier) -> nn.Module:
        """Return what turns normalised images, float (N, C, H, W), into features, float (N, D)."""
        return _Body(classifier, self.layer)

    def penultimate(self, given: Tensor, fabric: Fabric) -> Tensor:
        """Return what the head is given, float32 (N, P), of features at the cut, float (N, D)."""
        return (
            given
            if self.layer == self.head
            else features(self.rest, self.own(self.head), given, fabric)
        )

    def joined(self, classifier: Classifier, rest: Classifier) -> Classifier:
        """Return a copy of a classifier with the layers of another `rest` behind the cut."""
        whole = copy.deepcopy(classifier).cpu().eval()
        whole.answers, whole.outputs, whole.spec = rest.answers, rest.outputs, rest.spec
        for name, layer in layers_in_order(rest.network):
            place = f"{self._before}.{name}" if self._before else name
            whole.network.set_submodule(place, copy.deepcopy(layer).cpu().eval())
        return whole


class _Body(nn.Module):
    """Gives what a layer of a classifier is given."""

    def __init__(self, classifier: Classifier, layer: str) -> None:
        super().__init__()
        self.classifier, self.layer = classifier, layer

    def forward(self, images: Tensor) -> Tensor:
        """Return features; nothing where the layer is not asked once."""
        found: list[Tensor] = []
        layer = self.classifier.network.get_submodule(self.layer)
        hook = layer.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
        try:
            self.classifier(images)
        finally:
            hook.remove()
        return found[0].detach() if len(found) == 1 else images.new_empty(0)


@torch.no_grad()
def cut_of(classifier: Classifier) -> Cut:
    """Cut a classifier before its fully connected layers, or, where that cannot be, before its head.

    A network that is a plain sequence is cut before the first of its fully connected layers; of any other it
    is not known what happens between them.

    Raises
    ------
    CrossferError
        If there is no head, it is given no vector for each face, or it does not give the network's outputs.
    """
    try:
        (head,) = classifier.layer_names("head")
    except ValueError as error:
        raise CrossferError(f"model: {error}") from None
    how = classifier.preprocessing
    device = next(classifier.parameters()).device
    pictures = torch.zeros(2, *how.image_shape, dtype=torch.uint8)
    pictures[1, : how.side // 2] = 255  # two that differ
    images = normalise(pictures, how).to(device)
    before = classifier.training
    classifier.eval()
    try:
        logits = classifier(images)
        for layer, rest in _candidates(classifier, head):
            given = _Body(classifier, layer)(images)
            if given.ndim == 2:
                again = rest.eval()(given)
                if again.shape == logits.shape and torch.allclose(again, logits, 1e-3, 1e-4):
                    return Cut(layer, rest, head)
    finally:
        classifier.train(before)
    raise CrossferError(
        f"model: its last linear layer {head} does not map one vector per face to the outputs; "
        "name its head with model.FC"
    )


def _candidates(classifier: Classifier, head: str) -> Iterator[tuple[str, Classifier]]:
    """Yield where a classifier may be cut, and what lies behind: the largest first."""
    network = classifier.network
    if isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward:
        parts = layers_in_order(network)
        connected = set(classifier.layer_names("FC"))
        for index, (name, child) in enumerate(parts):
            inside = [".".join(filter(None, (name, n))) for n in layers_with_parameters(child)]
            if connected & set(inside):
                if inside[0] in connected:
                    yield name, classifier.around(nn.Sequential(OrderedDict(parts[index:])))
                break
    last = head.rpartition(".")[2]
    alone = nn.Sequential(OrderedDict([(last, network.get_submodule(head))]))
    yield head, classifier.around(alone)

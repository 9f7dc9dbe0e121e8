"""Add a class to a classifier's head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from crossfer.errors import CrossferError
from crossfer.networks.classifier import Classifier
from crossfer.networks.sources import widen


@torch.no_grad()
def grow(classifier: Classifier, features: Mapping[str, Tensor]) -> Classifier:
    """Return a copy of a classifier that can also say classes that are new to it.

    The row of a new class in the head is imprinted: the mean direction of the class's features (Qi, Brown,
    Lowe, Low-Shot Learning with Imprinted Weights, CVPR 2018, equation 5), as long as the head's other rows
    are on average.  Imprinting is made for features and rows of length 1; here features of all classes have a
    direction in common, and the new class would be the answer to nearly everything.  So its bias makes it,
    on average over its own images, as strong as the strongest of the others.  Their logits stay as they are.

    Parameters
    ----------
    classifier
        Its head is a linear layer that gives its outputs.
    features
        For each new class what the head is given of some of its images, float (N, D), N at least 1.

    Raises
    ------
    CrossferError
        If the head cannot grow.
    ValueError
        If the network can say one of the classes already.
    """
    if known := [name for name in features if name not in classifier.unknown]:
        raise ValueError(f"{known[0]} is not new to the classifier")
    grown = copy.deepcopy(classifier)
    (name,) = grown.layer_names("head")
    head = widen(grown.network, name, len(features))
    if head.out_features != classifier.answers + len(features):
        raise CrossferError(
            f"model: its last linear layer {name} does not produce its {classifier.answers} "
            "outputs; name its head with model.FC, so that it can learn a new class"
        )
    old = slice(classifier.answers)
    length = head.weight[old].norm(dim=1).mean()
    for row, given in enumerate(features.values(), classifier.answers):
        direction = F.normalize(F.normalize(given.to(head.weight)).mean(0), dim=0)
        head.weight[row] = length * direction
        if head.bias is not None:
            logits = F.linear(given.to(head.weight), head.weight[: row + 1])
            others = classifier.of_classes(logits[:, old] + head.bias[old]).max(1).values
            head.bias[row] = (others - logits[:, row]).mean()
    rows = {name: (row,) for row, name in enumerate(features, classifier.answers)}
    outputs = zip(classifier.classes, classifier.outputs, strict=True)
    grown.outputs = tuple(rows.get(name, own) for name, own in outputs)
    grown.answers = classifier.answers + len(features)
    if spec := classifier.spec:
        added = spec.grown.get(name, 0) + len(features)
        grown.spec = replace(spec, grown={**spec.grown, name: added})
    return grown

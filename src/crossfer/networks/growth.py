"""Add a class to a classifier's head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossfer.errors import CrossferError
from crossfer.networks.answers import find_logits
from crossfer.networks.classifier import Classifier
from crossfer.networks.sources import widen


@torch.no_grad()
def grow(classifier: Classifier, features: Mapping[str, Tensor]) -> Classifier:
    """Return a copy of a classifier with outputs for new classes.

    The row of a new class in the head is imprinted: the mean direction of the class's features (Qi, Brown,
    Lowe, Low-Shot Learning with Imprinted Weights, CVPR 2018, equation 5), with the mean length of the other
    rows. Imprinting assumes features and rows of length 1; here the features of all classes have a common
    component, and nearly everything would be predicted as the new class.  So its bias is set so that its
    logit, on average over its own images, equals the largest of the others, which stay unchanged.

    Parameters
    ----------
    classifier
        Its head must be a linear layer that produces its outputs.
    features
        For each new class, penultimate features of some images, float (N, D), N at least 1.

    Raises
    ------
    CrossferError
        If the head is not such a layer, or the old classes' logits would change: the network answers from
        another head, or what follows the head expects as many outputs as before.
    ValueError
        If the network already has an output for one of the classes.
    """
    if known := [name for name in features if name not in classifier.unknown]:
        raise ValueError(f"{known[0]} is not new to the classifier")
    grown = copy.deepcopy(classifier)
    try:
        (name,) = grown.layer_names("head")
    except ValueError as error:
        raise CrossferError(f"model: {error}, so that it can learn a new class") from None
    head = widen(grown.network, name, len(features))
    if head.out_features != classifier.answers + len(features):
        raise CrossferError(
            f"model: its last linear layer {name} does not produce its {classifier.answers} "
            "outputs; name its head with model.FC, so that it can learn a new class"
        )
    _check_old_logits(classifier, grown.network, name, head.out_features)
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


def _check_old_logits(before: Classifier, network: nn.Module, head: str, answers: int) -> None:
    """Refuse a wider network whose logits of the old classes are others than before."""
    one, other = (copy.deepcopy(each).eval() for each in (before.network, network))
    like = next(other.parameters())
    chance = torch.Generator().manual_seed(0)
    shown = torch.randn(2, *before.preprocessing.input_shape, generator=chance).to(like)
    old, _ = find_logits(one(shown), before.answers)
    try:
        new, _ = find_logits(other(shown), answers)
    except (RuntimeError, TypeError, ValueError):  # an operation that expects as many as before
        new = old[:, :0]
    # Logarithms of probabilities all fall by the same amount where there is one class more.
    centred = [each - each.mean(1, keepdim=True) for each in (old, new[:, : before.answers])]
    tolerance = 1e-3 * float(centred[0].abs().max())
    if new.shape[1:] != (answers,) or not torch.allclose(*centred, rtol=0, atol=tolerance):
        raise CrossferError(
            f"model: with a row for a new class in its last linear layer {head}, the old classes have other "
            "logits; name the head that gives them, model.FC: [its name], and let no layer follow it that "
            "expects so many outputs"
        )

"""Adaptation to unlabelled faces: AdaBN, T3A, TENT, SHOT.

Each method is a small frozen dataclass.  `AdaBN` and `T3A` change a network directly; `Tent` and `Shot`
replace the cross-entropy with labels by another objective.  All of them use images only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from crossfer.errors import CrossferError
from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.networks.layers import plain_linear
from crossfer.strict import Strict
from crossfer.terms import Needs
from crossfer.training import Faces, Objective, features, normalise, specialised
from crossfer.training.statistics import AT_ONCE, batch_norms, renew_statistics


@dataclass(frozen=True)
class AdaBN(Strict):
    """Estimate the statistics of every batch normalisation again, on the target's images.

    Li, Wang, Shi, Liu, Hou, Adaptive batch normalization for practical domain adaptation, Pattern Recognition
    2018, algorithm 1: mean and variance over all images of the target; weights stay unchanged.
    """

    kind: Literal["batch-norm"] = "batch-norm"
    trains: ClassVar[Literal[False]] = False
    needs: ClassVar[Needs] = ("norms",)

    def applied(self, model: Classifier, images: Tensor, machine: Machine) -> Classifier:
        """Return an adapted copy of a classifier; images are uint8 (N, H, W) or (N, H, W, 3)."""
        adapted = copy.deepcopy(model).to(machine.device)
        norms = list(batch_norms(adapted).values())
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        parts = torch.tensor_split(rows, max(1, round(len(rows) / AT_ONCE)))
        shown = (normalise(images[part].to(machine.device), model.preprocessing) for part in parts)
        renew_statistics(adapted, norms, shown, machine)
        return adapted.cpu()


@dataclass(frozen=True)
class T3A(Strict):
    """Replace the rows of the last layer by templates of the target's features.

    Iwasawa and Matsuo, Test-time classifier adjustment module for model-agnostic domain generalization,
    NeurIPS 2021, equations 3 to 6.  The supports of a class are its own row and the features of the images
    that are predicted as this class; the mean direction of the `kept` supports with the lowest entropy is the
    new row.  The paper adapts on the stream of test images; here on the target's training images, before any
    test.  The bias is zero, so probabilities are not calibrated.
    """

    kind: Literal["templates"] = "templates"
    kept: int = 100
    trains: ClassVar[Literal[False]] = False
    needs: ClassVar[Needs] = ("head", "outputs", "plain")

    def applied(self, model: Classifier, images: Tensor, machine: Machine) -> Classifier:
        """Return an adapted copy of a classifier; images are uint8 (N, H, W) or (N, H, W, 3)."""
        adapted = copy.deepcopy(model).cpu()
        (name,) = adapted.layer_names("head")
        head = plain_linear(adapted.network, name)
        found = features(specialised(model, images, machine.device), name, images, machine)
        with torch.no_grad():
            head.weight.copy_(templates(head.weight, head.bias, found, self.kept))
            if head.bias is not None:
                head.bias.zero_()
        return adapted


@torch.no_grad()
def templates(weight: Tensor, bias: Tensor | None, given: Tensor, kept: int) -> Tensor:
    """Return the template of each class: the mean direction of its supports.

    Parameters
    ----------
    weight, bias
        Of the last layer: float (C, D), (C,).
    given
        Penultimate features of the target's images, float (N, D).
    kept
        Maximum number of supports per class: those with the lowest entropy.

    Returns
    -------
    Tensor
        float (C, D), rows of length 1.  A class without supports keeps the direction of its own row.
    """
    supports = torch.cat([weight, given.to(weight)])
    logits = F.linear(supports, weight, bias)
    uncertain, taken_for = entropy(logits), logits.argmax(1)
    rows = []
    for label, own in enumerate(weight):
        mine = torch.nonzero(taken_for == label).flatten()
        surest = mine[uncertain[mine].argsort(stable=True)[:kept]]
        chosen = supports[surest] if len(surest) else own[None]
        rows.append(F.normalize(F.normalize(chosen).sum(0), dim=0))
    return torch.stack(rows)


@dataclass(frozen=True)
class Tent(Strict):
    """Minimise the entropy of the predictions.

    Wang, Shelhamer, Liu, Olshausen, Darrell, Tent: fully test-time adaptation by entropy minimization, ICLR
    2021, section 3: ``H(ŷ) = −Σ_c p(ŷ_c) log p(ŷ_c)`` over the scales and shifts of the normalisations
    only, whose statistics are those of the target.  Offline: several epochs over the target's training
    images, before any test.
    """

    kind: Literal["entropy"] = "entropy"
    trains: ClassVar[Literal[True]] = True
    needs: ClassVar[Needs] = ()

    def objective(self, model: Classifier, machine: Machine) -> Objective:
        """Return the objective of the training."""
        return Objective(lambda logits, labels, known: entropy(logits).mean())


@dataclass(frozen=True)
class Shot(Strict):
    """Maximise information and learn from pseudo-labels; the last layer stays unchanged.

    Liang, Hu, Feng, Do we really need to access the source data? Source hypothesis transfer (SHOT), ICML
    2020, equations 3 to 7: the mean entropy of the predictions, minus the entropy of their mean, plus
    `weight` times the cross-entropy with pseudo-labels (`pseudo_labels`), which are assigned again in every
    epoch.
    """

    kind: Literal["information-maximisation"] = "information-maximisation"
    weight: float = 0.3
    trains: ClassVar[Literal[True]] = True
    needs: ClassVar[Needs] = ("head", "outputs")

    def objective(self, model: Classifier, machine: Machine) -> Objective:
        """Return the objective of the training."""
        (head,) = model.layer_names("head")
        if machine.count > 1:
            raise CrossferError("SHOT needs the predictions of a whole batch; run it on one device")

        def loss(logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
            mean = logits.softmax(1).mean(0)
            diversity = -(mean * mean.clamp_min(1e-12).log()).sum()
            return (
                entropy(logits).mean() - diversity + self.weight * F.cross_entropy(logits, labels)
            )

        def relabel(network: Classifier, images: Tensor) -> Tensor:
            given = features(network, head, images, machine)
            layer = network.network.get_submodule(head)
            with torch.no_grad():
                outputs = layer(given.to(images.device)).float()
                probabilities = network.of_classes(outputs).softmax(1).cpu()
            return pseudo_labels(given, probabilities)

        return Objective(loss, relabel)


Unlabelled = AdaBN | Tent | Shot | T3A


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of predictions in nats, float (N,), for logits float (N, classes)."""
    logarithms = logits.log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1)


def pseudo_labels(given: Tensor, probabilities: Tensor) -> Tensor:
    """Label images by the nearest class centroid.

    Liang et al., 2020, equations 5 and 6: centroids of features, weighted by the predicted probabilities; the
    nearest by cosine is the label; then the same again with centroids of these labels.  As in the authors'
    code, a constant 1 is appended to the features, and a class that is never predicted has no centroid.

    Parameters
    ----------
    given
        Features, float (N, D).
    probabilities
        float (N, C).

    Returns
    -------
    Tensor
        int64 (N,).
    """
    directions = F.normalize(torch.cat([given, torch.ones(len(given), 1)], 1))
    classes = probabilities.shape[1]
    there = torch.bincount(probabilities.argmax(1), minlength=classes) > 0
    weights = probabilities
    for _ in range(2):
        centroids = (weights.T @ directions) / weights.sum(0).clamp_min(1e-8)[:, None]
        likeness = directions @ F.normalize(centroids).T
        labels = likeness.masked_fill(~there, -torch.inf).argmax(1)
        weights = F.one_hot(labels, classes).to(directions.dtype)
    return labels


def without_labels(faces: Faces) -> Faces:
    """Return the same images and subjects without labels."""
    return Faces(faces.images, torch.zeros_like(faces.labels), None, faces.subjects)

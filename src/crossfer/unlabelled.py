"""How a network adapts to new faces that nobody has labelled.

Each way is a small frozen description.  Some change a network at once (`AdaBN`, `T3A`), others say what to
minimise instead of the cross-entropy with labels (`Tent`, `Shot`).  All are given images and nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from crossfer.errors import CrossferError
from crossfer.networks import Classifier
from crossfer.training import Faces, Objective, features, normalise, specialised
from crossfer.training.statistics import AT_ONCE, batch_norms, renew_statistics


@dataclass(frozen=True)
class AdaBN:
    """Estimate the running statistics of every batch normalisation anew, from the target's images.

    Li, Wang, Shi, Liu, Hou, Adaptive batch normalization for practical domain adaptation, Pattern Recognition
    2018, algorithm 1: mean and variance of all images of the target; every weight stays.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["batch-norm"] = "batch-norm"
    trains: ClassVar[bool] = False

    def applied(self, model: Classifier, images: Tensor, fabric: Fabric) -> Classifier:
        """Return an adapted copy of a classifier; images are uint8 (N, H, W) or (N, H, W, 3).

        Raises
        ------
        CrossferError
            If the network has no batch normalisation.
        """
        adapted = copy.deepcopy(model).to(fabric.device)
        norms = list(batch_norms(adapted).values())
        if not norms:
            raise CrossferError(
                "model: the network has no batch normalisation, so AdaBN has nothing to adapt; "
                "remove it from the strategies"
            )
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        parts = torch.tensor_split(rows, max(1, round(len(rows) / AT_ONCE)))
        shown = (normalise(images[part].to(fabric.device), model.preprocessing) for part in parts)
        renew_statistics(adapted, norms, shown, fabric)
        return adapted.cpu()


@dataclass(frozen=True)
class T3A:
    """Put templates made of the target's features in the place of the last layer's rows.

    Iwasawa and Matsuo, Test-time classifier adjustment module for model-agnostic domain generalization,
    NeurIPS 2021, equations 3 to 6: beside each class's own row, the features of the images that the network
    takes for this class; of these, the `kept` of lowest entropy; their mean direction is the class's new row.
    The paper adapts on the stream of test images, as its authors' code does; here the target's training
    images are all seen first.  The bias is zero, so probabilities are not calibrated.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["templates"] = "templates"
    kept: int = 100
    trains: ClassVar[bool] = False

    def applied(self, model: Classifier, images: Tensor, fabric: Fabric) -> Classifier:
        """Return an adapted copy of a classifier; images are uint8 (N, H, W) or (N, H, W, 3)."""
        adapted = copy.deepcopy(model).cpu()
        (name,) = adapted.layer_names("head")
        head = adapted.network.get_submodule(name)
        assert isinstance(head, nn.Linear), "a head is a linear layer"
        found = features(specialised(model, images, fabric.device), name, images, fabric)
        with torch.no_grad():
            head.weight.copy_(templates(head.weight, head.bias, found, self.kept))
            if head.bias is not None:
                head.bias.zero_()
        return adapted


@torch.no_grad()
def templates(weight: Tensor, bias: Tensor | None, given: Tensor, kept: int) -> Tensor:
    """Return each class's mean direction among its own row and the features that are taken for it.

    Parameters
    ----------
    weight, bias
        Of the last layer: float (C, D), (C,).
    given
        Its inputs for the target's images, float (N, D).
    kept
        How many supports of a class remain: those of lowest entropy.

    Returns
    -------
    Tensor
        float (C, D), rows of length 1.  A class without a support keeps the direction of its own row.
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
class Tent:
    """Minimise the entropy of the answers.

    Wang, Shelhamer, Liu, Olshausen, Darrell, Tent: fully test-time adaptation by entropy minimization, ICLR
    2021, section 3: ``H(ŷ) = −Σ_c p(ŷ_c) log p(ŷ_c)`` by the scales and shifts of the normalisations alone,
    whose statistics are the target's.  Offline: passes over the target's training images, before it is
    measured on others.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["entropy"] = "entropy"
    trains: ClassVar[bool] = True

    def objective(self, model: Classifier, fabric: Fabric) -> Objective:
        """Return what to minimise."""
        return Objective(lambda logits, labels, known: entropy(logits).mean())


@dataclass(frozen=True)
class Shot:
    """Make answers sure and diverse, and learn from pseudo-labels; the last layer stays.

    Liang, Hu, Feng, Do we really need to access the source data? Source hypothesis transfer (SHOT), ICML
    2020, equations 3 to 7: mean entropy of the answers, minus the entropy of their mean, plus `weight` times
    the cross-entropy with pseudo-labels (`pseudo_labels`), which are given anew in every epoch.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["information-maximisation"] = "information-maximisation"
    weight: float = 0.3
    trains: ClassVar[bool] = True

    def objective(self, model: Classifier, fabric: Fabric) -> Objective:
        """Return what to minimise."""
        (head,) = model.layer_names("head")
        if fabric.world_size > 1:
            raise CrossferError("SHOT needs the predictions of a whole batch; run it on one device")

        def loss(logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
            mean = logits.softmax(1).mean(0)
            diversity = -(mean * mean.clamp_min(1e-12).log()).sum()
            return (
                entropy(logits).mean() - diversity + self.weight * F.cross_entropy(logits, labels)
            )

        def relabel(network: Classifier, images: Tensor) -> Tensor:
            given = features(network, head, images, fabric)
            layer = network.network.get_submodule(head)
            with torch.no_grad():
                outputs = layer(given.to(images.device)).float()
                probabilities = network.of_classes(outputs).softmax(1).cpu()
            return pseudo_labels(given, probabilities)

        return Objective(loss, relabel)


Unlabelled = AdaBN | Tent | Shot | T3A


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each answer in nats: of logits float (N, classes), float (N,)."""
    logarithms = logits.log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1)


def pseudo_labels(given: Tensor, probabilities: Tensor) -> Tensor:
    """Label images by the nearest of their classes' centroids.

    Liang et al., 2020, equations 5 and 6: centroids of features, weighted by the answers; the nearest by
    cosine is the label; centroids of these labels; the nearest again.  As in the authors' code features have
    a constant 1 at their end, and a class that nobody is taken for has no centroid.

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
    """Return the same images and people, with nothing that a label tells."""
    return Faces(faces.images, torch.zeros_like(faces.labels), None, faces.subjects)

"""A new head in closed form, from the memory's statistics and the target's images: nothing trains.

All layers but the head stay unchanged, and so do the features of old and new images.  The best head for both
depends on sums over images only, which the memory file contains.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from crossfer.machine import Machine
from crossfer.memory.adaptation import Adaptation
from crossfer.memory.file import Memory
from crossfer.memory.statistics import Moments
from crossfer.networks import Classifier
from crossfer.networks.classifier import NEVER
from crossfer.networks.layers import plain_linear
from crossfer.networks.sources import project
from crossfer.strict import Strict
from crossfer.terms import Needs
from crossfer.training import Faces, Trained, specialised
from crossfer.training.cut import cut_of
from crossfer.training.loss import cross_entropy


class ClosedForm(Strict):
    """Base of the heads in closed form."""

    LAYERS: ClassVar = ("none",)

    def head(self, memory: Memory, features: Tensor, target: Faces, seed: int) -> Head:
        """Return the head, from the memory and the target's penultimate features, float (N, D)."""
        raise NotImplementedError

    def learn(self, given: Adaptation) -> Trained:
        """Return a copy of the network with the head, calibrated on the validation sets.

        Without a validation image it is calibrated on the target itself.
        """
        began, model, target = time.perf_counter(), given.model, given.target
        features = penultimate(model, target, given.machine)
        head = self.head(given.memory, features, target, given.seed)
        held_out = [
            (penultimate(model, faces, given.machine), faces)
            for faces in given.validation.values()
            if len(faces)
        ]
        head = head.calibrated(held_out or [(features, target)])
        return Trained(with_head(model, head), 0, [], 0, time.perf_counter() - began)


@dataclass(frozen=True)
class Ridge(ClosedForm):
    """Ridge regression on one-hot labels: exactly the joint solution for old and new images.

    ``W = (Σ w x xᵀ + λ I)⁻¹ Σ w x yᵀ`` over the images of both, with x centred and an intercept.  With
    `projected`, x is ``ReLU(Pᵀ f)`` of the penultimate features f, P drawn from N(0, 1): McDonnell et al.,
    RanPAC, NeurIPS 2023, phase 2, which has neither the intercept nor the weights w, and first adapts the
    network.  If the source is a union of datasets with different classes, see `crossfer.memory.Memory.known`.

    Parameters
    ----------
    projected
        Whether to use the memory's random ReLU projections instead of the penultimate features.
    share
        Total weight of the target's images, as a fraction of the source's.
    ridge
        λ, as a fraction of the mean variance of the features, times the total weight of the images.
    """

    kind: Literal["ridge"] = "ridge"
    projected: bool = False
    share: float = 0.3
    ridge: float = 1e-3

    @property
    def needs(self) -> Needs:
        """What it needs of a network: a projection comes with a head of its own, which has a bias."""
        return (
            ("head", "outputs", "plain") if self.projected else ("head", "outputs", "plain", "bias")
        )

    def head(self, memory: Memory, features: Tensor, target: Faces, seed: int) -> Head:
        """Return the head, from the memory and the target's penultimate features, float (N, D)."""
        moments, weight = memory.moments, None
        if self.projected:
            moments, weight = memory.projected, memory.projection
            features = (features @ weight).relu()
        per_image = self.share * float(moments.counts.sum()) / len(target)
        parts = [(memory.known, moments)]
        for known, new in _by_known(features, target, len(memory.classes)):
            parts.append((known, new * per_image))
        return Head(*ridge_regression(parts, self.ridge), weight)


@dataclass(frozen=True)
class SLDA(ClosedForm):
    """Linear discriminant analysis, updated with one target image after the other.

    Hayes and Kanan, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis, CVPR
    Workshops 2020, section 3: class means and one covariance for all classes; ``Λ = ((1 − ε) Σ + ε I)⁻¹``,
    rows ``Λ μ``, biases ``−½ μᵀ Λ μ``.  The initial covariance is that of the source, where the paper uses a
    shrinkage estimate (OAS) of it.

    Parameters
    ----------
    shrinkage
        ε.
    """

    needs: ClassVar[Needs] = ("head", "outputs", "plain", "bias")

    kind: Literal["slda"] = "slda"
    shrinkage: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.shrinkage < 1:
            raise ValueError("slda: shrinkage must be between 0 and 1")

    def head(self, memory: Memory, features: Tensor, target: Faces, seed: int) -> Head:
        """Return the head, from the memory and the target's penultimate features, float (N, D)."""
        labels = target.labels.cpu()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        means, counts, covariance = streamed(memory.moments, features[order], labels[order])
        size = len(covariance)
        shrunk = (1 - self.shrinkage) * covariance + self.shrinkage * torch.eye(size).double()
        rows = torch.linalg.solve(shrunk, means.T).T
        biases = -(means * rows).sum(1) / 2
        biases[counts == 0] = NEVER
        return Head(rows, biases)


def ridge_regression(
    parts: Sequence[tuple[Tensor, Moments]], ridge: float
) -> tuple[Tensor, Tensor]:
    """Solve a ridge regression of labels, 0 or 1 for each class, on features, with an intercept.

    Parameters
    ----------
    parts
        For each set of images, the classes that its labels distinguish, bool (C,), and its moments.  For
        other classes the images are neither positive nor negative examples.
    ridge
        As in `Ridge`.

    Returns
    -------
    rows : Tensor
        float64 (C, D).
    intercepts : Tensor
        float64 (C,).
    """
    known = torch.stack([which for which, _ in parts])
    classes, size = parts[0][1].sums.shape
    rows, intercepts = torch.zeros(classes, size).double(), torch.zeros(classes).double()
    for pattern in torch.unique(known, dim=1).T:
        own = (known == pattern[:, None]).all(0)  # the classes that the same sets know
        several = [part for part, knows in zip(parts, pattern.tolist(), strict=True) if knows]
        if not several:
            continue
        total = several[0][1]
        for _, moments in several[1:]:
            total = total + moments
        number, scatter = total.counts.sum(), total.scatter
        scatter.diagonal().add_(ridge * scatter.diagonal().mean())
        about = total.sums - total.counts[:, None] * total.mean
        found = torch.linalg.solve(scatter, about.T).T
        rows[own] = found[own]
        intercepts[own] = (total.counts / number - found @ total.mean)[own]
    return rows, intercepts


def streamed(moments: Moments, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return class means, counts and the shared covariance after an update with images, one after the other.

    Hayes and Kanan, equations 2 to 4: first the covariance, about the old mean, then the mean.

    Parameters
    ----------
    moments
        Moments before the update.
    features, labels
        float (N, D) and int64 (N,), in the order of the update.
    """
    means, counts = moments.means.clone(), moments.counts.clone()
    covariance, seen = moments.shared_covariance.clone(), float(counts.sum())
    for x, label in zip(features.double(), labels.tolist(), strict=True):
        if counts[label]:
            away = x - means[label]
            covariance.addr_(away, away, beta=seen / (seen + 1), alpha=seen / (seen + 1) ** 2)
        means[label] += (x - means[label]) / (counts[label] + 1)
        counts[label] += 1
        seen += 1
    return means, counts, covariance


def penultimate(model: Classifier, faces: Faces, machine: Machine) -> Tensor:
    """Return the penultimate features of faces, float32 (N, D) on the CPU."""
    network = specialised(model, faces.images, machine.device)
    cut = cut_of(network)
    return cut.penultimate(cut.features(network, faces.images, machine), machine)


def _by_known(features: Tensor, faces: Faces, classes: int) -> Iterator[tuple[Tensor, Moments]]:
    """Yield sets of classes, bool (C,), and the moments of the images whose labels distinguish them."""
    labels = faces.labels.cpu()
    if faces.known is None:
        yield torch.ones(classes, dtype=torch.bool), Moments.of(features, labels, classes)
        return
    known = faces.known.cpu()
    for pattern in torch.unique(known, dim=0):
        rows = (known == pattern).all(1)
        yield pattern, Moments.of(features[rows], labels[rows], classes)


class Head(NamedTuple):
    """A linear head on penultimate features, or on random ReLU projections of them."""

    rows: Tensor
    """float64 (C, D)."""
    biases: Tensor
    """float64 (C,)."""
    projection: Tensor | None = None
    """float32 (D, P)."""

    def scores(self, features: Tensor) -> Tensor:
        """Return scores float64 (N, C) for penultimate features, (N, D)."""
        given = features if self.projection is None else (features @ self.projection).relu()
        return given.double() @ self.rows.T + self.biases

    def calibrated(self, held_out: Sequence[tuple[Tensor, Faces]]) -> Head:
        """Return the head with calibrated scores: temperature scaling on held-out faces.

        Predicted classes do not change.  Guo et al., On Calibration of Modern Neural Networks, ICML 2017,
        section 4.2; the inverse temperature is chosen between 1/16 and 256.

        Parameters
        ----------
        held_out
            Sets of penultimate features, and their faces.
        """
        scored = [(self.scores(features), faces) for features, faces in held_out]

        def loss(scale: float) -> float:
            losses = [
                cross_entropy(
                    scale * scores,
                    faces.labels.cpu(),
                    None if faces.known is None else faces.known.cpu(),
                ).item()
                for scores, faces in scored
            ]
            return sum(losses) / len(losses)

        best = min((2 ** (n / 4) for n in range(-16, 33)), key=loss)
        return self._replace(rows=self.rows * best, biases=self.biases * best)


@torch.no_grad()
def with_head(model: Classifier, head: Head) -> Classifier:
    """Return a copy of a classifier with another head, on the CPU, in evaluation mode.

    If several outputs stand for a class, only the first does so afterwards.
    """
    changed = copy.deepcopy(model).cpu().eval()
    (name,) = changed.layer_names("head")
    if head.projection is not None:
        count = head.projection.shape[1]
        layers = project(changed.network, name, count)
        layers.get_parameter("projection.weight").copy_(head.projection.T)
        if spec := changed.spec:
            changed.spec = replace(spec, projected={**spec.projected, name: count})
        name = f"{name}.head"
    linear = plain_linear(changed.network, name)
    assert linear.bias is not None, "see check_strategy"
    linear.weight.zero_()
    linear.bias.fill_(NEVER)
    for row, bias, outputs in zip(head.rows, head.biases, changed.outputs, strict=True):
        if outputs:
            linear.weight[outputs[0]], linear.bias[outputs[0]] = row, bias
    return changed

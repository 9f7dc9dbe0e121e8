"""Penalties against forgetting: terms that are added to the loss.

Each penalty is a small frozen dataclass; its method `term` returns the loss term, given the network that
training starts from, the training faces, and the source's training set if it is needed.  No term synchronises
with the host, so that steps can be captured in a CUDA graph.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.networks.classifier import NEVER
from crossfer.networks.prediction import outputs_of
from crossfer.strict import Strict
from crossfer.terms import PastData
from crossfer.training import Faces, Mixture, Term, normalise, specialised
from crossfer.training.devices import Devices


class _Penalty(Strict):
    """Base of the penalties."""

    past_data: ClassVar[PastData] = "none"
    """What it needs of the source's training images."""


@dataclass(frozen=True)
class Distillation(_Penalty):
    """Distil the old network's softened probabilities on the new images.

    ``weight · T² · KL(softmax(old / T) ‖ softmax(new / T))``.  Li and Hoiem, Learning without Forgetting,
    TPAMI 2018, equation 3; with T² so that the weight does not depend on T (Hinton et al., 2015).
    """

    kind: Literal["distillation"] = "distillation"
    temperature: float = 2.0
    weight: float = 1.0

    def term(
        self, start: Classifier, shown: Faces, past: Faces | None, seed: int, machine: Machine
    ) -> Term:
        """Return the loss term."""
        teacher = _Teacher(start, shown, machine)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return self.weight * teacher.divergence(teacher(images), logits, self.temperature)

        return penalty


@dataclass(frozen=True)
class SourceDistillation(_Penalty):
    """Distil the old network's softened probabilities on the source images of each batch.

    Replay with knowledge distillation (Hinton et al., 2015): the old network predicts every augmented source
    image; the target's images are not constrained.  It resembles Buzzega et al., Dark Experience for General
    Continual Learning, NeurIPS 2020, but has no buffer of stored logits, and uses a Kullback-Leibler
    divergence instead of the squared error.
    """

    kind: Literal["source-distillation"] = "source-distillation"
    temperature: float = 2.0
    weight: float = 1.0

    def term(
        self,
        start: Classifier,
        shown: Faces,
        past: Faces | None,
        seed: int,
        machine: Machine,
        asked: Tensor | None = None,
    ) -> Term:
        """Return the loss term; `shown` is a mixture of source and target.

        With `asked`, the old network is asked once, about these in place of the mixture's source images.
        """
        assert isinstance(shown, Mixture), "a strategy with this penalty has a share"
        teacher = _Teacher(start, shown, machine)
        answers = None if asked is None else teacher.once(asked)
        several = Devices(machine)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            new, weight = shown.fresh(len(rows)), self.weight
            if several.count > 1:  # the share of a batch is no batch
                new = int((rows < shown.new).sum())
                weight *= several.part(len(rows) - new) / several.part(len(rows))
                if not weight:
                    return logits.sum() * 0
            if answers is None:
                old = teacher(images[new:])
            else:
                old = answers[rows[new:] - shown.new]
            return weight * teacher.divergence(old, logits[new:], self.temperature)

        return penalty


@dataclass(frozen=True)
class DarkExperience(_Penalty):
    """Match stored logits on source images and, with `forward`, the old network's on target images.

    With a share of one half, cross-entropy and term together are half of Buzzega et al., Dark Experience for
    General Continual Learning (DER++), NeurIPS 2020, equation 6, with β = 1 and one draw from the buffer
    where the paper makes two: ``ℓ(new) + weight · MSE(h(x'), z') + ℓ(x', y')``.  The logits z' are stored
    once, of images without augmentation; training shows augmented images.

    With `forward` it is Zhuo et al., Continual Learning with Strong Experience Replay (SER), 2023: beside
    this *backward* consistency, ``forward · MSE(h(x), h_old(x))`` on the new images.

    Squared errors are means over the classes, as in the authors' code of both.
    """

    kind: Literal["dark-experience"] = "dark-experience"
    weight: float = 0.5
    forward: float = 0.0

    def term(
        self, start: Classifier, shown: Faces, past: Faces | None, seed: int, machine: Machine
    ) -> Term:
        """Return the loss term; `shown` is a mixture of source and target."""
        assert isinstance(shown, Mixture), "a strategy with this penalty has a share"
        teacher = _Teacher(start, shown, machine)
        stored = teacher.once(shown.images[shown.new :])

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            old = (rows >= shown.new).float()
            kept = stored[(rows - shown.new).clamp_min(0)]
            total = self.weight * (old * teacher.squares(kept, logits)).mean()
            if self.forward:
                moved = teacher.squares(teacher(images), logits)
                total = total + self.forward * ((1 - old) * moved).mean()
            return total

        return penalty


@dataclass(frozen=True)
class FocalDistillation(_Penalty):
    """Distil the old network on all images, with more weight where it is right.

    ``weight · mean of (base + focus · [old network is right]) · T² · KL(softmax(old/T) ‖ softmax(new/T))``
    on all training images.  Yan et al., Positive-Congruent Training, CVPR 2021, section 4, with their base 1
    and focus 5: it reduces the fraction of images that flip from right to wrong.
    """

    kind: Literal["focal-distillation"] = "focal-distillation"
    temperature: float = 2.0
    weight: float = 0.2
    base: float = 1.0
    focus: float = 5.0

    def term(
        self, start: Classifier, shown: Faces, past: Faces | None, seed: int, machine: Machine
    ) -> Term:
        """Return the loss term; it uses the labels of `shown`."""
        teacher = _Teacher(start, shown, machine)
        labels = shown.labels.to(machine.device)
        known = None if shown.known is None else shown.known.to(machine.device)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            old = teacher(images)
            among = old if known is None else old.masked_fill(~known[rows], NEVER)
            right = (among.argmax(1) == labels[rows]).float()
            weights = self.base + self.focus * right
            return self.weight * teacher.divergence(old, logits, self.temperature, weights)

        return penalty


@dataclass(frozen=True)
class L2SP(_Penalty):
    """Penalise the distance from the initial weights: ``weight / 2 · ‖w − w₀‖²``.

    Li, Grandvalet, Davoine, Explicit inductive bias for transfer learning, ICML 2018, equation 2; the
    classes stay the same, so the last layer is penalised like the others.
    """

    kind: Literal["l2-sp"] = "l2-sp"
    weight: float = 0.1

    def term(
        self, start: Classifier, shown: Faces, past: Faces | None, seed: int, machine: Machine
    ) -> Term:
        """Return the loss term."""
        return _held(self.weight, start, machine)


@dataclass(frozen=True)
class EWC(_Penalty):
    """Penalise changes of important weights: ``weight / 2 · Σ F · (w − w₀)²``, F the Fisher information.

    Kirkpatrick et al., Overcoming catastrophic forgetting, PNAS 2017, equation 3.  F is the mean over
    source images of the squared gradient of the log-likelihood of a label sampled from the network's
    prediction.  Once it is stored, no source image is needed.
    """

    kind: Literal["ewc"] = "ewc"
    weight: float = 100.0
    samples: int = 1024
    past_data: ClassVar[PastData] = "all source"

    def term(
        self, start: Classifier, shown: Faces, past: Faces | None, seed: int, machine: Machine
    ) -> Term:
        """Return the loss term; F is estimated on the source's training set."""
        assert past is not None, "a strategy with this penalty needs the source"
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(past), generator=generator)[: self.samples]
        return _held(self.weight, start, machine, fisher(start, past.images[rows], seed, machine))


Penalty = Distillation | SourceDistillation | DarkExperience | FocalDistillation | L2SP | EWC


def fisher(model: Classifier, images: Tensor, seed: int, machine: Machine) -> dict[str, Tensor]:
    """Estimate the diagonal of the Fisher information.

    ``F_j = mean over x of E over y ~ p(y|x) of (∂ log p(y|x) / ∂ w_j)²``, with one y an image.

    Parameters
    ----------
    model
        The network, in evaluation mode: dropout off, batch statistics fixed.
    images
        uint8 (N, H, W) or (N, H, W, 3).
    seed
        Seed of the sampled labels.
    machine
        Device and precision.

    Returns
    -------
    dict
        For every parameter, a non-negative tensor of its shape.
    """
    network = copy.deepcopy(model).to(machine.device).eval().requires_grad_(True)
    parameters = dict(network.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    for image in torch.split(images, 1):
        logits = network(normalise(image.to(machine.device), model.preprocessing)).float()
        drawn = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator)[:, 0]
        loss = F.cross_entropy(logits, drawn.to(machine.device))
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for squares, gradient in zip(total.values(), gradients, strict=True):
            if gradient is not None:
                squares.addcmul_(gradient, gradient)
    return {name: value / len(images) for name, value in total.items()}


class _Teacher:
    """A frozen copy of the old network, the teacher of a distillation."""

    def __init__(self, model: Classifier, shown: Faces, machine: Machine) -> None:
        self._network = specialised(model, shown.images, machine.device).requires_grad_(False)
        self._machine, self._how = machine, model.preprocessing
        able = [index for index, outputs in enumerate(model.outputs) if outputs]
        every = len(able) == len(model.outputs)
        self._classes = None if every else torch.tensor(able, device=machine.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits float32 (N, classes) of normalised images."""
        with torch.no_grad(), self._machine.autocast():
            return self._network(images).float()

    def once(self, images: Tensor) -> Tensor:
        """Return logits float32 (N, classes) of images uint8, or of features, in batches."""
        batches = outputs_of(self._network, images, self._how, autocast=self._machine.autocast)
        return torch.cat([logits.float() for logits in batches])

    def _among(self, logits: Tensor) -> Tensor:
        """Return the logits of the classes that the teacher has outputs for."""
        return logits if self._classes is None else logits.index_select(1, self._classes)

    def squares(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the mean squared error of each image's logits, (N, classes): (N,)."""
        return (self._among(new) - self._among(old)).square().mean(1)

    def divergence(
        self, old: Tensor, new: Tensor, temperature: float, weights: Tensor | None = None
    ) -> Tensor:
        """Return ``T² · KL(softmax(old / T) ‖ softmax(new / T))`` of logits (N, classes), a weighted mean."""
        soft = F.log_softmax(self._among(new).float() / temperature, 1)
        target = F.log_softmax(self._among(old) / temperature, 1)
        if weights is None:
            return temperature**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)
        each = F.kl_div(soft, target, reduction="none", log_target=True).sum(1)
        return temperature**2 * (weights * each).mean()


def _held(
    weight: float,
    start: Classifier,
    machine: Machine,
    importance: Mapping[str, Tensor] | None = None,
) -> Term:
    """Return the term ``weight / 2 · Σ F (w − w₀)²`` over the trained parameters; F is 1 by default.

    Rows of new classes are not penalised.
    """
    anchor = {n: p.detach().to(machine.device).clone() for n, p in start.named_parameters()}

    def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                old = anchor[name]
                kept = parameter if parameter.shape == old.shape else parameter[: len(old)]
                squares = (kept - old).square()
                total = total + (importance[name] * squares if importance else squares).sum()
        return weight / 2 * total

    return penalty

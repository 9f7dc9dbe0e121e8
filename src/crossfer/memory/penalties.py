"""What holds a network back while it learns the new: terms added to the loss.

Each is a small frozen description; `term` makes of it a function ``(network, images, logits, rows) → loss``
of the images of a step.  Where old images are mixed in, the rows from `new` on are theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossfer.models import conventions_of
from crossfer.training import Faces, normalise, specialised

Term = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
PastData = Literal["none", "statistics", "all source"]


@dataclass(frozen=True)
class Distillation:
    """Keep the answers: the old network's softened probabilities on the new images.

    ``weight · T² · KL(softmax(old / T) ‖ softmax(new / T))``.  Li and Hoiem, Learning without Forgetting,
    TPAMI 2018, equation 3; with T² so that the weight does not depend on T (Hinton et al., 2015).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["distillation"] = "distillation"
    temperature: float = 2.0
    weight: float = 1.0
    past_data: ClassVar[PastData] = "none"

    def term(
        self, start: nn.Module, past: Faces | None, new: int, seed: int, fabric: Fabric
    ) -> Term:
        """Return the loss term; `past` is not needed."""
        answers = _answers(start, fabric)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return self.weight * _divergence(answers(images), logits, self.temperature)

        return penalty


@dataclass(frozen=True)
class DarkExperience:
    """Keep the answers on the old images: like `Distillation`, on those of a mixture that are old.

    Buzzega et al., Dark Experience for General Continual Learning, NeurIPS 2020, equation 4, as its
    Kullback-Leibler divergence; the old network answers anew for every augmented image.  The new images
    are free to be seen otherwise.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["dark-experience"] = "dark-experience"
    temperature: float = 2.0
    weight: float = 1.0
    past_data: ClassVar[PastData] = "none"

    def term(
        self, start: nn.Module, past: Faces | None, new: int, seed: int, fabric: Fabric
    ) -> Term:
        """Return the loss term; the old images come with the batches."""
        answers = _answers(start, fabric)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            old = rows >= new
            return self.weight * _divergence(answers(images[old]), logits[old], self.temperature)

        return penalty


@dataclass(frozen=True)
class L2SP:
    """Keep the weights near where they started: ``weight / 2 · ‖w − w₀‖²``.

    Li, Grandvalet, Davoine, Explicit inductive bias for transfer learning, ICML 2018, equation 2; the same
    classes stay, so the last layer has a start too and is treated like the others.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["l2-sp"] = "l2-sp"
    weight: float = 0.1
    past_data: ClassVar[PastData] = "none"

    def term(
        self, start: nn.Module, past: Faces | None, new: int, seed: int, fabric: Fabric
    ) -> Term:
        """Return the loss term; `past` is not needed."""
        anchor = _parameters(start, fabric)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return (self.weight / 2) * sum(
                (
                    (parameter - anchor[name]).square().sum()
                    for name, parameter in _training(network)
                ),
                start=torch.zeros((), device=images.device),
            )

        return penalty


@dataclass(frozen=True)
class EWC:
    """Keep what mattered: ``weight / 2 · Σ F · (w − w₀)²``, F the diagonal of the Fisher information.

    Kirkpatrick et al., Overcoming catastrophic forgetting, PNAS 2017, equation 3.  F is the mean over
    source images of the squared gradient of the log-likelihood of a label drawn from the network's own
    answer: per image, many at a time.  Once it is stored, no source image is needed.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["ewc"] = "ewc"
    weight: float = 100.0
    samples: int = 1024
    past_data: ClassVar[PastData] = "statistics"

    def term(
        self, start: nn.Module, past: Faces | None, new: int, seed: int, fabric: Fabric
    ) -> Term:
        """Return the loss term; `past` is the source's training set."""
        if past is None:
            raise ValueError("EWC needs source images to calculate its statistics from")
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(past), generator=generator)[: self.samples]
        importance = fisher(start, past.images[rows], seed, fabric)
        anchor = _parameters(start, fabric)

        def penalty(network: nn.Module, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return (self.weight / 2) * sum(
                (
                    (importance[name] * (parameter - anchor[name]).square()).sum()
                    for name, parameter in _training(network)
                ),
                start=torch.zeros((), device=images.device),
            )

        return penalty


Penalty = Distillation | DarkExperience | L2SP | EWC


def fisher(
    model: nn.Module, images: Tensor, seed: int, fabric: Fabric, at_once: int = 8
) -> dict[str, Tensor]:
    """Estimate the diagonal of the Fisher information.

    ``F_j = mean over x of E over y ~ p(y|x) of (∂ log p(y|x) / ∂ w_j)²``, with one y an image.

    Parameters
    ----------
    model
        In evaluation mode: dropout off, batch statistics fixed.
    images
        uint8 (N, H, W) or (N, H, W, 3).
    seed
        Of the labels drawn.
    fabric
        Where to run.
    at_once
        Images whose gradients are held at the same time; each is as large as the network.

    Returns
    -------
    dict
        For every parameter a tensor like it, none negative.
    """
    network = copy.deepcopy(model).to(fabric.device).eval()
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())
    generator = torch.Generator().manual_seed(seed)

    def negative_log_likelihood(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(network, (weights, buffers), (image[None],))
        return F.cross_entropy(logits, label[None])

    per_image = vmap(grad(negative_log_likelihood), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for part in torch.split(images, at_once):
        shown = normalise(part.to(fabric.device), conventions_of(model))
        with torch.no_grad():
            probabilities = network(shown).float().softmax(1).cpu()
        drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        with sdpa_kernel(SDPBackend.MATH):  # the one that vmap knows
            gradients = per_image(parameters, shown, drawn.to(fabric.device))
        for name, gradient in gradients.items():
            total[name] += gradient.square().sum(0)
    return {name: value / len(images) for name, value in total.items()}


def _answers(model: nn.Module, fabric: Fabric) -> Callable[[Tensor], Tensor]:
    """Return the function that gives a network's logits as they are now, whatever becomes of it."""
    kept, teacher = copy.deepcopy(model).requires_grad_(False), None

    def answers(images: Tensor) -> Tensor:
        nonlocal teacher
        if teacher is None:
            teacher = specialised(kept, images, fabric.device)
        with torch.no_grad(), fabric.autocast():
            return teacher(images).float()  # type: ignore[no-any-return]

    return answers


def _divergence(old: Tensor, new: Tensor, temperature: float) -> Tensor:
    """Return ``T² · KL(softmax(old / T) ‖ softmax(new / T))`` of logits (N, classes), a mean."""
    soft = F.log_softmax(new.float() / temperature, 1)
    target = F.log_softmax(old / temperature, 1)
    return temperature**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)


def _parameters(model: nn.Module, fabric: Fabric) -> dict[str, Tensor]:
    return {name: p.detach().to(fabric.device).clone() for name, p in model.named_parameters()}


def _training(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in network.named_parameters() if p.requires_grad]

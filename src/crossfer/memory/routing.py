"""A router between the old network and the one that learned the target, from the memory's statistics.

Neither network changes: old faces are answered by the old one, new faces by the new one, and in between both
count.  Whether a face looks like the source's or like the target's is told by its features, whose mean and
covariance on the source the memory file contains.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crossfer.errors import CrossferError
from crossfer.machine import Machine
from crossfer.memory.adaptation import Adaptation
from crossfer.memory.closed_form import penultimate
from crossfer.memory.file import Memory
from crossfer.networks import Classifier, NamedLayers
from crossfer.networks.answers import find_logits
from crossfer.networks.experts import Experts
from crossfer.networks.preprocessing import normalise
from crossfer.networks.sources import widen
from crossfer.strict import Strict
from crossfer.terms import Needs
from crossfer.training import Faces, Trained
from crossfer.training.split import Body, alike


@dataclass(frozen=True)
class Router(Strict):
    """Linear discriminant analysis of the source's and the target's penultimate features.

    ``log p(target | f) / p(source | f) = w · f + b`` for Gaussian features with the same covariance Σ on both
    sides: ``w = Σ⁻¹ (μ_target − μ_source)``, ``b = −½ w · (μ_target + μ_source) + log(prior / (1 − prior))``.
    Σ is the mean of both covariances, with λ on its diagonal.  Aljundi et al., Expert Gate, CVPR 2017, choose
    among experts with one autoencoder per dataset instead.

    Parameters
    ----------
    prior
        Expected fraction of faces like the target's among those to be classified.
    ridge
        λ, as a fraction of the mean variance.
    """

    LAYERS: ClassVar = ("none",)
    needs: ClassVar[Needs] = ("head", "plain", "bias")

    kind: Literal["router"] = "router"
    prior: float = 0.5
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise ValueError("router: prior must be between 0 and 1")

    def score(self, memory: Memory, features: Tensor) -> tuple[Tensor, float]:
        """Return w, float64 (D,), and b, from the memory and the target's features, float (N, D)."""
        moments, features = memory.moments, features.double()
        source, target = moments.mean, features.mean(0)
        covariances = moments.scatter / moments.counts.sum(), features.T.cov(correction=0)
        shared = (covariances[0] + covariances[1]) / 2
        shared.diagonal().add_(self.ridge * shared.diagonal().mean().clamp_min(1e-12))
        w = torch.linalg.solve(shared, target - source)
        return w, math.log(self.prior / (1 - self.prior)) - float(w @ (target + source)) / 2

    def learn(self, given: Adaptation) -> Trained:
        """Return the mixture of the old network and the one that it starts from: see `between`."""
        return self.between(given.baseline, given.model, given.memory, given.target, given.machine)

    def between(
        self, old: Classifier, new: Classifier, memory: Memory, target: Faces, machine: Machine
    ) -> Trained:
        """Return the mixture of both classifiers, on the CPU, in evaluation mode.

        Parameters
        ----------
        old
            The memory file's classifier, with an output for each class of `new`.
        new
            The expert for the target: the same network with other weights.
        memory, target
            The statistics of the source's features; the target's training images.

        Raises
        ------
        CrossferError
            If the two are not the same network, or the old one's head does not produce its outputs.
        """
        began = time.perf_counter()
        w, b = self.score(memory, penultimate(old, target, machine))
        mixture = mixed(old, new, w, b)
        _check_row(mixture, old, target.images[:4], w, b)
        return Trained(mixture, 0, [], 0, time.perf_counter() - began)


@torch.no_grad()
def mixed(old: Classifier, new: Classifier, w: Tensor, b: float) -> Classifier:
    """Return a classifier that mixes two, copied, with the router's weights w (D,) and b."""
    old, new = (copy.deepcopy(each).cpu().eval() for each in (old, new))
    shapes = [{n: t.shape for n, t in each.state_dict().items()} for each in (old, new)]
    if shapes[0] != shapes[1] or old.outputs != new.outputs:
        raise CrossferError(
            "router: mixes two networks of the same form; start from a strategy that adds no layers"
        )
    (head,) = old.layer_names("head")
    wide = widen(old.network, head, 1)
    assert wide.bias is not None, "see check_strategy"
    wide.weight[-1], wide.bias[-1] = w, b
    experts = Experts(old.network, new.network, old.answers)
    mixture = new.around(experts.requires_grad_(False)).eval()
    named = (new.layers.FC, new.layers.CL)
    mixture.layers = NamedLayers(*(tuple(f"new.{name}" for name in names) for names in named))
    mixture.spec = new.spec and replace(new.spec, router=head)
    return mixture


@torch.no_grad()
def _check_row(mixture: Classifier, old: Classifier, images: Tensor, w: Tensor, b: float) -> None:
    """Refuse a network in which the router's row changes the other outputs, or is not an output itself."""
    old, given = copy.deepcopy(old).cpu().eval(), normalise(images.cpu(), old.preprocessing)
    (head,), answers = old.layer_names("head"), old.answers
    own, _ = find_logits(old.network(given), answers)
    score = Body(old.network, head)(given).flatten(1).double() @ w + b
    try:
        both, _ = find_logits(mixture.network.get_submodule("old")(given), answers + 1)
    except (
        RuntimeError,
        TypeError,
        ValueError,
    ):  # an operation that expects as many outputs as before
        both = own
    if not (alike(both[:, :answers], own) and alike(both[:, answers:], score[:, None])):
        raise CrossferError(
            "router: the network's last linear layer does not produce its outputs; name its head "
            "with model.FC, or leave strategies with a router out"
        )

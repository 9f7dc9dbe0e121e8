"""Batch-norm statistics of the weights as they are, instead of a running mean over weights that have passed.

While a network trains, its running statistics trail behind its weights, the further the smaller the momentum
and the fewer the steps: after 60 steps with a momentum of 0.01 more than half of them are still those of the
network that training started from, and it answers as no network ever should.  So they are estimated anew for
the weights that are measured and kept: "PreciseBN" (Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021,
section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfer.machine import Machine
from crossfer.networks.layers import training_mode
from crossfer.training.batches import Faces

IMAGES = 1024
"""How many are looked at, at most; a thousand are enough (Wu and Johnson, section 3)."""
AT_ONCE = 256
"""Images in a batch: in large ones what deeper layers are given is hardly noisy."""


def moving_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch normalisations whose running statistics move when the network trains.

    Those of frozen layers do not.  The network is left in training mode, as far as it trains.
    """
    training_mode(network)
    return [norm for norm in batch_norms(network).values() if norm.training]


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return a network's batch normalisations that keep running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


@torch.no_grad()
def renew_statistics(
    network: nn.Module, norms: Sequence[_BatchNorm], batches: Iterable[Tensor], machine: Machine
) -> None:
    """Estimate running statistics anew, for the weights that the network has now.

    With mean μ_B and variance σ²_B of each batch, in each place where a normalisation stands:
    ``mean = E[μ_B]``, ``variance = E[σ²_B] + Var[μ_B]`` (Wu and Johnson, section 3).

    Parameters
    ----------
    network
        Changed in place: put into evaluation mode, so that nothing is dropped; its weights stay.
    norms
        Its normalisations to estimate; others keep their statistics.
    batches
        What the network is given, float (N, …) each, on its device; all of about the same size.
    machine
        Where to run.
    """
    network.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    found: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, *_: object) -> None:  # at every call: one may stand in two places
        assert isinstance(norm, _BatchNorm)
        found[norm].append((_copy(norm.running_mean), _copy(norm.running_var)))

    hooks = [norm.register_forward_hook(note) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # its running statistics are those of its last input
        for batch in batches:
            with machine.autocast():
                network(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm in norms:
        if not found[norm]:  # never asked
            continue
        means, variances = (torch.stack(part) for part in zip(*found[norm], strict=True))
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(means.mean(0))
        norm.running_var.copy_(variances.mean(0) + means.var(0, correction=0))
    network.eval()


def dealt(faces: Faces, generator: torch.Generator) -> Tensor:
    """Return the rows of the images to look at, as they are shown: int64 (batches, images a batch).

    A quarter of an epoch's, so that it takes a tenth of the time of an epoch; but a batch at least.
    """
    rows = faces.batches(AT_ONCE, generator)
    images = min(IMAGES, rows.numel() // 4)
    return rows[: max(1, round(images / rows.shape[1]))]


def _copy(statistic: Tensor | None) -> Tensor:
    assert statistic is not None
    return statistic.clone()

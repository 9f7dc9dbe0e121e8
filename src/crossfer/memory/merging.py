"""Between two networks: weights of the one and the other, mixed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crossfer.networks import Classifier
from crossfer.training import Faces, accuracy, normalise, specialised

ALPHAS = tuple(n / 10 for n in range(11))


def interpolate(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Mix two networks' weights: ``(1 - alpha) * before + alpha * after``.

    Wortsman et al., Robust fine-tuning of zero-shot models (WiSE-FT), CVPR 2022, equation 1.

    Parameters
    ----------
    before, after
        State dictionaries of the same network.  Whole numbers in them (as counts of batches) are
        taken from `after`.
    alpha
        0 is `before`, 1 is `after`, bit for bit.

    Returns
    -------
    dict
        A state dictionary.  Batch-norm statistics are mixed too, but no mixture of statistics describes
        the mixed network: see `renew_statistics`.

    Raises
    ------
    ValueError
        If the two are of different networks.
    """
    if before.keys() != after.keys():
        raise ValueError("the two sets of weights are of different networks")
    if alpha in (0, 1):
        return {name: tensor.clone() for name, tensor in (after if alpha else before).items()}
    return {
        name: torch.lerp(before[name], tensor, alpha)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in after.items()
    }


@torch.no_grad()
def renew_statistics(
    model: Classifier, images: Sequence[Tensor], fabric: Fabric, batch_size: int = 256
) -> None:
    """Estimate the batch-norm statistics of a network anew, each set of images counting the same.

    A mixture of weights has activations of its own (Izmailov et al., Averaging weights leads to wider
    optima, UAI 2018, section 3.2, for the same problem).

    Parameters
    ----------
    model
        Changed in place; its weights stay.
    images
        One or more sets, uint8 (N, H, W) or (N, H, W, 3).  Of each at most 2,048 are looked at,
        evenly spread.
    fabric
        Where to run.
    batch_size
        Images at a time, in equal parts of every set.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms or not images:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    model.eval()
    for norm in norms:
        norm.train()
    largest = max(min(len(part), 2048) for part in images)
    steps = max(1, round(largest * len(images) / batch_size))
    picks = [
        torch.linspace(0, len(part) - 1, steps * (batch_size // len(images))) for part in images
    ]
    for step in range(steps):
        batch = torch.cat(
            [part[pick.long()[step::steps]] for part, pick in zip(images, picks, strict=True)]
        )
        with fabric.autocast():
            model(normalise(batch.to(fabric.device), model.preprocessing))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def best_mixture(
    before: Classifier,
    after: Classifier,
    validation: Mapping[str, Faces],
    statistics_of: Sequence[Tensor],
    fabric: Fabric,
    alphas: Sequence[float] = ALPHAS,
) -> tuple[Classifier, float, list[dict[str, float]]]:
    """Choose how much of each network by the mean accuracy over the validation sets.

    Parameters
    ----------
    before, after
        The same network, before and after adaptation.
    validation
        Named sets, at least one; each counts the same.
    statistics_of
        Images to estimate batch-norm statistics on, see `renew_statistics`.
    fabric
        Where to run.
    alphas
        The shares of `after` that are tried; where some tie, the one nearest to one half wins.

    Returns
    -------
    model : Classifier
    alpha : float
    tried : list of dict
        ``alpha`` and the accuracy (0–1) on every validation set.
    """
    weights = before.state_dict(), after.state_dict()
    one = next(iter(validation.values())).images[:1]

    def mixture(alpha: float) -> Classifier:
        model = copy.deepcopy(after).to(fabric.device)
        model.load_state_dict(interpolate(*weights, alpha))
        if alpha not in (0, 1):
            renew_statistics(model, statistics_of, fabric)
        return model

    tried: list[dict[str, float]] = []
    for alpha in alphas:
        network = specialised(mixture(alpha), one, fabric.device)
        row = {name: accuracy(network, faces, fabric) for name, faces in validation.items()}
        tried.append({"alpha": alpha, **row})
    best = max(tried, key=lambda row: (sum(row[n] for n in validation), -abs(row["alpha"] - 0.5)))
    return mixture(best["alpha"]), best["alpha"], tried

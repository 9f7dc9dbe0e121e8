"""Merge the weights of two networks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from crossfer.machine import Machine
from crossfer.networks import Classifier
from crossfer.networks.layers import (
    NORMALISATIONS,
    is_just_linear,
    layers_in_order,
)
from crossfer.selection import choose
from crossfer.training import Faces, normalise, specialised
from crossfer.training.prediction import candidate, judged_on, people_in
from crossfer.training.split import Split, is_sequence, split_frozen
from crossfer.training.statistics import batch_norms, dealt, renew_statistics
from crossfer.training.surrogate import outputs_of_sets

Merge = Literal["LiNeS", "Fisher"]
"""Ways to merge two networks, other than `interpolate`."""
Weights = Mapping[str, Tensor]
Mix = Callable[[Weights, Weights, float], dict[str, Tensor]]
"""Merges two state dictionaries of the same network; the number is the weight (0–1) of the second."""

ALPHAS = tuple(n / 10 for n in range(11))
DEFAULT_ALPHA = 0.5
"""The preferred weight if validation does not decide (Wortsman et al., section 4)."""
FISHER_IMAGES = 1024
"""Maximum number of images per side from which the Fisher information is estimated."""
LEAST_FISHER = 1e-6


def interpolate(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Interpolate two networks' weights: ``(1 - alpha) * before + alpha * after``.

    Wortsman et al., Robust fine-tuning of zero-shot models (WiSE-FT), CVPR 2022, equation 1.

    Parameters
    ----------
    before, after
        State dictionaries of the same network.  Integer tensors, such as counts of batches, are taken from
        `after`.
    alpha
        0 is `before`, 1 is `after`, bit for bit.

    Returns
    -------
    dict
        A state dictionary.  Batch-norm statistics are interpolated, too, but do not describe the merged
        network, whose activations differ (Izmailov et al., Averaging weights leads to wider optima, UAI 2018,
        section 3.2): see `crossfer.training.statistics`.

    Raises
    ------
    ValueError
        If the state dictionaries have different names.
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


def by_depth(network: nn.Module) -> Mix:
    """Return a merge whose weight of the second network grows linearly with depth, to 1 in the last layer.

    Wang et al., LiNeS: Post-training Layer Scaling Prevents Forgetting, ICLR 2025, section 4: the
    update of layer ℓ of L is multiplied by ``λ(ℓ) = α + β (ℓ − 1) / (L − 1)``; here with β = 1 − α.  A
    normalisation belongs to the layer before it.
    """
    depth, depths = 0, dict[str, int]()
    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            depth += not isinstance(module, NORMALISATIONS) or not depth
        depths[name] = max(1, depth)

    def mix(before: Weights, after: Weights, alpha: float) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, tensor in after.items():
            place = depths[name.rpartition(".")[0]]
            share = alpha + (1 - alpha) * (place - 1) / max(1, depth - 1)
            found |= interpolate({name: before[name]}, {name: tensor}, share)
        return found

    return mix


def by_fisher(before_matters: Weights, after_matters: Weights) -> Mix:
    """Return a merge that weights each parameter by its Fisher information in the two networks.

    Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022, equation 3:
    ``((1 − α) F_before · before + α F_after · after) / ((1 − α) F_before + α F_after)``, with the diagonals
    of both Fisher informations (`crossfer.memory.penalties.fisher`), which are at least `LEAST_FISHER`.  The
    authors' code has this least value for the first network alone, and also divides each Fisher information
    by its norm, of which the equation says nothing.  Tensors without Fisher information, such as batch
    statistics, are interpolated.
    """

    def mix(before: Weights, after: Weights, alpha: float) -> dict[str, Tensor]:
        found = interpolate(before, after, alpha)
        for name in before_matters if 0 < alpha < 1 else ():
            own = (1 - alpha) * before_matters[name].clamp_min(LEAST_FISHER)
            other = alpha * after_matters[name].clamp_min(LEAST_FISHER)
            found[name] = (own * before[name] + other * after[name]) / (own + other)
        return found

    return mix


def best_mixture(
    before: Classifier,
    after: Classifier,
    validation: Mapping[str, Faces],
    shown: Faces | None,
    machine: Machine,
    alphas: Sequence[float] = ALPHAS,
    mix: Mix = interpolate,
) -> tuple[Classifier, float, list[dict[str, float]]]:
    """Select the weight of a merge on the validation sets.

    Parameters
    ----------
    before, after
        A network before and after adaptation.
    validation
        Validation sets by name, at least one; each counts the same.
    shown
        Faces on which the batch-norm statistics that differ between the two networks are estimated again;
        ``None``: the statistics are merged like weights.
    machine
        Device and precision.
    alphas
        The weights of `after` to try.  Of those that are not shown to be worse than the best
        (`crossfer.selection`), the one nearest to one half is selected.
    mix
        How to merge.

    Returns
    -------
    model : Classifier
    alpha : float
    tried : list of dict
        For each weight ``alpha``, the accuracy (0–1) on every validation set, and the difference from the
        best (`crossfer.selection.Behind.as_row`).

    Raises
    ------
    ValueError
        If there is no validation set.
    """
    if not validation:
        raise ValueError("merging: no validation set chooses how much of each network to keep")
    weights = before.state_dict(), after.state_dict()
    moved = {name.rpartition(".")[0] for name in weights[0] if _differ(name, *weights)}

    def mixture(alpha: float) -> Classifier:
        model = copy.deepcopy(after).to(machine.device)
        model.load_state_dict(merged := mix(_once(before), _once(after), alpha), strict=False)
        if shown is not None and not any(_are_equal(merged, end) for end in weights):
            norms = [norm for name, norm in batch_norms(model).items() if name in moved]
            rows = dealt(shown, torch.Generator().manual_seed(0))
            batches = (
                normalise(shown.images[r].to(machine.device), after.preprocessing) for r in rows
            )
            renew_statistics(model, norms, batches, machine)
        return model

    differing = _differing(before, after, validation, bool(moved), mix is interpolate, machine)
    tried: list[dict[str, float]] = []
    candidates = []
    for alpha in alphas:
        judged = differing.judged(mixture(alpha).state_dict(), alpha, validation, machine)
        candidates.append(candidate(judged, validation))
        accuracies = {name: judged[f"{name}/right"].float().mean().item() for name in validation}
        tried.append({"alpha": alpha, **accuracies})
    # Rounded: 0.3 is as near to 0.5 as 0.7.
    distances = [round(abs(alpha - DEFAULT_ALPHA), 9) for alpha in alphas]
    preferred = sorted(range(len(alphas)), key=distances.__getitem__)
    choice = choose(candidates, people_in(validation), preferred)
    for row, behind in zip(tried, choice.behind, strict=True):
        row |= behind.as_row()
    return mixture(alphas[choice.index]), alphas[choice.index], tried


@dataclass(frozen=True)
class _Differing:
    """The layers in which two networks differ: those before them calculate once for all mixtures.

    Parameters
    ----------
    part
        These layers; the whole network where nothing before them is the same.
    given
        What enters them, for each validation set; empty: its images.
    ends
        If a linear layer came first, what it gives with either network's weights, in place of `given`: with
        mixed weights it gives the mixture of both.
    """

    part: Classifier
    given: Mapping[str, Tensor]
    ends: Sequence[Mapping[str, Tensor]]

    def judged(
        self, merged: Weights, alpha: float, validation: Mapping[str, Faces], machine: Machine
    ) -> dict[str, Tensor]:
        """Return what `crossfer.training.prediction.judged_on` finds on the validation sets."""
        self.part.load_state_dict({name: merged[name] for name in self.part.state_dict()})
        given = self.given
        if self.ends:
            old, new = self.ends
            given = {name: torch.lerp(old[name], new[name], alpha) for name in given}
        return judged_on(self.part, validation, machine, given)


def _differing(
    before: Classifier,
    after: Classifier,
    validation: Mapping[str, Faces],
    moved: bool,
    interpolated: bool,
    machine: Machine,
) -> _Differing:
    """Cut two networks before the first layer in which they differ.

    Not where statistics of normalisations `moved`.  A first linear layer calculates only twice if weights are
    `interpolated`.
    """
    one = next(iter(validation.values())).images[:1]
    part = specialised(_changed_alone(before, after), one, machine.device)
    changed = any(parameter.requires_grad for parameter in part.parameters())
    if moved or not changed or not (split := split_frozen(part, one.to(machine.device))):
        return _Differing(part, {}, [])
    images = {name: faces.images for name, faces in validation.items()}
    given = outputs_of_sets(split.frozen, images, machine, after.preprocessing)
    if given is None:
        return _Differing(part, {}, [])
    if given and interpolated and (first := _first_linear(split.rest)):
        weights = before.state_dict(), after.state_dict()
        if ends := _ends(first, weights, given, machine):
            return _Differing(first.rest, given, ends)
    return _Differing(split.rest, given, [])


def _once(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights, tied ones under their first name only."""
    own = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    return {name: tensor for name, tensor in network.state_dict().items() if name in own}


def _are_equal(some: Weights, all_of_them: Weights) -> bool:
    return all(torch.equal(tensor, all_of_them[name]) for name, tensor in some.items())


def _changed_alone(before: Classifier, after: Classifier) -> Classifier:
    """Copy a network; what requires gradients are the parameters that differ from those before."""
    network, old = copy.deepcopy(after), dict(before.named_parameters())
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not torch.equal(parameter, old[name]))
    return network


def _first_linear(part: Classifier) -> Split | None:
    """Cut off a first layer that is linear: with mixed weights it gives the mixture of what it gives."""
    layers = layers_in_order(part.network) if is_sequence(part.network) else []
    if len(layers) < 2 or not is_just_linear(layers[0][1]):
        return None
    (name, first), *rest = layers
    return Split(first, part.around(nn.Sequential(OrderedDict(rest))), name)


def _ends(
    split: Split, weights: tuple[Weights, Weights], given: Mapping[str, Tensor], machine: Machine
) -> list[dict[str, Tensor]]:
    """Return what a first layer gives with either network's weights; nothing where there is no room."""
    ends = []
    for each in weights:
        own = {key: each[f"network.{split.layer}.{key}"] for key in split.frozen.state_dict()}
        split.frozen.load_state_dict(own)
        ends.append(outputs_of_sets(split.frozen, given, machine, split.rest.preprocessing))
    return [end for end in ends if end is not None]


def _differ(name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    return name.endswith(".running_mean") and not torch.equal(before[name], after[name])

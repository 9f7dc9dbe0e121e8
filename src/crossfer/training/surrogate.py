"""What trains in place of a network, and is folded back into it: opened, trained, folded.

While its first layers are frozen, a network need not train as a whole.  In its place stand the layers from
the first that trains on, given what the frozen ones make of every image (*cached features*, from
`crossfer.training.inputs`); and where images are few, the first of them in its *dual form*
(`crossfer.training.dual`).  `Surrogate.fold` turns weights of what stood in into weights of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from crossfer.machine import Machine
from crossfer.networks.classifier import Classifier
from crossfer.networks.prediction import outputs_of
from crossfer.networks.preprocessing import Preprocessing
from crossfer.training.batches import Faces
from crossfer.training.devices import Devices
from crossfer.training.dual import Dual, is_worth_it
from crossfer.training.inputs import LARGEST_IN_MEMORY, Anew, Kept, joined
from crossfer.training.recipe import Recipe
from crossfer.training.split import Split, split_frozen

LARGEST_IN_A_FILE = 8 * 2**30
"""Bytes; beyond it nothing is kept."""


@dataclass(frozen=True)
class Surrogate:
    """What trains in place of a network: the part of it that trains, and what that is given.

    Parameters
    ----------
    part
        The layers from the first that trains on; the whole network where that is the first of all.
    inputs
        What the part is given in training: a function of rows, told of every epoch.
    given
        What the part is given of each validation set, float or int64 (N, …); empty where that is the images.
    dual
        Names the layer of the part that a `Dual` stands for; empty where none does.
    """

    part: Classifier
    inputs: Anew | Kept
    given: Mapping[str, Tensor]
    dual: str = ""

    @property
    def is_cached(self) -> bool:
        """Whether what frozen layers make of each version of an image is calculated once."""
        return isinstance(self.inputs, Kept)

    def fold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of the part under the names and in the shapes that the network has."""
        whole = dict(weights)
        if self.dual:
            layer = self.part.get_submodule(self.dual)
            assert isinstance(layer, Dual)
            weight, rest = f"{self.dual}.weight", f"{self.dual}.rest"
            device = layer.inputs.device
            whole[weight] = layer.widened(whole[weight].to(device), whole.pop(rest).to(device))
        return whole


def surrogate_of(
    network: Classifier,
    training: Faces,
    validation: Mapping[str, Faces],
    recipe: Recipe,
    seed: int,
    generator: torch.Generator,
    machine: Machine,
    *,
    reuse: bool,
    devices: Devices,
) -> Surrogate:
    """Open what trains in place of a network: cut off what is frozen before the first layer that trains.

    Parameters
    ----------
    network, training, validation
        On the device.
    recipe, seed, generator, machine, devices
        As for `Anew`.
    reuse
        Otherwise nothing is cut off, and the network is shown the same pictures.  Nor is it where the network
        cannot be cut (`split_frozen`), or where there is no room for what is made of the validation sets.
    """
    how = network.preprocessing
    fed = partial(
        Anew,
        training.images,
        recipe=recipe,
        seed=seed,
        generator=generator,
        machine=machine,
        how=how,
    )
    whole = Surrogate(network, fed(nn.Sequential(), devices=devices), {})
    if not (reuse and (split := split_frozen(network, training.images))):
        return whole
    anew = fed(split.frozen, devices=devices)
    held_out = {name: faces.images for name, faces in validation.items()}
    given = outputs_of_sets(split.frozen, held_out, machine, how)
    if given is None:
        return whole
    if not anew.versions or anew.size() * anew.versions * len(training) > _most(machine):
        return Surrogate(split.rest, anew, given)
    return _in_dual_form(split, Kept(anew), given)


def outputs_of_sets(
    frozen: nn.Module, sets: Mapping[str, Tensor], machine: Machine, how: Preprocessing
) -> dict[str, Tensor] | None:
    """Return what layers make of named sets of images, (N, …) each; None where there is no room for it."""

    def outputs(images: Tensor) -> Tensor:
        return joined(outputs_of(frozen, images, how, autocast=machine.autocast), len(images))

    one = outputs(next(iter(sets.values()))[:1]).nbytes if sets else 0
    if one * sum(map(len, sets.values())) > _most(machine):
        return None
    return {name: outputs(images) for name, images in sets.items()}


def _most(machine: Machine) -> int:
    """Return how many bytes are kept at most: a GPU calculates faster than it reads a file."""
    return LARGEST_IN_A_FILE if machine.device.type == "cpu" else LARGEST_IN_MEMORY


def _in_dual_form(split: Split, kept: Kept, given: Mapping[str, Tensor]) -> Surrogate:
    """Let the first layer behind the cut learn in its dual form, if that is worth it."""
    part, name = split.rest, split.layer
    layer = part.network.get_submodule(name)
    sizes = [len(kept.outputs), *map(len, given.values())]
    flat = kept.outputs.ndim == 2
    if not (flat and is_worth_it(layer, sum(sizes)) and _stands_once(layer, part)):
        return Surrogate(part, kept, given)
    for version in range(kept.anew.versions):
        kept.begin(version)
    every = torch.cat([kept.outputs, *given.values()])
    part.network.set_submodule(name, Dual(layer, every))
    # From here on an image is the number of what the frozen layers made of it.
    kept.outputs, *others = torch.split(torch.arange(len(every), device=every.device), sizes)
    return Surrogate(part, kept, dict(zip(given, others, strict=True)), f"network.{name}")


def _stands_once(layer: nn.Linear, part: nn.Module) -> bool:
    """Tell whether a layer's weight has one place in a network."""
    places = part.named_parameters(remove_duplicate=False)
    return sum(parameter is layer.weight for _, parameter in places) == 1

"""A classifier: a network with what its weights do not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crossfer.classes import FER7
from crossfer.framing import Framing
from crossfer.networks.layers import FOUND, LAYERS, NamedLayers, train_only
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.sources import Spec

NEVER = -1e4
"""The logit of a class that the network cannot say."""


class Classifier(nn.Module):
    """A network that knows its classes, how it reads pixels, how faces fill its images, and its layers.

    Parameters
    ----------
    network
        Any module that maps float (N, C, H, W) to logits (N, outputs): a tensor, or one in a tuple, list,
        mapping or output object.
    classes
        What the classifier answers with, in its order.
    outputs
        For each class the network's output that stands for it; ``None``: the network cannot say it.  By
        default the first outputs, in their order.
    preprocessing
        How the network reads pixels.
    framing
        How a face fills its image; by default as `crossfer.prepare` aligns it.
    layers
        Names of its fully connected layers and its last convolution, where module order does not tell.
    spec
        How to build the network again; without it a classifier cannot be saved.
    answers
        How many outputs the network has; by default as many as `outputs` speak of.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str] = FER7,
        outputs: Sequence[int | None] | None = None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008  (frozen)
        framing: Framing | None = None,
        layers: NamedLayers = FOUND,
        spec: Spec | None = None,
        answers: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = tuple(classes)
        self.outputs = tuple(range(len(classes)) if outputs is None else outputs)
        if len(self.outputs) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes, but {len(self.outputs)} outputs")
        self.preprocessing = preprocessing
        self.framing = framing or Framing(preprocessing.side, preprocessing.channels)
        self.layers, self.spec = layers, spec
        said = [output for output in self.outputs if output is not None]
        self.answers = max(said, default=-1) + 1 if answers is None else answers

    def around(self, network: nn.Module) -> Classifier:
        """Return the same classifier around another network, as the rest of the same one."""
        return Classifier(
            network,
            self.classes,
            self.outputs,
            self.preprocessing,
            self.framing,
            self.layers,
            self.spec,
            self.answers,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of normalised images, float (N, C, H, W)."""
        logits = logits_in(self.network(images), self.answers)
        if self.outputs == tuple(range(self.answers)):
            return logits
        never = None if None not in self.outputs else torch.full_like(logits[:, 0], NEVER)
        columns = [never if output is None else logits[:, output] for output in self.outputs]
        return torch.stack(columns, 1)  # type: ignore[arg-type]

    def layer_names(self, kind: str) -> list[str]:
        """Name those of the network's layers that a key of `LAYERS` stands for, in the network's names.

        Raises
        ------
        ValueError
            If the network has no such layer.
        """
        return LAYERS[kind](self.network, self.layers)

    def train_only(self, kind: str) -> None:
        """Freeze every layer but those that a key of `LAYERS` stands for."""
        train_only(self.network, self.layer_names(kind))


def logits_in(answer: Any, answers: int) -> Tensor:
    """Return the logits in what a network answers with.

    Parameters
    ----------
    answer
        A tensor; or a tuple, list, mapping or output object with one in it, perhaps among others: the
        ``logits`` if it has such, otherwise the first float tensor (N, answers).
    answers
        How many outputs the network has.

    Raises
    ------
    TypeError
        If there are no logits in it.
    """
    return _found(answer, answers)[0]


def place_of_logits(answer: Any, answers: int) -> str:
    """Say where in a network's answer its logits are: empty where they are all of it, or as ``[0]``."""
    return _found(answer, answers)[1]


def _found(answer: Any, answers: int) -> tuple[Tensor, str]:
    if isinstance(answer, Tensor):
        return answer, ""
    if isinstance(named := getattr(answer, "logits", None), Tensor):
        return named, ".logits"
    parts: dict[str, Any] = {}
    if isinstance(answer, Mapping):
        parts = {f"[{key!r}]": answer[key] for key in sorted(answer, key=lambda k: k != "logits")}
    elif isinstance(answer, (tuple, list)):
        parts = {f"[{index}]": part for index, part in enumerate(answer)}
    for place, part in parts.items():
        if isinstance(part, Tensor) and part.is_floating_point() and part.shape[1:] == (answers,):
            return part, place
    kinds = ", ".join(_described(part) for part in parts.values()) or type(answer).__name__
    raise TypeError(f"gives {kinds}: no tensor of logits (N, {answers}) among it")


def _described(part: Any) -> str:
    return f"a tensor {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__

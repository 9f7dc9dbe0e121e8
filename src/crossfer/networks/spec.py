"""Which network an experiment is about: the study's, or anybody's, untrained or as it is deployed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from crossfer.classes import FER7, canonical
from crossfer.errors import CrossferError
from crossfer.files import digest
from crossfer.framing import SIDE
from crossfer.networks.classifier import Classifier
from crossfer.networks.layers import NamedLayers
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.sources import STUDY, Spec
from crossfer.networks.weights import read_weights, without_prefix


@dataclass(frozen=True)
class Normalisation:
    """What a network standardises pixels by: see `crossfer.networks.preprocessing.Preprocessing`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    white: float = 1.0


@dataclass(frozen=True)
class NetworkConfig:
    """How to build a network, and what its weights do not tell.

    Parameters
    ----------
    network
        ``study``, or ``package.module:function`` for a factory.  That takes `arguments` and returns a module
        that maps float (N, C, H, W) to logits (N, outputs), with random weights or whatever training should
        start from.
    width
        Of the study's network: multiplies its filters and units.
    arguments
        For the factory, by keyword.
    folder
        Where Python looks for the factory too, after its own path; relative `weights` start here.
    weights
        The network that is deployed: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file of tensors alone.
        It then is the baseline, and is not trained.
    input
        Channels (1 gray, 3 colour), height and width of the faces that it reads.
    normalisation
        What it standardises pixels by; otherwise every image is standardised by its own mean and deviation.
    order
        Of the colours that it reads.
    classes
        What its outputs stand for, in its order, under any name we know for them.  Outputs that are no class
        of the experiment are never the answer; a class of the experiment that is not there is new to it.
    FC, CL
        Its fully connected layers, and its last convolution: names of its modules, where their order does
        not tell.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # no unknown key in a configuration
    NOT_IDENTITY: ClassVar = frozenset({"folder", "weights"})
    """Places; what lies there is identified by `weights_digest`."""

    network: str = STUDY
    width: float = 1.0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    weights: Path | None = None
    input: tuple[int, int, int] = (1, SIDE, SIDE)
    normalisation: Normalisation | None = None
    order: Literal["RGB", "BGR"] = "RGB"
    classes: tuple[str, ...] = ()
    FC: tuple[str, ...] = ()
    CL: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width}: it must lie above 0 and not above 4")
        if self.network == STUDY:
            own = [k for k in ("arguments", "normalisation", "FC", "CL") if getattr(self, k)]
            if own or self.input != (1, SIDE, SIDE):
                raise ValueError(
                    f"{(own or ['input'])[0]}: of the study's network none; name another network"
                )
        else:
            module, colon, function = self.network.partition(":")
            if not all((colon, *module.split("."), *function.split("."))):
                raise ValueError(f"network {self.network!r}: write package.module:function")
            if self.width != 1:
                raise ValueError("width: of the study's network only; give your factory arguments")
        if self.input[1] != self.input[2]:
            raise ValueError("input: channels (1 or 3), height, width; square, of 8 pixels or more")
        self.preprocessing  # noqa: B018  (refuses what is impossible)
        try:
            json.dumps(dict(self.arguments))
        except TypeError:
            raise ValueError("arguments: only texts, numbers, lists and mappings of them") from None
        self._check_classes()

    def _check_classes(self) -> None:
        names = [canonical(name) for name in self.classes]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"classes: {twice[0]} stands there twice")
        if len(names) == 1:
            raise ValueError(f"classes: {names[0]} alone; name what each output stands for")

    @property
    def is_deployed(self) -> bool:
        """Whether it comes with weights: then it is the baseline."""
        return self.weights is not None

    def spec(self, classes: Sequence[str] = FER7) -> Spec:
        """Return how to build it, for an experiment with some classes."""
        if self.network == STUDY:
            return Spec(STUDY, {"width": self.width, "classes": len(self.classes or classes)})
        return Spec(self.network, self.arguments, self.folder)

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.spec().name

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How it reads pixels."""
        channels, side, _ = self.input
        how = self.normalisation
        told = {"mean": how.mean, "deviation": how.deviation, "white": how.white} if how else {}
        return Preprocessing(channels, side, order=self.order, **told)  # type: ignore[arg-type]

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of the file of its deployed weights."""
        return digest(self._weights_file)

    def build(self, classes: Sequence[str] = FER7) -> Classifier:
        """Build it, with whatever weights its source gives it.

        Parameters
        ----------
        classes
            What the classifier shall answer with.

        Raises
        ------
        CrossferError
            If there is no such source, or it fails.
        """
        spec = self.spec(classes)
        return Classifier(
            spec.build(),
            classes,
            self._outputs(classes),
            self.preprocessing,
            layers=NamedLayers(self.FC, self.CL),
            spec=spec,
            answers=len(self.classes) or len(classes),
        )

    def deployed(self, classes: Sequence[str] = FER7) -> Classifier:
        """Build it with the weights that are deployed.

        Raises
        ------
        CrossferError
            If the file cannot be read safely, or holds the weights of another network.
        """
        classifier = self.build(classes)
        network = classifier.network
        tensors = without_prefix(read_weights(self._weights_file), network.state_dict().keys())
        try:
            network.load_state_dict(tensors)
        except (RuntimeError, AttributeError, TypeError) as error:
            first, *more = str(error).splitlines()
            why = (more or [first])[0].strip()[:200]
            raise CrossferError(
                f"model.weights: {self._weights_file}: not of what {self.name} builds: {why}"
            ) from None
        return classifier

    def _outputs(self, classes: Sequence[str]) -> tuple[int | None, ...]:
        """Return which output stands for each class; ``None``: none does."""
        if not self.classes:
            return tuple(range(len(classes)))
        theirs = [canonical(name) for name in self.classes]
        return tuple(theirs.index(name) if name in theirs else None for name in classes)

    @property
    def _weights_file(self) -> Path:
        assert self.weights is not None
        return (self.folder or Path()) / self.weights.expanduser()

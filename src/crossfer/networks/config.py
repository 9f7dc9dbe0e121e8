"""Configuration of a network, untrained or deployed: validation, building, and identity of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from crossfer.classes import FER7, NO_EXPRESSION, UNLABELLED, ClassSet, canonical, comparable
from crossfer.errors import CrossferError, some_of
from crossfer.external_data import files_of
from crossfer.files import digest
from crossfer.framing import SIDE, Framing
from crossfer.networks.answers import failed_on, problem_of
from crossfer.networks.classifier import WEIGHTS, Card, Classifier, load, read_card
from crossfer.networks.hubs import Own, config_of_transformers
from crossfer.networks.layers import (
    LAYERS,
    NamedLayers,
    fully_connected,
    last_convolution,
    layers_with_parameters,
)
from crossfer.networks.preprocessing import MAPPED, PER_IMAGE, Normalisation, Preprocessing
from crossfer.networks.sources import (
    LIBRARIES,
    ONNX,
    RUNTIME,
    STUDY,
    TIMM,
    TORCHVISION,
    TRANSFORMERS,
    Spec,
)
from crossfer.networks.weights import read_weights
from crossfer.strict import Strict

BUNDLE = "bundle"
SOURCES = (*LIBRARIES, BUNDLE)
"""Kinds of sources that are not Python packages: the part before the colon."""
WITH_WEIGHTS = (TRANSFORMERS, ONNX, RUNTIME, BUNDLE)
"""Sources whose networks are deployed by default."""

FRAMING = ("side", "channels", "eye_distance", "eye_height")
GRAY = "order: a gray network reads no colours; remove it"
AS_BUILT, START = Path("as-built"), Path("start")
"""Instead of a file of weights: deploy the source's weights, or start training from them."""

FILES_OF_TENSORS = ("*.safetensors", "*.bin")
"""Files of weights in a folder of transformers."""

Classes = ClassSet | str | Sequence[str]
"""The classes of a classifier."""


def outputs_by_class(classes: ClassSet, theirs: Sequence[str]) -> list[list[int]]:
    """Return the outputs of each class, from the names of a network's outputs.

    An output belongs to the class of its name or, if there is none, to the class that has its name as a
    label: in a network with outputs sad and angry, both belong to a class ``negative`` with these labels.
    """
    means = [name if name in classes.names else classes.members.get(name) for name in theirs]
    return [[i for i, own in enumerate(means) if own == name] for name in classes.names]


@dataclass(frozen=True)
class NetworkConfig(Strict):
    """How to build a network, and what its weights do not define.

    Parameters
    ----------
    network
        ``study``; ``timm:NAME``, ``torchvision:NAME``, ``transformers:FOLDER_OR_ID``, ``onnx:FILE``;
        ``onnxruntime:FILE``, which is measured but not trained; ``bundle:FOLDER``, an earlier result (a
        bundle or a run); or ``package.module:function``, a factory that takes `arguments` and returns a
        module that maps float (N, C, H, W) to logits (N, outputs), or to an output that contains them.
    width
        Factor of the filters and units of the study's network.
    arguments
        Keyword arguments of the factory or the library.
    folder
        Folder of relative files and folders, and of factories that are not on Python's path.
    weights
        The deployed weights: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file with tensors only; or
        ``as-built`` for the source's weights.  The deployed network is the baseline and is not trained.
        ``start``: training starts from the source's weights, with a head for the experiment's classes.  By
        default ``as-built`` for ``transformers:``, ``onnx:``, ``onnxruntime:`` and ``bundle:`` (for the last
        three always), otherwise ``start``.
    weights_key
        Key or prefix of the weights in a file with several sets.
    input
        Channels (1 gray, 3 colour), height and width of its faces; by default the model's own, or 1×48×48.
    normalisation
        Normalisation of pixels; or ``per-image``: every image by its own mean and deviation.  By default the
        model's own, or ``per-image`` if no weights are deployed.
    order
        Order of the colours; by default the model's own, or RGB.
    classes
        Names of its outputs, in order, in any known spelling; by default the model's own, or the experiment's
        if no weights are deployed.  An output belongs to the class of its name, or to the class that has its
        name as a label; otherwise it is never predicted, such as one that means no expression (``unknown``,
        ``NF``).  A class without an output is new to the model.
    framing
        How its faces are cut out of pictures: ``eye_distance`` and ``eye_height``, see
        `crossfer.framing.Framing`; by default the bundle's own, or that of `crossfer.prepare`.  The networks
        of an experiment have the framing of its source, and this one if the source's pictures were cropped by
        somebody else; a source that was prepared in another framing is refused.
    FC, CL
        Module names of its fully connected layers and of its last convolution, if module order does not give
        them.
    expect
        The accuracy (0–1) that the deployed model is known to have on the source's test set; an experiment
        stops if the baseline is far from it.
    """

    NOT_IDENTITY: ClassVar = frozenset({"folder", "weights", "framing", "expect"})
    """Paths, whose content `built` and `weights_digest` identify, and values that are only checked."""

    network: str = STUDY
    width: float = 1.0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    weights: Path | None = None
    weights_key: str = ""
    input: tuple[int, int, int] | None = None
    normalisation: Normalisation | Literal["per-image"] | None = None
    order: Literal["RGB", "BGR"] | None = None
    classes: tuple[str, ...] = ()
    framing: Mapping[str, int | float] | None = None
    FC: tuple[str, ...] = ()
    CL: tuple[str, ...] = ()
    expect: float | None = None

    def __post_init__(self) -> None:
        # As YAML does: what is given in Python may be a string or a list, too.
        for key in ("folder", "weights"):
            if isinstance(value := getattr(self, key), str):
                object.__setattr__(self, key, Path(value))
        for key in ("input", "classes", "FC", "CL"):
            if isinstance(value := getattr(self, key), str):
                raise ValueError(f"{key}: {value!r}: write a list")
            if value is not None:
                object.__setattr__(self, key, tuple(value))
        if isinstance(self.normalisation, Mapping):
            object.__setattr__(self, "normalisation", Normalisation.of(self.normalisation))
        if self.framing == {}:
            object.__setattr__(self, "framing", None)
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        """Yield invalid or missing options."""
        kind, _, name = self.network.partition(":")
        if not isinstance(self.normalisation, Normalisation | None) and (
            self.normalisation != PER_IMAGE
        ):
            yield f"normalisation: {self.normalisation!r}: write {PER_IMAGE}, or {MAPPED}"
        if not 0 < self.width <= 4:
            yield f"width is {self.width}: must be above 0 and at most 4"
        if self.network == STUDY:
            own = [
                key
                for key in ("arguments", "normalisation", "order", "FC", "CL")
                if getattr(self, key)
            ]
            if self.input not in (None, (1, SIDE, SIDE)):
                own = ["input"]
            if self.weights in (AS_BUILT, START):
                yield f"weights: {self.weights}: the study's network has none of its own; name a file"
            if own:
                yield (
                    f"{own[0]}: not an option of the study's network; remove it, or name another "
                    "network"
                )
        else:
            if self.width != 1:
                yield "width: only for the study's network; use arguments: for yours"
            names = f"{kind}.{name}".split(".")
            if not name or (kind not in SOURCES and not all(map(str.isidentifier, names))):
                libraries = ", ".join(f"{library}:NAME" for library in SOURCES)
                yield (
                    f"network {self.network!r}: write {STUDY}, {libraries} or package.module:function"
                )
        if self.input and self.input[1] != self.input[2]:
            yield "input: channels (1 or 3), height, width; square, of 16 pixels or more"
        if kind not in SOURCES:
            self.preprocessing  # noqa: B018  (refuses invalid values)
        if kind == BUNDLE:
            for key in ("arguments", "weights"):
                if getattr(self, key):
                    yield f"{key}: given by the bundle; remove it"
        elif kind in (ONNX, RUNTIME):
            if self.weights not in (None, AS_BUILT):
                yield "weights: given by the ONNX file; remove it"
            if self.arguments:
                yield "arguments: an ONNX file takes none; remove them"
        if self.order and self.input and self.input[0] == 1:
            yield GRAY
        if self.weights_key and self.is_deployed and not self.weights_file:
            yield "weights_key: only for a file of weights; remove it"
        try:
            json.dumps(dict(self.arguments))
        except TypeError:
            yield "arguments: only strings, numbers, lists and mappings of them"
        names = [canonical(name) for name in self.classes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            own = [one for one, name in zip(self.classes, names, strict=True) if name == twice]
            if len(set(own)) == 1:
                yield f"classes: {own[0]} is listed twice; remove one"
            other = f"{comparable(own[1])} 2"
            yield (
                f"classes: {own[0]} and {own[1]} are spellings of {twice}; write {other} for the second, and "
                f"in an experiment, to add both, classes: {{{twice}: [{twice}, {other}], …}}"
            )
        if len(names) == 1:
            yield f"classes: only {names[0]}; name the class of every output"
        if self.framing is not None and not (
            isinstance(self.framing, Mapping) and set(self.framing) <= set(FRAMING)
        ):
            yield f"framing: {self.framing!r}: write a mapping; the keys are {', '.join(FRAMING)}"
        if self.expect is not None and not 0 < self.expect <= 1:
            yield "expect: must be a fraction, above 0 and at most 1"
        if not self.is_deployed:
            for key in ("expect", "weights_key"):
                if getattr(self, key):
                    yield f"{key}: only for a deployed network; name its weights"
        elif kind not in (STUDY, TRANSFORMERS, BUNDLE):
            if not self.classes:
                yield "classes: missing; list the classes of the deployed network's outputs, in its order"
            if self.normalisation is None and kind not in (TIMM, TORCHVISION):
                yield (
                    "normalisation: missing; set that of the deployed network, "
                    "{mean: […], deviation: […]} or per-image"
                )

    @property
    def is_deployed(self) -> bool:
        """Whether its weights are deployed, as the baseline."""
        if self.weights is None:
            return self._source.kind in WITH_WEIGHTS
        return self.weights != START

    @cached_property
    def _source(self) -> Spec:
        """The source as written."""
        return Spec(self.network, self.arguments, self.folder)

    @property
    def weights_file(self) -> Path | None:
        """The file of its deployed weights, if any."""
        if self.weights in (None, AS_BUILT, START):
            return None
        assert self.weights is not None
        return (self.folder or Path()) / self.weights.expanduser()

    @property
    def _bundle(self) -> Path | None:
        """The folder of a bundle, if it is one."""
        return self._source.path if self._source.kind == BUNDLE else None

    @cached_property
    def _card(self) -> Card | None:
        """The description of a bundle."""
        return read_card(self._bundle) if self._bundle else None

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return self._source.name

    @property
    def factory(self) -> str:
        """The name of the factory whose code is run to build it, also that of a bundle; otherwise empty."""
        return (self._card.spec if self._card else self._source).factory

    @cached_property
    def _own(self) -> Own:
        """The model's own configuration."""
        if self._card:
            described = self._card.described
            return Own(described["preprocessing"], self._card.output_names, described["layers"])
        return self._source.own()

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Its preprocessing."""
        own = self._own.preprocessing
        if own is None and self._source.file and not self.input:
            raise CrossferError(
                f"model.input: missing; {self.name} reads images of any size, so set that of its faces, "
                "[channels, height, width]"
            )
        how = own or Preprocessing()
        try:
            if self.order and (self.input or how.input_shape)[0] == 1:
                raise ValueError(GRAY)
            if self.input:
                channels, side, _ = self.input
                fits = own is not None and len(own.mean) in (0, channels)
                told: dict[str, Any] = {} if fits else {"mean": (), "deviation": ()}
                how = replace(how, **told, channels=channels, side=side)  # pyrefly: ignore[bad-argument-type]  # which checks channels
            if isinstance(self.normalisation, Normalisation):
                how = replace(how, **vars(self.normalisation))
            elif self.normalisation:
                how = replace(how, mean=(), deviation=(), white=1.0)
            return replace(how, order=self.order or how.order)
        except ValueError as error:
            raise CrossferError(str(error)) from None

    @property
    def framed(self) -> Framing | None:
        """The framing of its faces; None if neither it nor its bundle says it."""
        if self.framing is None and not self._card:
            return None
        how = self.preprocessing
        reads = {"side": how.side, "channels": how.channels}
        own = vars(self._card.described["framing"]) if self._card else {}
        given: dict[str, Any] = {**own, **reads, **(self.framing or {})}
        if other := [key for key in reads if given[key] != reads[key]]:
            raise CrossferError(
                f"model.framing: {other[0]} is {given[other[0]]}, but the network reads {how}; remove it"
            )
        try:
            return Framing(**given)
        except CrossferError as error:
            raise CrossferError(f"model.framing: {error}") from None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs, in order; empty: the experiment's classes."""
        names = self.classes or (self._own.classes if self.is_deployed else ())
        if not names and self.is_deployed and self.network != STUDY:
            raise CrossferError(
                f"model.classes: {self.name} does not name its classes; list the classes of its "
                "outputs, in its order"
            )
        return tuple(map(canonical, names))

    @property
    def expressions(self) -> tuple[str, ...]:
        """The classes of its outputs, without those that mean no expression (`NO_EXPRESSION`)."""
        names = dict.fromkeys(self.outputs or FER7)
        return tuple(name for name in names if name and name not in (*NO_EXPRESSION, UNLABELLED))

    def unknown(self, classes: Classes) -> tuple[str, ...]:
        """Return the classes that it has no output for."""
        wanted = ClassSet.of(classes)
        outputs = outputs_by_class(wanted, self.outputs or wanted.names)
        return tuple(name for name, own in zip(wanted.names, outputs, strict=True) if not own)

    def spec(self, classes: Classes = FER7) -> Spec:
        """Return how to build it for some classes."""
        if self._card:
            return self._card.spec
        kind, wanted = self._source.kind, ClassSet.of(classes).names
        count, given = len(self.outputs or wanted), dict(self.arguments)
        if self.network == STUDY:
            given = {"width": self.width, "classes": count}
        elif kind == TIMM:
            channels = {"in_chans": self.preprocessing.channels} if self.input else {}
            given = {"num_classes": count, **channels, **given}
        elif kind == TORCHVISION:
            given = {"num_classes": count, **given}
        elif self._source.file and self._own.preprocessing is None:
            given = {"side": self.preprocessing.side}
        elif kind == TRANSFORMERS:
            config = config_of_transformers(self._source.place)
            if not self.is_deployed:
                names = dict(enumerate(wanted))
                config |= {"id2label": names, "label2id": {n: i for i, n in names.items()}}
                given["new_head"] = True
            given["config"] = json.loads(
                json.dumps({**config, **given.get("config", {})}, default=str)
            )
        return replace(self._source, arguments=given)

    def built(self, classes: Classes) -> dict[str, Any]:
        """Return all that determines the built network, including the model's own configuration."""
        spec = self.spec(classes)
        return {
            "arguments": dict(spec.arguments),
            "grown": dict(spec.grown),
            "projected": dict(spec.projected),
            "preprocessing": self.preprocessing,
            "outputs": self.outputs,
            "layers": self._layers,
            "files": self._files_digest(spec),
        }

    @property
    def _layers(self) -> NamedLayers:
        own = self._own.layers
        return NamedLayers(self.FC or own.FC, self.CL or own.CL)

    def _files_digest(self, spec: Spec) -> str:
        """Return the SHA-256 of the local files of the network; empty if there are none."""
        files: list[Path] = []
        if spec.file:
            files = files_of(spec.file)
        if spec.kind == TRANSFORMERS:  # of a hub there is no such folder
            files = sorted(f for pattern in FILES_OF_TENSORS for f in spec.path.glob(pattern))
        sha = hashlib.sha256("".join(map(digest, files)).encode())
        return sha.hexdigest() if files else ""

    def same_layers(self, kind: str) -> str:
        """Return the first key of `crossfer.networks.layers.LAYERS` with the same layers.

        If the head is the only fully connected layer, FC and head are the same training.
        """
        return kind if self.network == STUDY else self._alike.get(kind, kind)

    @cached_property
    def _alike(self) -> Mapping[str, str]:
        """For each key of `LAYERS` that the network has, the first key with the same layers."""
        alike: dict[str, str] = {}
        first: dict[tuple[str, ...], str] = {}
        # Without the network, a run can still be read: each key stands for itself.
        with suppress(CrossferError), torch.random.fork_rng([]):
            network = self._network(self.spec())
            for kind, names_of in LAYERS.items():
                with suppress(ValueError):
                    names = tuple(sorted(names_of(network, self._layers)))
                    alike[kind] = first.setdefault(names, kind)
        return alike

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of its deployed weights: of their file, or of the source's tensors."""
        if self.weights_file:
            return digest(self.weights_file)
        if self._bundle:
            return digest(self._bundle / WEIGHTS)
        sha = hashlib.sha256()
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            for name, tensor in sorted(self._network(self.spec()).state_dict().items()):
                sha.update(
                    name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                )
        return sha.hexdigest()

    def _network(self, spec: Spec) -> torch.nn.Module:
        """Build the network alone, with the weights of its source."""
        return load(self._bundle).network if self._bundle else spec.build()

    def build(self, classes: Classes = FER7) -> Classifier:
        """Build it with the weights of its source.

        Parameters
        ----------
        classes
            The classes of the classifier: a class set, or what `ClassSet.of` reads.

        Raises
        ------
        CrossferError
            If the source does not exist or fails, or none of its outputs belongs to a class.
        """
        wanted = ClassSet.of(classes)
        spec, theirs = self.spec(wanted), self.outputs or wanted.names
        outputs = outputs_by_class(wanted, theirs)
        if not any(outputs):
            raise CrossferError(
                f"model.classes: none of {', '.join(filter(None, theirs))} is a class of the experiment or a "
                f"label of one ({', '.join(wanted.names)}); assign labels to classes with classes:"
            )
        network = self._network(spec)
        self._check_layers(network)
        return Classifier(
            network,
            wanted.names,
            outputs,
            self.preprocessing,
            self.framed,
            layers=self._layers,
            spec=spec,
            answers=len(theirs),
            labels=wanted.members,
        )

    def _check_layers(self, network: torch.nn.Module) -> None:
        """Refuse names of layers that the network does not have, whether or not a strategy trains them."""
        for key, names_of in (("FC", fully_connected), ("CL", last_convolution)):
            try:
                if getattr(self, key):
                    names_of(network, self._layers)
            except ValueError as error:
                there = some_of(layers_with_parameters(network), 4, counted=True) or "none"
                raise CrossferError(f"model.{key}: {error}; there are {there}") from None

    def deployed(self, classes: Classes = FER7) -> Classifier:
        """Build it with the deployed weights, in evaluation mode.

        Raises
        ------
        CrossferError
            If the file cannot be read safely, or holds the weights of another network; or if the network
            fails on faces of its size, or returns no logits of its outputs.
        """
        return self.deployed_and_said(classes)[0]

    def deployed_and_said(self, classes: Classes = FER7) -> tuple[Classifier, list[str]]:
        """Build it with the deployed weights; also return notes about them."""
        classifier, file = self.build(classes).eval(), self.weights_file
        if file is None:
            self._check_answers(classifier)
            return classifier, []
        network = classifier.network
        found = read_weights(file, network.state_dict().keys(), self.weights_key)
        try:
            network.load_state_dict(found.tensors)
        except (RuntimeError, AttributeError, TypeError) as error:
            first, *more = str(error).splitlines()
            why = (more or [first])[0].strip()[:200]
            raise CrossferError(
                f"model.weights: {file}: does not fit the network that {self.name} builds: {why}"
            ) from None
        self._check_answers(classifier)
        return classifier, found.said

    @torch.no_grad()
    def _check_answers(self, classifier: Classifier) -> None:
        """Ask it about two random faces."""
        chance = torch.Generator().manual_seed(0)
        faces = torch.randn(2, *self.preprocessing.input_shape, generator=chance)
        try:
            problem = problem_of(classifier.network(faces), classifier.answers)
        except Exception as error:
            raise failed_on(faces, self.name, error) from None
        if problem:
            raise CrossferError(f"model.weights: {self.name} {problem}")

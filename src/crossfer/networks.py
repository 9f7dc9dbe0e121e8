"""Which network: the study's, or anybody's, untrained or as it is deployed.

A network of somebody else's is a *factory*, ``package.module:function``, which returns a `torch.nn.Module`;
its weights, where it is deployed already, are a file of tensors.  `Network.check` tries it before anything
runs.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfer.classes import FER7 as EMOTIONS
from crossfer.classes import SYNONYMS
from crossfer.errors import CrossferError, one_line
from crossfer.files import digest
from crossfer.models import INPUT, LAYERS, Conventions, follow, study_cnn

STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where a training script's checkpoint keeps the weights, beside its optimiser and the like."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before the name of every tensor."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of each channel, of pixels as numbers from 0 to 1."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class Network:
    """How to build a network, and what its weights do not tell.

    Parameters
    ----------
    width
        Of the study's network: multiplies its filters and units.
    factory
        ``package.module:function`` for any other.  It takes `arguments` and returns a module that maps
        float (N, C, H, W) to logits (N, outputs), with random weights or whatever training should start from.
    arguments
        By keyword.
    folder
        Where Python looks for the factory too, after its own path; relative `weights` start here.
    weights
        The network that is deployed: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file of tensors alone.
        It then is the baseline, and is not trained.
    input
        Channels (1 gray, 3 RGB), height and width of the faces that it reads.
    normalisation
        What it standardises pixels by; otherwise every image is standardised by its own mean and deviation.
    classes
        What its outputs stand for, in its order: all seven emotions, under any name we know for them.  Other
        outputs, as contempt, are never the answer.
    FC, CL
        Its fully connected layers, and its last convolution: names of its modules, where their order does
        not tell.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # no unknown key in a configuration

    width: float = 1.0
    factory: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    weights: Path | None = None
    input: tuple[int, int, int] = (1, *INPUT)
    normalisation: Normalisation | None = None
    classes: tuple[str, ...] = ()
    FC: tuple[str, ...] = ()
    CL: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width}: it must lie above 0 and not above 4")
        if self.factory is None:
            own = [k for k in ("arguments", "normalisation", "FC", "CL") if getattr(self, k)]
            if own or self.input != (1, *INPUT):
                raise ValueError(
                    f"{(own or ['input'])[0]}: of the study's network none; name a factory"
                )
        else:
            module, colon, function = self.factory.partition(":")
            if not all((colon, *module.split("."), *function.split("."))):
                raise ValueError(f"factory {self.factory!r}: write package.module:function")
            if self.width != 1:
                raise ValueError("width: of the study's network only; give your factory arguments")
        channels, height, side = self.input
        if channels not in (1, 3) or height != side or side < 8:
            raise ValueError("input: channels (1 or 3), height, width; square, of 8 pixels or more")
        if how := self.normalisation:
            if {len(how.mean), len(how.deviation)} != {channels}:
                raise ValueError(
                    f"normalisation: a mean and deviation for each of {channels} channels"
                )
            if min(how.deviation) <= 0:
                raise ValueError("normalisation: every deviation must be above 0")
        try:
            json.dumps(dict(self.arguments))
        except TypeError:
            raise ValueError("arguments: only texts, numbers, lists and mappings of them") from None
        self._check_classes()

    def _check_classes(self) -> None:
        names = [SYNONYMS.get(name.strip().lower(), "") for name in self.classes]
        for name, ours in zip(self.classes, names, strict=True):
            if not ours:
                raise ValueError(f"classes: {name!r} is none of {', '.join(EMOTIONS)}")
            if ours and names.count(ours) > 1:
                raise ValueError(f"classes: {ours} stands there twice")
        if missing := [emotion for emotion in EMOTIONS if names and emotion not in names]:
            raise ValueError(f"classes: {', '.join(missing)} is missing; crossfer adapts all seven")

    @property
    def is_deployed(self) -> bool:
        """Whether it comes with weights: then it is the baseline."""
        return self.weights is not None

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.factory or "the study's network"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one prepared face: (H, W) gray or (H, W, 3) RGB."""
        channels, *size = self.input
        return tuple(size) if channels == 1 else (*size, channels)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the network before any training, its deployed weights aside."""
        if self.factory is None:
            built: dict[str, Any] = {"name": "study_cnn", "width": self.width}
        else:
            built = {"factory": self.factory, "arguments": dict(self.arguments)}
        told = self._conventions
        return built | {key: list(value) for key, value in vars(told).items() if value}

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of the file of its deployed weights."""
        return digest(self._weights_file)

    def build(self) -> nn.Module:
        """Build it, with whatever weights its factory gives it.

        Raises
        ------
        CrossferError
            If there is no such factory, or it fails.
        """
        if self.factory is None:
            return follow(study_cnn(self.width), self._conventions)
        try:
            model = self._function(**self.arguments)
        except Exception as error:
            raise CrossferError(f"model.factory: {self.name} failed: {one_line(error)}") from None
        if not isinstance(model, nn.Module):
            raise CrossferError(
                f"model.factory: {self.name} returns {type(model).__name__}, not a torch.nn.Module"
            )
        return follow(model, self._conventions)

    def deployed(self) -> nn.Module:
        """Build it with the weights that are deployed.

        Raises
        ------
        CrossferError
            If the file cannot be read safely, or holds the weights of another network.
        """
        model = self.build()
        tensors = _without_prefix(read_weights(self._weights_file), model.state_dict().keys())
        try:
            model.load_state_dict(tensors)
        except (RuntimeError, AttributeError, TypeError) as error:
            first, *more = str(error).splitlines()
            why = (more or [first])[0].strip()[:200]
            raise CrossferError(
                f"model.weights: {self._weights_file}: not of what {self.name} builds: {why}"
            ) from None
        return model

    def check(self, layers: Iterable[str], fabric: Fabric) -> None:
        """Try it before anything runs: building, its layers, its answers, a step back.

        Parameters
        ----------
        layers
            What is to be trained of it: keys of `crossfer.models.LAYERS`.
        fabric
            Where to try it; no random generator is changed.

        Raises
        ------
        CrossferError
            If something is wrong with it: the key of the configuration is named.
        """
        plain = replace(self, classes=())  # its own outputs, in its own order
        drawing = [fabric.device] if fabric.device.type == "cuda" else []
        with torch.random.fork_rng(drawing):
            model = plain.deployed() if self.is_deployed else plain.build()
            for name in layers:
                try:
                    LAYERS[name](model)
                except ValueError as error:
                    raise CrossferError(f"model: {name} trains no layer: {error}") from None
            try:
                trial = fabric.to_device(copy.deepcopy(model).requires_grad_(True))
                images = torch.randn(2, *self.input, device=fabric.device)
                with fabric.autocast():  # as it is measured, and as it is trained
                    measured, answers = trial.eval()(images), trial.train()(images)
                problem = self._problem(measured) or self._problem(answers)
                if not problem:
                    answers.float().logsumexp(1).sum().backward()
            except Exception as error:
                shape = "×".join(map(str, self.input))
                raise CrossferError(
                    f"model.input: {self.name} fails on faces of {shape}: {one_line(error)}"
                ) from None
        if problem:
            key = "weights" if self.is_deployed else "factory"
            raise CrossferError(f"model.{key}: {self.name} {problem}")

    def _problem(self, answers: Any) -> str | None:
        outputs = len(self.classes) or len(EMOTIONS)
        if not isinstance(answers, Tensor):
            return f"gives a {type(answers).__name__}: it must give a tensor of logits"
        if answers.shape != (2, outputs):
            shape = tuple(answers.shape)
            return (
                f"gives {shape} for two faces, not (2, {outputs}); model.classes names its outputs"
            )
        if not answers.requires_grad:
            return "gives answers that depend on none of its parameters"
        if not bool(answers.isfinite().all()):
            return "answers with NaN or infinity: a weight or a running statistic of it is damaged"
        sums = answers.float().sum(1)
        if bool((answers >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
            return "gives probabilities: it must give logits, what stands before the softmax"
        return None

    @property
    def _function(self) -> Any:
        assert self.factory is not None
        module, _, function = self.factory.partition(":")
        if self.folder and (place := str(self.folder.resolve())) not in sys.path:
            sys.path.append(place)
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
        return found

    @property
    def _weights_file(self) -> Path:
        assert self.weights is not None
        return (self.folder or Path()) / self.weights.expanduser()

    @property
    def _conventions(self) -> Conventions:
        order = [SYNONYMS.get(name.strip().lower()) for name in self.classes]
        outputs = tuple(order.index(emotion) for emotion in EMOTIONS) if order else ()
        how = self.normalisation
        return Conventions(
            mean=how.mean if how else (),
            deviation=how.deviation if how else (),
            outputs=() if list(outputs) == list(range(len(order))) else outputs,
            fully_connected=self.FC,
            last_convolution=self.CL,
        )


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a file of tensors; nothing in it is executed.

    Raises
    ------
    CrossferError
        If it is missing, damaged, or more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files, which are refused below
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CrossferError(f"model.weights: {file}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CrossferError(f"model.weights: {file}: cannot be read ({one_line(error)})") from None
    except Exception:  # whatever a file that holds more than tensors makes of the reader
        raise CrossferError(
            f"model.weights: {file}: not a file of tensors alone, and nothing else is loaded; write one "
            "with safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        ) from None
    for key in STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise CrossferError(
            f"model.weights: {file}: holds no state dictionary; "
            "write one with torch.save(model.state_dict(), …)"
        )
    return dict(content)


def _without_prefix(tensors: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Take away what wrappers put before every name, as far as the network has no such names itself."""
    wanted = set(wanted)
    for prefix in (p for _ in PREFIXES for p in PREFIXES):  # in whichever order they wrapped it
        if not tensors.keys() & wanted and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors

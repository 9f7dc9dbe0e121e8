"""A classifier: a network with its classes, preprocessing, framing and layers; saved as a bundle."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfer.classes import FER7
from crossfer.errors import CrossferError, one_line
from crossfer.files import digest, read_versioned, write_json
from crossfer.framing import Framing
from crossfer.networks.answers import find_logits
from crossfer.networks.layers import FOUND, LAYERS, NamedLayers, train_only
from crossfer.networks.onnx_files import copy_whole
from crossfer.networks.prediction import probabilities_of
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.sources import LIBRARIES, STUDY, Spec
from crossfer.networks.weights import save_tensors

CLASSIFIER_CARD, WEIGHTS = "classifier.json", "model.safetensors"
"""The files of a bundle: the description and the weights."""
FORMAT = 1
"""Format of ``classifier.json``; raised when it changes."""

AT_ONCE = 4096
"""Faces that are in memory together."""

NEVER = -1e4
"""The logit of a class without outputs, or not at choice: its probability is 0, and it makes no NaN."""


class Classifier(nn.Module):
    """A network with its classes, preprocessing, framing and named layers.

    Parameters
    ----------
    network
        Any module that maps float (N, C, H, W) to logits (N, outputs): a tensor, or one in a tuple, list,
        mapping or output object.
    classes
        The classes, in order.
    outputs
        For each class the indices of its network outputs, whose probabilities are summed; empty: the
        network lacks the class. By default one output per class, in order.
    preprocessing
        Preprocessing of the pixels.
    framing
        Position of the eyes in the image; by default that of `crossfer.prepare`.
    layers
        Names of the fully connected layers and the last convolution, if module order does not give them.
    spec
        How to build the network; needed to save the classifier.
    answers
        Number of network outputs; by default those in `outputs`.
    labels
        Maps labels to classes; by default every class is its own label.

    Raises
    ------
    ValueError
        If they do not fit together.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str] = FER7,
        outputs: Sequence[Sequence[int]] | None = None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008  (frozen)
        framing: Framing | None = None,
        layers: NamedLayers = FOUND,
        spec: Spec | None = None,
        answers: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(classes, str):
            raise ValueError(f"classes: {classes!r} is one name; list the classes in order")
        self.network = network
        self.classes = tuple(classes)
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: one is listed twice: {', '.join(self.classes)}")
        own = [[index] for index in range(len(classes))]
        self.outputs = tuple(map(tuple, own if outputs is None else outputs))
        if len(self.outputs) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes, but {len(self.outputs)} outputs")
        self.preprocessing = preprocessing
        self.framing = framing or Framing(preprocessing.side, preprocessing.channels)
        self.layers, self.spec = layers, spec
        said = [output for several in self.outputs for output in several]
        self.answers = max(said, default=-1) + 1 if answers is None else answers
        if beyond := [output for output in said if not 0 <= output < self.answers]:
            raise ValueError(f"outputs: {beyond[0]} is not one of {self.answers}, from 0")
        self.labels = dict(labels or {name: name for name in self.classes})
        if strangers := set(self.labels.values()) - set(self.classes):
            raise ValueError(
                f"labels: {min(strangers)} is not a class of {', '.join(self.classes)}"
            )

    def around(self, network: nn.Module) -> Classifier:
        """Return the same classifier around another network, e.g. a part of this one."""
        return Classifier(
            network,
            self.classes,
            self.outputs,
            self.preprocessing,
            self.framing,
            self.layers,
            self.spec,
            self.answers,
            self.labels,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of normalised images, float (N, C, H, W)."""
        return self.of_classes(find_logits(self.network(images), self.answers)[0])

    def of_classes(self, logits: Tensor) -> Tensor:
        """Return the logits of the classes, float (N, classes), from those of the outputs, (N, answers).

        For a class with several outputs it is their log-sum-exp, so that its probability is the sum of
        theirs, as a share of all outputs that belong to a class.

        Raises
        ------
        CrossferError
            If the network has another number of outputs.
        """
        if logits.shape[1:] != (self.answers,):
            raise CrossferError(
                f"the network returns {tuple(logits.shape)}, not (N, {self.answers}); name the class of "
                "every output"
            )
        if self.outputs == tuple((index,) for index in range(self.answers)):
            return logits
        return torch.stack([_joined(logits, outputs) for outputs in self.outputs], 1)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The classes without outputs, which are never predicted."""
        return tuple(
            name for name, outputs in zip(self.classes, self.outputs, strict=True) if not outputs
        )

    def layer_names(self, kind: str) -> list[str]:
        """Return the names of the network's layers for a key of `LAYERS`.

        Raises
        ------
        ValueError
            If the network has none.
        """
        return LAYERS[kind](self.network, self.layers)

    def train_only(self, kind: str) -> None:
        """Freeze all layers but those of a key of `LAYERS`."""
        train_only(self.network, self.layer_names(kind))

    def predict(
        self, pictures: NDArray[np.uint8] | Tensor, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of every class for every face.

        Parameters
        ----------
        pictures
            uint8 (N, H, W) gray or (N, H, W, 3) RGB: faces of the network's size in the framing `framing`, as
            `crossfer.prepare` makes them.
        batch_size
            Number of faces per batch, at least 1; by default as many as memory allows.  It changes only
            rounding.

        Returns
        -------
        numpy.ndarray
            float32 (N, classes), rows summing to 1.

        Raises
        ------
        CrossferError
            If their shape or type is wrong.
        """
        if batch_size is not None and batch_size < 1:
            raise CrossferError(f"batch_size: {batch_size}; it must be at least 1")
        given = pictures if isinstance(pictures, Tensor) else np.asarray(pictures)
        wanted, dtype = self.preprocessing.image_shape, str(given.dtype).removeprefix("torch.")
        if dtype != "uint8" or tuple(given.shape[1:]) != wanted:
            found, faces = ("×".join(map(str, shape)) for shape in (given.shape, wanted))
            raise CrossferError(
                f"pictures: {dtype} {found}; this classifier reads faces of uint8 N×{faces}"
            )
        found = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(given), AT_ONCE):  # of an array in a file, a part at a time
            part = given[start : start + AT_ONCE]
            if not isinstance(part, Tensor):
                part = torch.from_numpy(np.require(part, requirements=["C", "W"]))
            found.append(probabilities_of(self, part, self.preprocessing, batch_size).numpy())
        return np.concatenate(found)

    def save(self, folder: str | Path) -> Path:
        """Write a bundle: ``classifier.json``, and the weights under the network's own names.

        Parameters
        ----------
        folder
            Created if needed; an existing bundle is replaced.

        Returns
        -------
        Path
            The folder; `load` reads it.

        Raises
        ------
        CrossferError
            If the classifier has no `spec`, or one that builds another network.
        OSError
            If the disk is full or not writable.
        """
        folder = Path(folder)
        if self.spec is None:
            raise CrossferError(
                "this classifier cannot be saved; specify how its network is built, with "
                'Classifier(…, spec=Spec("package.module:function"))'
            )
        self._check_factory(self.spec)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLASSIFIER_CARD).unlink(
            missing_ok=True
        )  # written last: a folder that contains it is complete
        spec, files = self.spec, [WEIGHTS]
        if graph := spec.file:
            place = folder / f"network{graph.suffix}"
            if graph.resolve() != place.resolve():
                copy_whole(graph, place)
            spec, files = spec.of_file(place.name), [WEIGHTS, place.name]
        save_tensors(self.network.state_dict(), folder / WEIGHTS)
        content = {
            "format": FORMAT,
            "classes": list(self.classes),
            "labels": self.labels,
            "outputs": [list(outputs) for outputs in self.outputs],
            "answers": self.answers,
            "preprocessing": asdict(self.preprocessing),
            "framing": asdict(self.framing),
            "layers": asdict(self.layers),
            "network": spec.as_json(),
            "files": {name: digest(folder / name) for name in files},
        }
        write_json(folder / CLASSIFIER_CARD, {**content, "digest": _digest(content)})
        return folder

    @torch.no_grad()
    def _check_factory(self, spec: Spec) -> None:
        """Refuse a factory whose network is another one, so that `load` would return something else."""
        if spec.network == STUDY or spec.kind in LIBRARIES:
            return
        if spec.kind == "__main__":
            raise CrossferError(
                f"{spec.network}: is found in this script or notebook only; move the factory to a module, "
                'and name it in Spec("module:function")'
            )
        with torch.random.fork_rng([]):
            built = spec.build(bare=True).eval()
        try:
            built.load_state_dict(self.network.state_dict())
            one, other = copy.deepcopy(self.network).cpu().float().eval(), built.float()
            chance = torch.Generator().manual_seed(0)
            shown = torch.randn(2, *self.preprocessing.input_shape, generator=chance)
            said = [
                find_logits(network(shown), self.answers)[0].float() for network in (one, other)
            ]
        except Exception as error:
            raise CrossferError(
                f"{spec.name}: does not build this network ({one_line(error)}); correct spec="
            ) from None
        largest = float(said[0].nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(*said, rtol=1e-3, atol=1e-3 * largest, equal_nan=True):
            raise CrossferError(
                f"{spec.name}: builds a network that answers differently with the same weights; correct spec="
            )


def _joined(logits: Tensor, outputs: Sequence[int]) -> Tensor:
    """Return the logit of a class from its outputs, (N,)."""
    if not outputs:
        return torch.full_like(logits[:, 0], NEVER)
    if len(outputs) == 1:
        return logits[:, outputs[0]]
    return logits[:, list(outputs)].logsumexp(1)


class Card(NamedTuple):
    """The content of ``classifier.json``: SHA-256 of each file, how to build the network, and the rest."""

    files: dict[str, str]
    spec: Spec
    described: dict[str, Any]
    """Parameters of `Classifier`, by name."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The class of each output; empty for an output without a class."""
        names = [""] * int(self.described["answers"])
        pairs = zip(self.described["classes"], self.described["outputs"], strict=True)
        for name, outputs in pairs:
            for output in outputs:
                names[output] = name
        return tuple(names)


def read_card(folder: Path) -> Card:
    """Read the description of a bundle, without its weights.

    Raises
    ------
    CrossferError
        If the file is missing, damaged, altered or of another version.
    """
    file = folder / CLASSIFIER_CARD
    if not file.exists():
        raise CrossferError(
            f"{file}: no such file; name the folder of a bundle or of a finished run"
        )
    content = read_versioned(file, FORMAT, "save it again with this version")
    try:
        files = {name: str(content["files"][name]) for name in (WEIGHTS, *content["files"])}
        spec = Spec.from_json(content["network"], folder)
        described: dict[str, Any] = {
            "classes": tuple(map(str, content["classes"])),
            "outputs": tuple(tuple(map(int, outputs)) for outputs in content["outputs"]),
            "preprocessing": Preprocessing.from_json(content["preprocessing"]),
            "framing": Framing(**content["framing"]),
            "layers": NamedLayers(**{key: tuple(v) for key, v in content["layers"].items()}),
            "answers": int(content["answers"]),
            "labels": dict(content.get("labels") or {}),  # bundles from before 0.1 have no labels
        }
        card = Card(files, spec, described)
        Classifier(nn.Identity(), **described)  # refuses what does not fit together
        recorded = content.pop("digest")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CrossferError(f"{file}: damaged ({one_line(error)})") from None
    if _digest(content) != recorded:
        raise CrossferError(f"{file}: changed by hand; save the classifier again")
    return card


def load(folder: str | Path) -> Classifier:
    """Load a classifier: from a bundle, or from the folder of a finished run.

    Parameters
    ----------
    folder
        It contains ``classifier.json`` and ``model.safetensors``.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU.  No code is executed but the factory that the file names, if any.

    Raises
    ------
    CrossferError
        If a file is missing, altered, truncated or of another version, or its factory is not found.
    """
    folder = Path(folder)
    files, spec, described = read_card(folder)
    for name, recorded in files.items():
        _check_file(folder / name, recorded)
    with torch.random.fork_rng([]):  # its random weights are replaced
        classifier = Classifier(spec.build(bare=True), **described, spec=spec)
    try:
        classifier.network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CrossferError(
            f"{folder / WEIGHTS}: does not fit the network that {spec.name} builds "
            f"({one_line(error)})"
        ) from None
    return classifier.eval()


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_file(file: Path, recorded: str) -> None:
    try:
        found = digest(file)
    except OSError as error:
        raise CrossferError(f"{file}: cannot be read ({error.strerror})") from None
    if found != recorded:
        raise CrossferError(
            f"{file}: changed or truncated (SHA-256 differs from {CLASSIFIER_CARD})"
        )

"""Open any classifier: a folder, an ONNX file, or weights with a description."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from crossfer.classes import FER7, PRESETS, canonical
from crossfer.datasets.dataset import Dataset
from crossfer.deploy import load
from crossfer.deploy.engine import (
    EXPORT_CARD,
    Engine,
    Mirrored,
    OnnxEngine,
    is_exported,
    read_card,
    session,
)
from crossfer.deploy.pytorch import TorchEngine
from crossfer.errors import CrossferError
from crossfer.external_data import digest_of, files_of
from crossfer.framing import Framing
from crossfer.machine import threads_of
from crossfer.networks.classifier import WEIGHTS, Classifier
from crossfer.networks.config import NetworkConfig
from crossfer.networks.description import DESCRIPTIONS, read_beside, read_description
from crossfer.networks.onnx_files import RuntimeNetwork
from crossfer.networks.sources import ONNX, RUNTIME
from crossfer.validation import adapter, first_error


@dataclass(frozen=True)
class Model:
    """An opened classifier.

    Parameters
    ----------
    name
        The given path.
    kind
        The kind of file or folder.
    engine
        The inference engine.
    framing
        Framing of its faces; None if unknown.
    parameters
        Number of parameters; None if they cannot be counted.
    bytes
        Size of the file with its weights.
    described
        Its description; None for a folder.
    """

    name: str
    kind: str
    engine: Engine
    framing: Framing | None
    parameters: int | None
    bytes: int
    described: NetworkConfig | None = None

    @cached_property
    def pytorch(self) -> Classifier:
        """The classifier in PyTorch, which gives features and is exported; an ONNX file is converted.

        Raises
        ------
        CrossferError
            If it is exported, or cannot be converted.
        """
        if not isinstance(self.engine, TorchEngine):
            raise CrossferError(
                f"{self.name}: {self.kind}: has no PyTorch network; name the bundle or run that it was "
                "exported from"
            )
        if not isinstance(self.engine.classifier.network, RuntimeNetwork):
            return self.engine.classifier
        if self.described is None:
            raise CrossferError(
                f"{self.name}: runs in ONNX Runtime, so it has no PyTorch network; name its ONNX file with a "
                "description, or its PyTorch code and weights in a YAML file (network:, weights:)"
            )
        place = self.described.network.partition(":")[2]
        config = replace(self.described, network=f"{ONNX}:{place}")
        try:
            return config.deployed(config.expressions)
        except CrossferError as error:
            why, _, _ = str(error).partition("; ")  # without the advice to an experiment
            raise CrossferError(
                f"{self.name}: cannot be converted to PyTorch: {why}; name its PyTorch code and weights in "
                "a YAML file (network:, weights:)"
            ) from None

    @property
    def expect(self) -> float | None:
        """Its expected accuracy on the source's test set, a fraction; None if it is not described."""
        return self.described.expect if self.described else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes in order, in canonical spelling."""
        return tuple(map(canonical, self.engine.classes))

    @property
    def labels(self) -> dict[str, str]:
        """Maps labels of a dataset to classes; by default a preset's classes have its labels."""
        told = {canonical(label): canonical(name) for label, name in self.engine.labels.items()}
        if all(label == name for label, name in told.items()):
            for preset in PRESETS.values():
                if set(preset.names) == set(self.classes):
                    return dict(preset.members)
        return told

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a face: (side, side), or (side, side, 3) RGB."""
        return self.engine.framing.shape

    @property
    def mirrored(self) -> Model:
        """The same, but it averages the probabilities of each face and its mirror image."""
        return replace(self, name=f"{self.name} (mirror)", engine=Mirrored(self.engine))

    @property
    def notes(self) -> list[str]:
        """What is assumed where faces are cut out for it."""
        if self.framing is not None:
            return []
        assumed = self.engine.framing
        return [
            f"{self.name}: no framing is described, so faces are cut out with the eyes "
            f"{assumed.eye_distance:g} of the side apart and {assumed.eye_height:g} below the upper edge; "
            "add framing: {eye_distance: …, eye_height: …} to its description"
        ]

    def check(self, dataset: Dataset, more: str = "") -> None:
        """Refuse a dataset whose faces have another shape.

        Raises
        ------
        CrossferError
            If they have; `more` is appended to the advice.
        """
        dataset.check_shape(self.shape, self.name, more)

    def answers(self, dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) for rows of a dataset.

        Raises
        ------
        CrossferError
            If they are not finite numbers.
        """
        said = self.engine(np.asarray(dataset.images[rows]))
        if not np.isfinite(said).all():
            raise CrossferError(
                f"{self.name}: returns values that are not finite numbers on {dataset.name}; check "
                "its weights"
            )
        return said


def open_model(path: str | Path, threads: int = 1) -> Model:
    """Open any classifier.

    Parameters
    ----------
    path
        A run's folder; a bundle; the output of ``crossfer export``, or one of its ``.onnx`` files; any other
        ``.onnx`` file with a description of the same name beside it (``.yaml`` or ``.json``); or a
        description, with the keys of ``model:`` in an experiment.
    threads
        Number of threads per call of ONNX Runtime.

    Raises
    ------
    CrossferError
        If it is none of these, or its description does not fit.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, threads)
    if not path.is_file():
        raise CrossferError(
            f"{path}: no such file or folder; name a run, a bundle, an exported classifier, an "
            "ONNX file, or a YAML file that describes a network"
        )
    if path.suffix.lower() == ".onnx":
        return _onnx(path, threads)
    if path.suffix.lower() in DESCRIPTIONS:
        content = read_description(path)
        if "models" in content:
            raise CrossferError(f"{path}: describes an exported classifier; name its folder")
        return _described(path, content, threads)
    raise CrossferError(
        f"{path}: not a folder, ONNX or YAML file; for weights, name a YAML file with network:, "
        "weights:, classes: and normalisation:, as under model: in an experiment"
    )


def _folder(folder: Path, threads: int) -> Model:
    if is_exported(folder):
        return _exported(folder, "fp32", str(folder), threads)
    engine = load(folder).engine
    assert isinstance(engine, TorchEngine)
    return _torch(str(folder), "bundle", engine, engine.framing, (folder / WEIGHTS).stat().st_size)


def _exported(folder: Path, variant: str, name: str, threads: int) -> Model:
    engine = OnnxEngine(folder, variant, threads)
    file = folder / str(read_card(folder)["models"][variant]["file"])
    kind = f"exported classifier, {variant}"
    return Model(name, kind, engine, engine.framing, _count(file), _size(file))


def _onnx(file: Path, threads: int) -> Model:
    """Open an ONNX file with the description beside it."""
    inputs = session(file, threads).get_inputs()  # refuses a file that is not ONNX first
    if is_exported(file.parent):
        models: Mapping[str, Any] = read_card(file.parent)["models"]
        for variant, what in models.items():
            if what["file"] == file.name:
                return _exported(file.parent, variant, str(file), threads)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise CrossferError(
            f"{file}: has {len(inputs)} inputs ({names}); it must have exactly one, the faces"
        )
    description, content = read_beside(file)
    if content:
        return _described(description, content, threads, str(file))
    if inputs[0].type == "tensor(uint8)":
        raise CrossferError(
            f"{file}: the meaning of its outputs is unknown; write {EXPORT_CARD} beside it "
            "(docs/deploy.md)"
        )
    raise CrossferError(
        f"{file}: its classes and normalisation are unknown; write beside it {file.stem}.yaml: "
        "{classes: […], normalisation: {mean: […], deviation: […]}}"
    )


def _described(file: Path, content: dict[str, Any], threads: int, name: str = "") -> Model:
    """Open a network from the keys of ``model:`` in an experiment."""
    try:
        config: NetworkConfig = adapter(NetworkConfig).validate_python(content)
    except ValidationError as error:
        raise CrossferError(f"{file}: {first_error(error, NetworkConfig)}") from None
    if not config.is_deployed:
        raise CrossferError(
            f"{file}: weights: missing, and an untrained network cannot be compared; add weights:"
        )
    try:
        return _built(config, threads, name or str(file))
    except CrossferError as error:
        text = str(error)
        raise CrossferError(text if str(file.parent) in text else f"{file}: {text}") from None


def _built(described: NetworkConfig, threads: int, name: str) -> Model:
    kind, _, place = described.network.partition(":")
    config = described
    if kind == ONNX:
        config = replace(config, network=f"{RUNTIME}:{place}")  # which need not be trainable
    with threads_of(threads):
        classifier = config.deployed(config.expressions)
    onnx = config.spec(FER7).file
    weights = digest_of(onnx) if onnx else config.weights_digest
    identity = _identity(weights, classifier)
    engine = TorchEngine(classifier, identity, parallel=onnx is not None and threads == 1)
    if onnx:
        return Model(name, "ONNX file", engine, config.framed, _count(onnx), _size(onnx), described)
    if weights := config.weights_file:
        size = weights.stat().st_size
    else:
        size = sum(t.nbytes for t in classifier.network.state_dict().values())
    return replace(_torch(name, "weights", engine, config.framed, size), described=described)


def _identity(weights: str, classifier: Classifier) -> str:
    """Return a digest of all on which the answers of a described network depend."""
    said = (weights, classifier.classes, classifier.preprocessing, classifier.framing)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _torch(name: str, kind: str, engine: TorchEngine, framing: Framing | None, size: int) -> Model:
    numbers = sum(parameter.numel() for parameter in engine.classifier.parameters())
    return Model(name, kind, engine, framing, numbers, size)


def _size(file: Path) -> int:
    """Return the bytes of an ONNX file, with its weights in other files."""
    return sum(part.stat().st_size for part in files_of(file))


def _count(file: Path) -> int | None:
    """Return the number of parameters of an ONNX file; None if the package onnx is missing."""
    try:
        import onnx
    except ModuleNotFoundError:
        return None
    graph = onnx.load(str(file), load_external_data=False).graph
    return int(sum(np.prod(tensor.dims, dtype=np.int64) for tensor in graph.initializer))

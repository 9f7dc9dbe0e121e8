"""Open any classifier: a folder, an ONNX file, or weights with a description."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from crossfer.classes import FER7, PRESETS, canonical
from crossfer.datasets.dataset import Dataset
from crossfer.deploy import load
from crossfer.deploy.engine import (
    BATCH,
    CARD,
    Engine,
    Mirrored,
    OnnxEngine,
    is_exported,
    read_card,
    session,
)
from crossfer.deploy.pytorch import TorchEngine
from crossfer.errors import CrossferError, one_line
from crossfer.framing import Framing
from crossfer.networks.classifier import WEIGHTS
from crossfer.networks.onnx_files import digest_of, files_of, of_onnx
from crossfer.networks.preprocessing import Preprocessing, normalise
from crossfer.networks.spec import NetworkConfig
from crossfer.validation import adapter, first_error
from crossfer.yaml_files import read_yaml

DESCRIPTIONS = (".yaml", ".yml", ".json")
"""Suffixes of descriptions of weights."""


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
    """

    name: str
    kind: str
    engine: Engine
    framing: Framing | None
    parameters: int | None
    bytes: int

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

    def check(self, dataset: Dataset, more: str = "") -> None:
        """Refuse a dataset whose faces have another shape.

        Raises
        ------
        CrossferError
            If they have; `more` is appended to the advice.
        """
        if (given := dataset.images.shape[1:]) != self.shape:
            found, wanted = ("×".join(map(str, shape)) for shape in (given, self.shape))
            colour = " --colour" if len(self.shape) == 3 else ""
            raise CrossferError(
                f"{dataset.folder}: its faces are {found}, but {self.name} reads {wanted}; prepare "
                f"the pictures for it with --side {self.shape[0]}{colour}{more}"
            )

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


class OnnxNetwork:
    """An ONNX file in ONNX Runtime that maps normalised images to logits or probabilities.

    Parameters
    ----------
    file
        It must have one input, float (N, C, H, W); N may be fixed.
    classes
        Classes of its outputs.
    preprocessing
        Its preprocessing.
    threads
        Number of threads per call.

    Raises
    ------
    CrossferError
        If it fails on faces, or has another number of outputs.
    """

    def __init__(
        self, file: Path, classes: tuple[str, ...], preprocessing: Preprocessing, threads: int = 1
    ) -> None:
        self.classes = classes
        self.identity = _identity(digest_of(file), classes, preprocessing)
        self.labels = {name: name for name in classes}
        self.framing = Framing(preprocessing.side, preprocessing.channels)
        self._how, self._session = preprocessing, session(file, threads)
        (given,) = self._session.get_inputs()
        self._input = given.name
        self._fixed = given.shape[0] if isinstance(given.shape[0], int) else None
        self._last = given.shape[1] != preprocessing.channels == given.shape[-1]  # N×H×W×C
        faces = np.random.default_rng(0).integers(0, 256, (8, *self.framing.shape), np.uint8)
        try:
            answers = self._session.run(None, {self._input: self._given(faces[: self._fixed or 8])})
        except Exception as error:
            raise CrossferError(f"{file}: fails on faces: {one_line(error)}") from None
        fitting = [i for i, a in enumerate(answers) if a.ndim == 2 and a.shape[1] == len(classes)]
        if not fitting:
            shapes = ", ".join(str(answer.shape) for answer in answers)
            raise CrossferError(
                f"{file}: returns {shapes}, but {len(classes)} classes are named for its outputs; "
                "correct classes:"
            )
        self._answer = fitting[0]
        said = answers[self._answer]
        self._softmaxed = bool(said.min() >= 0 and np.allclose(said.sum(1), 1, atol=1e-3))

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes)."""
        at_once, found = self._fixed or BATCH, [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(faces), at_once):
            part = faces[start : start + at_once]
            images = self._given(part)
            found.append(self._session.run(None, {self._input: images})[self._answer][: len(part)])
        answers = np.concatenate(found).astype(np.float32)
        return answers if self._softmaxed else _softmax(answers)

    def _given(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        shown = normalise(torch.from_numpy(faces), self._how)
        shown = shown.permute(0, 2, 3, 1).contiguous() if self._last else shown
        images: NDArray[np.float32] = shown.numpy()
        if self._fixed and len(images) < self._fixed:
            images = np.resize(images, (self._fixed, *images.shape[1:]))
        return images


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
        return _described(path, _description(path), threads)
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
    size = file.stat().st_size
    return Model(
        name, f"exported classifier, {variant}", engine, engine.framing, _count(file), size
    )


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
    for suffix in DESCRIPTIONS:
        if (beside := file.with_suffix(suffix)).is_file():
            content = _description(beside)
            if content.setdefault("network", f"onnx:{file.name}") != f"onnx:{file.name}":
                raise CrossferError(f"{beside}: network: is not {file.name}; remove it")
            return _described(beside, content, threads, str(file))
    if inputs[0].type == "tensor(uint8)":
        raise CrossferError(
            f"{file}: the meaning of its outputs is unknown; write {CARD} beside it "
            "(docs/deploy.md)"
        )
    raise CrossferError(
        f"{file}: its classes and normalisation are unknown; write beside it {file.stem}.yaml: "
        "{classes: […], normalisation: {mean: […], deviation: […]}}"
    )


def _described(file: Path, content: dict[str, Any], threads: int, name: str = "") -> Model:
    """Open a network from the keys of ``model:`` in an experiment."""
    content["folder"] = file.parent / str(content.get("folder") or "")
    try:
        config: NetworkConfig = adapter(NetworkConfig).validate_python(content)
    except ValidationError as error:
        keys = [field.name for field in fields(NetworkConfig)]
        raise CrossferError(f"{file}: {first_error(error, known=keys)}") from None
    if not config.is_deployed:
        raise CrossferError(
            f"{file}: weights: missing, and an untrained network cannot be compared; add weights:"
        )
    try:
        return _built(config, threads, name or str(file))
    except CrossferError as error:
        text = str(error)
        raise CrossferError(text if str(file.parent) in text else f"{file}: {text}") from None


def _built(config: NetworkConfig, threads: int, name: str) -> Model:
    kind, _, place = config.network.partition(":")
    if kind == "onnx" and config.weights is None:
        onnx = (config.folder or Path()) / place
        of_onnx(onnx)  # reports an invalid file first
        network = OnnxNetwork(onnx, config.outputs, config.preprocessing, threads)
        size = sum(file.stat().st_size for file in files_of(onnx))
        return Model(name, "ONNX file", network, None, _count(onnx), size)
    classifier = config.deployed(config.outputs or FER7).eval()
    identity = _identity(config.weights_digest, classifier.classes, classifier.preprocessing)
    engine = TorchEngine(classifier, identity)
    if weights := config.weights_file:
        size = weights.stat().st_size
    else:
        size = sum(t.nbytes for t in classifier.network.state_dict().values())
    return _torch(name, "weights", engine, None, size)


def _identity(weights: str, classes: Sequence[str], preprocessing: Preprocessing) -> str:
    """Return a digest of all on which the answers of a described network depend."""
    return hashlib.sha256(repr((weights, tuple(classes), preprocessing)).encode()).hexdigest()


def _torch(name: str, kind: str, engine: TorchEngine, framing: Framing | None, size: int) -> Model:
    numbers = sum(parameter.numel() for parameter in engine.classifier.parameters())
    return Model(name, kind, engine, framing, numbers, size)


def _description(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise CrossferError(
            f"{file}: not a mapping; write the keys of model: in an experiment: network:, "
            "weights:, …"
        )
    if isinstance(content.get("model"), dict):
        raise CrossferError(f"{file}: write the keys of model:, without model: itself")
    return content


def _count(file: Path) -> int | None:
    """Return the number of parameters of an ONNX file; None if the package onnx is missing."""
    try:
        import onnx
    except ModuleNotFoundError:
        return None
    graph = onnx.load(str(file), load_external_data=False).graph
    return int(sum(np.prod(tensor.dims, dtype=np.int64) for tensor in graph.initializer))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)

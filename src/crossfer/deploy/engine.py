"""What answers: faces in, probabilities out, by ONNX Runtime or by PyTorch.

An *exported classifier* is a folder with ``model.onnx`` and ``model.json``.  The network in the former takes
faces as they are cut out, uint8 (N, side, side) gray or (N, side, side, 3) RGB, and gives probabilities
(N, classes); the latter names the classes and says how a face is cut out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossfer.classes import canonical
from crossfer.errors import CrossferError, one_line, unknown_key
from crossfer.external_data import digest_of
from crossfer.files import digest, read_versioned
from crossfer.framing import Framing

EXPORT_CARD = "model.json"
FORMAT = 1
KEYS = ("format", "classes", "labels", "framing", "input", "output", "models", "versions")
WEB_KEYS = ("name", "shown")
"""Keys of the file of an exported classifier, and those that its copy for a web page has, too."""
MODEL_KEYS = ("file", "sha256")
VARIANTS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
"""The files of an exported classifier, by how its numbers are stored."""

BATCH = 64
"""Faces that are answered at a time, at most: more would need memory and gain nothing."""
ROUNDING = 1e-2
"""By which probabilities may differ from a sum of one, in half precision or int8."""


class Engine(Protocol):
    """Anything that tells classes from faces; several threads may ask at once."""

    classes: tuple[str, ...]
    framing: Framing
    identity: str
    """What it answers depends on this and the faces alone."""

    @property
    def labels(self) -> Mapping[str, str]:
        """From a dataset's label to the class that it counts as."""

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) of faces uint8 (N, side, side) or (N, side, side, 3) RGB."""


class Mirrored:
    """Average the probabilities of each face and its mirror image: better, at twice the cost.

    Parameters
    ----------
    engine
        What classifies both.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.identity = engine, f"{engine.identity}, mirrored"
        self.classes, self.labels, self.framing = engine.classes, engine.labels, engine.framing

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes)."""
        mirrored = np.ascontiguousarray(faces[:, :, ::-1])
        answers = self.engine(faces) + self.engine(mirrored)
        return answers / np.float32(2)


class OnnxEngine:
    """An exported classifier in ONNX Runtime, on the CPU.

    Parameters
    ----------
    folder
        With ``model.json`` and ``model.onnx``.
    variant
        A key of `VARIANTS`.
    threads
        For one call; by default one, as `Predictor` asks from a thread on each core.

    Raises
    ------
    CrossferError
        If ONNX Runtime is not installed, the folder is of another version, its files are missing or
        altered, or the network is not one of faces and these classes.
    """

    def __init__(self, folder: Path, variant: str = "fp32", threads: int = 1) -> None:
        card = read_card(folder)
        models = card["models"]
        if variant not in models:
            raise CrossferError(
                f"{folder}: has no {variant} model, only {', '.join(models)}; export it again with "
                "that variant"
            )
        file = folder / str(models[variant]["file"])
        self.classes = tuple(card["classes"])
        self.labels = dict(card.get("labels") or {name: name for name in self.classes})
        self.framing = Framing(**card["framing"])
        with ThreadPoolExecutor(1) as pool:  # at once: each takes its time with a large file
            opened = pool.submit(session, file, threads)
            self.identity = _checked(file, models[variant].get("sha256"))
            self._session = opened.result()
        self._input = self._session.get_inputs()[0].name
        self._check(file)

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes)."""
        parts = [faces[start : start + BATCH] for start in range(0, len(faces), BATCH)]
        found = [self._session.run(None, {self._input: part})[0] for part in parts]
        return np.concatenate(found) if found else np.empty((0, len(self.classes)), np.float32)

    def _check(self, file: Path) -> None:
        """Refuse a network that takes or gives something else than the card says."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise CrossferError(
                f"{file}: has {len(inputs)} inputs ({names}); it must have exactly one, the faces"
            )
        if inputs[0].type != "tensor(uint8)":
            raise CrossferError(
                f"{file}: reads {inputs[0].type}, not tensor(uint8): its preprocessing must be inside; "
                "write it with `crossfer export`"
            )
        if inputs[0].shape[1:] == [self.framing.channels, self.framing.side, self.framing.side]:
            raise CrossferError(
                f"{file}: reads bytes as N×C×H×W; {EXPORT_CARD} is for N×H×W or N×H×W×3, so write it with "
                "`crossfer export`, or export it with float32 images and describe it in YAML"
            )
        try:
            answer = self(np.zeros((2, *self.framing.shape), np.uint8))
        except Exception as error:
            shape = "×".join(map(str, self.framing.shape))
            raise CrossferError(
                f"{file}: fails on two faces of {shape}: {one_line(error)}"
            ) from None
        if len(outputs) != 1 or answer.shape != (2, len(self.classes)):
            raise CrossferError(
                f"{file}: returns {answer.shape} for two faces, but {EXPORT_CARD} lists "
                f"{len(self.classes)} classes; correct one of them"
            )
        _check_probabilities(file, answer)


def _check_probabilities(file: Path, answer: NDArray[np.float32]) -> None:
    """Refuse what is no probability: logits without a softmax, or numbers that are none."""
    sums = answer.sum(1)
    if not (np.isfinite(answer).all() and (answer >= -ROUNDING).all()):
        raise CrossferError(
            f"{file}: returns {answer.min():g}, no probability; is its softmax missing?"
        )
    if np.abs(sums - 1).max() > ROUNDING:
        raise CrossferError(
            f"{file}: returns probabilities that sum to {sums[0]:g}, not 1; is its softmax missing?"
        )


def session(file: Path, threads: int = 1) -> Any:
    """Open a network in ONNX Runtime, on the CPU.

    Raises
    ------
    CrossferError
        If ONNX Runtime is not installed, or the file is no ONNX model that it can run.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise CrossferError("this needs ONNX Runtime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # It is a third of the opening, helps two to eight faces at a time, and slows one (docs/deploy.md).
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # what is wrong is raised
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CrossferError(
            f"{file}: not an ONNX model that ONNX Runtime can run ({one_line(error)[:120]})"
        ) from None


def is_exported(path: Path) -> bool:
    """Tell whether a folder holds an exported classifier."""
    return (path / EXPORT_CARD).is_file()


def read_card(folder: Path) -> dict[str, Any]:
    """Read what an exported classifier says of itself.

    Raises
    ------
    CrossferError
        If it is damaged or of another version.
    """
    file = folder / EXPORT_CARD
    card = read_versioned(file, FORMAT, "export it again")
    try:
        Framing(**card["framing"])
        names, labels = card["classes"], card.get("labels") or {}
        if not _is_texts(names) or len(set(names)) < 2:
            raise CrossferError("classes: a list of at least two different names is needed")
        known = list(map(canonical, names))
        if twice := [name for name in known if known.count(name) > 1]:
            raise CrossferError(f"classes: {twice[0]} is listed twice")
        if not (isinstance(labels, dict) and _is_texts([*labels.values()])):
            raise CrossferError("labels: a mapping of labels to classes is needed")
        if strangers := set(map(canonical, labels.values())) - set(known):
            raise CrossferError(f"labels: {min(strangers)} is none of the classes")
        card["models"]["fp32"]
        files = [model["file"] for model in card["models"].values()]
        if not _is_texts(files):
            raise CrossferError("models: each needs the name of its file")
        if beyond := [name for name in files if Path(name).root or ".." in Path(name).parts]:
            raise CrossferError(f"models: {beyond[0]} is not in this folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CrossferError(f"{file}: damaged ({one_line(error)}); export it again") from None
    _check_keys(file, card, (*KEYS, *WEB_KEYS))
    _check_keys(file, card["models"], [*VARIANTS], "models.")
    for variant, model in card["models"].items():
        _check_keys(file, model, MODEL_KEYS, f"models.{variant}.")
    return card


def _check_keys(file: Path, content: Mapping[str, Any], known: Sequence[str], at: str = "") -> None:
    for key in content:
        if key not in known:
            raise CrossferError(f"{file}: {at}{key}: {unknown_key(key, known)}")


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _checked(file: Path, expected: str | None) -> str:
    """Return what a network's answers depend on; refuse a file whose SHA-256 is not the one expected."""
    if not file.is_file():
        raise CrossferError(f"{file}: no such file; export it again")
    found = digest_of(file)
    if expected not in (None, found) and expected != digest(file):  # that of the file alone
        raise CrossferError(
            f"{file}: changed since it was exported (SHA-256 differs); export it again"
        )
    return found

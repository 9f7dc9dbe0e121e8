"""Export a classifier: one ONNX file that contains everything from a face to its probabilities.

The folder needs neither crossfer nor PyTorch: ``model.onnx`` (and its halved and quantised variants),
``model.json`` (classes, framing, files), ``README.md`` (a model card), ``examples.npz`` (drawn faces with
PyTorch's predictions) and ``test_model.py``, which compares them.

Networks are traced (PyTorch's TorchScript exporter): the control flow of exported networks does not depend on
values, the graph is small, and no further package is needed.  Every export is compared with PyTorch for
several batch sizes, and refused if it differs.
"""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfer.classes import ClassSet
from crossfer.datasets.dataset import Dataset
from crossfer.datasets.detector import Detector
from crossfer.datasets.faces import face_of
from crossfer.deploy.card import Accuracy, VariantCheck, model_card
from crossfer.deploy.checks import left_out
from crossfer.deploy.engine import BATCH, EXPORT_CARD, FORMAT, VARIANTS, OnnxEngine
from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.intervals import accuracy_interval
from crossfer.evaluation.metrics import decide
from crossfer.files import digest, place_folder, write_bytes, write_json
from crossfer.framing import Framing
from crossfer.networks.classifier import Classifier
from crossfer.networks.preprocessing import normalise
from crossfer.networks.sources import RUNTIME
from crossfer.processor import processor
from crossfer.provenance import versions
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_MUG

OPSET = 18
README, EXAMPLES, TEST = "README.md", "examples.npz", "test_model.py"
PEOPLE = 2
"""Number of drawn people, each with the seven expressions."""

LARGEST_DIFFERENCE = {"fp32": 1e-4}
"""Maximum difference of probabilities from PyTorch's."""
LEAST_EQUAL = {"fp32": 1.0, "fp16": 0.99, "int8": 0.95}
"""Minimum fraction of faces with the same prediction as PyTorch's."""

CALIBRATION = 512
"""Maximum number of validation faces for quantisation; more change the ranges little."""
RUNS = 50
"""Number of calls whose median is the latency."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Parameters
    ----------
    half
        Whether to export a variant with 16-bit weights.
    int8
        Whether to export a variant quantised to 8 bits.
    calibrate
        Prepared datasets, usually the source and the target, whose validation faces determine the range of
        each layer's values for quantisation.
    measure
        Prepared datasets on whose test faces every variant is measured.
    tested
        Known accuracies.
    data
        Cards of the datasets that it was trained or tested on.
    methods
        Further keywords of `crossfer.references` that its card cites.
    least_equal
        Minimum fraction (0–1) of faces on which a smaller variant must predict as PyTorch does; ``None``:
        `LEAST_EQUAL`.
    precision
        In which the known accuracies were computed, as `crossfer.machine.Machine.precision`; may be empty.
    """

    half: bool = False
    int8: bool = False
    calibrate: Sequence[Dataset] = ()
    measure: Sequence[Dataset] = ()
    tested: Sequence[Accuracy] = ()
    data: Sequence[Mapping[str, Any]] = ()
    methods: Collection[str] = ()
    least_equal: float | None = None
    precision: str = ""

    def __post_init__(self) -> None:
        if self.int8 and not self.calibrate:
            raise CrossferError(
                "--int8: needs --calibrate with prepared datasets, whose validation faces set "
                "each layer's range of values; name the source and the target"
            )
        if self.least_equal is not None and not 0 <= self.least_equal <= 1:
            raise CrossferError(f"--least-equal {self.least_equal:g}: must be between 0 and 1")

    @property
    def variants(self) -> list[str]:
        """Keys of `VARIANTS`."""
        return ["fp32", *(["fp16"] if self.half else []), *(["int8"] if self.int8 else [])]


def export(
    classifier: Classifier,
    out: str | Path,
    what: ExportOptions = ExportOptions(),  # noqa: B008
    origin: str = "",
) -> dict[str, VariantCheck]:
    """Export a classifier; nothing is written if a variant differs too much from PyTorch.

    Parameters
    ----------
    classifier
        The classifier; it is not modified.
    out
        The folder to create.
    what
        Options: variants, calibration, measurements.
    origin
        Origin of the classifier, for its card.

    Returns
    -------
    dict
        Measurements of each variant.

    Raises
    ------
    CrossferError
        If the folder is not empty, the faces of a dataset have another shape, the network cannot be traced,
        or a variant differs too much from PyTorch.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CrossferError(f"{out}: already exists; name another folder, or remove it")
    import onnx  # noqa: F401  (what writes the file needs it, at the end)

    for dataset in (*what.calibrate, *what.measure):
        dataset.check_shape(classifier.framing.shape, "the classifier")
    drawn = drawn_faces(classifier.framing)
    if classifier.spec and classifier.spec.kind == RUNTIME:
        raise CrossferError(
            f"{out.name}: not written: {classifier.spec.name} runs in ONNX Runtime, and only a network in "
            "PyTorch is exported; make a bundle with onnx:FILE instead"
        )
    calibration = [_some(dataset) for dataset in what.calibrate]
    faces = np.concatenate([drawn, *calibration])
    expected = classifier.predict(faces)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write_networks(classifier, beside, what, faces[len(drawn) :])
        models = {
            variant: {"file": VARIANTS[variant], "sha256": digest(beside / VARIANTS[variant])}
            for variant in what.variants
        }
        write_json(beside / EXPORT_CARD, _card(classifier, models))
        measured: dict[str, VariantCheck] = {}
        answered: dict[str, Any] = {"faces": drawn, "pytorch": expected[: len(drawn)]}
        for variant in what.variants:
            engine = OnnxEngine(beside, variant)
            answered[variant] = engine(drawn)
            parity = _parity(engine, faces, expected)
            _check_parity(variant, *parity, what.least_equal)
            measured[variant] = VariantCheck(
                *parity,
                faces=len(faces),
                bytes=(beside / VARIANTS[variant]).stat().st_size,
                milliseconds=_latency(engine, faces[:1]),
                accuracies=[_accuracy(engine, dataset) for dataset in what.measure],
            )
        np.savez(beside / EXAMPLES, **answered)
        shutil.copy(Path(__file__).with_name("portable") / TEST, beside / TEST)
        write_bytes(
            beside / README,
            model_card(
                out.name,
                classifier,
                measured,
                what.tested,
                [*what.data, *(dataset.card for dataset in (*what.calibrate, *what.measure))],
                origin,
                processor(),
                what.methods,
                what.precision,
            ).encode(),
        )
        place_folder(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return measured


class WholeFace(nn.Module):
    """A network from cropped faces to probabilities.

    Parameters
    ----------
    classifier
        It is copied to the CPU in evaluation mode, and not modified.
    half
        Whether its network uses 16 bits; preprocessing and softmax use 32.
    """

    def __init__(self, classifier: Classifier, half: bool = False) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier).cpu()
        self.precision = torch.float16 if half else torch.float32
        self.to(self.precision).eval()

    def forward(self, faces: Tensor) -> Tensor:
        """Return probabilities float32 (N, classes) of faces uint8 (N, H, W) or (N, H, W, 3) RGB."""
        images = normalise(faces, self.classifier.preprocessing).to(self.precision)
        logits: Tensor = self.classifier(images)
        return logits.float().softmax(1)


def drawn_faces(framing: Framing) -> NDArray[np.uint8]:
    """Draw people with every expression and crop their faces; always the same.

    Returns
    -------
    uint8 (N, side, side) or (N, side, side, 3)
    """
    detector = Detector()
    pictures = [portrait(LAB_MUG, who, label) for who in range(PEOPLE) for label in range(7)]
    return np.stack([face_of(p, None, framing, detector, 1.0).image for p in pictures])


def _write_networks(
    classifier: Classifier, folder: Path, what: ExportOptions, calibration: NDArray[np.uint8]
) -> None:
    plain = folder / VARIANTS["fp32"]
    _trace(WholeFace(classifier), classifier.framing, plain)
    if what.half:
        _trace(WholeFace(classifier, half=True), classifier.framing, folder / VARIANTS["fp16"])
    if what.int8:
        _quantise(plain, folder / VARIANTS["int8"], calibration)


def _trace(network: WholeFace, framing: Framing, file: Path) -> None:
    faces = torch.zeros(2, *framing.shape, dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _quiet():
            # Of a deprecated exporter, and of sizes taken as constants.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (faces,),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=["faces"],
                output_names=["probabilities"],
                dynamic_axes={"faces": {0: "n"}, "probabilities": {0: "n"}},
            )
    except Exception as error:
        raise CrossferError(f"the network cannot be written as ONNX: {one_line(error)}") from None


def _quantise(file: Path, out: Path, faces: NDArray[np.uint8]) -> None:
    """Quantise convolutions and matrix products: signed weights by channel, unsigned activations.

    Weights use 7 of 8 bits: processors without VNNI add products in 16 bits, which 8 would overflow.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(
                [faces[start : start + BATCH] for start in range(0, len(faces), BATCH)]
            )

        def get_next(self) -> dict[str, Any] | None:
            some = next(self.rest, None)
            return None if some is None else {"faces": some}

    simple = out.with_suffix(".simple")
    try:
        with _quiet():
            quant_pre_process(str(file), str(simple), skip_symbolic_shape=True)
            quantize_static(
                str(simple),
                str(out),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    except Exception as error:
        raise CrossferError(f"the network cannot be quantised: {one_line(error)}") from None
    finally:
        simple.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' log messages, and the graph that PyTorch's prints before an error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with patch.object(torch._C, "_jit_onnx_log", create=True):
            yield
    finally:
        logging.disable(before)


def _card(classifier: Classifier, models: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "classes": list(classifier.classes),
        "labels": dict(classifier.labels),
        "framing": vars(classifier.framing),
        "input": {"name": "faces", "type": "uint8", "shape": ["n", *classifier.framing.shape]},
        "output": {
            "name": "probabilities",
            "type": "float32",
            "shape": ["n", len(classifier.classes)],
        },
        "models": models,
        "versions": versions(),
    }


def _parity(
    engine: OnnxEngine, faces: NDArray[np.uint8], expected: NDArray[np.float32]
) -> tuple[float, float]:
    """Return the largest difference of probabilities and the fraction of equal predictions."""
    answers = engine(faces)
    alone = np.concatenate([engine(face[None]) for face in faces[:8]])
    difference = max(abs(answers - expected).max(), abs(alone - expected[: len(alone)]).max())
    equal = float((answers.argmax(1) == expected.argmax(1)).mean())
    return float(difference), equal


def _check_parity(variant: str, difference: float, equal: float, asked: float | None) -> None:
    if np.isnan(difference):
        raise CrossferError(
            f"{variant}: an answer is not a number; leave this variant out, or check the network's weights"
        )
    if difference > LARGEST_DIFFERENCE.get(variant, np.inf):
        raise CrossferError(
            f"{variant}: probabilities differ from PyTorch's by up to {difference:.2g}, more than "
            f"{LARGEST_DIFFERENCE[variant]:g}: this network cannot be exported by tracing"
        )
    least = LEAST_EQUAL[variant] if asked is None or variant == "fp32" else asked
    if equal < least:
        raise CrossferError(
            f"{variant}: agrees with PyTorch on {equal:.1%} of the faces, less than {least:.1%}; "
            "leave this variant out, or accept it with --least-equal"
        )


def _latency(engine: OnnxEngine, face: NDArray[np.uint8]) -> float:
    """Return the median milliseconds of one face in one thread."""
    seconds = []
    for _ in range(RUNS + 5):
        began = time.perf_counter()
        engine(face)
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds[5:]))


def _some(dataset: Dataset) -> NDArray[np.uint8]:
    """Return at most `CALIBRATION` validation faces, evenly spaced."""
    rows = dataset.with_own_classes().rows("validation")
    if not len(rows):
        raise CrossferError(
            f"{dataset.name}: has no validation faces for calibration; name another dataset"
        )
    return np.asarray(dataset.images[rows[:: -(-len(rows) // CALIBRATION)]])


def _accuracy(engine: OnnxEngine, dataset: Dataset) -> Accuracy:
    """Return the test accuracy among the classes of the dataset, with its interval."""
    dataset = dataset.with_classes(ClassSet(engine.classes, engine.labels))
    rows = dataset.rows("test")
    if not len(rows):
        raise CrossferError(
            f"{dataset.name}: has no test face of the classes {', '.join(engine.classes)}; name "
            "another dataset"
        )
    decisions = decide(engine(np.asarray(dataset.images[rows])), dataset.classes)
    right = decisions == dataset.labels[rows]
    low, high = accuracy_interval(right[None], dataset.people(rows))
    value = 100 * float(right.mean())
    return Accuracy(dataset.title, len(rows), value, (low, high), left_out(dataset, "test"))

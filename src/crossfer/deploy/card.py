"""The model card of an exported classifier, as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from crossfer.datasets.citing import keywords_of
from crossfer.deploy.engine import VARIANTS
from crossfer.networks.classifier import Classifier
from crossfer.networks.experts import Experts
from crossfer.provenance import versions
from crossfer.references import bibtex
from crossfer.templates import environment

ARITHMETIC = {"32-true": " in single precision", "bf16-mixed": " in bfloat16"}
"""How a card names a precision."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a classifier on a test set.

    Parameters
    ----------
    dataset
        Name of the dataset.
    images
        Number of images.
    value
        Accuracy in per cent, among the classes of the dataset.
    interval
        95 %, in per cent; by subjects where they are known.
    left_out
        Number of test images whose label is none of the classifier's classes, by label.
    """

    dataset: str
    images: int
    value: float
    interval: tuple[float, float]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantCheck:
    """Measurements of a variant.

    Parameters
    ----------
    difference
        Largest difference of a probability from PyTorch's.
    equal
        Fraction (0–1) of faces with the same prediction as PyTorch's.
    faces
        Number of faces for these two.
    bytes
        Size of its file.
    milliseconds
        Median latency of one face in one thread.
    accuracies
        Accuracies on test sets.
    """

    difference: float
    equal: float
    faces: int
    bytes: int
    milliseconds: float
    accuracies: Sequence[Accuracy] = ()


def model_card(
    name: str,
    classifier: Classifier,
    measured: Mapping[str, VariantCheck],
    tested: Sequence[Accuracy],
    datasets: Sequence[Mapping[str, Any]],
    origin: str,
    processor: str,
    methods: Collection[str] = (),
    precision: str = "",
) -> str:
    """Return the text of ``README.md``.

    Parameters
    ----------
    name
        Name of the model.
    classifier
        The exported classifier.
    measured
        Measurements of each variant.
    tested
        Accuracies measured before the export.
    datasets
        Cards of the datasets of training, calibration and measurement.
    origin
        Origin of the classifier; may be empty.
    processor
        Processor of the latency measurements.
    methods
        Keywords of `crossfer.references` for the strategies and methods used.
    precision
        In which the accuracies before the export were computed, as `Machine.precision`; may be empty.
    """
    of_data = (keywords_of(card["citation"], card["stand_in"], card["faces"]) for card in datasets)
    template = environment("crossfer.deploy", escape=False).get_template("card.md.j2")
    return template.render(
        header=_header(name, classifier, measured["fp32"].accuracies or tested),
        classes=[_with_labels(classifier, name) for name in classifier.classes],
        framing=classifier.framing,
        preprocessing=str(classifier.preprocessing),
        measured=measured,
        files=VARIANTS,
        tested=tested,
        arithmetic=ARITHMETIC.get(precision, ""),
        datasets={card["fingerprint"]: card for card in datasets}.values(),
        origin=origin,
        mixture=isinstance(classifier.network, Experts),
        processor=processor,
        bibtex=bibtex({*methods}.union(*of_data)),
        versions=versions(),
    )


def _with_labels(classifier: Classifier, name: str) -> str:
    """Return a class, followed by its labels if they differ from its name."""
    labels = [label for label, own in classifier.labels.items() if own == name]
    return name if labels == [name] else f"{name} ({', '.join(labels)})"


def _header(name: str, classifier: Classifier, accuracies: Sequence[Accuracy]) -> str:
    """Return the YAML that Hugging Face reads."""
    header: dict[str, Any] = {
        "license": "other",
        "license_name": "as-its-training-data",
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["facial-expression-recognition", "onnxruntime", "crossfer"],
    }
    if base := _base_model(classifier):
        header["base_model"] = base
    if accuracies:
        header["model-index"] = [{"name": name, "results": list(map(_result, accuracies))}]
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip()


def _base_model(classifier: Classifier) -> str | None:
    """Return the network's name on Hugging Face, if it is one from there."""
    source = str(getattr(classifier.spec, "network", ""))
    kind, _, name = source.partition(":")
    if kind == "timm" and name:
        return f"timm/{name.removeprefix('hf_hub:').removeprefix('timm/')}"
    return name if kind == "transformers" and name.count("/") == 1 and name[0] not in "./" else None


def _result(accuracy: Accuracy) -> dict[str, Any]:
    low, high = accuracy.interval
    return {
        "task": {"type": "image-classification", "name": "Facial expression recognition"},
        "dataset": {"name": accuracy.dataset, "type": "custom", "split": "test"},
        "metrics": [
            {
                "type": "accuracy",
                "value": round(accuracy.value / 100, 4),
                "name": f"accuracy, 95 % interval {low:.1f}–{high:.1f} %, {accuracy.images:,} images",
            }
        ],
    }

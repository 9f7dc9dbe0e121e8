"""The model card of an exported classifier, as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import yaml

from crossfer.datasets.citing import keywords_of
from crossfer.deploy.engine import VARIANTS
from crossfer.networks.classifier import Classifier
from crossfer.provenance import versions
from crossfer.references import bibtex


@dataclass(frozen=True)
class Accuracy:
    """How often a classifier is right on a test set.

    Parameters
    ----------
    dataset
        Its name.
    images
        How many.
    value
        Per cent, among the classes that the dataset has.
    interval
        95 %, in per cent; by subjects where they are known.
    """

    dataset: str
    images: int
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """What was measured of a variant.

    Parameters
    ----------
    difference
        Largest difference of a probability from PyTorch's.
    equal
        Share (0–1) of faces with the same answer as PyTorch's.
    faces
        How many these two are of.
    bytes
        Of its file.
    milliseconds
        Of one face in one thread: the median.
    accuracies
        On test sets.
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
    measured: Mapping[str, Measured],
    tested: Sequence[Accuracy],
    datasets: Sequence[Mapping[str, Any]],
    origin: str,
    processor: str,
    methods: Collection[str] = (),
) -> str:
    """Return the text of ``README.md``.

    Parameters
    ----------
    name
        What the model is called.
    classifier
        What was exported.
    measured
        By variant.
    tested
        What was measured before it was exported.
    datasets
        Cards of what it was trained, calibrated or measured on.
    origin
        Where the classifier comes from; may be empty.
    processor
        What latencies were measured on.
    methods
        Keywords of `crossfer.references`: the strategies and methods that made it.
    """
    of_data = (keywords_of(card["citation"], card["stand_in"], card["faces"]) for card in datasets)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crossfer", "deploy"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown
    )
    return environment.get_template("card.md.j2").render(
        header=_header(name, classifier, measured["fp32"].accuracies or tested),
        classes=[_with_labels(classifier, name) for name in classifier.classes],
        framing=classifier.framing,
        preprocessing=str(classifier.preprocessing),
        measured=measured,
        files=VARIANTS,
        tested=tested,
        datasets={card["fingerprint"]: card for card in datasets}.values(),
        origin=origin,
        processor=processor,
        bibtex=bibtex({*methods}.union(*of_data)),
        versions=versions(),
    )


def _with_labels(classifier: Classifier, name: str) -> str:
    """Return a class with the labels that count as it, where they are others than its own name."""
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
    """Return the name of the network on Hugging Face that it was trained from, where it is one."""
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

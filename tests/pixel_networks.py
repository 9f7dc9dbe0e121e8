"""Networks that answer what a pixel of the picture says: so a test decides what every answer is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from crossfer.deploy.export import WholeFace
from crossfer.networks import Classifier, Preprocessing, Spec
from tests.tiny_onnx import write_card

STEP = 10
"""Between the pixel values of two answers."""

PLAIN = Preprocessing(mean=(0.0,), deviation=(1.0,), white=255.0)
"""The network is given pixels as they are."""


class Says(nn.Module):
    """Gives logits for class k that are largest where the pixel (0, column) is k times `STEP`."""

    def __init__(self, column: int = 0, classes: int = 4) -> None:
        super().__init__()
        self.column = column
        self.centres = nn.Parameter(torch.arange(classes, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        said = images[:, :1, 0, self.column] / STEP
        return -((said - self.centres) ** 2)


def says(**arguments: int) -> nn.Module:
    """Build it: a factory."""
    return Says(**arguments)


def classifier(
    classes: tuple[str, ...], labels: Mapping[str, str] | None = None, **arguments: int
) -> Classifier:
    """Return it as a classifier."""
    arguments = {"classes": len(classes), **arguments}
    spec = Spec("tests.pixel_networks:says", arguments)
    network = says(**arguments)
    return Classifier(network, classes, preprocessing=PLAIN, spec=spec, labels=labels).eval()


def exported(folder: Path, classes: tuple[str, ...], **arguments: int) -> Path:
    """Write it as ``crossfer export`` would: bytes in, probabilities out."""
    folder.mkdir(parents=True, exist_ok=True)
    faces = torch.zeros(2, 48, 48, dtype=torch.uint8)
    _trace(WholeFace(classifier(classes, None, **arguments)), faces, folder / "model.onnx")
    return write_card(folder, classes=classes)


def onnx_file(file: Path, classes: int, **arguments: int) -> Path:
    """Write it as anybody would: normalised images in, logits out."""
    images = torch.zeros(2, 1, 48, 48)
    _trace(says(classes=classes, **arguments).eval(), images, file)
    return file


def _trace(network: nn.Module, given: Tensor, file: Path) -> None:
    axes = {"given": {0: "n"}, "answers": {0: "n"}}
    torch.onnx.export(
        network, (given,), str(file), dynamo=False, opset_version=18, input_names=["given"],
        output_names=["answers"], dynamic_axes=axes,
    )  # fmt: skip

"""A classifier in use: on pictures and videos, and exported to run without PyTorch or crossfer.

Nothing here is about experiments; `load`, `Predictor` and all they need run without PyTorch, too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from crossfer.deploy.engine import OnnxEngine, is_exported
from crossfer.errors import CrossferError
from crossfer.files import digest

if TYPE_CHECKING:
    from crossfer.deploy.predictor import Predictor

BUNDLE = "classifier.json"
"""What `crossfer.networks` knows a bundle by; it is not asked, since it needs PyTorch."""

__all__ = ["load"]


def load(
    folder: str | Path, variant: str = "fp32", smallest: float = 0.1, mirror: bool = False
) -> Predictor:
    """Load a classifier for inference.

    Parameters
    ----------
    folder
        An exported classifier (needs no PyTorch), a bundle or a run's folder (need PyTorch).
    variant
        Of an exported classifier: ``fp32``, ``fp16`` or ``int8``.
    smallest
        Side of the smallest face to detect, see `crossfer.datasets.detector.Detector`.
    mirror
        Whether to average the probabilities of each face and its mirror image.

    Returns
    -------
    Predictor
        Of a bundle or a run, its ``classifier`` is the `crossfer.networks.Classifier`.

    Raises
    ------
    CrossferError
        If the folder has no classifier, or one of another version, or its files were changed.
    """
    folder = Path(folder)
    if folder.suffix == ".onnx" and folder.is_file():
        raise CrossferError(
            f"{folder}: has no description of its classes and normalisation; make a bundle of it: "
            f"NetworkConfig('onnxruntime:{folder}', classes=…, "
            "normalisation=…).deployed(CLASSES).save(FOLDER)"
        )
    if not folder.is_dir():
        raise CrossferError(
            f"{folder}: no such folder; name what `crossfer export` wrote, a bundle or a run"
        )
    if is_exported(folder):
        # At the same time: opening a large network takes as long as importing OpenCV.
        with ThreadPoolExecutor(1) as pool:
            engine = pool.submit(OnnxEngine, folder, variant)
            from crossfer.deploy.predictor import Predictor
        return Predictor(engine.result(), smallest, mirror)
    if variant != "fp32":
        raise CrossferError(f"{folder}: not an exported classifier, so it has no {variant} variant")
    if not (card := folder / BUNDLE).is_file():
        raise CrossferError(
            f"{folder}: contains no classifier; name what `crossfer export` wrote, a bundle or a "
            "finished run"
        )
    from crossfer.deploy.predictor import Predictor
    from crossfer.deploy.pytorch import TorchEngine
    from crossfer.networks.classifier import load as load_classifier

    return Predictor(TorchEngine(load_classifier(folder), digest(card)), smallest, mirror)

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
from crossfer.framing import SMALLEST

if TYPE_CHECKING:
    from crossfer.deploy.predictor import Predictor

CLASSIFIER_CARD = "classifier.json"
"""What `crossfer.networks` knows a bundle by; it is not asked, since it needs PyTorch."""

__all__ = ["load"]


def load(
    folder: str | Path, variant: str = "fp32", smallest: float = SMALLEST, mirror: bool = False
) -> Predictor:
    """Load a classifier for inference.

    Parameters
    ----------
    folder
        The folder of an exported classifier (needs no PyTorch), of a bundle or of a run; or a file that
        `crossfer compare` reads, such as an ONNX file with a description beside it (need PyTorch).
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
    if variant != "fp32" and not is_exported(folder):
        raise CrossferError(f"{folder}: not an exported classifier, so it has no {variant} variant")
    if folder.is_file():
        from crossfer.deploy.checks import unchecked
        from crossfer.deploy.models import open_model
        from crossfer.deploy.predictor import Predictor

        model = open_model(folder)
        return Predictor(model.engine, smallest, mirror, model.notes, unchecked(model))
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
    if not (card := folder / CLASSIFIER_CARD).is_file():
        raise CrossferError(
            f"{folder}: contains no classifier; name what `crossfer export` wrote, a bundle or a "
            "finished run"
        )
    from crossfer.deploy.predictor import Predictor
    from crossfer.deploy.pytorch import TorchEngine
    from crossfer.networks.classifier import load as load_classifier

    return Predictor(TorchEngine(load_classifier(folder), digest(card)), smallest, mirror)

"""Test an exported model: compare its answers with those recorded at export.

    python test_model.py

Needs NumPy and ONNX Runtime alone.  (pytest finds it, too.)  Errors are raised, since ``python -O``
leaves out assert statements.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent
MOST = {"fp32": 1e-3, "fp16": 2e-2, "int8": 2e-2}
"""Largest difference of a probability that is no sign of a mistake: processors round differently."""


def test_model() -> None:
    """Compare every variant's answers on the drawn faces with those that it gave where it was exported."""
    card = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
    examples = np.load(HERE / "examples.npz")
    faces, pytorch = examples["faces"], examples["pytorch"]
    for variant, model in card["models"].items():
        file = HERE / model["file"]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != model["sha256"]:
            raise AssertionError(f"{file.name} was changed since it was exported")
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (answers,) = session.run(None, {card["input"]["name"]: faces})
        difference = float(abs(answers - examples[variant]).max())
        equal = float((answers.argmax(1) == pytorch.argmax(1)).mean())
        print(
            f"{variant}: probabilities differ by up to {difference:.2g} from those where it was exported; "
            f"{equal:.0%} of the answers on {len(faces)} drawn faces are PyTorch's (on more faces: README.md)"
        )
        if not difference <= MOST[variant]:  # which NaN is not, either
            raise AssertionError(f"{file.name} answers differently here")


if __name__ == "__main__":
    test_model()
    print("passed")

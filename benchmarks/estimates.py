"""How far estimates without labels are off: the table of docs/assess.md.

    crossfer run assess.yaml --data data --out runs/assess     # strategies: [BL]
    python benchmarks/estimates.py runs/assess/runs/BL-KEY --source data/fer2013 --also data/ck48

The new faces are every second test face of the source, unchanged and altered, and all of other datasets.
What calibrates the estimates is the source's validation set.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer import in_memory, prepare
from crossfer.datasets import Dataset, Preparation, open_dataset
from crossfer.deploy.assess import assess, of_source
from crossfer.deploy.compare import class_set_of
from crossfer.deploy.models import open_model
from crossfer.evaluation.assessing import Assessed
from shifts import blurred, noisy

Faces = NDArray[np.uint8]


def rotated(faces: Faces, rng: np.random.Generator) -> Faces:
    """Turn faces (N, 48, 48) by 20 degrees."""
    turn = cv2.getRotationMatrix2D((23.5, 23.5), 20, 1)
    warp = partial(cv2.warpAffine, M=turn, dsize=(48, 48), borderMode=cv2.BORDER_REFLECT)
    return np.stack([warp(face) for face in faces]).astype(np.uint8)


def small(faces: Faces, rng: np.random.Generator) -> Faces:
    """Reduce faces (N, 48, 48) to 16×16 pixels, and enlarge them again."""
    reduced = (cv2.resize(face, (16, 16), interpolation=cv2.INTER_AREA) for face in faces)
    return np.stack([cv2.resize(face, (48, 48)) for face in reduced])


def covered(faces: Faces, rng: np.random.Generator) -> Faces:
    """Cover the lower third of faces (N, 48, 48), where the mouth is, with gray."""
    masked = faces.copy()
    masked[:, 32:] = 128
    return masked


ALTERED: dict[str, Callable[[Faces, np.random.Generator], Faces]] = {
    "unchanged": lambda faces, rng: faces,
    "rotated by 20°": rotated,
    "noise (deviation 25)": noisy,
    "16×16 pixels, enlarged": small,
    "lower third covered": covered,
    "blur (σ 1.5), 60 % contrast, noise (12)": blurred,
}


def altered(source: Dataset, out: Path) -> dict[str, Dataset]:
    """Prepare every second test face of the source, altered in each way."""
    rows = source.rows("test")[::2]
    faces, names = np.asarray(source.images[rows]), source.card["classes"]
    labels = [names[label] for label in source.with_own_classes().labels[rows]]
    found = {}
    for number, (name, alter) in enumerate(ALTERED.items()):
        changed = alter(faces, np.random.default_rng(number))
        raw = in_memory((changed, labels), name=str(number))
        found[name] = prepare(raw, out / str(number), Preparation(faces="cropped"))
    return found


def row(name: str, found: Assessed) -> str:
    """Write an assessment as a row of the table."""
    assert found.truth and found.features
    cells = [name, f"{found.images:,}", f"{found.truth.accuracy:.1f}"]
    for estimate in found.estimates:
        low, high = estimate.interval
        cells.append(f"{estimate.accuracy:.1f} ({low:.1f}–{high:.1f})")
        cells.append(f"{estimate.accuracy - found.truth.accuracy:+.1f}".replace("-", "−"))
    low, high = found.features.interval
    cells.append(f"{found.features.deviations:.2f} ({low:.2f}–{high:.2f})")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--also", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    model, source = open_model(arguments.model), open_dataset(arguments.source)
    classes = class_set_of(model.classes, {}, model)
    known = of_source(model, source, classes)
    print(f"validation faces: {known.answers.answered.sum():,}")
    print("| Faces | n | True | ATC | Error | DoC | Error | Drift of features |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        targets = altered(source, Path(folder))
        targets |= {str(path): open_dataset(path) for path in arguments.also}
        for name, target in targets.items():
            print(row(name, assess(model, target, known, classes)), flush=True)


if __name__ == "__main__":
    main()

"""Suggest which faces are of one person, for confirmation by a person.

Faces become vectors, and are grouped by average linkage (Sokal and Michener, 1958): the two groups of the
smallest mean distance are joined until none is below a threshold.  What was said stands: faces of one name
are one group from the start, and two names, or a face and somebody it is said not to be, are never joined.

A vector is how the face looks, aligned on its eyes: histograms of oriented gradients (Dalal and Triggs,
2005), which tell people of one sitting well, and sittings as well as people.  Where the extra ``people`` is
installed, the 128 numbers of dlib's face recognition network are put beside them (King, Dlib-ml, 2009; the
network is in the public domain): it was trained to know people again in other light and other years.  How
good the suggestions are is measured in ``docs/label.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.faces import align
from crossfer.datasets.pictures import open_picture
from crossfer.datasets.record import Pixels
from crossfer.files import alone, write_bytes
from crossfer.framing import Framing
from crossfer.labelling.gallery import SHOWN

Vector = NDArray[np.float64]

CHIP = Framing(side=150, channels=3, eye_distance=0.3503, eye_height=0.3142)
"""How dlib's network was shown faces: the mean shape of ``get_face_chip_details`` with a padding of 0.25."""
NETWORK = "models/dlib_face_recognition_resnet_model_v1.dat"
SMALL = Framing(side=48, channels=1, eye_distance=0.42, eye_height=0.42)
CELL, ORIENTATIONS = 8, 9
"""Of the histograms: pixels on a cell's side, and directions without sign."""
LEAST_NORM = 10.0
"""Gradients of a cell that are weaker than this are noise."""
APPEARANCE, IDENTITY = 0.55, 0.45
"""Distances of histograms, and of the network's numbers, from which on two faces are rather of two people."""
ALONE, BOTH = 1.0, 1.05
"""Mean distances, in these units, below which groups are joined: by appearance alone, by both."""
CROPPED_EYES = (0.42, 0.42)
"""Where the eyes of faces that were cropped by others are taken to be: distance and height."""


@dataclass(frozen=True)
class PersonGroup:
    """Faces that are, or may be, of one person.

    Parameters
    ----------
    name
        Who it is; ``None`` for a suggestion.
    faces
        Their ids: those that were named first, then those suggested.
    named
        How many of them were named.
    """

    name: str | None
    faces: list[str]
    named: int


class Describer:
    """Turns faces into vectors, and keeps them beside their pictures.

    Parameters
    ----------
    kind
        Part of a file's name.
    means
        For people: by what faces are grouped.
    threshold
        Mean distance below which two groups are joined.
    describe
        From uint8 (256, 256, 3) RGB, as `SHOWN`, to a vector.
    """

    def __init__(
        self, kind: str, means: str, threshold: float, describe: Callable[[Pixels], Vector]
    ) -> None:
        self.means, self.threshold = means, threshold
        self._kind, self._describe = kind, describe
        self._vectors: dict[str, Vector] = {}

    def knows(self, face: str) -> bool:
        """Tell whether a face was looked at."""
        return face in self._vectors

    def look(self, face: str, picture: Path) -> None:
        """Describe a face.

        Parameters
        ----------
        face
            Its id.
        picture
            Its PNG file.
        """
        kept = picture.with_suffix(f".{self._kind}.npy")
        try:
            vector = np.load(kept, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            vector = self._describe(open_picture(picture))
            content = BytesIO()
            np.save(content, vector)
            with alone(kept.parent / "lock", lambda who: None):  # of other annotators
                write_bytes(kept, content.getvalue())
        self._vectors[face] = vector

    def vector(self, face: str) -> Vector:
        """Return what describes a face that was looked at."""
        return self._vectors[face]


def describer(cropped: bool = False) -> Describer:
    """Return the best that is installed.

    Parameters
    ----------
    cropped
        Whether the photos are faces already, whose eyes nobody looked for.
    """
    eyes = CROPPED_EYES if cropped else (SHOWN.eye_distance, SHOWN.eye_height)

    def appearance(picture: Pixels) -> Vector:
        return gradients(_framed(picture, SMALL, eyes)) / APPEARANCE

    if (network := _network()) is None:
        means = (
            "overall appearance, including light and hair (more reliable: pip install "
            "'crossfer[people]')"
        )
        return Describer("look", means, ALONE, appearance)

    def both(picture: Pixels) -> Vector:
        numbers = network.compute_face_descriptor(_framed(picture, CHIP, eyes))
        identity = np.array(numbers, np.float64) / IDENTITY
        return np.asarray(np.concatenate([identity, appearance(picture)]) / np.sqrt(2))

    return Describer("both", "overall appearance and dlib's face recognition network", BOTH, both)


def _network() -> Any | None:
    """Return dlib's network, ``None`` where it is not installed."""
    models = find_spec("face_recognition_models")  # only its files: it need not run
    if models is None or find_spec("dlib") is None or not models.origin:
        return None
    import dlib

    return dlib.face_recognition_model_v1(str(Path(models.origin).parent / NETWORK))


def _framed(picture: Pixels, framing: Framing, eyes: tuple[float, float]) -> Pixels:
    """Show a face in another framing.

    Parameters
    ----------
    picture
        uint8 (side, side, 3).
    framing
        How to show it.
    eyes
        Where its eyes are: distance and height, as shares of the side.
    """
    side = picture.shape[0]
    distance, height = eyes
    left, right = ((side * (0.5 + way * distance / 2), side * height) for way in (-1, 1))
    return align(picture, left, right, framing)[0]


def gradients(face: NDArray[np.uint8]) -> Vector:
    """Describe a face by histograms of oriented gradients, a cell each normalised by itself.

    Parameters
    ----------
    face
        uint8 (48, 48).

    Returns
    -------
    float64 (324,)
        Of norm 1.
    """
    down, across = np.gradient(face.astype(np.float64))
    strength = np.hypot(across, down)
    way = (np.arctan2(down, across) % np.pi / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    cells = face.shape[0] // CELL
    found = np.stack(
        [
            np.where(way == k, strength, 0).reshape(cells, CELL, cells, CELL).sum((1, 3))
            for k in range(ORIENTATIONS)
        ],
        axis=-1,
    )
    found /= np.linalg.norm(found, axis=-1, keepdims=True) + LEAST_NORM
    return np.asarray(found.ravel() / max(float(np.linalg.norm(found)), 1e-9))


def grouped(
    faces: Sequence[str],
    describe: Describer,
    subjects: Mapping[str, str],
    apart: Collection[tuple[str, str]],
) -> list[PersonGroup]:
    """Group faces that were looked at.

    Parameters
    ----------
    faces
        Their ids.
    describe
        Has looked at them.
    subjects
        By face: who it is, where that was said.
    apart
        Pairs of a face and the name of somebody who is not in it.

    Returns
    -------
    list of PersonGroup
        Named people first, by name; then suggestions, the largest first.
    """
    if not faces:
        return []
    vectors = np.stack([describe.vector(face) for face in faces])
    square = (vectors**2).sum(1)
    distances = np.sqrt(np.maximum(square[:, None] + square - 2 * vectors @ vectors.T, 0))
    index = {face: number for number, face in enumerate(faces)}
    names = [subjects.get(face) for face in faces]
    never = {(index[face], name) for face, name in apart if face in index}
    made = []
    for members in linked(distances, describe.threshold, names, never):
        own = [number for number in members if names[number] is not None]
        rest = [number for number in members if names[number] is None]
        name = names[own[0]] if own else None
        made.append(PersonGroup(name, [faces[number] for number in (*own, *rest)], len(own)))
    return sorted(made, key=lambda group: (group.name is None, group.name or "", -len(group.faces)))


def linked(
    distances: Vector,
    threshold: float,
    names: Sequence[str | None],
    apart: Collection[tuple[int, str]] = (),
) -> list[list[int]]:
    """Group by average linkage, keeping to what is known.

    Parameters
    ----------
    distances
        float (N, N), symmetric.
    threshold
        Mean distance below which two groups are joined.
    names
        N: who it is, or ``None``.
    apart
        Pairs of an index and the name of somebody whom it is not.

    Returns
    -------
    list of list of int
        The members of each group, ascending; a partition of 0 … N − 1.
    """
    known = {name: [i for i, n in enumerate(names) if n == name] for name in names if name}
    groups = [*known.values(), *([i] for i, name in enumerate(names) if name is None)]
    sizes = np.array([len(group) for group in groups], np.float64)
    order = [member for group in groups for member in group]
    starts = (np.cumsum(sizes) - sizes).astype(int)
    sums = np.add.reduceat(np.add.reduceat(distances[np.ix_(order, order)], starts, 0), starts, 1)
    means = sums / np.outer(sizes, sizes)
    means[: len(known), : len(known)] = np.inf  # what is infinite stays so in every mean
    place = {group[0]: row for row, group in enumerate(groups) if len(group) == 1}
    for member, name in apart:
        if name in known and names[member] is None:
            row, column = place[member], list(known).index(name)
            means[row, column] = means[column, row] = np.inf
    np.fill_diagonal(means, np.inf)
    # The nearest group of each, looked for again only if it changed.
    nearest, least = means.argmin(1), means.min(1)
    while True:
        row = int(least.argmin())
        one, other = sorted((row, int(nearest[row])))
        if not means[one, other] < threshold:
            break
        both = (sizes[one] * means[one] + sizes[other] * means[other]) / (sizes[one] + sizes[other])
        both[[one, other]] = np.inf
        means[one], means[:, one] = both, both
        means[other], means[:, other] = np.inf, np.inf
        sizes[one] += sizes[other]
        groups[one] = sorted(groups[one] + groups[other])
        groups[other] = []
        nearer = (both < least) | ((both == least) & (one < nearest))
        changed = np.isin(nearest, (one, other)) & ~nearer
        changed[[one, other]] = True
        nearest[nearer], least[nearer] = one, both[nearer]
        nearest[changed], least[changed] = means[changed].argmin(1), means[changed].min(1)
    return [group for group in groups if group]

"""The faces of a folder of photos: detected as `crossfer predict` does, and cached beside the labels.

A photo is identified by the SHA-256 of its file: a renamed one keeps its labels, an altered one is a new
photo.  The cache is the folder ``faces``: a JSON file for each photo, and a PNG for each face.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.detector import NO_FACE
from crossfer.datasets.extract import one_thread_each
from crossfer.datasets.faces import align, cut, iou
from crossfer.datasets.pictures import UnreadableImage, decoded, encoded, open_picture
from crossfer.datasets.record import Box, Pixels
from crossfer.datasets.walk import files_below, is_picture
from crossfer.deploy.predictor import Predictor
from crossfer.deploy.rows import Seen
from crossfer.errors import CrossferError
from crossfer.files import alone, parsed, write_bytes, write_json
from crossfer.framing import Framing
from crossfer.labelling.journal import FaceLocation
from crossfer.pooled import in_order
from crossfer.processor import available_cores
from crossfer.progress import OnProgress, silent

FORMAT = 1
SHOWN = Framing(side=256, channels=3, eye_distance=0.3, eye_height=0.4)
"""How a face is shown to people: larger than networks see it, and with some of what is around it."""
SAME = 0.5
"""Of the union of two boxes that are of one face, wherever it was found."""
COPY = "a copy of another photo"
UNNAMEABLE = "its name is not allowed in a table; rename it"


@dataclass(frozen=True, slots=True)
class PhotoFace:
    """A face in a photo.

    Parameters
    ----------
    id
        Names it in this folder.
    photo
        The photo's path, relative to the folder of photos.
    place
        Where it is.
    score
        How sure the detector is, 0–1; ``None`` where the photos are faces already.
    probabilities
        By the model's classes; empty without a model.
    """

    id: str
    photo: str
    place: FaceLocation
    score: float | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Changes:
    """Names of the photos that are new, gone or altered since the folder was last read."""

    new: list[str]
    gone: list[str]
    altered: list[str]


class Unguided:
    """An engine in place of a model: it has classes and suggests nothing.

    Parameters
    ----------
    classes
        The classes to choose from.
    """

    identity = ""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes, self.framing = tuple(classes), Framing()
        self.labels = {name: name for name in self.classes}

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the same probability for every class."""
        return np.full((len(faces), len(self.classes)), 1 / len(self.classes), np.float32)


@dataclass(frozen=True, slots=True)
class _Photo:
    """A file as it was when it was read: its size and time, and the SHA-256 of its content."""

    size: int
    time: int
    digest: str


class Gallery:
    """All faces of the photos in a folder.  Not thread-safe.

    Parameters
    ----------
    photos
        The folder of photos.
    kept
        The cache's folder, created if missing.
    predictor
        Detects and classifies faces.
    cropped
        Whether each photo is a cut-out face.

    Raises
    ------
    CrossferError
        If there is no such folder of photos.
    """

    def __init__(
        self, photos: Path, kept: Path, predictor: Predictor, cropped: bool = False
    ) -> None:
        if not photos.is_dir():
            raise CrossferError(f"{photos}: no such folder; name the folder of your photos")
        self.folder, self.kept = photos, kept
        self.predictor, self.cropped = predictor, cropped
        self.faces: dict[str, PhotoFace] = {}
        """By their ids, in the order of the photos."""
        self.problems: dict[str, str] = {}
        """By photo: why no face of it is here."""
        self.others = 0
        """Files that are no pictures by their names."""
        self._photos: dict[str, _Photo] = {}
        self._by_picture: dict[str, list[PhotoFace]] = {}
        self._read: dict[str, list[PhotoFace] | str] = {}

    @property
    def guided(self) -> bool:
        """Whether there is a model that suggests."""
        return not isinstance(self.predictor.engine, Unguided)

    def face_at(self, place: FaceLocation) -> str | None:
        """Return the face at a place, or ``None``: by the photo's content, then by what the boxes share."""
        near = [
            (iou(face.place.box, place.box), face.id)
            for face in self._by_picture.get(place.picture, ())
        ]
        best = max(near, default=(0.0, ""))
        return best[1] if best[0] >= SAME else None

    def picture(self, face: str) -> Path:
        """Return the PNG file of a face."""
        return self.kept / f"{face}.png"

    def is_there(self, face: PhotoFace) -> bool:
        """Tell whether the photo of a face is still as it was when it was read."""
        photo = self._photos.get(face.photo)
        return photo is not None and _state(self.folder / face.photo) == (photo.size, photo.time)

    def refresh(self, progress: OnProgress = silent) -> Changes:
        """Read the folder again; only new and altered photos are decoded.

        Parameters
        ----------
        progress
            Called with the number of photos that are done, and of those to read.
        """
        self.kept.mkdir(parents=True, exist_ok=True)
        names, before = self._names(), self._photos
        states = {name: _state(self.folder / name) for name in names}
        kept = {
            name: photo
            for name, photo in before.items()
            if states.get(name) == (photo.size, photo.time)
        }
        fresh = [name for name in names if name not in kept]
        read: dict[str, _Photo] = {}
        if fresh:
            with alone(self.kept / "lock", lambda who: None):  # who waits then finds the work done
                read = self._looked(fresh, progress)
        self._photos = {name: kept.get(name) or read[name] for name in names if name in kept | read}
        self._arrange()
        return Changes(
            new=[name for name in self._photos if name not in before],
            gone=[name for name in before if name not in self._photos],
            altered=[
                name
                for name in before
                if name in read
                and name in self._photos
                and read[name].digest != before[name].digest
            ],
        )

    def _names(self) -> list[str]:
        """Return the photos' names; what cannot be one is told among the problems."""
        files = [
            Path(file).relative_to(self.folder).as_posix() for file in files_below(self.folder)
        ]
        names = [name for name in files if is_picture(self.folder / name)]
        self.others = len(files) - len(names)
        self.problems = {name: UNNAMEABLE for name in names if not _nameable(name)}
        return [name for name in names if name not in self.problems]

    def _looked(self, names: Sequence[str], progress: OnProgress) -> dict[str, _Photo]:
        """Read photos and find their faces, on all cores; leave out those that have vanished."""
        read = {}
        with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
            try:
                looked = in_order(pool, self._look_at, names)
                for done, (name, seen) in enumerate(zip(names, looked, strict=True), 1):
                    if seen:
                        read[name], found = seen
                        self._read[read[name].digest] = found
                    progress(done, len(names))
            finally:
                pool.shutdown(cancel_futures=True)
        return read

    def _look_at(self, name: str) -> tuple[_Photo, list[PhotoFace] | str] | None:
        """Read a photo, and its faces, or why it has none; ``None`` where there is no such photo."""
        file = self.folder / name
        try:
            size, time = _state(file) or (0, 0)
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        photo = _Photo(size, time, hashlib.sha256(content).hexdigest())
        card = self.kept / f"{photo.digest[:16]}.json"
        found: list[PhotoFace] | str | None = self._from_card(card, photo.digest)
        if found is None:
            try:
                pixels = open_picture(partial(decoded, content))
                (seen,) = self.predictor.look([pixels], self.cropped)
                found = self._kept(card, photo.digest, pixels, seen)
            except UnreadableImage as error:
                found = str(error)
        return photo, found

    def _how(self) -> dict[str, Any]:
        """Return what decides what is found in a photo."""
        return {
            "format": FORMAT,
            "model": self.predictor.engine.identity,
            "classes": list(self.predictor.classes),
            "smallest": self.predictor.smallest,
            "cropped": self.cropped,
            "shown": asdict(SHOWN),
        }

    def _kept(
        self, card: Path, digest: str, pixels: Pixels, seen: Sequence[Seen]
    ) -> list[PhotoFace]:
        """Keep what was found in a photo: the faces first, the card when they are there."""
        height, width = pixels.shape[:2]
        faces = []
        for face in seen:
            place = FaceLocation(digest, _within(face.box, width, height))
            guided = self.guided and face.is_answered
            shares = tuple(map(float, face.probabilities)) if guided else ()
            made = PhotoFace(_id(place), "", place, face.score, shares)
            write_bytes(self.picture(made.id), encoded(_shown(pixels, face)))
            faces.append(made)
        write_json(
            card,
            {
                "how": self._how(),
                "picture": digest,
                "faces": [
                    {
                        "box": list(face.place.box),
                        "score": face.score,
                        "probabilities": list(face.probabilities),
                    }
                    for face in faces
                ],
            },
        )
        return faces

    def _from_card(self, card: Path, digest: str) -> list[PhotoFace] | None:
        """Return what was found in a photo before; ``None`` where that was another way, or is damaged."""
        try:
            said = parsed(card.read_text(encoding="utf-8"))
            if said["how"] != self._how() or said["picture"] != digest:
                return None
            faces = []
            for face in said["faces"]:
                left, top, width, height = map(float, face["box"])
                place = FaceLocation(digest, (left, top, width, height))
                shares = tuple(face["probabilities"])
                faces.append(PhotoFace(_id(place), "", place, face["score"], shares))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return faces if all(self.picture(face.id).is_file() for face in faces) else None

    def _arrange(self) -> None:
        """List the faces of all photos; of several copies of a photo, those of the first."""
        self.faces, self._by_picture = {}, {}
        for name, photo in self._photos.items():
            found = self._read[photo.digest]
            if isinstance(found, str):
                self.problems[name] = found
            elif photo.digest in self._by_picture:
                self.problems[name] = COPY
            elif not found:
                self.problems[name] = NO_FACE
            else:
                own = [replace(face, photo=name) for face in found]
                self._by_picture[photo.digest] = own
                self.faces |= {face.id: face for face in own}


def _id(place: FaceLocation) -> str:
    """Name a face by its place: sessions that find other faces in a photo call the same one the same."""
    box = hashlib.sha256(repr(tuple(map(float, place.box))).encode()).hexdigest()
    return f"{place.picture[:16]}-{box[:16]}"


def _state(file: Path) -> tuple[int, int] | None:
    """Return a file's size and time; ``None`` where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _nameable(name: str) -> bool:
    """Tell whether a table's row can name a file: text, without line breaks, outer spaces and backslashes."""
    return name.isprintable() and name == name.strip() and "\\" not in name


def _within(box: Box, width: int, height: int) -> Box:
    """Return the part of a box that lies in the picture, as a manifest may say it."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    return round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2)


def _shown(pixels: Pixels, face: Seen) -> Pixels:
    """Cut a face out as people see it."""
    if face.eyes is None:
        return cut(pixels, face.box, SHOWN)[0]
    left, right = face.eyes  # the person's own; `align` has them as they stand in the picture
    return align(pixels, right, left, SHOWN)[0]

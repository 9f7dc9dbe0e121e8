"""Extract the faces of many records, on all cores, in blocks that survive an interruption."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.detector import Detector
from crossfer.datasets.faces import Face, face_of
from crossfer.datasets.pictures import UnreadableImage, open_picture, video_frames
from crossfer.datasets.record import Pixels, Record
from crossfer.framing import Framing
from crossfer.processor import available_cores
from crossfer.progress import OnProgress

BLOCK = 512
LARGEST_CROPPED = 64
"""Nobody crops photographs that small: a set whose pictures all fit in is one of faces already."""
LOOKED_AT = 48


@dataclass(frozen=True)
class Block:
    """The faces of consecutive records.

    Parameters
    ----------
    images
        uint8 (B, side, side) or (B, side, side, 3).
    boxes
        float32 (B, 5): left, top, width, height in pixels of the picture, and roll in degrees.
    found
        B texts: how each crop came about, see `crossfer.datasets.faces.Face`.
    scores
        float32 (B,): the detector's, 0–1; not a number where it did not decide.
    pictures
        B texts: the SHA-256 of the whole picture's pixels, by which it is known again however its face is
        cut out.
    problems
        B texts: why a record's picture cannot be used; empty for those that can.
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    found: NDArray[np.str_]
    scores: NDArray[np.float32]
    pictures: NDArray[np.str_]
    problems: NDArray[np.str_]


@dataclass(frozen=True)
class Extraction:
    """How a face is taken from a picture.

    Parameters
    ----------
    framing
        What the face looks like.
    find
        Whether a face is looked for; otherwise every picture is one.
    crop
        Side of the centred square that is taken where none was found (or looked for), as a share (0–1]
        of the picture's shorter side.
    """

    framing: Framing
    find: bool
    crop: float

    def faces(self, records: Sequence[Record], detector: Detector | None) -> list[Face | str]:
        """Return the face of each of one file's records, or why there is none; a video is decoded once."""
        if records[0].frame is None:
            return [self._face(r, partial(open_picture, r.picture), detector) for r in records]
        assert isinstance(records[0].picture, Path)
        wanted = sorted({record.frame for record in records if record.frame is not None})
        try:
            frames = dict(video_frames(records[0].picture, wanted))
        except UnreadableImage as error:
            return [str(error)] * len(records)
        return [self._face(r, partial(_frame, frames, r.frame), detector) for r in records]

    def _face(
        self, record: Record, picture: Callable[[], Pixels], detector: Detector | None
    ) -> Face | str:
        try:
            pixels = picture()
            box = record.box
            if box and record.relative:
                height, width = pixels.shape[:2]
                box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            face = face_of(pixels, box, self.framing, detector, self.crop)
            return replace(face, picture=_digest(pixels))
        except UnreadableImage as error:
            return str(error)


def are_cropped(records: Sequence[Record]) -> bool:
    """Tell whether pictures are faces already: all that are looked at are at most 64×64."""
    for record in records[:: max(1, len(records) // LOOKED_AT)]:
        if record.frame is not None or record.box is not None:
            return False
        try:
            if max(open_picture(record.picture).shape[:2]) > LARGEST_CROPPED:
                return False
        except UnreadableImage:
            continue
    return True


def blocks(
    records: Sequence[Record], how: Extraction, folder: Path, progress: OnProgress
) -> Iterator[Block]:
    """Yield the faces of all records in blocks; finished blocks are read from a folder.

    Parameters
    ----------
    records
        In the order of the dataset.
    how
        How faces are extracted. It and the records must be those of the blocks in the folder.
    folder
        The folder of finished blocks.
    progress
        Called with the number of finished records and of all.
    """
    work = partial(how.faces, detector=Detector() if how.find else None)

    with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        try:
            for start, some in numbered(records):
                file = file_of(folder, start)
                block = load(file, len(some))
                if block is None:
                    faces: list[Face | str] = []
                    # Pixels that need no decoding, only to be taken, are not worth a thread.
                    taken = not how.find and all(isinstance(r.picture, np.ndarray) for r in some)
                    groups = by_file(some)
                    for found in map(work, groups) if taken else pool.map(work, groups):
                        faces += found
                        progress(start + len(faces), len(records))
                    check_there(some, faces)
                    block = block_of(faces, how)
                    save(file, block)
                else:
                    progress(start + len(some), len(records))
                yield block
        finally:
            pool.shutdown(cancel_futures=True)


def numbered(records: Sequence[Record]) -> Iterator[tuple[int, Sequence[Record]]]:
    """Yield the index of each block's first record, and its records."""
    for start in range(0, len(records), BLOCK):
        yield start, records[start : start + BLOCK]


def file_of(folder: Path, start: int) -> Path:
    """Return the file of the block whose first record has an index."""
    return folder / f"faces-{start:09d}.npz"


def by_file(records: Sequence[Record]) -> list[list[Record]]:
    """Group records that are decoded together: successive frames of a video; any other record is alone."""
    return [list(group) for _, group in groupby(records, key=_source)]


def check_there(records: Sequence[Record], faces: Sequence[Face | str]) -> None:
    """Raise an OSError if a picture could not be read because its file has vanished, e.g. with its disk."""
    for record, face in zip(records, faces, strict=True):
        if isinstance(face, str) and isinstance(record.picture, Path):
            record.picture.stat()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let OpenCV use one thread, since there is already a thread per core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _source(record: Record) -> object:
    """Return a key that is the same for frames of one video only."""
    return record.picture if record.frame is not None else id(record)


def _frame(frames: dict[int, Pixels], index: int | None) -> Pixels:
    if index not in frames:
        raise UnreadableImage("the video ends before this frame")
    return frames[index]


def block_of(faces: Sequence[Face | str], how: Extraction) -> Block:
    """Collect faces, or why there is none, into a block."""
    count = len(faces)
    images = np.zeros((count, *how.framing.shape), np.uint8)
    boxes = np.zeros((count, 5), np.float32)
    scores = np.full(count, np.nan, np.float32)
    found, pictures, problems = ([""] * count for _ in range(3))
    for row, face in enumerate(faces):
        if isinstance(face, str):
            problems[row] = face
        else:
            images[row], boxes[row], scores[row] = face.image, (*face.box, face.roll), face.score
            found[row], pictures[row] = face.found, face.picture
    return Block(images, boxes, np.array(found), scores, np.array(pictures), np.array(problems))


def _digest(pixels: Pixels) -> str:
    known = hashlib.sha256(repr(pixels.shape).encode())
    known.update(np.ascontiguousarray(pixels).data)
    return known.hexdigest()


def save(file: Path, block: Block) -> None:
    """Write a finished block."""
    beside = file.with_suffix(".part")
    with beside.open("wb") as out:
        np.savez(out, **vars(block))
    beside.replace(file)


def load(file: Path, count: int) -> Block | None:
    """Read a finished block; one that is damaged is made again."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            block = Block(**{name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return block if all(len(array) == count for array in vars(block).values()) else None

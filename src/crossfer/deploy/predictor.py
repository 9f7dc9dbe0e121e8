"""Find and classify the faces of pictures and videos."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.detector import NO_FACE, Detection, Detector, check_smallest
from crossfer.datasets.extract import one_thread_each
from crossfer.datasets.faces import align, cut, is_plausible
from crossfer.datasets.pictures import UnreadableImage, open_picture, timed_frames
from crossfer.datasets.record import Pixels
from crossfer.datasets.walk import VIDEO_SUFFIXES
from crossfer.deploy.engine import Engine, Mirrored
from crossfer.deploy.rows import NO_NUMBER, FaceRow, RowBatch, Seen, as_record, columns
from crossfer.deploy.sources import Source, check_address, sources_in
from crossfer.deploy.tracking import FaceTracker
from crossfer.errors import CrossferError
from crossfer.framing import SMALLEST, Framing
from crossfer.pooled import in_order, portions, tapered
from crossfer.processor import available_cores
from crossfer.progress import OnProgress, silent

if TYPE_CHECKING:
    from crossfer.networks.classifier import Classifier

PICTURES, FRAMES = 16, 4
"""Number of pictures, and of video frames, that a thread takes at a time."""
SMOOTH = 0.5
"""Default time constant of the averaging of probabilities in a video, in seconds."""

Given = TypeVar("Given")


@dataclass(frozen=True)
class PredictOptions:
    """Options for pictures and videos.

    Parameters
    ----------
    cropped
        Whether the pictures are cropped faces, like those of FER2013: no detection.
    smooth
        Time constant of the averaging of a face's probabilities in a video, in seconds; 0: no averaging.
    per_second
        Maximum number of frames per second of a video; ``None``: all frames.
    """

    cropped: bool = False
    smooth: float = SMOOTH
    per_second: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.smooth < float("inf"):
            raise CrossferError(f"smooth is {self.smooth:g}: must be seconds, 0 (off) or more")
        if self.per_second is not None and not 0 < self.per_second < float("inf"):
            raise CrossferError(
                f"frames per second is {self.per_second:g}: must be a number above 0"
            )


class Predictor:
    """Detect and classify faces in pictures and videos.

    Parameters
    ----------
    engine
        The inference engine: ONNX Runtime or PyTorch.
    smallest
        Side of the smallest face to detect, see `crossfer.datasets.detector.Detector`.
    mirror
        Whether to average the probabilities of each face and its mirror image.
    notes
        What is assumed where it cuts out faces.
    unchecked
        What its description says that was not checked.

    Examples
    --------
    >>> import crossfer
    >>> model = crossfer.load("exported")  # doctest: +SKIP
    >>> model.analyze("team.jpg")[0]["dominant_emotion"]  # doctest: +SKIP
    'happy'
    >>> model.analyze_many(["photos/", "clip.mp4"]).to_csv("faces.csv")  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: Engine,
        smallest: float = SMALLEST,
        mirror: bool = False,
        notes: Sequence[str] = (),
        unchecked: Sequence[str] = (),
    ) -> None:
        check_smallest(smallest)
        self.notes, self.unchecked = tuple(notes), tuple(unchecked)
        self.engine, self.smallest = Mirrored(engine) if mirror else engine, smallest
        self._classifier: Classifier | None = getattr(engine, "classifier", None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes, in order."""
        return self.engine.classes

    @property
    def classifier(self) -> Classifier:
        """The PyTorch classifier, of a bundle or a run.

        Raises
        ------
        CrossferError
            If it is an exported classifier.
        """
        if self._classifier is None:
            raise CrossferError(
                "an exported classifier has no PyTorch network; load the bundle or the run that "
                "it was exported from"
            )
        return self._classifier

    def predict(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities float32 (N, classes) of cropped faces.

        Parameters
        ----------
        faces
            uint8 (N, side, side), or (N, side, side, 3) RGB, in the classifier's framing.

        Raises
        ------
        CrossferError
            If their shape or type is wrong, or an answer is not a number.
        """
        shape = self.engine.framing.shape
        try:
            faces = np.asarray(faces)
        except ValueError:
            raise CrossferError("faces are of several sizes; give one array of them") from None
        if faces.shape == (0,):  # an empty list
            faces = np.empty((0, *shape), np.uint8)
        if faces.dtype == object:
            raise CrossferError("faces are no numbers; give one array of them")
        if faces.dtype != np.uint8 or faces.shape[1:] != shape:
            given, wanted = ("×".join(map(str, s)) for s in (faces.shape[1:], shape))
            raise CrossferError(
                f"faces are {faces.dtype} of {given}, but the classifier reads uint8 of {wanted}"
            )
        said = self.engine(faces)
        if len(wrong := np.flatnonzero(~np.isfinite(said).all(1))):
            raise CrossferError(f"faces: {NO_NUMBER} for row {wrong[0]}; check its weights")
        return said

    def look(self, pictures: Sequence[Pixels], cropped: bool = False) -> list[list[Seen]]:
        """Detect and classify the faces of pictures.

        Parameters
        ----------
        pictures
            uint8 (H, W) or (H, W, 3) RGB each.
        cropped
            Whether each picture is a cropped face.

        Returns
        -------
        list of list of Seen
            The faces of each picture, by descending score, without those with implausible eyes (see
            `crossfer.datasets.faces.is_plausible`), as in `crossfer.prepare`.
        """
        found: list[tuple[int, Detection | None]] = []
        faces: list[Pixels] = []
        for index, picture in enumerate(pictures):
            for one in faces_in(picture, None if cropped else self._detector):
                faces.append(framed(picture, one, self.engine.framing))
                found.append((index, one))
        said = self.engine(np.stack(faces)) if faces else ()
        seen: list[list[Seen]] = [[] for _ in pictures]
        for (index, face), probabilities in zip(found, said, strict=True):
            seen[index].append(_seen(pictures[index], face, probabilities))
        return seen

    def analyze(
        self, picture: str | Path | NDArray[Any], cropped: bool = False
    ) -> list[dict[str, Any]]:
        """Detect and classify every face of a picture; the keys are deepface's.

        Parameters
        ----------
        picture
            A file; or pixels, (H, W) or (H, W, 3) RGB.  (OpenCV reads BGR: reverse the channels first.)
        cropped
            Whether the picture is a cut-out face.

        Returns
        -------
        list of dict
            For each face, surest first: ``region`` with ``x``, ``y``, ``w``, ``h`` in whole pixels and
            ``left_eye``, ``right_eye`` (the person's own left and right; ``None`` for a cut-out face);
            ``emotion``: per cent by class; ``dominant_emotion``; ``face_confidence``, 0–1. Empty where
            there is no face.

        Raises
        ------
        CrossferError
            If the picture cannot be read, or an answer is not a number.
        """
        if isinstance(picture, str):
            check_address(picture)
        given = Path(picture) if isinstance(picture, str) else picture
        name = given if isinstance(given, Path) else "the picture"
        if isinstance(given, Path) and given.suffix.lower() in VIDEO_SUFFIXES:
            raise CrossferError(f"{given}: a video; use analyze_many")
        try:
            pixels = open_picture(given)
        except UnreadableImage as error:
            raise CrossferError(f"{name}: {error}") from None
        seen = self.look([pixels], cropped)[0]
        if not all(face.is_answered for face in seen):
            raise CrossferError(f"{name}: {NO_NUMBER}; check its weights")
        return [self._as_deepface(face) for face in seen]

    def analyze_many(
        self,
        paths: str | Path | Iterable[str | Path],
        cropped: bool = False,
        smooth: float = SMOOTH,
        per_second: float | None = None,
    ) -> Any:
        """Detect and classify the faces of many pictures and videos, on all cores.

        Parameters
        ----------
        paths
            Pictures, videos, folders and archives.
        cropped, smooth, per_second
            As for `PredictOptions`: whether pictures are cropped faces; seconds over which a video's
            probabilities are averaged (0: not at all); maximum number of frames per second of a video.

        Returns
        -------
        pandas.DataFrame
            A row for every face, with the columns of `columns`; for a picture without a face, and for what
            cannot be read, a row with a ``problem``.  A warning says how many other files were skipped.

        Raises
        ------
        CrossferError
            If pandas is not installed, or a path is none or not there.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise CrossferError("analyze_many needs pandas: pip install pandas") from None
        how = PredictOptions(cropped, smooth, per_second)
        one = isinstance(paths, str | Path) or not isinstance(paths, Iterable)
        given: list[Any] = [paths] if one else list(paths)
        if other := [type(each).__name__ for each in given if not isinstance(each, str | Path)]:
            raise CrossferError(
                f"analyze_many reads files, not {other[0]}; call analyze for each picture in memory"
            )
        with sources_in(given) as sources:
            if note := sources.note():
                warnings.warn(note, stacklevel=2)
            video = any(source.is_video for source in sources.found)
            for name, asked in {"smooth": smooth != SMOOTH, "per_second": per_second}.items():
                if asked and not video:
                    warnings.warn(f"{name}: there is no video, so it had no effect", stacklevel=2)
            rows = [
                as_record(row, self.classes)
                for part in self.parts(sources.found, how)
                for row in part.rows
            ]
        return pandas.DataFrame(rows, columns=columns(self.classes))

    def parts(
        self, sources: Sequence[Source], how: PredictOptions, progress: OnProgress = silent
    ) -> Iterator[RowBatch]:
        """Detect and classify the faces of sources, in order, on all cores and in bounded memory.

        Parameters
        ----------
        sources
            Pictures and videos.
        how
            Options.
        progress
            Called with the numbers of sources done and in total.
        """
        done = 0
        with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
            try:
                for is_video, some in groupby(sources, lambda source: source.is_video):
                    for part in (self._videos if is_video else self._pictures)(pool, some, how):
                        yield part
                        done += part.last
                        progress(done, len(sources))
            finally:
                pool.shutdown(cancel_futures=True)

    def _pictures(
        self, pool: ThreadPoolExecutor, sources: Iterable[Source], how: PredictOptions
    ) -> Iterator[RowBatch]:
        def work(some: list[Source]) -> list[RowBatch]:
            opened = [_opened(source.file) for source in some]
            pictures = [picture for picture in opened if not isinstance(picture, str)]
            seen = iter(self.look(pictures, how.cropped))
            parts = []
            for source, picture in zip(some, opened, strict=True):
                faces = [] if isinstance(picture, str) else next(seen)
                why = picture if isinstance(picture, str) else NO_FACE
                answered = [face for face in faces if face.is_answered]
                rows = [
                    FaceRow(source.name, face=number, seen=face)
                    for number, face in enumerate(answered, 1)
                ]
                rows += [FaceRow(source.name, problem=NO_NUMBER)] * (len(faces) - len(answered))
                parts.append(RowBatch(source, rows or [FaceRow(source.name, problem=why)], True))
            return parts

        for parts in in_order(pool, work, tapered(list(sources), PICTURES)):
            yield from parts

    def _videos(
        self, pool: ThreadPoolExecutor, sources: Iterable[Source], how: PredictOptions
    ) -> Iterator[RowBatch]:
        def work(
            some: list[tuple[int, float, Pixels]],
        ) -> list[tuple[int, float, list[Seen]]]:
            seen = self.look([image for *_, image in some], how.cropped)
            return [(f, s, faces) for (f, s, _), faces in zip(some, seen, strict=True)]

        for source in sources:
            tracker, problems = FaceTracker(how.smooth), list[str]()
            frames = _until_unreadable(timed_frames(source.file, how.per_second), problems)
            faces = 0
            for some in in_order(pool, work, portions(frames, FRAMES)):
                rows = [row for frame in some for row in _tracked(source.name, *frame, tracker)]
                faces += len(rows)
                yield RowBatch(source, rows, False)
            if not faces and not problems:
                problems.append(NO_FACE)
            yield RowBatch(
                source, [FaceRow(source.name, problem=problem) for problem in problems], True
            )

    @cached_property
    def _detector(self) -> Detector:
        return Detector(self.smallest)

    def _as_deepface(self, face: Seen) -> dict[str, Any]:
        left, top, width, height = (round(value) for value in face.box)
        left_eye, right_eye = face.eyes or (None, None)
        region = {
            **{"x": left, "y": top, "w": width, "h": height},
            "left_eye": left_eye and tuple(map(round, left_eye)),
            "right_eye": right_eye and tuple(map(round, right_eye)),
        }
        said = [float(p) for p in face.probabilities]
        return {
            "region": region,
            "emotion": {name: 100 * p for name, p in zip(self.classes, said, strict=True)},
            "dominant_emotion": self.classes[int(face.probabilities.argmax())],
            "face_confidence": 1.0 if face.score is None else face.score,
        }


def faces_in(picture: Pixels, find: Detector | None) -> list[Detection] | list[None]:
    """Detect the faces of a picture with plausible eyes, by descending score.

    Parameters
    ----------
    picture
        uint8 (H, W) or (H, W, 3) RGB.
    find
        The detector; ``None``: the picture is a cropped face.

    Returns
    -------
    list
        Of `Detection`; or ``[None]``, which means the whole picture.
    """
    return [None] if find is None else [one for one in find(picture) if is_plausible(one)]


def framed(picture: Pixels, face: Detection | None, framing: Framing) -> Pixels:
    """Crop a face of `faces_in` from its picture, in a framing.

    Returns
    -------
    uint8 (side, side) or (side, side, 3) RGB
    """
    if face is None:
        height, width = picture.shape[:2]
        return cut(picture, (0, 0, width, height), framing)[0]
    left_eye, right_eye = face.landmarks[:2]
    return align(picture, left_eye, right_eye, framing)[0]


def _opened(file: Path) -> Pixels | str:
    try:
        return open_picture(file)
    except UnreadableImage as error:
        return str(error)


def _until_unreadable(frames: Iterator[Given], problems: list[str]) -> Iterator[Given]:
    """Yield frames until one cannot be read; append the reason to `problems`."""
    try:
        yield from frames
    except UnreadableImage as error:
        problems.append(str(error))


def _seen(picture: Pixels, face: Detection | None, probabilities: NDArray[np.float32]) -> Seen:
    if face is None:
        height, width = picture.shape[:2]
        return Seen((0.0, 0.0, float(width), float(height)), None, None, probabilities)
    # The detector's left eye is the one on the left of the picture: the person's right eye.
    right, left = ((float(x), float(y)) for x, y in face.landmarks[:2])
    return Seen(face.box, (left, right), float(face.score), probabilities)


def _tracked(
    source: str, frame: int, seconds: float, faces: list[Seen], tracker: FaceTracker
) -> Iterator[FaceRow]:
    answered = [face for face in faces if face.is_answered]  # NaN would stay in the smoothed mean
    boxes = [face.box for face in answered]
    said = [face.probabilities for face in answered]
    for face, (number, smoothed) in zip(
        answered, tracker.update(seconds, boxes, said), strict=True
    ):
        seen = Seen(face.box, face.eyes, face.score, smoothed)
        yield FaceRow(source, frame, seconds, number, seen)
    for _ in range(len(faces) - len(answered)):
        yield FaceRow(source, frame, seconds, problem=NO_NUMBER)

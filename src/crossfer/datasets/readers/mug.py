"""MUG: sequences of frames from neutral to the expression and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.emotions import EMOTIONS, label_of
from crossfer.errors import CrossferError

FRAME = re.compile(r"img_(\d+)$", re.IGNORECASE)
NEUTRAL = EMOTIONS.index("neutral")
MIDDLE_FRAMES = 6


def recognise(path: Path) -> str | None:
    """Say why a path looks like MUG."""
    if not path.is_dir():
        return None
    file = next((f for f in image_files(path) if FRAME.match(f.stem) and _parts(f.resolve())), None)
    return f"frames lie like {file.relative_to(path).as_posix()}" if file else None


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield the study's eight frames of every take (section III): see `frames_of_the_study`."""
    for folder, group in groupby(image_files(path), key=lambda file: file.parent):
        origin = folder.relative_to(path).as_posix()
        frames = sorted(
            (file for file in group if FRAME.match(file.stem)),
            key=lambda file: int(FRAME.match(file.stem).group(1)),  # type: ignore[union-attr]
        )
        parts = _parts(folder.resolve() / "img_0000")
        if not parts or not frames:
            yield Skipped(origin, "not a take: SUBJECT/[SESSION/]EXPRESSION/TAKE/img_0000.jpg")
            continue
        subject, expression, take = parts
        if take.endswith("end") or "nsg" in take:
            yield Skipped(origin, "takes named …end or …nsg… are left out")
            continue
        label = label_of(expression, options.labels)
        if label is None:
            yield Skipped(origin, f"class {expression} is left out")
            continue
        neutral, middle = frames_of_the_study(len(frames))
        if label == NEUTRAL:
            neutral, middle = range(len(frames)), ()
        for index in sorted([*neutral, *middle]):
            file = frames[index]
            yield Record(
                file,
                label if index in middle else NEUTRAL,
                file.relative_to(path).as_posix(),
                subject=subject,
            )


def frames_of_the_study(length: int) -> tuple[Sequence[int], Sequence[int]]:
    """Choose the frames that the study takes of a sequence.

    The first and the last frame are neutral; six from the middle are the expression.  Which six the paper
    does not say: they are spread evenly over the middle third, or stand side by side in the middle where
    the third is shorter than six.  A sequence of fewer than eight frames gives what it has.

    Parameters
    ----------
    length
        Frames in the sequence, at least 1.

    Returns
    -------
    neutral, middle
        Indices of the neutral frames and of those that show the expression.
    """
    half = max((length - 1) / 6, (MIDDLE_FRAMES - 1) / 2)
    spread = (length - 1) / 2 + np.linspace(-half, half, MIDDLE_FRAMES)
    inner = np.floor(spread + 0.5).astype(int).clip(0, length - 1)
    return sorted({0, length - 1}), sorted(set(inner.tolist()) - {0, length - 1})


def _parts(file: Path) -> tuple[str, str, str] | None:
    """Return subject, expression and take of a frame, or None where the folders are not MUG's."""
    folders = file.parts[:-1]
    if len(folders) < 3:
        return None
    take, expression = folders[-1].lower(), folders[-2]
    in_session = folders[-3].lower().startswith("session") and len(folders) > 3
    above = folders[-4 if in_session else -3]
    try:
        label_of(expression)
    except CrossferError:
        return None
    return (above, expression, take) if take.startswith("take") else None


READER = Reader(
    name="mug",
    title="MUG, the Multimedia Understanding Group's facial expression database",
    size="86 subjects (52 in the public part), 896×896 colour sequences; the study takes 7,352 frames",
    licence="non-commercial research; may not be passed on",
    access="on request: mug.ee.auth.gr/fed",
    layout="subjects3/NNN/[sessionK/]EXPRESSION/takeNNN/img_0000.jpg",
    citation="Aifanti, Papachristou, Delopoulos, The MUG facial expression database, WIAMIS 2010",
    recognise=recognise,
    read=read,
    crop=0.6,
    sizes=(5877, 741, 734),
)

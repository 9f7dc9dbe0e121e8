"""MUG: sequences of frames from neutral to the expression and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from crossfer.classes import canonical, is_known
from crossfer.datasets.readers.files import image_files, labelled, most_look_like
from crossfer.datasets.record import Item, Reader, ReadOptions, Record, Remark, Skipped
from crossfer.datasets.walk import IMAGE_SUFFIXES, VIDEO_SUFFIXES

FRAME = re.compile(r"img_?(\d+)$", re.IGNORECASE)
MIDDLE_FRAMES = 6
SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True, slots=True)
class _Take:
    """Where a sequence stands in the dataset."""

    subject: str
    expression: str
    name: str


def recognise(path: Path) -> str | None:
    """Say why a path looks like MUG."""
    file = most_look_like(path, lambda file: _take(file, path.resolve(), path), SUFFIXES)
    return f"takes lie like {file.relative_to(path).as_posix()}" if file else None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield the study's eight frames of every take (section III): see `frames_of_the_study`."""
    above = path.resolve()
    for place, group in groupby(image_files(path, SUFFIXES), key=_place):
        origin = place.relative_to(path).as_posix()
        members = list(group)
        takes = {file: take for file in members if (take := _take(file, above, path))}
        files, take = list(takes), next(iter(takes.values()), None)
        # Of a take most frames are not taken, by design.
        yield Remark("", tuple(files if take else members))
        for file in members if take else ():
            if file not in takes:
                yield Skipped(
                    file.relative_to(path).as_posix(), "not a frame of its take: img_0000.jpg"
                )
        if take is None:
            yield Skipped(origin, "not a take: SUBJECT/[SESSION/]EXPRESSION/TAKE/img_0000.jpg")
            continue
        if (take.name.endswith("end") or "nsg" in take.name) and not options.everything:
            yield Skipped(origin, "takes named …end or …nsg… are left out")
            continue
        label, reason = labelled(take.expression, options)
        if label is None:
            yield Skipped(origin, reason)
            continue
        frames = _frames(files, path)
        if isinstance(frames, str):
            yield Skipped(origin, frames)
            continue
        neutral, middle = frames_of_the_study(len(frames))
        if canonical(take.expression) == "neutral":
            neutral, middle = range(len(frames)), ()
        elif not middle:
            yield Skipped(origin, "a take of fewer than three frames")
            continue
        at_rest, reason = labelled("neutral", options)
        for index in sorted([*neutral, *middle]):
            file, number, name = frames[index]
            shown = label if index in middle else at_rest
            if shown is None:
                yield Skipped(name, reason)
            else:
                yield Record(file, shown, name, subject=take.subject, frame=number)


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


def _place(file: Path) -> Path:
    """Return what makes a take: a video is one, frames are one with their folder."""
    return file if file.suffix.lower() in VIDEO_SUFFIXES else file.parent


def _take(file: Path, above: Path, path: Path) -> _Take | None:
    """Return the take that a frame or video belongs to, or None where the folders are not MUG's.

    The dataset may begin below the subjects: `above` is `path` with all the folders over it.
    """
    video = file.suffix.lower() in VIDEO_SUFFIXES
    if not video and not FRAME.match(file.stem):
        return None
    folders = [*(above / file.relative_to(path)).parts[:-1]]
    if video:
        folders.append(file.stem)
    elif len(folders) > 2 and folders[-3] == folders[-2] and folders[-2].isdigit():
        folders.append("take")  # NNN/NNN/EXPRESSION/img_0000.jpg
    if len(folders) < 3 or not folders[-1].lower().startswith("take"):
        return None
    name, expression = folders[-1].lower(), folders[-2]
    in_session = folders[-3].lower().startswith("session") and len(folders) > 3
    if not is_known(expression):
        return None
    return _Take(folders[-4 if in_session else -3], expression, name)


def _frames(files: list[Path], path: Path) -> list[tuple[Path, int | None, str]] | str:
    """Return a take's frames in order, each with its index in a video and its origin, or a problem."""
    video = files[0]
    if video.suffix.lower() not in VIDEO_SUFFIXES:
        numbered = [(int(named.group(1)), f) for f in files if (named := FRAME.match(f.stem))]
        return [(file, None, file.relative_to(path).as_posix()) for _, file in sorted(numbered)]
    if video.with_suffix("").is_dir():
        return "videos beside their frames are left out"
    from crossfer.datasets.pictures import UnreadableImage, frame_count

    try:
        count = frame_count(video)
    except UnreadableImage as error:
        return str(error)
    origin = video.relative_to(path).as_posix()
    return [(video, i, f"{origin} frame {i}") for i in range(count)] or "a video without frames"


READER = Reader(
    name="mug",
    title="MUG, the Multimedia Understanding Group's facial expression database",
    size="86 subjects (52 in the public part), 896×896 colour sequences; the study takes 7,352 frames",
    licence="non-commercial research; may not be passed on",
    access="on request: mug.ee.auth.gr/fed",
    layout="subjects3/NNN/[sessionK/]EXPRESSION/takeNNN/img_0000.jpg, or takeNNN.avi",
    citation="Aifanti, Papachristou, Delopoulos, The MUG facial expression database, WIAMIS 2010",
    takes=frozenset({"everything"}),
    recognise=recognise,
    read=read,
    crop=0.6,
    sizes=(5877, 741, 734),
)

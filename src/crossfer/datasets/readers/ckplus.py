"""CK+: posed sequences that run from neutral to the height of an expression."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers.files import (
    image_files,
    labelled,
    labelled_or_unknown,
    most_look_like,
)
from crossfer.datasets.readers.labels import ORDERS
from crossfer.datasets.record import Item, Reader, ReadOptions, Record, Remark, Skipped

FRAME = re.compile(r"(S\d{3})_(\d{3})_(\d{8})\.\w+", re.IGNORECASE)
LABEL_FILE = re.compile(r"(S\d{3})_(\d{3})_\d{8}_emotion\.txt", re.IGNORECASE)
CODES = ORDERS["ckplus"]
PEAK_FRAMES = 3


def recognise(path: Path) -> str | None:
    """Say why a path looks like CK+."""
    file = most_look_like(path, _frame)
    return f"frames lie like {file.relative_to(path).as_posix()}" if file else None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield the first frame of every labelled sequence as neutral, the last three as its expression.

    Of a sequence of fewer than four frames the first is neutral only where it is numbered 1: people keep
    the last frames alone.
    """
    labels: dict[tuple[str, str], Path] = {}
    for file in image_files(path, frozenset({".txt"})):
        if named := LABEL_FILE.fullmatch(file.name):
            labels.setdefault(_key(named), file)
    sequences: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    for file in image_files(path):
        origin, named = file.relative_to(path).as_posix(), _frame(file)
        if not named:
            yield Skipped(origin, "not a frame: S005/001/S005_001_00000011.png")
        elif sequences[_key(named)].setdefault(int(named.group(3)), file) != file:
            yield Skipped(origin, "a copy of another image is left out")
    # Of a sequence most frames are not taken, by design.
    yield Remark("", (*labels.values(), *(f for some in sequences.values() for f in some.values())))
    for key, by_number in sequences.items():
        frames = [by_number[number] for number in sorted(by_number)]
        origin = frames[0].parent.relative_to(path).as_posix()
        if key not in labels:
            yield Skipped(origin, "sequences without a label are left out")
            continue
        code = _code(labels[key])
        if code is None:
            yield Skipped(origin, "its emotion file does not contain exactly one integer")
            continue
        label, reason = labelled_or_unknown(code, options, CODES)
        if label is None:
            yield Skipped(origin, reason)
            continue
        begins = len(frames) > PEAK_FRAMES or (len(frames) > 1 and min(by_number) <= 1)
        peak = frames[int(begins) :][-PEAK_FRAMES:]
        neutral, reason = labelled("neutral", options)
        for file in [*frames[: int(begins)], *peak]:
            shown, origin = label if file in peak else neutral, file.relative_to(path).as_posix()
            if shown is None:
                yield Skipped(origin, reason)
            else:
                yield Record(file, shown, origin, subject=key[0])
    for key, file in labels.items():
        if key not in sequences:
            yield Skipped(file.relative_to(path).as_posix(), "a label without frames")


def _frame(file: Path) -> re.Match[str] | None:
    named = FRAME.fullmatch(file.name)
    return named if named and file.parent.name == named.group(2) else None


def _key(named: re.Match[str]) -> tuple[str, str]:
    return named.group(1).upper(), named.group(2)


def _code(file: Path) -> str | None:
    """Return the class that an emotion file holds: ``3.0000000e+00`` is 3."""
    if not file.is_file():
        return None
    try:
        with file.open(encoding="utf-8-sig") as text:
            value = float(text.read(100))
    except ValueError:
        return None
    return str(int(value)) if value.is_integer() else None


READER = Reader(
    name="ckplus",
    title="CK+, the extended Cohn-Kanade dataset",
    size="593 sequences of 123 subjects, 640×490; 327 have a label, 18 of them contempt",
    licence="research use; may not be passed on",
    access="on request from its authors: jeffcohn.net/resources",
    layout="cohn-kanade-images/S005/001/S005_001_00000011.png and "
    "Emotion/S005/001/S005_001_00000011_emotion.txt",
    citation="Lucey et al., The Extended Cohn-Kanade Dataset (CK+), CVPR Workshops 2010",
    own_files=("[Ss][0-9]*_landmarks.txt", "[Ss][0-9]*_facs.txt"),
    recognise=recognise,
    read=read,
    crop=0.8,
)

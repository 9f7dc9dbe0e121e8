"""TFEID: forty Taiwanese models; the file name holds the subject and the expression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.emotions import label_of

CODES = {
    "ng": "neutral",
    "ag": "angry",
    "dg": "disgust",
    "fg": "fear",
    "hg": "happy",
    "sg": "sad",
    "pg": "surprise",
}

FILE_NAME = re.compile(r".+_([nadfhsp]g)[^a-z_]*")


def recognise(path: Path) -> str | None:
    """Say why a path looks like TFEID."""
    if not path.is_dir():
        return None
    file = next((file for file in image_files(path) if _code(file) in CODES), None)
    return f"image files are named like {file.name}" if file else None


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record an image: ``f01_ag_…_ag1.jpg`` is subject f01, angry."""
    for file in image_files(path):
        origin = file.relative_to(path).as_posix()
        code = _code(file)
        if code not in CODES:
            yield Skipped(
                origin, "the last part of its name starts with no code of TFEID's classes"
            )
            continue
        label = label_of(code, {**CODES, **options.labels})
        if label is None:
            yield Skipped(origin, f"class {code} is left out")
        else:
            yield Record(file, label, origin, subject=file.stem.split("_")[0])


def _code(file: Path) -> str:
    named = FILE_NAME.fullmatch(file.stem.lower())
    return named.group(1) if named else ""


READER = Reader(
    name="tfeid",
    title="TFEID, the Taiwanese Facial Expression Image Database",
    size="40 subjects, colour, 480–595 × 600–606; the study uses 510 photographs",
    licence="research use; may not be passed on",
    access="on request from the Brain Mapping Laboratory, National Yang-Ming University",
    layout="CLASS/f01_…_ag1.jpg: subject before the first _, the last part starts with "
    "ng ag dg fg hg sg or pg",
    citation="Chen and Yen, Taiwanese Facial Expression Image Database, 2007",
    recognise=recognise,
    read=read,
    crop=0.8,
    sizes=(405, 47, 58),
)

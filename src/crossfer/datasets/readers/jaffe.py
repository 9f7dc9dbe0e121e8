"""JAFFE: ten Japanese women, a flat folder whose file names say everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.emotions import label_of

FILE_NAME = re.compile(r"([A-Z]{2})[.-](AN|DI|FE|HA|NE|SA|SU)(\d)[.-](\d+)", re.IGNORECASE)
CODES = {
    "AN": "angry",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happy",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}


def recognise(path: Path) -> str | None:
    """Say why a path looks like JAFFE."""
    if not path.is_dir():
        return None
    file = next((file for file in image_files(path) if FILE_NAME.match(file.name)), None)
    return f"image files are named like {file.name}" if file else None


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record an image: ``KA.AN1.39.tiff`` is subject KA, angry, first repetition."""
    for file in image_files(path):
        origin = file.relative_to(path).as_posix()
        named = FILE_NAME.match(file.name)
        if not named:
            yield Skipped(origin, "not named like KA.AN1.39.tiff")
            continue
        subject, code = named.group(1).upper(), named.group(2).upper()
        label = label_of(code, {**CODES, **options.labels})
        if label is None:
            yield Skipped(origin, f"class {code} is left out")
        else:
            yield Record(file, label, origin, subject=subject)


READER = Reader(
    name="jaffe",
    title="JAFFE, the Japanese Female Facial Expression database",
    size="213 photographs of 10 women, 256×256 gray, seven classes",
    licence="non-commercial research; may not be passed on",
    access="on request: zenodo.org/records/3451524",
    layout="KA.AN1.39.tiff in one folder (subject KA, expression AN, first repetition)",
    citation="Lyons, Kamachi, Gyoba, The Japanese Female Facial Expression Database, 1998",
    recognise=recognise,
    read=read,
    crop=0.72,
    sizes=(131, 15, 67),
)

"""CK+48: the last three frames of the labelled CK+ sequences, cropped to 48×48."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.emotions import label_of

FILE_NAME = re.compile(r"(S\d{3})_\d{3}_\d{8}\.", re.IGNORECASE)


def recognise(path: Path) -> str | None:
    """Say why a path looks like CK+48."""
    if not path.is_dir():
        return None
    file = next((file for file in image_files(path) if FILE_NAME.match(file.name)), None)
    if file is None or re.fullmatch(r"\d{3}", file.parent.name):  # CK+ itself: S005/001/S005_…
        return None
    return f"image files in class folders are named like {file.name}"


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record an image; the subject is the first part of its name."""
    for file in image_files(path):
        origin = file.relative_to(path).as_posix()
        named = FILE_NAME.match(file.name)
        if not named:
            yield Skipped(origin, "not named like S010_004_00000017.png")
            continue
        label = label_of(file.parent.name, options.labels)
        if label is None:
            yield Skipped(origin, f"class {file.parent.name} is left out")
        else:
            yield Record(file, label, origin, subject=named.group(1).upper())


READER = Reader(
    name="ck48",
    title="CK+48, faces of the extended Cohn-Kanade dataset",
    size="981 faces of 118 subjects, 48×48 gray; 54 show contempt and are left out; no neutral",
    licence="research use, as CK+",
    access="CK+ on request from its authors; the cropped copy circulates on Kaggle",
    layout="CK+48/CLASS/S010_004_00000017.png",
    citation="Lucey et al., The Extended Cohn-Kanade Dataset (CK+), CVPR Workshops 2010",
    recognise=recognise,
    read=read,
)

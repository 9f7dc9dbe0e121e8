"""ExpW: faces in photographs from the web, several in some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers.files import find, image_files, labelled_or_unknown
from crossfer.datasets.readers.labels import ORDERS
from crossfer.datasets.readers.tables import box_of, encoding_of, lines_of
from crossfer.datasets.record import Box, Item, Reader, ReadOptions, Record, Remark, Skipped

LIST = "label.lst"
FIELDS = 8
EXAMPLE = "name.jpg 0 top left right bottom confidence class"


def recognise(path: Path) -> str | None:
    """Say why a path looks like ExpW."""
    file = find(path, LIST)
    if file is None:
        return None
    with file.open(encoding="utf-8", errors="replace") as text:
        first = text.readline(4096)
    return f"{LIST} has a face a row" if _fields(first) else None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield one record a face; classes are numbered as in FER2013."""
    file = find(path, LIST)
    if file is None:
        return
    images = {image.name: image for image in image_files(path)}
    seen: set[str] = set()
    yield Remark("", (file,))
    with file.open(encoding=encoding_of(file)) as text:
        for number, line in enumerate(lines_of(file, text), 1):
            fields = _fields(line)
            if not fields:
                if line.strip():
                    yield Skipped(f"{LIST} row {number}", f"not a row like: {EXAMPLE}")
                continue
            name, face, *sides, _, code = fields
            image, box = images.get(Path(name).name), _box(sides)
            origin = f"{image.relative_to(path).as_posix() if image else name} face {face}"
            label, reason = labelled_or_unknown(code, options, ORDERS["fer2013"])
            if label is None:
                yield Skipped(origin, reason)
            elif image is None:
                yield Skipped(origin, "no such file")
            elif box is None:
                yield Skipped(origin, "the face box is empty")
            elif origin in seen:
                yield Skipped(origin, "a face that is listed twice is left out")
            else:
                seen.add(origin)
                yield Record(image, label, origin, box=box)


def _fields(line: str) -> list[str] | None:
    """Split a row; spaces may be part of the name, which comes first."""
    fields = line.strip().rsplit(maxsplit=FIELDS - 1)
    return fields if len(fields) == FIELDS and fields[-1].isdigit() else None


def _box(sides: list[str]) -> Box | None:
    try:
        top, left, right, bottom = map(float, sides)
    except ValueError:
        return None
    return box_of((left, top, right - left, bottom - top))


READER = Reader(
    name="expw",
    title="ExpW, the Expression in-the-Wild dataset",
    size="91,793 faces in photographs from the web",
    licence="non-commercial research; may not be passed on",
    access="on request: mmlab.ie.cuhk.edu.hk/projects/socialrelation",
    layout="label.lst (name, face, top, left, right, bottom, confidence, class) and image/",
    citation="Zhang et al., From Facial Expression Recognition to Interpersonal Relation Prediction, "
    "IJCV 2018",
    recognise=recognise,
    read=read,
)

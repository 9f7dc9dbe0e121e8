"""Label files beside the pictures, as YOLO trains on and Roboflow exports: a line a face."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from crossfer.datasets.readers import splitnames
from crossfer.datasets.readers.files import find, image_files, labelled
from crossfer.datasets.readers.labels import understood
from crossfer.datasets.readers.tables import encoding_of, lines_of
from crossfer.datasets.record import Box, Item, Reader, ReadOptions, Record, Remark, Skipped, Split
from crossfer.datasets.walk import files_below
from crossfer.errors import CrossferError

LOOK = 20
LARGEST = 2**20
EXAMPLE = "class, then centre, width and height of the face as fractions of the picture"


def recognise(path: Path) -> str | None:
    """Say why a path looks like this: label files of the pictures' names, and names of the classes."""
    if not path.is_dir() or not find(path, "labels", depth=2, kind=Path.is_dir):
        return None
    if any(os.path.isfile(_label_file(image)) for image in islice(image_files(path), LOOK)):
        return "a folder labels holds a text for each picture"
    return None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield one record a line of a label file; the folder above images and labels may be the split."""
    about = find(path, "data.yaml") or find(path, "*.yaml") or find(path, "classes.txt")
    content = _content(about) if about else None
    names = _names(content)
    if about is None or names is None:
        raise CrossferError(
            f"{path}: no data.yaml with the class names (names:) beside the label files; add it"
        )
    options, said = understood(names.values(), options)
    yield Remark(said)
    images = list(image_files(path))
    used = {about, *map(_label_file, images)}
    for file in map(Path, files_below(path)):
        if _is_label(file) and file not in used:
            yield Skipped(file.relative_to(path).as_posix(), "a label file without a picture")
    folders = {image: _split_folders(image.relative_to(path).parts[:-1]) for image in images}
    splits = splitnames.splits_of({name for names in folders.values() for name in names}, options)
    splitnames.check_mapped(options, splits)
    posed = isinstance(content, dict) and "kpt_shape" in content
    told = ", ".join(f"{code} = {name}" for code, name in names.items())
    yield Remark(f"classes by {about.name}: {told}", tuple(used))
    for image in images:
        origin = image.relative_to(path).as_posix()
        found = {splits[name] for name in folders[image]} - {None}
        split = found.pop() if len(found) == 1 else None
        yield from _faces(image, origin, split, names, posed, options)


def _faces(
    image: Path,
    origin: str,
    split: Split | None,
    names: dict[str, str],
    posed: bool,
    options: ReadOptions,
) -> Iterator[Record | Skipped]:
    file = _label_file(image)
    if not os.path.isfile(file):
        yield Skipped(origin, "no label file")
        return
    with file.open(encoding=encoding_of(file)) as text:
        lines = [line.split() for line in lines_of(file, text) if line.strip()]
    if not lines:
        yield Skipped(origin, "its label file has no face")
    for number, fields in enumerate(lines):
        where = origin if number == 0 else f"{origin} face {number + 1}"
        box = _box(fields[1:5] if posed else fields[1:])
        if box is None:
            yield Skipped(where, f"not a line of a label file: {EXAMPLE}")
            continue
        label, reason = labelled(names.get(fields[0], fields[0]), options)
        if label is None:
            yield Skipped(where, reason)
        else:
            yield Record(image, label, where, split=split, box=box, relative=True)


def _box(texts: list[str]) -> Box | None:
    """Return the box of a line: its centre and sides, perhaps with a score, or that of a polygon."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    if len(values) >= 6 and len(values) % 2 == 0:
        left, top, right, bottom = (f(values[i::2]) for f in (min, max) for i in (0, 1))
        x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    elif len(values) in (4, 5):
        x, y, width, height = values[:4]
    else:
        return None
    inside = 0 < width <= 1.001 and 0 < height <= 1.001 and 0 <= x <= 1 and 0 <= y <= 1
    return (x - width / 2, y - height / 2, width, height) if inside else None


def _label_file(image: Path) -> Path:
    """Return where a picture's labels are: in the folder labels in place of images, or one beside it."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index].lower() == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :]).with_suffix(".txt")
    return image.parent / "labels" / f"{image.stem}.txt"


def _is_label(file: Path) -> bool:
    return file.suffix.lower() == ".txt" and "labels" in file.parts


def _split_folders(folders: tuple[str, ...]) -> list[str]:
    return [name for name in folders if name.lower() != "images"]


def _content(about: Path) -> Any:
    """Read what is written about the classes; None where it cannot be read."""
    if about.stat().st_size > LARGEST:
        return None
    try:
        text = about.read_text(encoding=encoding_of(about))
        return text.split("\n") if about.suffix == ".txt" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _names(content: Any) -> dict[str, str] | None:
    """Return the names of the classes: a list, or from number to name."""
    names = content.get("names") if isinstance(content, dict) else content
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        return None
    return {str(code): str(name).strip() for code, name in names.items() if str(name).strip()}


READER = Reader(
    name="yolo",
    title="pictures with YOLO's label files",
    layout="[SPLIT/]images/NAME.jpg, [SPLIT/]labels/NAME.txt (a line a face: "
    "class x y width height, or class and a polygon) and data.yaml with the names of the classes",
    cropped=None,
    takes=frozenset({"order", "splits"}),
    recognise=recognise,
    read=read,
)

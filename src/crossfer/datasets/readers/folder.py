"""Any folder of images per class, with or without splits above the classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from crossfer.datasets.readers.files import SPLIT_NAMES, image_files, labelled
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped
from crossfer.errors import CrossferError


def recognise(path: Path) -> str | None:
    """Say why a path looks like a folder of images per class: it is a folder with images."""
    if not path.is_dir() or next(image_files(path), None) is None:
        return None
    return "it is a folder with images in folders"


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record an image.

    Its class is the nearest folder above it that has the name of a class (a number is one only where no
    name is: people number subjects too); any folder above it may be the split.
    """
    class_of = cache(lambda folders: _class(path, folders, options))
    for file in image_files(path):
        relative = file.relative_to(path)
        origin, folders = relative.as_posix(), relative.parts[:-1]
        if not folders:
            yield Skipped(origin, "not in the folder of a class")
            continue
        label, reason = class_of(folders)
        if label is None:
            yield Skipped(origin, reason)
            continue
        splits = [SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES]
        yield Record(
            file,
            label,
            origin,
            subject=options.subject_of(origin),
            split=splits[0] if splits else None,
        )


def _class(path: Path, folders: tuple[str, ...], options: ReadOptions) -> tuple[str | None, str]:
    """Return the label of a folder, or the reason why its images are left out."""
    for name in sorted(reversed(folders), key=str.isdigit):
        try:
            return labelled(name, options)
        except CrossferError:
            continue
    try:
        return labelled(folders[-1], options)
    except CrossferError as error:
        raise CrossferError(f"{path.joinpath(*folders)}: {error}") from None


READER = Reader(
    name="folder",
    title="any folder of images per class",
    size="any",
    licence="yours",
    access="yours",
    layout="CLASS/IMAGE or SPLIT/CLASS/IMAGE; class names by synonym or --label; subjects by --subject",
    cropped=None,
    recognise=recognise,
    read=read,
)

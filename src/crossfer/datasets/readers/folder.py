"""Any folder of images per class, with or without splits above the classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import Reader, ReadOptions, Record, Skipped, Split
from crossfer.emotions import label_of
from crossfer.errors import CrossferError

SPLIT_NAMES: dict[str, Split] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def recognise(path: Path) -> str | None:
    """Say why a path looks like a folder of images per class: it is a folder with images."""
    if not path.is_dir() or next(image_files(path), None) is None:
        return None
    return "it is a folder with images in folders"


def read(path: Path, options: ReadOptions) -> Iterator[Record | Skipped]:
    """Yield one record an image: its folder is the class, the folder above may be the split."""
    for file in image_files(path):
        relative = file.relative_to(path)
        if len(relative.parts) < 2:
            yield Skipped(relative.as_posix(), "not in the folder of a class")
            continue
        try:
            label = label_of(relative.parts[-2], options.labels)
        except CrossferError as error:
            raise CrossferError(f"{file.parent}: {error}") from None
        if label is None:
            yield Skipped(relative.as_posix(), f"class {relative.parts[-2]} is left out")
            continue
        splits = [
            SPLIT_NAMES[part.lower()] for part in relative.parts if part.lower() in SPLIT_NAMES
        ]
        yield Record(
            file,
            label,
            relative.as_posix(),
            subject=options.subject_of(relative.as_posix()),
            split=splits[0] if splits else None,
        )


READER = Reader(
    name="folder",
    title="any folder of images per class",
    size="any",
    licence="yours",
    access="yours",
    layout="CLASS/IMAGE or SPLIT/CLASS/IMAGE; class names by synonym or --label; subjects by --subject",
    recognise=recognise,
    read=read,
)

"""Files in folders: class, split and subject from their names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath

from crossfer.classes import comparable
from crossfer.datasets.archives import SUFFIXES as ARCHIVES
from crossfer.datasets.readers import splitnames
from crossfer.datasets.readers.labels import label_of, meet
from crossfer.datasets.record import Item, ReadOptions, Record, Remark, Skipped, Split
from crossfer.datasets.walk import (
    IMAGE_SUFFIXES,
    PACKED_SUFFIXES,
    PICTURE_STARTS,
    STRAY_FOLDERS,
    VIDEO_SUFFIXES,
    files_below,
    is_picture,
    start_of,
)
from crossfer.errors import CrossferError

LOOK = 50
"""How many files a recogniser looks at: it must not read a million names to say no."""

COPY_MARK = re.compile(r"(\s*\(\d+\)|[\s_-]+(copy|kopie|copie|copia)(\s*\(?\d+\)?)?)+$", re.I)


SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "stand-in.txt"})
"""Files that systems leave behind, and our own note: nobody misses them."""


def is_text(file: Path) -> bool:
    """Tell by its first bytes whether a file is a text."""
    start = start_of(file)
    return (
        bool(start)
        and (start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" not in start)
        and not (start.startswith(PICTURE_STARTS) or start[:2] in (b"PK", b"\x1f\x8b"))
    )


def what_is(file: str) -> str:
    """Say what a file is that is not taken."""
    suffix = os.path.splitext(file)[1].lower()
    if suffix in VIDEO_SUFFIXES:
        return "a video; only MUG's takes are read from videos"
    if suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        return "a table that is not used"
    if suffix in (".json", ".xls", ".xlsx", ".ods", ".npy", ".npz", ".mat", ".pkl", ".h5", ".hdf5"):
        return "an unsupported data format; save a table as CSV or Parquet"
    if file.lower().endswith(ARCHIVES):
        return "an archive beside the files; unpack it, or name it alone"
    if suffix in PACKED_SUFFIXES:
        return "an archive of a kind that is not read; unpack it"
    if suffix in IMAGE_SUFFIXES:
        return "a picture that is in no list"
    return "a text" if is_text(Path(file)) else "not a picture"


def image_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Yield the image files under a folder, as `files_below` does; odd suffixes by what is in them.

    Parameters
    ----------
    folder
        Where to look.
    suffixes
        Of the files to yield, in lower case.
    """
    for file in files_below(folder):
        suffix = os.path.splitext(file)[1].lower()
        if suffix in suffixes or (suffixes >= IMAGE_SUFFIXES and is_picture(file)):
            yield Path(file)


def find(
    folder: Path, pattern: str, depth: int = 2, kind: Callable[[Path], bool] = Path.is_file
) -> Path | None:
    """Return the first file (or folder) of a name, in a folder or few below; the highest first."""
    return next(near(folder, pattern, depth, kind), None)


def near(
    folder: Path, pattern: str, depth: int, kind: Callable[[Path], bool] = Path.is_file
) -> Iterator[Path]:
    """Yield the files of a name in a folder or few below, the highest first, no stray ones.

    What is no regular file is none: to read a pipe might take for ever.
    """
    for level in range(depth + 1 if folder.is_dir() else 0):
        for file in sorted(folder.glob("*/" * level + pattern)):
            below = file.relative_to(folder).parts
            stray = any(name.startswith(".") or name in STRAY_FOLDERS for name in below)
            if not stray and kind(file):
                yield file


def most_look_like(
    folder: Path,
    matches: Callable[[Path], object],
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
) -> Path | None:
    """Return the first file that matches, if at least half of those in a bounded look do.

    One odd name must not make a folder look like a dataset.
    """
    if not folder.is_dir():
        return None
    seen = list(islice(image_files(folder, suffixes), LOOK))
    found = [file for file in seen if matches(file)]
    return found[0] if found and 2 * len(found) >= len(seen) else None


def plain_name(file: PurePath) -> str:
    """Return a file's name without suffixes and copy marks: ``KA.AN1.39.tiff (1).png`` → KA.AN1.39."""
    name = COPY_MARK.sub("", file.stem)
    while PurePath(name).suffix.lower() in IMAGE_SUFFIXES:
        name = COPY_MARK.sub("", PurePath(name).stem)
    return name


def labelled(
    name: str, options: ReadOptions, codes: Mapping[str, str] | None = None
) -> tuple[str | None, str]:
    """Translate a dataset's own class.

    Parameters
    ----------
    name
        The class or code as the dataset writes it.
    options
        Holds the user's own translation, of codes or of class names.
    codes
        From the dataset's codes to class names.

    Returns
    -------
    label : str or None
        The name of the class.
    reason : str
        Why there is no label, else empty.

    Raises
    ------
    CrossferError
        If the name is unknown.
    """
    codes = codes or {}
    mapped = comparable(name) in map(comparable, options.labels)
    known = None if mapped else codes.get(name)  # a class to ask the user's translation for, too
    meet(options, (name, known or name))
    if known:
        label = label_of(known, options.labels)
    else:
        label = label_of(name, {**codes, **options.labels})
    return label, "" if label is not None else f"class {known or name} is left out"


def labelled_or_unknown(
    name: str, options: ReadOptions, codes: Mapping[str, str] | None = None
) -> tuple[str | None, str]:
    """Translate a class as `labelled` does; a class that is unknown is a reason, not an error."""
    try:
        return labelled(name, options, codes)
    except CrossferError:
        return None, f"unknown class {name.strip()!r}"


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of an image file says.

    Parameters
    ----------
    code
        The class, as the dataset writes it.
    identity
        The same for all copies of an image.
    subject, split
        As in `Record`.
    aside
        Why the image is read only with `ReadOptions.everything`.
    """

    code: str
    identity: Hashable
    subject: str | None = None
    split: Split | None = None
    aside: str | None = None


@dataclass(frozen=True)
class NamedFiles:
    """A dataset whose file names say everything.

    Parameters
    ----------
    parse
        Reads a file's name (and its folder's), or returns ``None`` if it is named otherwise.
    like
        An example of a name.
    codes
        From the dataset's codes to class names.
    """

    parse: Callable[[Path], Named | None]
    like: str
    codes: Mapping[str, str] = field(default_factory=dict)

    def recognise(self, path: Path) -> str | None:
        """Say why a path looks like this dataset."""
        file = most_look_like(path, self.parse)
        return f"image files are named like {file.name}" if file else None

    def read(self, path: Path, options: ReadOptions) -> Iterator[Item]:
        """Yield one record an image; of several copies of an image the one with the plainest name."""
        files = {file: self.parse(file) for file in image_files(path)}
        splits = _splits_of({file for file, named in files.items() if named}, path, options)
        plainest: dict[Hashable, Path] = {}
        for file, named in files.items():
            if named:
                rival = plainest.setdefault(named.identity, file)
                plainest[named.identity] = min(rival, file, key=_plainness)
        other: list[str] = []
        for file, named in files.items():
            origin = file.relative_to(path).as_posix()
            if named is None:
                yield Skipped(origin, f"not named like {self.like}")
            elif named.aside and not options.everything:
                yield Skipped(origin, named.aside)
            elif plainest[named.identity] != file:
                yield Skipped(origin, "a copy of another image is left out")
            else:
                try:
                    label, reason = labelled(named.code, options, self.codes)
                except CrossferError as error:
                    raise CrossferError(f"{file.parent}: {error}") from None
                if label is None:
                    yield Skipped(origin, reason)
                else:
                    here = splits.get(file)
                    split = named.split or here
                    # FER2013's popular copy has its validation and test set in one folder.
                    if here not in (None, split) and (split, here) != ("validation", "test"):
                        other.append(origin)
                    yield Record(file, label, origin, subject=named.subject, split=split)
        if other:
            yield Remark(
                f"warning: {len(other):,} pictures are in folders of another split than their names "
                f"say (first: {other[0]}); the names are used (--as folder uses the folders)"
            )


def _splits_of(files: Set[Path], top: Path, options: ReadOptions) -> dict[Path, Split | None]:
    """Return the splits of files by the folders that they are in, where these are called like splits.

    Raises
    ------
    CrossferError
        If a file is in folders of two splits.
    """
    folders = {file: file.relative_to(top).parts[:-1] for file in files}
    names = {name for parts in folders.values() for name in parts}
    splitnames.check_mapped(options, names)
    sure = {name for name in names if splitnames.exact(name)} | splitnames.mapped(names, options)
    translation = splitnames.splits_of(sure, options)
    return {
        file: splitnames.split_by(parts, translation, file.relative_to(top))
        for file, parts in folders.items()
    }


def _plainness(file: Path) -> tuple[int, int, Path]:
    return len(file.name), len(file.parts), file

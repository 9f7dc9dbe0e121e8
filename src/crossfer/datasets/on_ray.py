"""Extract faces on a Ray cluster, whose nodes need not see the raw files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from crossfer.datasets.detector import Detector
from crossfer.datasets.extract import (
    Block,
    Extraction,
    block_of,
    by_file,
    check_there,
    file_of,
    load,
    numbered,
    one_thread_each,
    save,
)
from crossfer.datasets.faces import Face
from crossfer.datasets.record import Record
from crossfer.errors import CrossferError
from crossfer.executors import Events, Task
from crossfer.executors.graph import Emit
from crossfer.executors.ray import Ray, run_on_ray
from crossfer.executors.travel import Carry, Unseen
from crossfer.files import digest
from crossfer.progress import OnProgress

PACKAGES = ("crossfer", "numpy", "opencv-python-headless", "pillow")
"""What decides on a face's pixels."""


def extract_on_ray(
    records: Sequence[Record], how: Extraction, folder: Path, cluster: Ray, progress: OnProgress
) -> None:
    """Compute on a cluster the blocks that `crossfer.datasets.extract.blocks` then reads from a folder.

    Parameters
    ----------
    records, how, folder, progress
        As for `crossfer.datasets.extract.blocks`; each record's picture is a file.
    cluster
        The cluster; each block is a task.

    Raises
    ------
    CrossferError
        If the cluster is not there, is lost, or has a node with other versions of what decides on a face's
        pixels.
    OSError
        If a file vanishes, a disk is full, or the like.
    """
    missing = {
        file.name: (file, [replace(one, label="", origin="", groups={}) for one in some])
        for start, some in numbered(records)
        if load(file := file_of(folder, start), len(some)) is None
    }
    if not missing:
        return
    done = len(records) - sum(len(some) for _, some in missing.values())
    progress(done, len(records))

    class Count(Events):
        """Passes on how many pictures are done."""

        def succeeded(self, key: str) -> None:
            nonlocal done
            done += len(missing[key][1])
            progress(done, len(records))

    tasks, travel = [Task(name) for name in missing], Blocks(folder.parent.absolute(), how, missing)
    failures = run_on_ray(tasks, Count(), cluster, travel)
    for name, failure in failures.items():
        first, *others = missing[name][1]
        raise CrossferError(
            f"{first.picture} and the {len(others)} pictures after it: {failure.why}"
        )


@dataclass(frozen=True)
class FileGroup:
    """The records of one file, as they are sent to a node.

    Parameters
    ----------
    records
        The records; all have the same picture.
    size
        Size of the file in bytes; None where it cannot be read.
    content
        The file's content, or why each record cannot be used; None where the node reads the file itself.
    """

    records: list[Record]
    size: int | None
    content: bytes | list[Face | str] | None = None


@dataclass(frozen=True)
class SentPart:
    """The input of a task: groups, and the first readable file with its SHA-256, if there is one."""

    groups: list[FileGroup]
    probe: tuple[Path, str] | None


@dataclass(frozen=True)
class Blocks:
    """Sends records and receives blocks: a `crossfer.executors.ray.Travel`.

    Parameters
    ----------
    root
        The staging folder, absolute.
    how
        How faces are extracted.
    missing
        For each block to compute, by its key: its file and its records.
    """

    root: Path
    how: Extraction
    missing: Mapping[str, tuple[Path, list[Record]]]
    packages: tuple[str, ...] = PACKAGES

    @property
    def open_there(self) -> Callable[[], Carry]:
        """Prepares a process of a node; picklable."""
        return partial(_open, self.how)

    def pack(self, key: str, whole: bool, again: bool) -> SentPart:
        """Return the input of a block's task, with its files if some node does not see them."""
        groups = [
            FileGroup(records, _size(_file(records))) for records in by_file(self.missing[key][1])
        ]
        first = next((_file(group.records) for group in groups if group.size is not None), None)
        if whole:
            groups = [replace(group, content=self._content(group)) for group in groups]
        return SentPart(groups, (first, digest(first)) if first else None)

    def _content(self, group: FileGroup) -> bytes | list[Face | str]:
        if group.size is None:
            return self.how.faces(group.records, None)
        return _file(group.records).read_bytes()

    def unpack(self, key: str, made: Block) -> None:
        """Write a block that came back."""
        save(self.missing[key][0], made)


def _file(records: Sequence[Record]) -> Path:
    picture = records[0].picture
    assert isinstance(picture, Path)
    return picture.absolute()


def _size(file: Path) -> int | None:
    """Return a file's size; None where it is no file, or may not be read."""
    size = file.stat().st_size
    return size if file.is_file() and os.access(file, os.R_OK) else None


def _open(how: Extraction) -> Carry:
    """Return what a process of a node runs for each block; it finds faces with one thread."""
    detector = Detector() if how.find else None

    def carry(key: str, sent: SentPart, tell: Emit) -> tuple[str | None, Block]:
        seen = _sees(sent)
        if not seen and any(group.content is None for group in sent.groups):
            raise Unseen
        faces = list[Face | str]()
        with one_thread_each(), TemporaryDirectory(prefix="crossfer-") as place:
            for number, group in enumerate(sent.groups):
                if isinstance(group.content, list):
                    faces += group.content
                    continue
                file = _file(group.records)
                if not seen:
                    file = Path(place) / f"{number}{file.suffix}"
                    file.write_bytes(group.content or b"")
                records = [replace(record, picture=file) for record in group.records]
                found = how.faces(records, detector)
                check_there(records, found)
                faces += found
        return None, block_of(faces, how)

    return carry


def _sees(sent: SentPart) -> bool:
    """Tell whether this node sees the files: of the same sizes, and the first of the same content."""
    try:
        same = all(_size(_file(group.records)) == group.size for group in sent.groups)
        return same and (sent.probe is None or digest(sent.probe[0]) == sent.probe[1])
    except OSError:
        return False

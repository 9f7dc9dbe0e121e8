"""Tasks that fill folders, on nodes of a Ray cluster: in the work's own folder, or in a copy.

A node that sees the work's folder works in it.  To any other the files that a task needs are sent, each once
and known by its SHA-256, and what the task makes is sent back.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfer.errors import one_line
from crossfer.executors.graph import Open, Tell, Work
from crossfer.executors.ray import CannotBegin, Carry, Unseen
from crossfer.files import digest, write_bytes

if TYPE_CHECKING:
    from ray import ObjectRef

Made = dict[str, bytes]
"""Files, by name."""


@dataclass(frozen=True)
class Sent:
    """What a task is sent: files by their place in the copy, and the place that it fills."""

    files: Mapping[str, tuple[str, ObjectRef[bytes]]]
    makes: str


@dataclass(frozen=True)
class Files:
    """How tasks travel that fill folders; a `crossfer.executors.ray.Travel`.

    Parameters
    ----------
    root
        The work's folder, absolute.
    mark
        The name of a file in it, which tells a node that it sees the folder: see `marked`.
    open_here
        Makes a worker ready that sees it.
    open_copy
        Makes a worker ready in a folder of its own node that holds what was sent.
    always
        What every task needs: places in the copy, and the folders or files here.
    needs
        What each task needs besides, by key.
    makes
        The place in the copy that each task fills, and the folder here.
    last
        The file that is written last of what comes back: with it, it is whole.
    """

    root: Path
    mark: str
    open_here: Open
    open_copy: Callable[[Path], Work]
    always: Mapping[str, Path]
    needs: Mapping[str, Mapping[str, Path]]
    makes: Mapping[str, tuple[str, Path]]
    last: str
    packages: tuple[str, ...] = ("crossfer",)
    _sent: dict[tuple[Path, int], tuple[str, ObjectRef[bytes]]] = field(default_factory=dict)

    @property
    def open_there(self) -> Callable[[], Carry]:
        """What makes a process of a node ready."""
        return partial(_open, self.root, self.mark, self.open_here, self.open_copy)

    def pack(self, key: str, whole: bool, again: bool) -> Sent | None:
        """Return the files that a task is sent; None while all nodes see them."""
        if not whole:
            return None
        place = self.makes[key][0]
        folders = {**self.always, **self.needs[key]}
        if again:  # what the node has of it is newer
            folders.pop(place, None)
        return Sent(
            {name: one for to, at in folders.items() for name, one in self._put(to, at)}, place
        )

    def _put(self, place: str, folder: Path) -> Iterator[tuple[str, Any]]:
        """Make a file, or those of a folder, known to the cluster, each once; yield where they go."""
        import ray

        places = {place: folder}
        if folder.is_dir():
            places = {f"{place}/{file.name}": file for file in sorted(folder.iterdir())}
        for place, file in places.items():
            if file.is_file():
                state = (file, file.stat().st_mtime_ns)
                if state not in self._sent:
                    self._sent[state] = (digest(file), ray.put(file.read_bytes()))
                yield place, self._sent[state]

    def unpack(self, key: str, made: Made) -> None:
        """Write what came back, with what makes it whole at the end."""
        folder = self.makes[key][1]
        for name in sorted(made, key=lambda name: name == self.last):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, made[name])


@contextmanager
def marked(root: Path) -> Iterator[str]:
    """Leave a mark in a folder, by which nodes find out whether they see it; yield its name."""
    file = root / f".seen-{uuid.uuid4().hex}"
    file.touch()
    try:
        yield file.name
    finally:
        file.unlink(missing_ok=True)


def _open(root: Path, mark: str, open_here: Open, open_copy: Callable[[Path], Work]) -> Carry:
    """Make a process ready, on a node that sees the work's folder or on one that does not."""
    if (root / mark).exists():
        work = open_here()
        return lambda key, sent, tell: (_carried(work, key, tell), None)
    copy, opened = _copy_of(root), list[Work]()

    def carry(key: str, sent: Sent | None, tell: Tell) -> tuple[str | None, Made]:
        if sent is None:
            raise Unseen
        _fetch(copy, sent)
        try:
            opened[:] = opened or [open_copy(copy)]
        except OSError:
            raise
        except Exception as error:
            raise CannotBegin(one_line(error)) from None
        why, made = _carried(opened[0], key, tell), copy / sent.makes
        files = made.iterdir() if made.is_dir() else ()
        return why, {file.name: file.read_bytes() for file in files if file.is_file()}

    return carry


def _carried(work: Work, key: str, tell: Tell) -> str | None:
    """Carry out a task; return why it failed, if it did."""
    try:
        work(key, tell)
    except OSError:
        raise
    except Exception as error:
        return one_line(error)
    return None


COPIES = "crossfer-ray"
"""The folder, among this machine's temporary ones, of what was sent to it."""


def _copy_of(root: Path) -> Path:
    """Return where a node that does not see a folder has its copy: the same for each process."""
    name = f"{getuser()}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"
    return Path(tempfile.gettempdir()) / COPIES / name


def _fetch(copy: Path, sent: Sent) -> None:
    """Bring what is not there yet; content is kept under its SHA-256, and linked where it belongs."""
    import ray

    for place, (sha, content) in sent.files.items():
        kept, file = copy / "content" / sha, copy / place
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, ray.get(content))
        if not file.exists() or not file.samefile(kept):
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f"{file.name}.{os.getpid()}")
            os.link(kept, beside)
            beside.replace(file)

"""Tasks that write folders, on the nodes of a Ray cluster.

A node that sees our folder works in it.  Any other node works in a copy: each file that a task needs is sent
once, identified by its SHA-256, and the files that the task writes are sent back.
"""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from getpass import getuser
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from crossfer.errors import one_line
from crossfer.executors.graph import Emit, Open, Work
from crossfer.executors.travel import CannotBegin, Carry, Unseen
from crossfer.files import digest, write_bytes

if TYPE_CHECKING:
    from ray import ObjectRef

Made = dict[str, bytes]
"""Files, by name."""


@dataclass(frozen=True)
class Sent:
    """What is sent with a task: files by their place in the copy, and the place of its output."""

    files: Mapping[str, tuple[str, ObjectRef[bytes]]]
    makes: str


@dataclass(frozen=True)
class Files:
    """The files of tasks that write folders; a `crossfer.executors.ray.Travel`.

    Parameters
    ----------
    root
        The work's folder, absolute.
    mark
        The name of a file in it by which a node recognises the folder: see `marked`.
    open_here
        Prepares a worker that sees the folder.
    open_copy
        Prepares a worker in a folder of its node that holds the copy.
    always
        Files and folders that every task needs, by their place in the copy.
    needs
        The same for each task, by key.
    makes
        The place in the copy and the folder here that each task writes, by key.
    last
        The file that is written last: a folder that has it is complete.
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
        """Prepares a process on a node."""
        return partial(_open, self.root, self.mark, self.open_here, self.open_copy)

    def pack(self, key: str, whole: bool, again: bool) -> Sent | None:
        """Return the files that are sent with a task; None while all nodes see them."""
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
        """Put a file, or the files of a folder, into the object store, each once; yield their places."""
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
        """Write the files that came back, `last` at the end."""
        folder = self.makes[key][1]
        for name in sorted(made, key=lambda name: name == self.last):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, made[name])


@contextmanager
def marked(root: Path) -> Iterator[str]:
    """Create a file by which nodes recognise a folder; yield its name."""
    file = root / f".seen-{uuid.uuid4().hex}"
    file.touch()
    try:
        yield file.name
    finally:
        file.unlink(missing_ok=True)


def _open(root: Path, mark: str, open_here: Open, open_copy: Callable[[Path], Work]) -> Carry:
    """Prepare a process on a node, which may or may not see the folder."""
    if (root / mark).exists():
        work = open_here()
        return lambda key, sent, tell: (_carried(work, key, tell), None)
    copy, opened = _copy_of(root), list[Work]()

    def carry(key: str, sent: Sent | None, tell: Emit) -> tuple[str | None, Made]:
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


def _carried(work: Work, key: str, tell: Emit) -> str | None:
    """Carry out a task; return why it failed, or None."""
    try:
        work(key, tell)
    except OSError:
        raise
    except Exception as error:
        return one_line(error)
    return None


COPIES = "crossfer-ray"
"""The folder of a user's copies, in the node's temporary folder, before the user's number."""


def _copy_of(root: Path) -> Path:
    """Return the folder of a node's copy: the same for each of its processes.

    Raises
    ------
    CannotBegin
        If it is not the user's own: everybody may write to a temporary folder, and could put files there.
    """
    user = os.getuid() if hasattr(os, "getuid") else getuser()
    copies = Path(gettempdir()) / f"{COPIES}-{user}"
    with suppress(FileExistsError):
        copies.mkdir(mode=0o700)
    found = copies.lstat()
    if hasattr(os, "getuid") and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077
    ):
        raise CannotBegin(
            f"{copies}: a link, of another user, or open to others; remove it on this node"
        )
    return copies / hashlib.sha256(str(root).encode()).hexdigest()[:16]


def _fetch(copy: Path, sent: Sent) -> None:
    """Fetch missing files; content is stored under its SHA-256 and hard-linked to its places.

    Other processes of the node may fetch the same file at the same time: each writes to a folder of its own,
    and a link puts the finished file in place, of whoever comes first.
    """
    import ray

    contents = copy / "content"
    contents.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=copy) as folder:
        own = Path(folder) / "file"
        for place, (sha, content) in sent.files.items():
            kept, file = contents / sha, copy / place
            linked = kept.exists() and file.exists() and file.samefile(kept)
            if not linked and kept.exists() and digest(kept) != sha:
                kept.unlink()  # cut off, or changed
            if not kept.exists():
                write_bytes(own, ray.get(content))
                # Never replaced: another process's link to what was there would fail.
                with suppress(FileExistsError):
                    os.link(own, kept)
            if not linked:
                file.parent.mkdir(parents=True, exist_ok=True)
                own.unlink(missing_ok=True)  # a rename to the same inode leaves it
                os.link(kept, own)
                own.replace(file)

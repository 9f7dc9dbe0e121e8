"""Append-only journals of labelling events, fsynced line by line, one per session.

A journal is a text of JSON lines.  The first says what it is and whose; each line after it is a key press.
Nothing is ever changed in it: an undo is a line, too.  A session writes a journal of its own, so people (and
computers that share a folder) who label at the same time write to different files and nothing needs a lock.
A process may be killed in the middle of a line: what has no line's end was never confirmed, and is passed
over.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from crossfer.datasets.record import Box
from crossfer.errors import CrossferError
from crossfer.files import sync

KIND, VERSION = "crossfer labels", 1
LONGEST_NAME = 60
SUFFIX = ".jsonl"

Did = Literal["label", "skip", "not a face", "subject", "settle", "undo"]
"""``label``, ``skip`` and ``not a face`` say what a face shows; ``subject`` who it is; ``settle`` what counts
where two people disagree; ``undo`` takes another event back."""


@dataclass(frozen=True, slots=True)
class Place:
    """A face, as it is known wherever the journal is read.

    Parameters
    ----------
    picture
        The SHA-256 of the photo's file.
    box
        Left, top, width and height in pixels of the photo.
    """

    picture: str
    box: Box


@dataclass(frozen=True, slots=True)
class Suggested:
    """What the model said of a face when somebody labelled it.

    Parameters
    ----------
    model
        Identifies it.
    label
        Its most probable class.
    probability
        Of that class, 0–1.
    shown
        Whether the person saw it.
    """

    model: str
    label: str
    probability: float
    shown: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A key press.

    Parameters
    ----------
    did
        What.
    faces
        Of which faces; none for an undo.
    label
        The class of a face (``label``, ``settle``), or the name of a person (``subject``); of a ``settle``,
        ``None`` says that it is no face, and of a ``subject``, that nobody knows who it is.
    suggested
        What the model said; ``None`` without a model.
    apart
        Of a ``subject``: faces that are not of this person.
    undoes
        The `id` of the event that is taken back.
    by, at, id
        Who, when (ISO 8601, UTC) and which line of which journal.
    """

    did: Did
    faces: tuple[Place, ...] = ()
    label: str | None = None
    suggested: Suggested | None = None
    apart: tuple[Place, ...] = ()
    undoes: str | None = None
    by: str = ""
    at: str = ""
    id: str = ""

    @property
    def changed(self) -> bool | None:
        """Whether the label is another than the suggested one; ``None`` where nothing was suggested."""
        if self.did != "label" or self.suggested is None:
            return None
        return self.label != self.suggested.label


class Journal:
    """Writes events.  Not for several threads at once.

    The file is made with the first event.

    Parameters
    ----------
    folder
        Of the journals.
    by
        Who labels.

    Raises
    ------
    CrossferError
        If the name is empty, too long, or no text.
    """

    def __init__(self, folder: Path, by: str) -> None:
        self.folder, self.by = folder, _name(by)
        self._file: BinaryIO | None = None
        self._lines, self._last = 0, ""

    def write(self, event: Event) -> Event:
        """Write an event, and return it as it is read again, once it is on the disk.

        Raises
        ------
        OSError
            If it cannot be written: the journal then is as it was.
        """
        now = max(datetime.now(UTC).isoformat(timespec="milliseconds"), self._last)
        file = self._file or self._begin(now)
        _append(file, _as_json(event, now))
        self._lines, self._last = self._lines + 1, now
        return replace(event, by=self.by, at=now, id=f"{Path(file.name).stem}:{self._lines}")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
        self._file = None

    def _begin(self, now: str) -> BinaryIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = re.sub(r"\W", "", now.partition(".")[0])
        plain = re.sub(r"[^\w-]+", "_", self.by, flags=re.ASCII)
        path = self.folder / f"{plain}-{stamp}-{secrets.token_hex(3)}{SUFFIX}"
        file = path.open("xb", buffering=0)
        try:
            _append(file, {"format": KIND, "version": VERSION, "by": self.by, "at": now})
            sync(self.folder)
        except OSError:
            file.close()
            with suppress(OSError):
                path.unlink()
            raise
        self._file, self._lines = file, 1
        return file


@dataclass(frozen=True)
class History:
    """All that was ever said.

    Parameters
    ----------
    events
        In the order of their times; those of one journal in its own.
    notes
        What was passed over, and why.
    """

    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(folder: Path) -> History:
    """Read all journals of a folder.

    Raises
    ------
    CrossferError
        If one is of another version, or a whole line of it is none of ours: nothing is guessed.
    """
    found = History()
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        *lines, rest = file.read_bytes().split(b"\n")
        if rest.strip(b"\0"):
            found.notes.append(f"{file.name}: ends within a line that was never confirmed; ignored")
        if lines:
            found.events.extend(_events(file, lines))
    found.events.sort(key=lambda event: event.at)  # stable: in one journal times never go back
    return found


def _events(file: Path, lines: list[bytes]) -> Iterator[Event]:
    head = _parsed(file, 1, lines[0])
    if head.get("format") != KIND:
        raise CrossferError(f"{file}: not a label journal; move it out of the folder")
    if head.get("version") != VERSION:
        raise CrossferError(
            f"{file}: written by another crossfer (version {head.get('version')} of the journal; "
            f"this one reads {VERSION}); continue with that version, or move the file out of the "
            "folder"
        )
    for number, line in enumerate(lines[1:], 2):
        values = _parsed(file, number, line)
        try:
            event = _from_json(values)
            yield replace(
                event, by=str(head["by"]), at=str(values["at"]), id=f"{file.stem}:{number}"
            )
        except (KeyError, TypeError, ValueError):
            raise _damaged(file, number) from None


def _parsed(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise _damaged(file, number)
    return values


def _damaged(file: Path, number: int) -> CrossferError:
    return CrossferError(
        f"{file} line {number}: not a valid journal line; restore it from a backup, or delete this "
        "line"
    )


def _append(file: BinaryIO, values: Mapping[str, Any]) -> None:
    """Write a line to the disk itself; if that fails, what there is of it is cut off again."""
    before = file.tell()
    line = json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    try:
        if file.write(line) != len(line):
            raise OSError(28, "No space left on device", file.name)
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(before)
            file.seek(before)
        raise


def _as_json(event: Event, at: str) -> dict[str, Any]:
    said: dict[str, Any] = {"at": at, "did": event.did}
    for name, faces in (("faces", event.faces), ("apart", event.apart)):
        if faces:
            said[name] = [{"picture": face.picture, "box": list(face.box)} for face in faces]
    if event.did in ("label", "subject", "settle"):
        said["label"] = event.label
    if event.suggested:
        said["suggested"] = {
            "model": event.suggested.model,
            "label": event.suggested.label,
            "probability": round(event.suggested.probability, 6),
            "shown": event.suggested.shown,
        }
    if event.changed is not None:
        said["changed"] = event.changed  # for whoever reads the file; it follows from the rest
    if event.undoes:
        said["undoes"] = event.undoes
    return said


def _from_json(said: Mapping[str, Any]) -> Event:
    if said["did"] not in get_args(Did):
        raise ValueError
    suggested = said.get("suggested")
    return Event(
        said["did"],
        _places(said.get("faces", ())),
        None if said.get("label") is None else str(said["label"]),
        suggested
        and Suggested(
            str(suggested["model"]),
            str(suggested["label"]),
            float(suggested["probability"]),
            bool(suggested["shown"]),
        ),
        _places(said.get("apart", ())),
        said.get("undoes"),
    )


def _places(faces: Iterable[Mapping[str, Any]]) -> tuple[Place, ...]:
    return tuple(map(_place, faces))


def _place(face: Mapping[str, Any]) -> Place:
    left, top, width, height = map(float, face["box"])
    return Place(str(face["picture"]), (left, top, width, height))


def _name(by: str) -> str:
    name = by.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise CrossferError(
            f"--by {by!r}: write the annotator's name, in at most {LONGEST_NAME} printable "
            "characters"
        )
    return name

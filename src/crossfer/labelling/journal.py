"""Append-only journals of labelling events, fsynced line by line, one per session.

A journal is a file of JSON lines.  The first line is a header with format, version and annotator; every other
line is an event, written when a key is pressed.  Lines are only appended: an undo is a line, too.  Each
session writes its own journal, so annotators who work at the same time, also on several computers, need no
lock.  A last line without an end was never confirmed (the process was killed in writing it) and is ignored.
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

from crossfer.classes import canonical
from crossfer.datasets.record import Box, spelled
from crossfer.errors import CrossferError
from crossfer.files import parsed, sync

KIND, VERSION = "crossfer labels", 1
LONGEST_NAME = 60
SUFFIX = ".jsonl"

Did = Literal["label", "skip", "not a face", "subject", "settle", "undo"]
"""``label``, ``skip`` and ``not a face`` answer what a face shows; ``subject`` names the person; ``settle``
decides where annotators disagree; ``undo`` takes another event back."""


@dataclass(frozen=True, slots=True)
class FaceLocation:
    """Identifies a face independently of file names and of the detector.

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
    """The model's prediction for a face at the time it was labelled.

    Parameters
    ----------
    model
        The model's identity.
    label
        The most probable class.
    probability
        Its probability, 0–1.
    shown
        Whether the annotator saw it.
    """

    model: str
    label: str
    probability: float
    shown: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One event of labelling: a key press or a click.

    Parameters
    ----------
    did
        Kind of event.
    faces
        The faces that it is about; empty for an ``undo``.
    label
        The class (``label``, ``settle``) or the person's name (``subject``). ``None`` means "not a face" in a
        ``settle`` and "unknown person" in a ``subject``.
    suggested
        The model's prediction; ``None`` without a model.
    apart
        Only for ``subject``: faces that are not of this person.
    undoes
        The `id` of the event that is undone.
    by, at, id
        Annotator, time (ISO 8601, UTC), and ``JOURNAL:LINE``.
    """

    did: Did
    faces: tuple[FaceLocation, ...] = ()
    label: str | None = None
    suggested: Suggested | None = None
    apart: tuple[FaceLocation, ...] = ()
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
    """Appends events to a new journal, created with the first event.  Not thread-safe.

    Parameters
    ----------
    folder
        The folder of the journals.
    by
        The annotator's name.

    Raises
    ------
    CrossferError
        If the name is empty, too long, or not printable.
    """

    def __init__(self, folder: Path, by: str) -> None:
        self.folder, self.by = folder, _name(by)
        self._file: BinaryIO | None = None
        self._lines, self._last = 0, ""

    def write(self, event: Event) -> Event:
        """Append an event; once it is on the disk, return it with annotator, time and id.

        Raises
        ------
        OSError
            If it cannot be written; the journal is unchanged then.
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
    """The events of all journals.

    Parameters
    ----------
    events
        Sorted by time; those of one journal keep their order.
    notes
        What was ignored, and why.
    """

    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Journals:
    """Reads all journals of a folder; what was read before is not parsed again.

    Parameters
    ----------
    folder
        The folder of the journals.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parsed: dict[Path, tuple[list[bytes], list[Event]]] = {}

    def read(self) -> History:
        """Read the journals as they are now.

        Raises
        ------
        CrossferError
            If one has another version, or a complete line of it is not an event.
        """
        found = History()
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            *lines, rest = file.read_bytes().split(b"\n")
            if rest.strip(b"\0"):
                found.notes.append(
                    f"{file.name}: ends within a line that was never confirmed; ignored"
                )
            if lines:
                found.events.extend(self._events(file, lines))
        found.events.sort(key=lambda event: event.at)  # stable: in one journal times never go back
        return found

    def _events(self, file: Path, lines: list[bytes]) -> list[Event]:
        before, events = self._parsed.get(file, ([], []))
        if lines[: len(before)] != before:
            before, events = [], []
        events = [*events, *_events(file, lines, max(1, len(before)))]
        self._parsed[file] = lines, events
        return events


def _events(file: Path, lines: list[bytes], start: int) -> Iterator[Event]:
    """Parse the lines from an index on; the first line is the header."""
    head = _parsed(file, 1, lines[0])
    if head.get("format") != KIND:
        raise CrossferError(f"{file}: not a label journal; move it out of the folder")
    if head.get("version") != VERSION:
        raise CrossferError(
            f"{file}: written by another crossfer (version {head.get('version')} of the journal; "
            f"this one reads {VERSION}); continue with that version, or move the file out of the "
            "folder"
        )
    for number, line in enumerate(lines[start:], start + 1):
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
        values = parsed(line)
    except ValueError:
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
    """Append a line and sync it to the disk; if that fails, remove what was written of it."""
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
    suggested, label = said.get("suggested"), said.get("label")
    if label is not None:  # journals of earlier versions have other spellings
        label = (spelled if said["did"] == "subject" else canonical)(str(label))
    return Event(
        said["did"],
        _places(said.get("faces", ())),
        label,
        suggested
        and Suggested(
            str(suggested["model"]),
            canonical(str(suggested["label"])),
            float(suggested["probability"]),
            bool(suggested["shown"]),
        ),
        _places(said.get("apart", ())),
        said.get("undoes"),
    )


def _places(faces: Iterable[Mapping[str, Any]]) -> tuple[FaceLocation, ...]:
    return tuple(map(_place, faces))


def _place(face: Mapping[str, Any]) -> FaceLocation:
    left, top, width, height = map(float, face["box"])
    return FaceLocation(str(face["picture"]), (left, top, width, height))


def _name(by: str) -> str:
    name = by.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise CrossferError(
            f"--by {by!r}: write the annotator's name, in at most {LONGEST_NAME} printable "
            "characters"
        )
    return name

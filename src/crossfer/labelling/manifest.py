"""The labels as a table that `crossfer prepare` reads: a row for every labelled face."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crossfer.datasets import card
from crossfer.datasets.card import NO, YES
from crossfer.datasets.dataset import GROUP
from crossfer.files import write_csv
from crossfer.labelling.decisions import NOT_A_FACE, Decisions, answer
from crossfer.labelling.gallery import PhotoFace
from crossfer.labelling.journal import Event

SHOWN, CHANGED = (column.removeprefix(GROUP) for column in (card.SHOWN, card.CHANGED))
BOX = ("left", "top", "width", "height")
COLUMNS: tuple[str, ...] = (
    *("path", "label", "subject"),
    *BOX,
    *("labeller", "labelled_at", "model", "suggestion", "suggestion_probability"),
    *(SHOWN, CHANGED),
)
"""Path, label, subject and box are what `prepare` reads; the others become groups of the dataset."""


@dataclass(frozen=True)
class Labels:
    """The rows of the manifest, and the faces without one.

    Parameters
    ----------
    rows
        The labelled faces; each row has the columns `COLUMNS`.
    disputed
        Ids of faces on which annotators disagree, and that nobody settled.
    not_faces, skipped, waiting
        Numbers of faces that are no faces, only skipped, and not answered.
    """

    rows: list[dict[str, str]]
    disputed: list[str]
    not_faces: int = 0
    skipped: int = 0
    waiting: int = 0


def labels(faces: Iterable[PhotoFace], decisions: Decisions, boxes: bool = True) -> Labels:
    """Return the label of each face: the settled one, else the one that all annotators agree on.

    Parameters
    ----------
    faces
        In the order of the rows.
    decisions
        The current state of all labels.
    boxes
        Whether to write the faces' boxes; not for photos that are cut-out faces.
    """
    rows, disputed = list[dict[str, str]](), list[str]()
    not_faces = skipped = waiting = 0
    for face in faces:
        said = [own[face.id] for own in decisions.said.values() if face.id in own]
        answered = [event for event in said if answer(event) is not None]
        settled = decisions.settled.get(face.id)
        given = {answer(event) for event in ([settled] if settled else answered)}
        if not given:
            skipped, waiting = skipped + bool(said), waiting + (not said)
        elif len(given) > 1:
            disputed.append(face.id)
        elif given == {NOT_A_FACE}:
            not_faces += 1
        else:
            label = str(given.pop())
            rows.append(_row(face, label, answered, settled, decisions.subjects, boxes))
    return Labels(rows, disputed, not_faces, skipped, waiting)


def write(file: Path, photos: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write a manifest, whole or not at all.

    Parameters
    ----------
    file
        A CSV file.
    photos
        The folder that the rows' paths start from; in the file they start from the file's own folder.
    rows
        Each with the columns of `COLUMNS`.
    """
    write_csv(file, COLUMNS, _from(file.parent, photos, rows))


def _from(place: Path, photos: Path, rows: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    try:
        start = Path(os.path.relpath(photos.resolve(), place.resolve()))
    except ValueError:  # another drive
        start = photos.resolve()
    for row in rows:
        yield {**row, "path": (start / row["path"]).as_posix()}


def _row(
    face: PhotoFace,
    label: str,
    answered: list[Event],
    settled: Event | None,
    subjects: Mapping[str, str],
    boxes: bool,
) -> dict[str, str]:
    who = [*answered, *([settled] if settled else [])]
    suggested = next((event.suggested for event in reversed(who) if event.suggested), None)
    shown = any(event.suggested.shown for event in who if event.suggested)
    row = dict.fromkeys(COLUMNS, "") | {
        "path": face.photo,
        "label": label,
        "subject": subjects.get(face.id, ""),
        "labeller": "+".join(sorted({event.by for event in who})),
        "labelled_at": max(event.at for event in who),
    }
    if boxes:
        row |= {name: f"{value:g}" for name, value in zip(BOX, face.place.box, strict=True)}
    if suggested:
        row |= {
            "model": suggested.model[:16],
            "suggestion": suggested.label,
            "suggestion_probability": f"{suggested.probability:.4f}",
            SHOWN: YES if shown else NO,
            CHANGED: YES if label != suggested.label else NO,
        }
    return row

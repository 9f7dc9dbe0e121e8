"""The current labels and subjects, computed from the events of all journals.  Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from crossfer.labelling.journal import Did, Event, FaceLocation

OF_A_FACE: frozenset[Did] = frozenset({"label", "skip", "not a face"})
"""Events that answer what a face shows."""
NOT_A_FACE = "not a face"
"""The answer that a face is none, where answers are compared; no class can have this name."""


@dataclass(frozen=True)
class Decisions:
    """The current state of all labels.

    Parameters
    ----------
    standing
        The events that were not undone, in order.
    said
        Each annotator's last event for each face: by annotator, then by face.
    settled
        The last event that settled a disagreement, by face.
    subjects
        The name of the person, by face.
    apart
        Pairs of a face and the name of a person who it is not.
    unknown
        Number of standing events about a face that is no longer in the folder.
    """

    standing: list[Event] = field(default_factory=list)
    said: dict[str, dict[str, Event]] = field(default_factory=dict)
    settled: dict[str, Event] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)
    apart: set[tuple[str, str]] = field(default_factory=set)
    unknown: int = 0

    def of(self, by: str) -> dict[str, Event]:
        """Return an annotator's last event for each face."""
        return self.said.get(by, {})

    def last(self, by: str, kinds: frozenset[Did] = OF_A_FACE) -> Event | None:
        """Return the last event of an annotator that can be undone, of these kinds."""
        own = (event for event in reversed(self.standing) if event.by == by and event.did in kinds)
        return next(own, None)


def decide(events: Sequence[Event], face_at: Callable[[FaceLocation], str | None]) -> Decisions:
    """Compute the current state from all events.

    An annotator's last answer for a face counts; of names and settlements, the last of all annotators.

    Parameters
    ----------
    events
        In the order in which they happened.
    face_at
        Returns the face at a place, ``None`` where there is none.
    """
    undone = {event.undoes for event in events if event.did == "undo"}
    made = Decisions([e for e in events if e.did != "undo" and e.id not in undone])
    unknown = 0
    for event in made.standing:
        faces, others = ([face_at(place) for place in some] for some in (event.faces, event.apart))
        unknown += None in faces or None in others
        for face in filter(None, faces):
            if event.did in OF_A_FACE:
                made.said.setdefault(event.by, {})[face] = event
            elif event.did == "settle":
                made.settled[face] = event
            elif event.label is None:
                made.subjects.pop(face, None)
            else:
                made.subjects[face] = event.label
                made.apart.discard((face, event.label))
        for face in filter(None, others):
            made.apart.add((face, event.label or ""))
            if made.subjects.get(face) == event.label:
                del made.subjects[face]
    return replace(made, unknown=unknown)


def answer(event: Event) -> str | None:
    """Return an event's answer: a class or `NOT_A_FACE`; ``None`` where the face was skipped."""
    if event.did == "skip":
        return None
    return NOT_A_FACE if event.did == "not a face" or event.label is None else event.label


def answers(said: dict[str, Event]) -> dict[str, str]:
    """Return an annotator's answers by face, without skipped ones."""
    found = {face: answer(event) for face, event in said.items()}
    return {face: text for face, text in found.items() if text is not None}

"""The current labels and subjects, from all events of all journals.  Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from crossfer.labelling.journal import Did, Event, Place

OF_A_FACE: frozenset[Did] = frozenset({"label", "skip", "not a face"})
"""What somebody may say of what a face shows."""
NOT_A_FACE = "not a face"
"""Stands among the classes where answers are compared; no class can be called so in a journal's ``label``."""


@dataclass(frozen=True)
class Decisions:
    """What counts now.

    Parameters
    ----------
    standing
        The events that were not taken back, in order.
    said
        By person, then by face: the event that counts.
    settled
        By face: the event that settled a disagreement.
    subjects
        By face: who it is.
    apart
        Pairs of a face and the name of somebody who is not in it.
    unknown
        How many of these are of a face that is not there (any more).
    """

    standing: list[Event] = field(default_factory=list)
    said: dict[str, dict[str, Event]] = field(default_factory=dict)
    settled: dict[str, Event] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)
    apart: set[tuple[str, str]] = field(default_factory=set)
    unknown: int = 0

    def of(self, by: str) -> dict[str, Event]:
        """Return what a person said, by face."""
        return self.said.get(by, {})

    def last(self, by: str, kinds: frozenset[Did] = OF_A_FACE) -> Event | None:
        """Return the last event of a person that can be taken back."""
        own = (event for event in reversed(self.standing) if event.by == by and event.did in kinds)
        return next(own, None)


def decide(events: Sequence[Event], face_at: Callable[[Place], str | None]) -> Decisions:
    """Tell what counts, of all that was said.

    Parameters
    ----------
    events
        In the order in which they happened.
    face_at
        Tells which face is at a place; ``None`` where none is.

    Returns
    -------
    Decisions
        Of several things that one person said of a face, the last counts; so it is with names and with what
        was settled, whoever said them.
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
    """Return the class that an event gives a face, `NOT_A_FACE`, or ``None`` where it was skipped."""
    if event.did == "skip":
        return None
    return NOT_A_FACE if event.did == "not a face" or event.label is None else event.label


def answers(said: dict[str, Event]) -> dict[str, str]:
    """Return what somebody answered, by face; without those skipped."""
    found = {face: answer(event) for face, event in said.items()}
    return {face: text for face, text in found.items() if text is not None}

"""A labelling session: the operations behind the pages and the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from itertools import combinations
from pathlib import Path
from threading import RLock
from typing import Concatenate, ParamSpec, TypeVar

from crossfer.classes import canonical
from crossfer.datasets.record import subject_of_text
from crossfer.errors import CrossferError, some_of
from crossfer.evaluation.rows import Suggestions
from crossfer.evaluation.suggested import suggestions
from crossfer.files import alone
from crossfer.labelling import journal, manifest
from crossfer.labelling.agreement import Agreement, agreement
from crossfer.labelling.decisions import (
    NOT_A_FACE,
    OF_A_FACE,
    Decisions,
    answer,
    answers,
    decide,
)
from crossfer.labelling.gallery import Changes, Gallery, PhotoFace
from crossfer.labelling.journal import Did, Event, Journal, Journals, Suggested
from crossfer.labelling.keys import keys_of
from crossfer.labelling.manifest import Labels
from crossfer.labelling.people import Describer, PersonGroup, grouped
from crossfer.labelling.queue import Order, next_face
from crossfer.progress import OnProgress, silent

JOURNALS, FACES, MANIFEST = "journals", "faces", "labels.csv"
"""What lies in a folder of labels."""
SUBJECTS: frozenset[Did] = frozenset({"subject"})
SETTLED: frozenset[Did] = frozenset({"settle"})

P = ParamSpec("P")
Made = TypeVar("Made")


@dataclass(frozen=True)
class LabelOptions:
    """Options of a session.

    Parameters
    ----------
    by
        The annotator's name.
    order
        The order in which faces are shown.
    blind
        Whether the model's suggestions are hidden.
    classes
        Classes in addition to the model's.
    """

    by: str
    order: Order = "uncertainty"
    blind: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """The face to label next, and the annotator's progress.

    Parameters
    ----------
    face
        The face; ``None`` if none is left.
    suggested
        The model's most probable class; ``None`` if hidden or without a model.
    bars
        Classes and probabilities; empty if hidden or without a model.
    before
        The annotator's earlier answer for it: a class, ``skip`` or ``not a face``.
    done, skipped, faces
        Numbers of faces that the annotator answered and skipped, and of all faces.
    """

    face: PhotoFace | None
    suggested: str | None
    bars: list[tuple[str, float]]
    before: str | None
    done: int
    skipped: int
    faces: int


NO_FACE = "no face is selected; select some first"


def _one_at_a_time(
    method: Callable[Concatenate[Session, P], Made],
) -> Callable[Concatenate[Session, P], Made]:
    """Lock a method, as pages call it from several threads."""

    @wraps(method)
    def guarded(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> Made:
        with self._turn:
            return method(self, *args, **kwargs)

    return guarded


class Session:
    """One annotator labelling a folder of photos.  Thread-safe.

    Parameters
    ----------
    folder
        The folder of the labels.
    gallery
        The faces of the photos.
    how
        The annotator and the options.
    describe
        Describes faces, for grouping them by person.

    Raises
    ------
    CrossferError
        If a journal in the folder cannot be read, or a class has no key, or a name that none can have.
    """

    def __init__(
        self, folder: Path, gallery: Gallery, how: LabelOptions, describe: Describer
    ) -> None:
        self.folder, self.gallery, self.how = folder, gallery, how
        added = [canonical(name) for name in how.classes]
        model = gallery.predictor.classes
        self.classes = (*model, *(name for name in dict.fromkeys(added) if name not in model))
        for name in {"", NOT_A_FACE} & set(self.classes):
            raise CrossferError(f"{name!r}: no class can have this name; choose another")
        self.keys = keys_of(self.classes)
        self._journal = Journal(folder / JOURNALS, how.by)
        self._describe = describe
        self._turn = RLock()
        self._journals = Journals(folder / JOURNALS)
        self._history = self._journals.read()
        self._decisions = Decisions()

    @property
    def by(self) -> str:
        """Who labels."""
        return self._journal.by

    @property
    def notes(self) -> list[str]:
        """What was passed over in the journals."""
        return self._history.notes

    @property
    def describes(self) -> str:
        """By what faces are grouped."""
        return self._describe.means

    @property
    def guided(self) -> bool:
        """Whether the person sees what a model suggests."""
        return self.gallery.guided and not self.how.blind

    @_one_at_a_time
    def refresh(self, progress: OnProgress = silent) -> list[str]:
        """Read the photos and all journals again; return what changed among the photos, a line each."""
        changes = self.gallery.refresh(progress)
        self._reread()
        return _in_words(changes)

    def _reread(self) -> None:
        self._history = self._journals.read()
        self._decisions = decide(self._history.events, self.gallery.face_at)

    @_one_at_a_time
    def turn(self, face: str | None = None) -> Turn:
        """Return the next face, or a given one.

        Raises
        ------
        CrossferError
            If it is not there.
        """
        return self._turn_of(self._face(face) if face else self._next())

    @_one_at_a_time
    def answer(self, face: str, before: str | None, did: Did, label: str | None = None) -> Turn:
        """Record an answer unless the face got another one since it was displayed: of another tab or process.

        Parameters
        ----------
        face
            The face.
        before
            The annotator's answer that was displayed (`Turn.before`).
        did, label
            As for `say`.

        Raises
        ------
        CrossferError
            If there is another answer now; and as `say`.
        OSError
            If it cannot be written.
        """
        self._reread()
        now = self._turn_of(self._face(face)).before
        if now != before:
            raise CrossferError(
                f"labelled {now} meanwhile, in another tab or process; reload the page"
            )
        return self.say(face, did, label)

    @_one_at_a_time
    def say(self, face: str, did: Did, label: str | None = None) -> Turn:
        """Record the annotator's answer for a face; return the next face.

        Raises
        ------
        CrossferError
            If the face is not there any more, or the label is no class.
        OSError
            If it cannot be written; the answer is not recorded then.
        """
        if did not in OF_A_FACE:
            raise CrossferError(f"{did}: unknown action; use label, skip or not a face")
        if did == "label" and label not in self.classes:
            raise CrossferError(f"{label}: not a class; choose among {', '.join(self.classes)}")
        known = self._face(face)
        if not self.gallery.is_there(known):
            raise CrossferError(
                f"{known.photo}: removed or changed since it was displayed; reload the page"
            )
        given = label if did == "label" else None
        self._write(Event(did, (known.place,), given, self._suggested(known)))
        return self._turn_of(self._next())

    @_one_at_a_time
    def undo(self, kinds: frozenset[Did] = OF_A_FACE) -> Turn:
        """Undo the annotator's last event of these kinds; return the face that it was about.

        Raises
        ------
        CrossferError
            If there is nothing to take back.
        """
        last = self._decisions.last(self.by, kinds)
        if last is None:
            raise CrossferError("nothing to undo")
        self._write(Event("undo", undoes=last.id))
        face = self.gallery.face_at((last.faces or last.apart)[0])
        return self._turn_of(self.gallery.faces[face] if face else self._next())

    @_one_at_a_time
    def to_describe(self, most: int) -> int:
        """Describe the next few faces, for `groups`; return the number of faces left."""
        left = [face for face in self.gallery.faces if not self._describe.knows(face)]
        for face in left[:most]:
            with suppress(FileNotFoundError):
                self._describe.look(face, self.gallery.picture(face))
        return max(0, len(left) - most)

    @_one_at_a_time
    def groups(self) -> list[PersonGroup]:
        """Group the described faces by person: named people first, then suggestions, the largest first.

        Faces that anybody called "not a face" are left out.
        """
        none = {
            face
            for said in self._decisions.said.values()
            for face, event in said.items()
            if event.did == "not a face"
        }
        faces = [f for f in self.gallery.faces if f not in none and self._describe.knows(f)]
        return grouped(faces, self._describe, self._decisions.subjects, self._decisions.apart)

    @_one_at_a_time
    def name(self, faces: Sequence[str], name: str, apart: Sequence[str] = ()) -> None:
        """Record that faces are of a person of this name, and that others are not.

        Raises
        ------
        CrossferError
            If there is no face, or one is not there, or the name is none.
        """
        if not faces:
            raise CrossferError(NO_FACE)
        who = subject_of_text(name)
        if who is None or len(who) > journal.LONGEST_NAME or not who.isprintable():
            raise CrossferError(
                f"{name[:80]!r}: invalid name; use at most {journal.LONGEST_NAME} characters, and no "
                "word for nobody (unknown, none)"
            )
        own, others = (tuple(self._face(f).place for f in some) for some in (faces, apart))
        self._write(Event("subject", own, who, apart=others))

    @_one_at_a_time
    def unname(self, faces: Sequence[str]) -> None:
        """Record that the person in these faces is unknown; of no face, there is nothing to record."""
        if not faces:
            raise CrossferError(NO_FACE)
        self._write(Event("subject", tuple(self._face(face).place for face in faces)))

    @_one_at_a_time
    def agreements(self) -> list[Agreement]:
        """Compare every two people who answered the same faces, as their journals say now."""
        self._reread()
        said = {by: answers(own) for by, own in sorted(self._decisions.said.items())}
        names = (*self.classes, NOT_A_FACE)
        pairs = (
            agreement((one, other), said[one], said[other], names)
            for one, other in combinations(said, 2)
        )
        return [pair for pair in pairs if pair]

    @_one_at_a_time
    def settle(self, face: str, label: str) -> None:
        """Record the final label of a face on which annotators disagree: a class, or `NOT_A_FACE`.

        Raises
        ------
        CrossferError
            If the face is not there, or the label is no class.
        """
        if label not in (*self.classes, NOT_A_FACE):
            raise CrossferError(f"{label}: not a class; choose among {', '.join(self.classes)}")
        given = None if label == NOT_A_FACE else label
        self._write(Event("settle", (self._face(face).place,), given))

    @_one_at_a_time
    def said_of(self, face: str) -> dict[str, str]:
        """Return what each person answered of a face."""
        own = {by: said.get(face) for by, said in sorted(self._decisions.said.items())}
        return {by: text for by, event in own.items() if event and (text := answer(event))}

    @_one_at_a_time
    def settled(self, face: str) -> str | None:
        """Return what was settled for a face, if anything was."""
        event = self._decisions.settled.get(face)
        return answer(event) if event else None

    @_one_at_a_time
    def labels(self) -> Labels:
        """Return the faces that have a label, whoever gave it."""
        return manifest.labels(
            self.gallery.faces.values(), self._decisions, boxes=not self.gallery.cropped
        )

    @_one_at_a_time
    def write_manifest(self) -> Path:
        """Write the manifest, of what everybody said until now; return its file."""
        file = self.folder / MANIFEST
        with alone(file.with_name(f".{file.name}.lock"), lambda who: None):  # of other annotators
            self._reread()
            manifest.write(file, self.gallery.folder, self.labels().rows)
        return file

    @_one_at_a_time
    def followed(self) -> Suggestions | None:
        """Count how far all labels follow what models suggested; ``None`` where none did."""
        return suggestions(
            (event.suggested.shown, event.label != event.suggested.label)
            for said in self._decisions.said.values()
            for event in said.values()
            if event.did == "label" and event.suggested
        )

    @property
    def unknown(self) -> int:
        """Number of events about faces that are no longer there; they stay in the journals."""
        return self._decisions.unknown

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _write(self, event: Event) -> None:
        self._history.events.append(self._journal.write(event))
        self._decisions = decide(self._history.events, self.gallery.face_at)

    def _face(self, face: str) -> PhotoFace:
        if face not in self.gallery.faces:
            raise CrossferError(
                f"{face[:40]}: no such face; its photo may have been removed or changed; reload "
                "the page"
            )
        return self.gallery.faces[face]

    def _next(self) -> PhotoFace | None:
        """Choose among the faces that wait; where none does, the one that was skipped longest ago."""
        said = self._decisions.of(self.by)
        faces = self.gallery.faces
        if left := {face.id: face.probabilities for face in faces.values() if face.id not in said}:
            given = Counter(answers(said).values())
            # Where the person shall not know what the model says, the order must not tell it either.
            order = self.how.order if self.guided else "files"
            chosen = next_face(left, order, [given[name] for name in self.classes])
            return faces[chosen] if chosen else None
        skipped = [face for face in faces if said[face].did == "skip"]
        return faces[min(skipped, key=lambda face: said[face].at)] if skipped else None

    def _suggested(self, face: PhotoFace) -> Suggested | None:
        if not self.gallery.guided:
            return None
        best = max(range(len(face.probabilities)), key=face.probabilities.__getitem__)
        engine = self.gallery.predictor.engine
        return Suggested(
            engine.identity, engine.classes[best], face.probabilities[best], not self.how.blind
        )

    def _turn_of(self, face: PhotoFace | None) -> Turn:
        said = self._decisions.of(self.by)
        skipped = sum(event.did == "skip" for event in said.values())
        suggested = self._suggested(face) if face and self.guided else None
        event = said.get(face.id) if face else None
        return Turn(
            face,
            suggested.label if suggested else None,
            list(zip(self.gallery.predictor.classes, face.probabilities, strict=True))
            if face and suggested
            else [],
            (answer(event) or "skip") if event else None,
            len(said) - skipped,
            skipped,
            len(self.gallery.faces),
        )


def _in_words(changes: Changes) -> list[str]:
    return [
        f"{len(names):,} photo{'s' * (len(names) != 1)} ({some_of(names, 3)}) {what}"
        for names, what in (
            (changes.new, "new"),
            (changes.gone, "removed; the labels of their faces stay in the journals"),
            (changes.altered, "changed; they count as new photos without labels"),
        )
        if names
    ]

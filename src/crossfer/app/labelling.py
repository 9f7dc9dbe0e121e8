"""Pages to label faces: what each shows, who is in it, and where two people disagree.

Starlette runs each function that is not ``async`` in a thread, as a session may wait for the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from crossfer.app.pages import Page, rendered
from crossfer.errors import CrossferError
from crossfer.evaluation.suggested import in_words, led
from crossfer.labelling import SETTLED, SUBJECTS, Session, Turn
from crossfer.labelling.decisions import NOT_A_FACE
from crossfer.labelling.keys import OTHERS

AT_ONCE = 8
"""Faces that are described between two answers: the page says how far it is."""

Values = dict[str, Any]


def label_pages(session: Session) -> list[Page]:
    """Return the pages on which a session is held.

    Parameters
    ----------
    session
        Refreshed whenever a page is loaded.
    """
    return [_faces(session), _people(session), _agreement(session)]


def _faces(session: Session) -> Page:
    def page(request: Request) -> Response:
        try:
            changes = session.refresh()
            session.write_manifest()
        except OSError as error:
            raise CrossferError(
                f"{error.filename}: {error.strerror}; fix this, and reload the page"
            ) from None
        return rendered(
            request,
            "label.html.j2",
            changes=changes,
            keys=session.keys,
            others=OTHERS,
            guided=session.guided,
            blind=session.how.blind,
            by=session.by,
        )

    def face(request: Request) -> Response:
        wanted = request.path_params["face"]
        if wanted not in session.gallery.faces:
            raise HTTPException(404)
        picture = session.gallery.picture(wanted)
        if not picture.is_file():
            raise HTTPException(404)
        return FileResponse(picture, media_type="image/png")

    def turn(given: Values) -> Values:
        return _as_json(session.turn(_text(given, "face") if given.get("face") else None))

    def say(given: Values) -> Values:
        label = _text(given, "label") if given.get("label") else None
        face, before = _text(given, "face"), given.get("before")
        return _as_json(session.answer(face, before, given.get("did", ""), label))

    def finish(given: Values) -> Values:
        file, labels = session.write_manifest(), session.labels()
        return {
            "file": str(file),
            "labels": len(labels.rows),
            "disputed": len(labels.disputed),
            "not_faces": labels.not_faces,
            "waiting": labels.waiting + labels.skipped,
        }

    path = "/label"
    return Page(
        "Label",
        path,
        [
            Route(path, page),
            Route(f"{path}/face/{{face}}.png", face),
            _asked(f"{path}/turn", turn),
            _asked(f"{path}/say", say),
            _asked(f"{path}/undo", lambda given: _as_json(session.undo())),
            _asked(f"{path}/finish", finish),
        ],
    )


def _people(session: Session) -> Page:
    def page(request: Request) -> Response:
        return rendered(request, "people.html.j2", means=session.describes)

    def groups() -> Values:
        found = session.groups()
        names = {group.name for group in found if group.name}
        return {"groups": [asdict(group) for group in found], "free": _free(names)}

    def describe(given: Values) -> Values:
        left = session.to_describe(AT_ONCE)
        return {"left": left} if left else {"left": 0, **groups()}

    def name(given: Values) -> Values:
        session.name(_texts(given, "faces"), _text(given, "name"), _texts(given, "apart"))
        return groups()

    def unname(given: Values) -> Values:
        session.unname(_texts(given, "faces"))
        return groups()

    def undo(given: Values) -> Values:
        session.undo(SUBJECTS)
        return groups()

    path = "/people"
    return Page(
        "People",
        path,
        [
            Route(path, page),
            _asked(f"{path}/describe", describe),
            _asked(f"{path}/name", name),
            _asked(f"{path}/unname", unname),
            _asked(f"{path}/undo", undo),
        ],
    )


def _agreement(session: Session) -> Page:
    def page(request: Request) -> Response:
        found = session.agreements()
        disputed = [
            (session.gallery.faces[face], session.said_of(face), session.settled(face))
            for face in dict.fromkeys(face for pair in found for face in pair.disagreements)
        ]
        followed = session.followed()
        disputed.sort(key=lambda one: one[2] is not None)  # what waits comes first
        return rendered(
            request,
            "agreement.html.j2",
            pairs=found,
            disputed=disputed,
            followed=in_words(followed) if followed else "",
            led=followed is not None and led(followed),
            answers=(*session.classes, NOT_A_FACE),
        )

    def settle(given: Values) -> Values:
        session.settle(_text(given, "face"), _text(given, "label"))
        return {}

    def undo(given: Values) -> Values:
        session.undo(SETTLED)
        return {}

    path = "/agreement"
    return Page(
        "Agreement",
        path,
        [
            Route(path, page),
            _asked(f"{path}/settle", settle),
            _asked(f"{path}/undo", undo),
        ],
    )


def _asked(path: str, work: Callable[[Values], Values]) -> Route:
    """Answer what a script asks for, JSON in and out; what cannot be written is said to be not saved."""

    async def answer(request: Request) -> Response:
        try:
            given = await request.json()
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise CrossferError("the request is not a JSON object")
        try:
            return JSONResponse(await run_in_threadpool(work, given))
        except OSError as error:
            raise CrossferError(
                f"not saved: {error.strerror or error}; fix this, and press the key again"
            ) from None

    return Route(path, answer, methods=["POST"])


def _as_json(turn: Turn) -> Values:
    face = turn.face
    return {
        "face": face and {"id": face.id, "photo": face.photo},
        "suggested": turn.suggested,
        "bars": dict(turn.bars),
        "before": turn.before,
        "done": turn.done,
        "skipped": turn.skipped,
        "faces": turn.faces,
    }


def _text(given: Values, name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise CrossferError(f"{name} is missing, or not a text")
    return value


def _texts(given: Values, name: str) -> list[str]:
    values = given.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CrossferError(f"{name} is not a list of texts")
    return values


def _free(names: set[str]) -> str:
    """Return a name that nobody has yet."""
    number = 1
    while f"person-{number}" in names:
        number += 1
    return f"person-{number}"

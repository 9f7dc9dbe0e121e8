"""*Try*: a photograph or the webcam, and what each classifier says of every face in it.

A picture is looked at in memory; nothing of it is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crossfer.app.pages import Answer, Page, rendered
from crossfer.classes import canonical
from crossfer.datasets.detector import Detection, Detector
from crossfer.datasets.pictures import data_uri, decoded, open_picture
from crossfer.datasets.record import Pixels
from crossfer.deploy.engine import Engine
from crossfer.deploy.predictor import faces_in, framed
from crossfer.deploy.rows import NO_NUMBER
from crossfer.errors import CrossferError
from crossfer.framing import SMALLEST

MOST_FACES = 12
"""That are shown of one picture, surest first."""
LARGEST_SHOWN = 900
"""Pixels of the longer side of a picture that is sent back."""


@dataclass(frozen=True)
class TriedModel:
    """A classifier to try.

    Parameters
    ----------
    name
        What the page calls it.
    engine
        What answers.
    notes
        What is assumed, and what its description says that was not checked.
    """

    name: str
    engine: Engine
    notes: Sequence[str] = ()

    @property
    def classes(self) -> list[str]:
        """What it answers with, in its order, as those names are spelt here."""
        return list(map(canonical, self.engine.classes))


def try_page(candidates: Sequence[TriedModel], smallest: float = SMALLEST) -> Page:
    """Return the page.

    Parameters
    ----------
    candidates
        One or more; of two, the first is the old one.
    smallest
        Side of the smallest face to look for, as for `crossfer.datasets.detector.Detector`.
    """
    detector, one_at_a_time = Detector(smallest), threading.Lock()

    def look(content: bytes, cropped: bool) -> dict[str, Any]:
        with one_at_a_time:  # a large picture takes memory
            picture = open_picture(lambda: decoded(content))
            return answers(picture, candidates, None if cropped else detector)

    async def page(request: Request) -> Response:
        return rendered(request, "try.html.j2", candidates=candidates)

    async def looked(request: Request) -> Response:
        cropped = request.query_params.get("cropped") == "1"
        return Answer(await run_in_threadpool(look, await request.body(), cropped))

    routes = [Route("/try", page), Route("/try/look", looked, methods=["POST"])]
    return Page("Try", "/try", routes)


def answers(
    picture: Pixels, candidates: Sequence[TriedModel], find: Detector | None
) -> dict[str, Any]:
    """Classify every face in a picture with every candidate.

    Parameters
    ----------
    picture
        uint8 (H, W) or (H, W, 3) RGB.
    candidates
        The classifiers.
    find
        The face detector; ``None`` if the picture is a cut-out face.

    Returns
    -------
    dict
        For JSON: ``picture`` (an address, its ``width`` and ``height`` in pixels), ``models`` (``name`` and
        ``classes``), ``found`` (how many faces), and of the surest `MOST_FACES` the ``faces``: ``box`` (left,
        top, width, height as shares of the picture) and, for each model, ``seen`` (the address of the face as
        it reads it) and ``probabilities``.

    Raises
    ------
    CrossferError
        If an answer is not a number.
    """
    height, width = picture.shape[:2]
    found = faces_in(picture, find)
    shown = _reduced(picture)
    return {
        "picture": data_uri(shown, "jpeg"),
        "width": shown.shape[1],
        "height": shown.shape[0],
        "models": [{"name": one.name, "classes": one.classes} for one in candidates],
        "found": len(found),
        "faces": [
            {
                "box": _box(face, width, height),
                "models": [_answer(picture, face, one) for one in candidates],
            }
            for face in found[:MOST_FACES]
        ],
    }


def _answer(picture: Pixels, face: Detection | None, model: TriedModel) -> dict[str, Any]:
    engine = model.engine
    seen = framed(picture, face, engine.framing)
    said = engine(seen[None])[0]
    if not np.isfinite(said).all():
        raise CrossferError(f"{model.name}: {NO_NUMBER}; check its weights")
    return {
        "seen": data_uri(seen),
        "side": engine.framing.side,
        "colour": engine.framing.channels == 3,
        "probabilities": [round(float(p), 6) for p in said],
    }


def _box(face: Detection | None, width: int, height: int) -> list[float] | None:
    if face is None:
        return None
    left, top, wide, high = face.box
    return [left / width, top / height, wide / width, high / height]


def _reduced(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    factor = min(1.0, LARGEST_SHOWN / max(height, width))
    size = max(1, round(factor * width)), max(1, round(factor * height))
    return picture if factor == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # pyrefly: ignore[bad-return]  # uint8, too

"""The application: routes, templates, static files and error pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from crossfer.app.guard import MOST_BYTES, Guard
from crossfer.datasets.pictures import UnreadableImage
from crossfer.errors import CrossferError, one_line
from crossfer.templates import environment

HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "style.css"
"""The report's style sheet: every page of ours looks the same."""


@dataclass(frozen=True)
class Page:
    """A page of the app.

    Parameters
    ----------
    name
        In the navigation.
    path
        Where it is, with a leading slash.
    routes
        That answer for the page and for what its script asks; all below ``path``.
    """

    name: str
    path: str
    routes: Sequence[BaseRoute]


class Answer(JSONResponse):
    """JSON for a script, whatever it quotes: a file's name need not be text."""

    def render(self, content: Any) -> bytes:
        """Escape everything beyond ASCII, halves of surrogate pairs too."""
        return json.dumps(content, allow_nan=False).encode()


def create_app(pages: Sequence[Page], token: str, most_bytes: int = MOST_BYTES) -> Starlette:
    """Tie pages together.

    Parameters
    ----------
    pages
        In the order of the navigation; the first one is shown at ``/``.
    token
        Who opens the address with it is let in.
    most_bytes
        Of a request's body.

    Returns
    -------
    Starlette
        An ASGI application.
    """
    first = pages[0].path

    async def start(request: Request) -> Response:
        return RedirectResponse(first, 303)

    async def style(request: Request) -> Response:
        return FileResponse(STYLE, media_type="text/css")

    found = Starlette(
        routes=[
            Route("/", start),
            Route("/static/style.css", style),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            *(route for page in pages for route in page.routes),
        ],
        middleware=[Middleware(Guard, token=token, most_bytes=most_bytes)],
        exception_handlers={
            CrossferError: _mendable,
            UnreadableImage: _mendable,
            HTTPException: _refused,
        },
    )
    found.state.pages = tuple(pages)
    return found


def rendered(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """Return a page made of a template that extends ``base.html.j2``; what comes from data is escaped.

    Parameters
    ----------
    request
        What is answered.
    name
        Of a file in ``templates/``.
    status
        Of the answer.
    **values
        What the template shows.
    """
    shown = {"pages": request.app.state.pages, "path": request.url.path, **values}
    text = template(name).render(shown)
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)


def template(name: str) -> jinja2.Template:
    """Read a file in ``templates/``; what it is given is escaped."""
    return environment("crossfer.app", "templates").get_template(name)


async def _mendable(request: Request, error: Exception) -> Response:
    """Say in one line what the user can mend."""
    text = str(error) if isinstance(error, UnreadableImage) else one_line(error)
    return _problem(request, text, 422)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "There is no such page." if error.status_code == 404 else str(error.detail)
    return _problem(request, text, error.status_code)


def _problem(request: Request, text: str, status: int) -> Response:
    """Answer a script with JSON, ``{"problem": …}``, and a person with a page."""
    if "text/html" in request.headers.get("accept", ""):
        return rendered(request, "problem.html.j2", status, problem=text)
    return Answer({"problem": text}, status)

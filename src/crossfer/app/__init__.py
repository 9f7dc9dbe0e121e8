"""Local web pages: try a classifier, see what changed.  Needs the extra ``app``.

A page is a module that returns a `Page`: its name, its path and its routes.  `create_app` ties pages together
behind a token, and `serve` shows them to this computer alone.

Starlette (routes, requests, responses) and uvicorn (HTTP) are small, widely used and typed, and bring nothing
that must be compiled; templates are Jinja2's, as the report's are.  Scripts are plain ES modules: there is
nothing to build.
"""

import starlette  # noqa: F401  (first, so that the extra app is named where it is missing)

from crossfer.app.pages import Page, create_app, rendered
from crossfer.app.server import serve

__all__ = ["Page", "create_app", "rendered", "serve"]

"""Access control of the pages: token, host, origin and upload size."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 50_000_000
"""Of a request: photographs of cameras are smaller."""
LOOPBACK = ("127.0.0.1", "localhost")
"""Names that a browser on this computer may call us by.  Another one that leads here is DNS rebinding."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer: no script but our files, no other site may frame or embed it, no browser keeps it."""


class TooLarge(Exception):
    """A request of more than `MOST_BYTES`."""


class Guard:
    """Let in who knows the token, from this computer, with so many bytes at most.

    The token comes in the address once (``?token=…``) and is a cookie from then on, so that no link, history
    or screenshot holds it for long.  The cookie is ``SameSite=Strict`` and ``HttpOnly``; as any port of this
    computer is the same site, ``Origin`` is checked too.

    Parameters
    ----------
    app
        What is guarded.
    token
        What lets in.
    most_bytes
        Of a request's body.
    """

    def __init__(self, app: ASGIApp, token: str, most_bytes: int = MOST_BYTES) -> None:
        self._app, self._token, self._most = app, token, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is supported")
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (refused := self._refusal(Request(scope))) is not None:
            return await refused(scope, receive, sending)
        try:
            await self._app(scope, self._bounded(receive), sending)
        except TooLarge:
            if not started:
                await self._too_large()(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        """Return why a request is not answered; None where it is."""
        host = request.headers.get("host", "")
        name, _, port = host.partition(":")
        if name not in LOOPBACK:
            return PlainTextResponse("Only 127.0.0.1 and localhost are allowed.", 400)
        if request.headers.get("origin", f"http://{host}") != f"http://{host}":
            return PlainTextResponse("The request came from another site.", 403)
        cookie = f"crossfer-{port}"  # ports share their cookies
        if (given := request.query_params.get("token")) is not None and self._is_token(given):
            answer = RedirectResponse(_without_token(request), 303)
            answer.set_cookie(cookie, self._token, path="/", httponly=True, samesite="strict")
            return answer
        if not self._is_token(request.cookies.get(cookie, "")):
            return PlainTextResponse(
                "Open the address that crossfer printed, with its token. Only the person who "
                "started the server has access.",
                403,
            )
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._most:
            return self._too_large()
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _bounded(self, receive: Receive) -> Receive:
        """Count what comes, as its length need not be announced."""
        left = self._most

        async def receiving() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                while message.get("more_body"):  # or the sender would see no answer
                    message = await receive()
                raise TooLarge
            return message

        return receiving

    def _too_large(self) -> Response:
        return PlainTextResponse(
            f"Larger than {self._most / 1e6:.0f} MB.", 413, {"Connection": "close"}
        )


def _without_token(request: Request) -> str:
    """Return the path that was asked for: never another host's, whatever it begins with."""
    rest = [(k, v) for k, v in parse_qsl(request.url.query, keep_blank_values=True) if k != "token"]
    path = "/" + request.scope["path"].lstrip("/\\")
    return f"{path}?{urlencode(rest)}" if rest else path

"""Serve the app on a local port."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from crossfer.app.pages import Page, create_app
from crossfer.errors import CrossferError

HOST = "127.0.0.1"


def serve(
    pages: Sequence[Page], port: int, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Show pages to this computer's browsers until the process is stopped.

    Parameters
    ----------
    pages
        In the order of the navigation.
    port
        0: any free one.
    ready
        Told the address, with a new token in it, once it answers.

    Raises
    ------
    CrossferError
        If the port is in use or not allowed.
    """
    token = secrets.token_urlsafe()
    with listen(port) as listening:
        ready(f"http://{HOST}:{listening.getsockname()[1]}/?token={token}")
        server_of(create_app(pages, token)).run(sockets=[listening])


def server_of(app: ASGIApp) -> uvicorn.Server:
    """Return what speaks HTTP for an application, and writes no log of who asked for what."""
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="error", access_log=False, lifespan="off", server_header=False
        )
    )


def listen(port: int) -> socket.socket:
    """Take a port of this computer, which no other one reaches.

    Raises
    ------
    CrossferError
        If it is in use or not allowed.
    """
    if not 0 <= port <= 65535:
        raise CrossferError(f"--port {port}: must be between 0 (any free port) and 65535")
    listening = socket.socket()
    try:
        if os.name == "posix":  # elsewhere it would let two programs have the same port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        why = (
            "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        )
        raise CrossferError(
            f"--port {port}: {why}; choose another port, or 0 for any free one"
        ) from None
    return listening

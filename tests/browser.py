"""Pages in a real browser: Chromium, where this machine has one."""

from __future__ import annotations

import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossfer.app import Page, create_app
from crossfer.app.server import listen, server_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CHECKS = Path(__file__).with_name("browser.js")
TOKEN = "a token of the tests"
FLAGS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream=fps=5",
    "--use-fake-ui-for-media-stream",
)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium with a webcam that shows a test pattern."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, chromium_sandbox=False)


@contextmanager
def served(pages: Sequence[Page], most_bytes: int = 50_000_000) -> Iterator[str]:
    """Serve pages as ``crossfer app`` does; give the address, with its token."""
    with listen(0) as listening:
        server = server_of(create_app(pages, TOKEN, most_bytes))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/?token={TOKEN.replace(' ', '+')}"
        finally:
            server.should_exit = True
            thread.join()


def asked(address: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, Any]:
    """Ask as a browser that has the cookie does; return the status, the text and the headers."""
    base, _, token = address.partition("/?token=")
    port = base.rpartition(":")[2]
    cookie = {"Cookie": f'crossfer-{port}="{token.replace("+", " ")}"'} if token else {}
    request = urllib.request.Request(base + path, body, {**cookie, **headers})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode("latin-1"), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


@contextmanager
def opened(browser: Browser, address: str, **how: Any) -> Iterator[Tab]:
    """Open an address in a window of its own; scripts that fail or are refused fail the test."""
    with browser.new_context(**how) as context:
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        wrong: list[str] = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        tab.goto(address)
        yield tab
        assert [text for text in wrong if not text.startswith("Failed to load resource")] == []


def check_page(tab: Tab) -> None:
    """Check what every page owes to everybody: contrast, names, no need to scroll sideways."""
    assert _asked(tab, "lowContrast") == []
    assert _asked(tab, "unnamed") == []
    assert _asked(tab, "tooWide") == 0


def stops(tab: Tab, most: int = 40) -> list[str]:
    """Press Tab until the page begins anew; return what had the focus, and check that it shows."""
    names: list[str] = []
    tab.evaluate("document.activeElement.blur()")
    for _ in range(most):
        tab.keyboard.press("Tab")
        name, shows = _asked(tab, "focused")
        if not name or name in names:
            break
        assert shows, f"the focus on {name} does not show"
        names.append(name)
    return names


def _asked(tab: Tab, function: str) -> Any:
    return tab.evaluate(f"(() => {{ {CHECKS.read_text()} return {function}(); }})()")

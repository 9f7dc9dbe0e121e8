"""Pages in a real browser: Chromium, where this machine has one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
TOKEN = "a token of the tests"
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

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
        assert not wrong


LOW_CONTRAST = """() => {
  const parsed = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = parsed(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || !element.checkVisibility() || element.closest("svg") || element.matches(":disabled")) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const [a, b] = [luminance(over(parsed(style.color), back)), luminance(back)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least) found.push(`${text.slice(0, 30)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return found;
}"""
"""Texts whose contrast is below AA (WCAG 2.2, success criterion 1.4.3)."""

UNNAMED = """() => [...document.querySelectorAll("a, button, input, select, img, video, section, nav, svg")]
  .filter((one) => one.checkVisibility() && !one.closest("[aria-hidden=true]"))
  .filter((one) => !(one.getAttribute("aria-label") ||
    document.getElementById(one.getAttribute("aria-labelledby"))?.textContent.trim() ||
    one.getAttribute("alt") !== null || [...(one.labels ?? [])].some((label) => label.textContent.trim()) ||
    (one.matches("a, button") && one.textContent.trim())))
  .map((one) => one.outerHTML.slice(0, 90))"""
"""What a screen reader could not name."""


def check_page(tab: Tab) -> None:
    """Check what every page owes to everybody: contrast, names, no need to scroll sideways."""
    assert tab.evaluate(LOW_CONTRAST) == []
    assert tab.evaluate(UNNAMED) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(wide) <= 0


def stops(tab: Tab, most: int = 40) -> list[str]:
    """Press Tab until the page begins anew; return what had the focus, and that it showed."""
    names: list[str] = []
    tab.evaluate("document.activeElement.blur()")
    for _ in range(most):
        tab.keyboard.press("Tab")
        name, seen = tab.evaluate(
            """() => { const one = document.activeElement;
              const shown = [one, one.nextElementSibling, ...(one.labels ?? [])].filter(Boolean);
              return [one === document.body ? "" : one.id || one.textContent.trim() || one.name,
                      shown.some((e) => getComputedStyle(e).outlineStyle !== "none")]; }"""
        )
        if not name or name in names:
            break
        assert seen, f"the focus on {name} does not show"
        names.append(name)
    return names

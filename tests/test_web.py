"""An exported classifier as a static page: it answers in the browser as crossfer does, and sends nothing."""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image

import crossfer
from crossfer.app.web import RUNTIME, RUNTIME_FILES, found_runtime, write_web
from crossfer.datasets.detector import Detector
from crossfer.datasets.faces import align
from crossfer.datasets.pictures import open_picture
from crossfer.errors import CrossferError
from crossfer.framing import Framing
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE, LAB_TFEID
from tests import tiny_onnx
from tests.browser import browser, check_page, needs_chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]

NAME = "<b>me & you"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported classifier of a hostile name and class, with its page."""
    package = Path(os.environ.get("ONNXRUNTIME_WEB", "none")) / "node_modules" / RUNTIME
    if not package.is_dir():
        pytest.skip("ONNXRUNTIME_WEB names no folder with onnxruntime-web installed")
    folder = tiny_onnx.write(
        tmp_path_factory.mktemp("page") / NAME, classes=["dark", "medium", "<img src=x>"]
    )
    with found_runtime(package) as runtime:
        write_web(folder, runtime)
    return folder


@pytest.fixture(scope="module")
def address(exported: Path) -> Iterator[str]:
    """Offer the page by a web server that knows nothing of crossfer."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(exported / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a large photograph of two people and a small gray one of somebody who leans."""
    folder = tmp_path_factory.mktemp("photographs")
    pictures = [portrait(LAB_TFEID, who, 3) for who in (0, 1)]
    height = min(map(len, pictures))
    leaning = portrait(LAB_JAFFE, 2, 6)
    middle = (leaning.shape[1] / 2, leaning.shape[0] / 2)
    turn = cv2.getRotationMatrix2D(middle, 20, 0.8)
    leaning = cv2.warpAffine(leaning, turn, leaning.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    Image.fromarray(np.hstack([picture[:height] for picture in pictures])).save(folder / "two.png")
    Image.fromarray(leaning).save(folder / "leaning.png")
    return [folder / "two.png", folder / "leaning.png"]


@needs_chromium
def test_the_browser_answers_as_crossfer_does_and_sends_nothing(
    browser: Browser, address: str, exported: Path, photographs: list[Path]
) -> None:
    model, detector = crossfer.load(exported), Detector()
    with opened(browser, address, viewport={"width": 400, "height": 900}) as tab:
        tab.get_by_text("Ready.").wait_for()
        assert NAME in tab.get_by_role("banner").inner_text()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        for photograph in photographs:
            faces = model.analyze(photograph)
            tab.set_input_files("#file", photograph)
            tab.get_by_text("One face." if len(faces) == 1 else f"{len(faces)} faces.").wait_for()
            cards = tab.get_by_role("article")
            picture = open_picture(photograph)
            for i, (face, found) in enumerate(zip(faces, detector(picture), strict=True)):
                shown = [
                    float(text[:-2]) for text in cards.nth(i).locator("td.n").all_inner_texts()
                ]
                assert shown == pytest.approx(list(face["emotion"].values()), abs=0.51)
                source = cards.nth(i).locator("img").get_attribute("src") or ""
                seen = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
                ours = align(picture, found.landmarks[0], found.landmarks[1], Framing())[0]
                off = np.abs(np.asarray(seen.convert("L"), int) - ours)
                assert off.max() <= 1 and off.mean() < 0.1
        assert "linxiaohui" in (exported / "web" / "THIRD-PARTY.txt").read_text()
        assert [url for url in asked if not url.startswith("data:")] == []
        check_page(tab)


def test_a_runtime_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path | None) -> str:
        with pytest.raises(CrossferError) as error, found_runtime(folder):
            pass
        return str(error.value)

    assert f"{RUNTIME_FILES[0]}: no such file" in refused(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install Node.js; or unpack the package" in refused(None)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    assert "npm could not fetch onnxruntime-web" in refused(None) and "no network" in refused(None)
    npm.write_text("#!/bin/sh\nprintf other > onnxruntime-web.tgz\n")
    assert "another SHA-512" in refused(None)

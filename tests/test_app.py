"""The local pages: who may open them, what a picture is answered with, what flipped; in a real browser."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from typer.testing import CliRunner

import crossfer
from crossfer.app import serve
from crossfer.app.opening import pages_of
from crossfer.cli import app
from crossfer.datasets import Preparation, prepare
from crossfer.errors import CrossferError
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_TFEID
from tests import pixel_networks, tiny_onnx
from tests.browser import asked, browser, check_page, needs_chromium, opened, served, stops

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

__all__ = ["browser"]

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = ("dark", "medium", "bright", f"{HOSTILE}\ud800")
CLASSES = ("angry", "happy", "sad", "neutral")
LIMIT = 3_000_000
"""Bytes of an upload in these tests."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: an old and a new classifier of which the new one knows a class more; photographs."""
    folder = tmp_path_factory.mktemp("app")
    tiny_onnx.write(folder / "old")
    tiny_onnx.write(folder / "new", tiny_onnx.network(outputs=4), classes=list(NAMES))
    pictures = [portrait(LAB_TFEID, who, 3) for who in (0, 1)]
    height = min(len(picture) for picture in pictures)
    two = np.hstack([picture[:height] for picture in pictures])
    Image.fromarray(pictures[0]).save(folder / "one.png")
    Image.fromarray(two).save(folder / f"{HOSTILE.replace('/', '')}.jpg", quality=95)
    Image.fromarray(np.full((200, 300), 120, np.uint8)).save(folder / "nobody.png")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(pages_of([folder / "old", folder / "new"]), LIMIT) as address:
        yield address


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 80 test pictures whose first two pixels are the answers: 20 are won, 5 lost."""
    raw, rng = tmp_path_factory.mktemp("raw") / "faces", np.random.default_rng(1)
    raw.mkdir()
    rows = [("image", "label", "split", "camera")]
    for i in range(80):
        pixels, label = rng.integers(0, 256, (48, 48), np.uint8), i % 4
        old, new = label if i < 60 else 3 - label, label if i >= 5 else 3 - label
        pixels[0, :2] = pixel_networks.STEP * old, pixel_networks.STEP * new
        Image.fromarray(pixels).save(raw / f"{i}.png")
        rows.append((f"{i}.png", CLASSES[label], "test", ("A", HOSTILE)[i % 3 == 0]))
    with (raw / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    return prepare(raw, raw.parent / "data", Preparation(faces="cropped")).folder


def test_a_page_is_for_who_has_the_token_on_this_computer_alone(address: str) -> None:
    base, host = address.partition("/?")[0], address.partition("//")[2].partition("/")[0]
    status, _, headers = asked(address, "/try")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert asked(base, "/try")[0] == 403
    assert asked(base, "/try?token=wrong")[0] == 403
    assert asked(base, "/static/app.js")[0] == 403
    assert asked(address, "/try", Host="evil.example")[0] == 400
    assert asked(address, "/try", Origin=f"http://{host}")[0] == 200
    for other in ("http://evil.example", "http://127.0.0.1:1", "null"):
        assert asked(address, "/try/look", b"", Origin=other)[0] == 403
    assert asked(address, "/static/../pages.py")[0] == 404
    with pytest.raises(OSError):  # another address of this computer
        socket.create_connection(("127.0.0.2", int(host.rpartition(":")[2])), timeout=2)


def test_an_answer_is_that_of_predict(address: str, folder: Path) -> None:
    status, text, _ = asked(address, "/try/look", (folder / "one.png").read_bytes())
    found = json.loads(text)
    (face,) = found["faces"]
    for name, answer in zip(("old", "new"), face["models"], strict=True):
        (own,) = crossfer.load(folder / name).analyze(folder / "one.png")
        assert [100 * p for p in answer["probabilities"]] == pytest.approx(
            list(own["emotion"].values()), abs=1e-3
        )
    whole = json.loads(asked(address, "/try/look?cropped=1", (folder / "one.png").read_bytes())[1])
    assert whole["found"] == 1 and whole["faces"][0]["box"] is None


def test_what_is_too_large_or_no_picture_is_answered(address: str, folder: Path) -> None:
    nobody = asked(address, "/try/look", (folder / "nobody.png").read_bytes())[1]
    assert json.loads(nobody)["faces"] == []
    status, text, _ = asked(address, "/try/look", b"no picture")
    assert (status, "problem" in json.loads(text)) == (422, True)
    assert asked(address, "/try/look", b"")[0] == 422
    bomb = io.BytesIO()
    Image.new("1", (10_001, 10_001)).save(bomb, "PNG")
    assert "too many pixels" in asked(address, "/try/look", bomb.getvalue())[1]
    announced = {"Content-Length": "1000000000"}
    assert asked(address, "/try/look", b"x", **announced)[0] == 413
    pieces = iter([b"x" * 100_000] * (5 * LIMIT // 100_000))  # of no announced length
    assert asked(address, "/try/look", pieces)[:2] == (413, f"Larger than {LIMIT / 1e6:.0f} MB.")
    assert asked(address, "/try")[0] == 200  # it goes on


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two classifiers that answer what the first pixel and the second one say."""
    folder = tmp_path_factory.mktemp("pair")
    return [
        pixel_networks.exported(folder / name, CLASSES, column=column)
        for column, name in enumerate(("old", "new"))
    ]


def test_what_flipped_is_that_of_the_comparison(
    pair: list[Path], data: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        app,
        ["compare", *map(str, pair), str(data), "--rounds", "20", "--json", f"{tmp_path}/c.json"],
    )
    assert result.exit_code == 0, result.output
    for pages in (pages_of(pair, [data]), pages_of([tmp_path / "c.json"], [data])):
        with served(pages) as address:
            text = asked(address, "/compare?flip=both")[1]
            assert "20 won, 5 lost" in text and text.count("<figure>") == 25
            assert HOSTILE not in text
            lost = asked(address, "/compare?class=happy")[1]
            assert lost.count("<figure>") == 1 and "old: happy<br>new: sad" in lost
            assert asked(address, "/compare?by.camera=A")[1].count("<figure>") == 3
            status, _, headers = asked(address, "/compare/0/4.png")
            assert (status, headers["Content-Type"]) == (200, "image/png")
            for wrong in (
                "/compare?what=9",
                "/compare?flip=x",
                "/compare?page=%C2%B2",
                "/compare/0/80.png",
            ):
                assert asked(address, wrong)[0] == 404
    with pytest.raises(CrossferError, match="name the prepared dataset with --data"):
        pages_of([tmp_path / "c.json"])
    other = prepare(
        data.parent / "faces", tmp_path / "other", Preparation(faces="cropped", side=32)
    )
    with pytest.raises(CrossferError, match="other: not in the comparison, which is of .*leave it"):
        pages_of([tmp_path / "c.json"], [data, other.folder])


def test_a_port_in_use_is_one_line_and_ctrl_c_ends_it(folder: Path) -> None:
    command = [sys.executable, "-m", "crossfer", "app", str(folder / "old"), "--port"]
    with subprocess.Popen(
        [*command, "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stdout is not None
        address = running.stdout.readline().split()[1]
        port = address.partition("/?")[0].rpartition(":")[2]
        with pytest.raises(CrossferError, match=f"--port {port}: is in use; choose another port"):
            serve(pages_of([folder / "old"]), int(port))
        assert asked(address, "/try")[0] == 200
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_dropped_picture_is_answered_side_by_side(
    browser: Browser, address: str, folder: Path, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    with opened(browser, address, viewport=size, color_scheme=scheme) as tab:
        assert "token" not in tab.url
        (photograph,) = folder.glob("*.jpg")
        dropped = tab.evaluate_handle(
            """([bytes, name]) => {
              const given = new DataTransfer();
              given.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
              return given;
            }""",
            [list(photograph.read_bytes()), photograph.name],
        )
        tab.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        cards = tab.get_by_role("article")
        cards.nth(3).wait_for()
        assert tab.get_by_role("status").inner_text() == "2 faces."
        said = crossfer.load(folder / "new").analyze(photograph)[0]
        new = cards.nth(1)
        emotion = said["dominant_emotion"].removesuffix("\ud800")  # old Playwrights show it as "�"
        assert new.get_by_role("heading").inner_text().startswith(f"New: {emotion}")
        assert shares(new) == pytest.approx(list(said["emotion"].values()), abs=0.51)
        assert (
            "lacks this class" in cards.nth(0).inner_text()
        )  # a class that only the new one knows
        assert tab.get_by_alt_text("The face as the network sees it: 48×48, gray").count() == 4
        check_page(tab)


@needs_chromium
def test_flips_are_chosen_with_the_keyboard(browser: Browser, pair: list[Path], data: Path) -> None:
    with (
        served(pages_of(pair, [data])[1:]) as address,
        opened(browser, address, viewport={"width": 400, "height": 900}) as tab,
    ):
        assert stops(tab)[-4:] == ["flip", "class", "by.camera", "Show"]
        tab.get_by_label("Class").focus()
        tab.keyboard.type("happy")
        tab.get_by_role("button", name="Show").press("Enter")
        tab.get_by_role("heading", name="1 face").wait_for()
        assert "old: happy" in tab.get_by_role("listitem").inner_text()
        shown = tab.get_by_alt_text("A face labelled happy")
        assert shown.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 48
        check_page(tab)


def shares(card: Locator) -> list[float]:
    """Return the percentages beside the bars, and check that the bars are as long."""
    texts = [text.removesuffix(" %") for text in card.locator("td.n").all_inner_texts()]
    tracks = card.locator(".track").evaluate_all(
        "all => all.map((one) => 100 * one.firstChild.offsetWidth / one.clientWidth)"
    )
    assert tracks == pytest.approx(list(map(float, texts)), abs=3)
    return list(map(float, texts))


@needs_chromium
def test_the_keyboard_is_enough(browser: Browser, address: str, folder: Path) -> None:
    with opened(browser, address) as tab:
        assert stops(tab)[:2] == ["Skip to the content", "Try"]
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Choose a picture").press("Enter")
        chooser.value.set_files(folder / "nobody.png")
        status = tab.get_by_role("status")
        tab.get_by_text("No face was found").wait_for()
        tab.get_by_label("The picture is a cut-out face").focus()
        tab.keyboard.press("Space")
        tab.get_by_text("One face.").wait_for()
        assert tab.get_by_role("article").count() == 2
        tab.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"?"})
        expect(status).to_contain_text("image")
        assert tab.get_by_role("article").count() == 0
        assert status.inner_text()


@needs_chromium
def test_the_webcam_is_looked_at_when_asked(browser: Browser, address: str) -> None:
    with opened(browser, address) as tab:
        tab.get_by_role("button", name="Use the webcam").press("Enter")
        tab.get_by_label("The picture is a cut-out face").check()
        tab.get_by_role("button", name="Take a picture").press("Enter")
        tab.get_by_text("One face.").wait_for()
        tab.get_by_role("button", name="Classify continuously").press("Enter")
        first = tab.locator(".picture img").get_attribute("src")
        expect(tab.locator(".picture img")).not_to_have_attribute("src", first or "")
        tab.get_by_role("button", name="Stop the webcam").press("Enter")
        assert not tab.get_by_label("The webcam", exact=True).is_visible()

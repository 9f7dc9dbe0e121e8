"""The pages to label with, in a real browser: by keyboard alone, and nothing said is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest
from playwright.sync_api import expect

from crossfer.app.labelling import label_pages
from crossfer.deploy import load
from crossfer.labelling import Gallery, LabelOptions, Session
from crossfer.labelling.journal import Journals
from crossfer.labelling.people import Describer
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE
from tests import tiny_onnx
from tests.browser import browser, check_page, needs_chromium, opened, served, stops

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

__all__ = ["browser"]

HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = ("dark", "medium", "bright", HOSTILE)
PHOTOS = 22

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("label")
    tiny_onnx.write(folder / "model", tiny_onnx.network(outputs=4), classes=list(CLASSES))
    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        name = f"{number:02d}.png" if number else f"00 {HOSTILE.replace('/', '')}.png"
        cv2.imwrite(str(folder / "photos" / name), portrait(LAB_JAFFE, number % 5, number % 7))
    return folder / "photos"


def session(photos: Path, labels: Path, by: str = "ann", blind: bool = False) -> Session:
    """Begin, as the command does."""
    gallery = Gallery(photos, photos.parent / "faces", load(photos.parent / "model"), cropped=True)
    describe = Describer("mean", "their brightness", 4.0, lambda face: face.mean((0, 1)))
    begun = Session(labels, gallery, LabelOptions(by, "files", blind), describe)
    begun.refresh()
    return begun


@pytest.fixture
def ann(photos: Path, tmp_path: Path) -> Session:
    return session(photos, tmp_path)


@pytest.fixture
def address(ann: Session) -> Iterator[str]:
    with served(label_pages(ann)) as address:
        yield address


def press(tab: Tab, key: str, told: str) -> None:
    """Press a key, and wait until the page says so."""
    tab.keyboard.press(key)
    tab.locator("#status", has_text=told).wait_for()
    tab.locator("#work:not([aria-busy])").wait_for(state="attached")


def test_twenty_faces_are_labelled_by_keyboard_and_nothing_is_lost(
    browser: Browser, address: str, photos: Path, tmp_path: Path
) -> None:
    with opened(browser, address) as tab:
        tab.locator("#status", has_text="Suggestion:").wait_for()
        assert HOSTILE.replace("/", "") in tab.inner_text("#photo")
        expected: Counter[str] = Counter()
        for number in range(20):
            before, key = tab.inner_text("#count"), "1234"[number % 4]
            press(tab, key, f"Saved: {CLASSES[number % 4]}")
            expect(tab.locator("#count")).not_to_have_text(before or "")
            expected[CLASSES[number % 4]] += 1
            assert len(Journals(tmp_path / "journals").read().events) == number + 1
        assert tab.inner_text("#count") == f"20 of {PHOTOS}"
        press(tab, "Backspace", "Taken back.")
        press(tab, "x", "Saved: not a face.")
        press(tab, "Space", "Skipped.")
        press(tab, "Enter", "Saved: ")
        assert tab.inner_text("#count") == f"21 of {PHOTOS}, 1 skipped"
        assert "Skipped before." in tab.inner_text("#status")  # it comes again, as the last
        tab.reload()
        tab.locator("#status", has_text="Skipped before.").wait_for()
        assert tab.inner_text("#count") == f"21 of {PHOTOS}, 1 skipped"
        press(tab, "1", f"All {PHOTOS} faces are labelled.")
        press(tab, "Backspace", "Skipped before.")  # as it was before that
        tab.click("#finish")
        tab.locator("#finished", has_text="20 labels in").wait_for()
    again = session(photos, tmp_path)  # as after a kill: nothing was closed
    said = Counter(row["label"] for row in again.labels().rows)
    last = again.labels().rows[-1]
    assert last["suggestion_changed"] == "no"
    assert said == expected - Counter({HOSTILE: 1}) + Counter({last["label"]: 1})
    assert again.labels().not_faces == 1 and again.turn().skipped == 1


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_every_page_is_for_everybody(
    browser: Browser, ann: Session, address: str, width: int, scheme: str
) -> None:
    base = address.partition("/?")[0]
    ben = session(ann.gallery.folder, ann.folder, "ben", blind=True)
    for face, label in zip(list(ann.gallery.faces)[:3], CLASSES, strict=False):
        ann.say(face, "label", label)
        ben.say(face, "label", "dark")
    size = {"width": width, "height": 800}
    with opened(browser, address, viewport=size, color_scheme=scheme) as tab:
        tab.locator("#status", has_text="Suggestion:").wait_for()
        check_page(tab)
        assert tab.get_by_role("button", name="1 dark").get_attribute("aria-keyshortcuts") == "1"
        assert [name for name in stops(tab) if "undo" in name]
        tab.goto(f"{base}/people")
        tab.locator("fieldset").first.wait_for()
        check_page(tab)
        tab.goto(f"{base}/agreement")
        check_page(tab)


def test_people_are_confirmed_split_and_taken_back(
    browser: Browser, ann: Session, address: str
) -> None:
    with opened(browser, address.replace("/?", "/people?")) as tab:
        tab.locator("#status", has_text="0 people are named").wait_for()
        group = tab.locator("fieldset").first
        faces = group.get_by_role("checkbox").count()
        assert faces > 2
        group.get_by_role("checkbox").first.press("Space")  # somebody else
        group.get_by_label("Name of the person").fill(HOSTILE)
        group.get_by_role("button").press("Enter")
        tab.locator("legend", has_text=f"{HOSTILE}: {faces - 1} faces").wait_for()
        assert "Saved" in tab.inner_text("#status") and "1 person is named" in tab.inner_text(
            "#status"
        )
        assert [group.name for group in ann.groups()].count(HOSTILE) == 1
        other = tab.locator("fieldset[data-open]").first  # what is not saved stays as it is
        other.get_by_label("Name of the person").fill("not yet")
        again = tab.locator("fieldset").first
        for box in again.get_by_role("checkbox").all():
            box.uncheck()
        again.get_by_role("button", name="Confirm").click()
        tab.locator("#status", has_text="no face is selected; select some first").wait_for()
        assert [group.name for group in ann.groups()].count(HOSTILE) == 1
        tab.get_by_role("button", name="Undo").click()
        tab.locator("#status", has_text="Taken back. 0 people are named").wait_for()
        names = tab.get_by_label("Name of the person").all()
        assert "not yet" in [name.input_value() for name in names]


def test_what_counts_is_settled_where_two_people_disagree(
    browser: Browser, ann: Session, address: str
) -> None:
    ben = session(ann.gallery.folder, ann.folder, "ben")
    faces = list(ann.gallery.faces)
    for face in faces[:4]:
        ann.say(face, "label", "dark")
        ben.say(face, "label", "dark" if face != faces[0] else HOSTILE)
    with opened(browser, address.replace("/?", "/agreement?")) as tab:
        assert "3 of 4 labels are the same" in tab.inner_text("main")
        assert f"ann: dark, ben: {HOSTILE}" in tab.inner_text(".disputed")
        tab.get_by_role("button", name="dark").press("Enter")
        tab.locator("#status", has_text="Saved: dark is the final label.").wait_for()
        tab.reload()
        assert "Resolved: dark" in tab.inner_text(".disputed")
    assert ben.labels().rows[0]["label"] == HOSTILE
    ben.write_manifest()  # of what everybody said
    assert ben.labels().rows[0]["label"] == "dark"


def test_what_cannot_be_written_is_said_and_not_taken_for_saved(
    browser: Browser, ann: Session, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(browser, address) as tab:
        tab.locator("#status", has_text="Suggestion:").wait_for()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            press(tab, "1", "not saved: No space left on device")
        assert tab.inner_text("#count") == f"0 of {PHOTOS}"
        press(tab, "1", "Saved: dark.")
    lines = next((ann.folder / "journals").iterdir()).read_text().splitlines()
    assert [json.loads(line).get("did") for line in lines] == [None, "label"]


def test_a_key_counts_for_the_face_that_is_seen_and_for_its_answer_only(
    browser: Browser, ann: Session, address: str
) -> None:
    with opened(browser, address) as tab:
        tab.locator("#status", has_text="Suggestion:").wait_for()
        first, second = list(ann.gallery.faces)[:2]
        ann.say(first, "label", "medium")  # in another tab, or another process
        press(tab, "1", "labelled medium meanwhile, in another tab or process; reload the page")
        assert ann.said_of(first) == {"ann": "medium"}
        tab.reload()
        tab.locator("#status", has_text="Suggestion:").wait_for()
        here = ann.gallery.picture(second)
        tab.route("**/label/face/*.png", lambda route: route.fulfill(status=404))
        press(tab, "1", "Saved: dark. The next face cannot be shown; reload the page")
        assert ann.said_of(second) == {"ann": "dark"} and here.is_file()
        tab.keyboard.press("2")
        assert tab.locator("#work").is_hidden() and len(ann.labels().rows) == 2

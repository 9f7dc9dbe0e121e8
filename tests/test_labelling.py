"""Labelling: nothing said is lost, what counts follows from it, and `prepare` reads what comes out."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from crossfer.cli import main
from crossfer.cli.labelling import framing_options
from crossfer.datasets import prepare
from crossfer.datasets.faces import iou
from crossfer.datasets.pictures import open_picture
from crossfer.deploy import load
from crossfer.deploy.predictor import Predictor
from crossfer.errors import CrossferError
from crossfer.evaluation.estimate import negative_entropy
from crossfer.evaluation.rows import Suggestions
from crossfer.evaluation.suggested import in_words, led
from crossfer.framing import Framing
from crossfer.labelling import Gallery, LabelOptions, Session, Unguided, people
from crossfer.labelling.agreement import agreement, cohens_kappa
from crossfer.labelling.decisions import NOT_A_FACE, decide
from crossfer.labelling.journal import Event, FaceLocation, Journal, Journals, Suggested
from crossfer.labelling.keys import KEYS, OTHERS, keys_of
from crossfer.labelling.people import Describer, linked
from crossfer.labelling.queue import next_face
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE
from tests import tiny_onnx
from tests.commands import refused

FACE = FaceLocation("a" * 64, (10.0, 10.0, 50.0, 60.0))
SUGGESTED = Suggested("model", "happy", 0.6, True)


def here(place: FaceLocation) -> str | None:
    """Every place is a face of its own."""
    return place.picture[:1]


def place(name: str) -> FaceLocation:
    return FaceLocation(name * 64, FACE.box)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos of one drawn person each, and one of two."""
    folder = tmp_path_factory.mktemp("drawn")
    for who in range(4):
        cv2.imwrite(str(folder / f"{who}.png"), portrait(LAB_JAFFE, who, who))
    cv2.imwrite(str(folder / "two.png"), np.hstack([portrait(LAB_JAFFE, who, 6) for who in (0, 1)]))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_onnx.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def found(drawn: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is found in the photos, kept: faces are looked for once for all tests."""
    kept = tmp_path_factory.mktemp("found")
    Gallery(drawn, kept, load(model)).refresh()
    return kept


@pytest.fixture
def start(drawn: Path, model: Path, found: Path, tmp_path: Path) -> Callable[..., Session]:
    """Return what starts a session on a copy of the photos."""
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    shutil.copytree(drawn, photos)
    shutil.copytree(found, labels / "faces")

    def begin(by: str = "ann", predictor: Predictor | None = None, **how: Any) -> Session:
        gallery = Gallery(photos, labels / "faces", predictor or load(model))
        describe = Describer("mean", "brightness", 5.0, lambda face: face.mean((0, 1)))
        session = Session(labels, gallery, LabelOptions(by, **how), describe)
        session.refresh()
        return session

    return begin


def test_a_key_press_is_on_the_disk_and_is_read_as_it_was_written(tmp_path: Path) -> None:
    ann = Journal(tmp_path, "Ann Ö/..")
    written = [
        ann.write(Event("label", (FACE,), "sad", SUGGESTED)),
        ann.write(Event("not a face", (FACE,))),
        ann.write(Event("subject", (FACE,), "Zoë", apart=(place("b"),))),
    ]
    written.append(ann.write(Event("undo", undoes=written[1].id)))
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 5  # on disk, though nothing was closed
    assert Journals(tmp_path).read().events == written
    assert json.loads(file.read_text().splitlines()[1])["changed"] is True
    assert [event.by for event in written] == ["Ann Ö/.."] * 4


def test_people_and_computers_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    writers = [Journal(tmp_path, by) for by in ("ann", "ann", "ben")]
    reader, written = Journals(tmp_path), []
    for name in "xyz":
        for writer in writers:
            written.append(writer.write(Event("label", (place(name),), "happy")))
            assert {e.id for e in reader.read().events} == {e.id for e in written}
    assert len(list(tmp_path.iterdir())) == 3
    assert {e.id for e in Journals(tmp_path).read().events} == {e.id for e in written}
    assert len({e.id for e in written}) == 9


def test_what_a_kill_cut_off_is_passed_over_and_the_rest_is_there(tmp_path: Path) -> None:
    first = Journal(tmp_path, "ann")
    for name in "xy":
        first.write(Event("label", (place(name),), "happy"))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    begin = whole[:-1].rindex(b"\n") + 1
    journals = Journals(tmp_path)
    assert len(journals.read().events) == 2
    for end in range(begin, len(whole)):  # killed anywhere within the last line
        file.write_bytes(whole[:end])
        read = journals.read()
        assert [e.faces[0].picture[0] for e in read.events] == ["x"]
        assert [file.name in note for note in read.notes] == [True] * (end > begin)
    again = Journal(tmp_path, "ann")
    again.write(Event("label", (place("z"),), "sad"))
    assert [e.label for e in Journals(tmp_path).read().events] == ["happy", "sad"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (b'{"format": "crossfer labels", "version": 2, "by": "ann"}\n', "another crossfer"),
        (b'{"format": "a diary"}\n', "not a label journal"),
        (b'{"format": "crossfer labels", "version": 1, "by": "ann"}\n{"did": \n', "line 2"),
        (
            b'{"format": "crossfer labels", "version": 1, "by": "ann"}\n{"at": "1", "did": "fly"}\n',
            "line 2",
        ),
    ],
)
def test_a_journal_that_is_none_of_ours_is_refused_and_left_alone(
    tmp_path: Path, lines: bytes, complaint: str
) -> None:
    file = tmp_path / "other.jsonl"
    file.write_bytes(lines)
    with pytest.raises(CrossferError, match=f"{file}.*{complaint}"):
        Journals(tmp_path).read()
    assert file.read_bytes() == lines


def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Journal(tmp_path, "ann")
    ann.write(Event("label", (FACE,), "sad"))
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            ann.write(Event("label", (FACE,), "happy"))
    assert file.read_bytes() == before
    ann.write(Event("label", (FACE,), "fear"))
    assert [event.label for event in Journals(tmp_path).read().events] == ["sad", "fear"]


def test_the_last_word_of_each_person_counts_and_an_undo_takes_it_back() -> None:
    x, y = place("x"), place("y")
    events = [
        Event("label", (x,), "sad", by="ann", at="1", id="a:2"),
        Event("label", (x,), "happy", by="ben", at="2", id="b:2"),
        Event("label", (x,), "fear", by="ann", at="3", id="a:3"),
        Event("undo", undoes="a:3", by="ann", at="4", id="a:4"),
        Event("subject", (x, y), "Zoë", by="ann", at="5", id="a:5"),
        Event("subject", (), "Zoë", apart=(y,), by="ben", at="6", id="b:3"),
        Event("settle", (x,), None, by="ann", at="7", id="a:6"),
    ]
    made = decide(events, here)
    assert {by: said["x"].label for by, said in made.said.items()} == {"ann": "sad", "ben": "happy"}
    assert made.subjects == {"x": "Zoë"} and made.apart == {("y", "Zoë")}
    assert made.settled["x"].label is None
    last = made.last("ann")
    assert last is not None and last.id == "a:2"  # the next undo
    assert decide(events, lambda place: None).unknown == 5  # photos gone: kept, and counted


def test_faces_come_in_the_order_that_was_asked_for() -> None:
    left = {
        "a": (0.9, 0.05, 0.05),
        "b": (0.4, 0.35, 0.25),
        "c": (0.1, 0.8, 0.1),
        "d": (0.2, 0.6, 0.2),
    }
    assert next_face(left, "files", [0, 0, 0]) == "a"
    assert next_face(left, "uncertainty", [0, 0, 0]) == "b"
    assert next_face(left, "balance", [5, 1, 0]) == "c"  # nothing seems to be of the third class
    assert next_face(left, "balance", [0, 1, 0]) == "a"
    assert next_face({}, "uncertainty", []) is None
    even, sure = negative_entropy(np.array([[0.25] * 4, [1.0, 0, 0, 0]]))
    assert even == pytest.approx(-np.log(4)) and sure == 0


def test_kappa_is_cohens_and_its_interval_holds_what_it_should() -> None:
    """Against statsmodels 0.15 for one table, whose interval is Fleiss's, and by drawing many."""
    rng = np.random.default_rng(0)
    names = np.array(["angry", "happy", "sad", "neutral"])
    one = rng.choice(names, 400, p=[0.1, 0.4, 0.3, 0.2])
    other = np.where(rng.random(400) < 0.7, one, rng.choice(names, 400))
    kappa = cohens_kappa(one.tolist(), other.tolist())
    assert kappa.value == pytest.approx(0.6744206) and kappa.interval is not None
    np.testing.assert_allclose(kappa.interval, [0.6178924, 0.7309488], atol=0.01)
    same = cohens_kappa(["a", "b"] * 10, ["a", "b"] * 10)
    assert same.value == 1 and same.interval is not None and 0.5 < same.interval[0] < 0.8
    assert cohens_kappa(["a"] * 5, ["a"] * 5).value is None
    # Of 60 faces, true κ is 0.7 × (1 − p_e) / (1 − p_e) = 0.7 where the other is copied or independent.
    held = 0
    for _ in range(300):
        first = rng.choice(names, 60)
        second = np.where(rng.random(60) < 0.7, first, rng.choice(names, 60))
        found = cohens_kappa(first.tolist(), second.tolist()).interval
        held += found is not None and found[0] <= 0.7 <= found[1]
    assert 0.92 <= held / 300 <= 0.99


def test_agreement_counts_only_what_both_answered_and_lists_what_they_did_not() -> None:
    first = {"a": "sad", "b": "happy", "c": NOT_A_FACE, "d": "sad"}
    second = {"b": "happy", "c": "sad", "d": "sad", "e": "fear"}
    found = agreement(("ann", "ben"), first, second, ("happy", "sad", "fear", NOT_A_FACE))
    assert found is not None
    assert (found.kappa.faces, found.kappa.same, found.disagreements) == (3, 2, ["c"])
    assert [(c.name, c.first, c.second, c.both) for c in found.classes] == [
        ("happy", 1, 1, 1),
        ("sad", 1, 2, 1),
        (NOT_A_FACE, 1, 0, 0),
    ]
    assert agreement(("ann", "ben"), {"a": "sad"}, {"b": "sad"}, ()) is None


@pytest.mark.parametrize(
    ("counts", "suspicious"),
    [
        ((200, 195, 0, 0), True),  # nobody looked blind
        ((200, 170, 0, 0), False),
        ((19, 19, 0, 0), False),  # too few
        ((200, 190, 60, 40), True),  # people who do not see the suggestion say it far less often
        ((200, 190, 60, 56), False),  # the model is that good
    ],
)
def test_labels_that_follow_the_model_are_warned_of(
    counts: tuple[int, int, int, int], suspicious: bool
) -> None:
    found = Suggestions(*counts)
    assert led(found) is suspicious
    assert ("may be too high" in in_words(found)) is suspicious
    assert ("--blind" in in_words(found)) is (suspicious and not found.blind)


def test_groups_keep_to_what_was_said() -> None:
    points = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
    distances = np.abs(points[:, None] - points)
    nobody = [None] * 6

    def groups(*known: Any) -> list[list[int]]:
        return sorted(linked(distances, 1.0, *known))

    assert groups(nobody) == [[0, 1, 2], [3, 4], [5]]
    assert groups([None, "Ann", None, None, "Ann", None]) == [[0, 2], [1, 4], [3], [5]]
    assert groups(["Ann", "Ben", *nobody[2:]]) == [[0], [1, 2], [3, 4], [5]]
    assert groups(["Ann", *nobody[1:]], {(1, "Ann")}) == [[0], [1, 2], [3, 4], [5]]


@pytest.mark.parametrize("network", [True, False])
def test_pictures_of_one_sitting_are_grouped(
    found: Path, monkeypatch: pytest.MonkeyPatch, network: bool, tmp_path: Path
) -> None:
    if network and people._network() is None:
        pytest.skip("dlib's network is not here: pip install 'crossfer[people]'")
    if not network:
        monkeypatch.setattr(people, "_network", lambda: None)
    describe = people.describer()
    pictures = sorted(found.glob("*.png"))[:3]
    for number, picture in enumerate(pictures):
        image = cv2.imread(str(picture))
        assert image is not None
        darker = np.roll(image, 3, axis=1) * np.float64(0.8)
        for name, pixels in ((f"{number}a", image), (f"{number}b", darker)):
            cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
            describe.look(name, tmp_path / f"{name}.png")
    faces = [f"{number}{which}" for number in range(len(pictures)) for which in "ab"]
    groups = people.grouped(faces, describe, {"0a": "Ann"}, ())
    assert groups[0].name == "Ann" and groups[0].named == 1 and "0b" in groups[0].faces
    for group in groups:
        assert {face[:-1] + "a" for face in group.faces} <= {*group.faces}
    again = people.describer()  # kept beside the pictures
    again.look("0a", tmp_path / "0a.png")
    np.testing.assert_array_equal(again.vector("0a"), describe.vector("0a"))


def test_every_class_has_a_key_of_its_own() -> None:
    assert not set(KEYS) & set(OTHERS.values())
    assert keys_of(["happy", "sad"]) == {"1": "happy", "2": "sad"}
    with pytest.raises(CrossferError, match="classes: there are keys"):
        keys_of([str(n) for n in range(50)])


def test_labels_survive_and_prepare_frames_the_same_faces(
    start: Callable[..., Session], tmp_path: Path
) -> None:
    session = start(order="files")
    session.to_describe(100)
    turn = session.turn()
    labels = ["dark", "medium", "bright"]
    for number in range(6):
        assert turn.face is not None and turn.suggested in labels
        turn = session.say(turn.face.id, "label", labels[number % 3])
    assert turn.face is None and (turn.done, turn.faces) == (6, 6)
    faces = list(session.gallery.faces)
    session.name([faces[0], faces[4]], "Zoë, =1+1")
    turn = session.undo()
    assert turn.face is not None and turn.face.id == faces[5]
    session.say(faces[5], "skip")  # killed now: nothing is closed

    session = start()
    assert (session.turn().done, session.turn().skipped) == (5, 1)
    session.say(faces[5], "not a face")
    manifest = session.write_manifest()
    prepared = prepare(manifest, tmp_path / "prepared")
    samples = prepared.samples.to_pylist()
    assert [row["label"] for row in samples] == ["dark", "medium", "bright", "dark", "medium"]
    assert [row["subject"] for row in samples] == ["Zoë, =1+1", None, None, None, "Zoë, =1+1"]
    assert set(prepared.samples["group.labeller"].to_pylist()) == {"ann"}
    assert set(prepared.samples["group.suggestion_changed"].to_pylist()) == {"yes", "no"}
    assert prepared.card["faces"]["found"] == {"eyes": 5}
    for row, face in zip(samples, session.gallery.faces.values(), strict=False):
        square = (row["left"], row["top"], row["width"], row["height"])
        assert iou(square, face.place.box) > 0.3  # of two people, the one that was labelled


def test_a_folder_that_changes_is_said_and_loses_nothing(start: Callable[..., Session]) -> None:
    session = start()
    photos = session.gallery.folder
    names = {face.photo: face.id for face in session.gallery.faces.values()}
    for name in ("0.png", "1.png", "2.png"):
        session.say(names[name], "label", "dark")
    os.rename(photos / "0.png", photos / "renamed.png")
    (photos / "1.png").write_bytes((photos / "3.png").read_bytes())
    (photos / "3.png").unlink()
    (photos / "two.png").unlink()
    odd = [photos / "line\nbreak.png", photos / os.fsdecode(b"\xff.png")]
    for file in odd:
        file.write_bytes((photos / "2.png").read_bytes())
    with pytest.raises(CrossferError, match="two.png: removed or changed"):
        session.say(names["two.png"], "label", "dark")
    said = session.refresh()
    assert [line.split(" photo")[0] for line in said] == ["1", "3", "1"]  # new, gone, altered
    unnameable = "its name is not allowed in a table; rename it"
    assert session.gallery.problems == {file.name: unnameable for file in odd}
    rows = {row["path"]: row["label"] for row in session.labels().rows}
    assert rows == {"renamed.png": "dark", "2.png": "dark"}
    assert session.unknown == 1  # what was said of the former 1.png is kept


def test_two_people_disagree_until_somebody_settles_it(start: Callable[..., Session]) -> None:
    ann, ben = start("ann"), start("ben", blind=True)
    faces = list(ann.gallery.faces)
    for face, one, other in zip(faces, ["dark"] * 6, ["dark"] * 5 + ["bright"], strict=True):
        ann.say(face, "label", one)  # on the same face at the same time
        ben.say(face, "label", other)
    (pair,) = ann.agreements()
    assert pair.people == ("ann", "ben") and pair.disagreements == [faces[5]]
    assert ann.said_of(faces[5]) == {"ann": "dark", "ben": "bright"}
    assert len(ann.labels().rows) == 5 and ann.labels().disputed == [faces[5]]
    ann.settle(faces[5], "bright")
    row = ann.labels().rows[-1]
    assert (row["label"], row["labeller"]) == ("bright", "ann+ben")
    followed = ann.followed()
    assert followed is not None and (followed.shown, followed.blind) == (6, 6)
    assert ben.turn().suggested is None and not ben.turn().bars


def test_nothing_is_suggested_without_a_model(start: Callable[..., Session]) -> None:
    session = start(predictor=Predictor(Unguided(["awake", "asleep"])), classes=("Bored",))
    turn = session.turn()
    assert session.classes == ("awake", "asleep", "bored") and turn.suggested is None
    assert turn.face is not None
    session.say(turn.face.id, "label", "bored")
    (row,) = session.labels().rows
    assert (row["label"], row["suggestion"]) == ("bored", "")
    with pytest.raises(CrossferError, match="not a class"):
        session.say(turn.face.id, "label", "happy")


def test_another_model_suggests_anew_and_labels_stay(
    start: Callable[..., Session], model: Path
) -> None:
    session = start()
    first = next(iter(session.gallery.faces.values()))
    session.say(first.id, "label", "dark")
    other = load(model)
    other.engine.identity = "another"
    again = start(predictor=other)
    assert again.labels().rows[0]["label"] == "dark" and again.turn().done == 1
    moved = replace(first.place, box=(first.place.box[0] + 5, *first.place.box[1:]))
    assert again.gallery.face_at(moved) == first.id  # found a little elsewhere


def test_the_command_ends_with_a_table_and_how_it_stands(
    start: Callable[..., Session],
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = start()
    turn = session.turn()
    assert turn.face is not None
    session.say(turn.face.id, "label", "dark")
    photos, out = session.gallery.folder, session.folder
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / os.fsdecode(b"\xff.png")).write_bytes(b"")

    def run(*more: str) -> tuple[int, str]:
        where = () if "--out" in more else ("--out", str(out))
        words = ["crossfer", "label", str(photos), *where, "--table", *more]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out + told.err

    status, told = run("--order", "balance")
    assert status == 2 and "--order balance: needs the classes that a model suggests" in told
    status, told = run("--model", str(model))
    assert status == 0, told
    assert "labels: 1, of 0 named people" in told and "waiting: 5" in told
    assert "left out, not an image that can be read: 1 (first: broken.jpg)" in told
    assert f"next: crossfer prepare {out / 'labels.csv'} --out data/photos" in told
    for words, complaint in (
        (["--order", "random"], "choose among uncertainty, balance, files"),
        (["--out", str(photos / "labels")], "is inside the folder of photos"),
        (["--model", str(model), "--classes", "a,b"], "the model has its own classes"),
    ):
        status, told = run(*words)
        assert status == 2 and complaint in " ".join(told.split()), told
    with pytest.raises(CrossferError, match="write the annotator's name"):
        Journal(out, "x" * 61)


def test_a_face_has_one_name_whatever_else_is_found(start: Callable[..., Session]) -> None:
    gallery = start().gallery
    pixels = open_picture(gallery.folder / "two.png")
    (seen,) = gallery.predictor.look([pixels], False)
    card = gallery.kept / "card.json"
    both = gallery._kept(card, "a" * 64, pixels, seen)
    assert len(both) == 2
    assert [face.id for face in gallery._kept(card, "a" * 64, pixels, seen[1:])] == [both[1].id]
    kept = gallery._from_card(card, "a" * 64)
    assert kept is not None and [face.id for face in kept] == [both[1].id]


def test_what_cannot_be_recorded_is_refused(start: Callable[..., Session]) -> None:
    for name in ("not a face", " "):
        with pytest.raises(CrossferError, match="no class can have this name"):
            start(classes=(name,))
    session = start()
    with pytest.raises(CrossferError, match="no face is selected"):
        session.unname([])


def test_what_the_next_command_makes_is_what_the_model_reads() -> None:
    assert framing_options(Framing()) == ""
    assert framing_options(Framing(64, 3, 0.4)) == " --side 64 --colour --eyes 0.4,0.42"


def test_a_folder_without_a_picture_is_no_folder_without_a_face(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/notes").write_text("no picture")
    assert "contains no picture" in refused("label", tmp_path / "photos", "--table")


def test_a_name_is_one_in_every_spelling_and_no_word_for_nobody(
    start: Callable[..., Session],
) -> None:
    session = start()
    faces = list(session.gallery.faces)[:2]
    session.name(faces[:1], unicodedata.normalize("NFC", "Zoë"))
    session.name(faces[1:], unicodedata.normalize("NFD", "Zoë"))
    session.to_describe(100)
    assert [(group.name, group.named) for group in session.groups()][0] == ("Zoë", 2)
    with pytest.raises(CrossferError, match="'unknown': invalid name"):
        session.name(faces, "unknown")

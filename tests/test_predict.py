"""From pictures and videos to faces and what the classifier says of them, with and without PyTorch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import PIL.Image
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data

import crossfer
from crossfer.cli import main
from crossfer.datasets.detector import Detector
from crossfer.datasets.faces import face_of
from crossfer.datasets.pictures import encoded, open_picture
from crossfer.deploy.output import table
from crossfer.deploy.predictor import PredictOptions, Predictor
from crossfer.deploy.sources import sources_in
from crossfer.deploy.tracking import FaceTracker
from crossfer.errors import CrossferError
from crossfer.framing import Framing
from crossfer.pooled import AHEAD, in_order, tapered
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE, LAB_TFEID
from tests import commands, tiny_onnx
from tests.tiny_onnx import CLASSES


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_onnx.write(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: three portraits, one picture of two people, one of nobody, a broken one, a text."""
    folder = tmp_path_factory.mktemp("photographs")
    for who in range(3):
        cv2.imwrite(str(folder / f"{who}.png"), portrait(LAB_JAFFE, who, who))
    cv2.imwrite(str(folder / "two.png"), np.hstack([portrait(LAB_JAFFE, who, 6) for who in (0, 1)]))
    cv2.imwrite(str(folder / "nobody.png"), np.full((100, 100), 127, np.uint8))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("neither picture nor video")
    return folder


def film(file: Path, frames: list[np.ndarray], rate: float = 10) -> Path:
    """Write a video of gray frames."""
    size = frames[0].shape[1::-1]
    code = "mp4v" if file.suffix == ".mp4" else "MJPG"
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*code), rate, size)
    for frame in frames:
        video.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    video.release()
    return file


def walk(frames: int) -> list[np.ndarray]:
    """Film two people: one stays on the left, one comes in on the right a little later."""
    stays, comes = portrait(LAB_JAFFE, 0, 6), portrait(LAB_JAFFE, 1, 6)
    shown = []
    for frame in range(frames):
        scene = np.full((256, 620), 127, np.uint8)
        scene[:, 4 * frame : 4 * frame + 256] = stays
        if frame >= 3:
            scene[:, 360:616] = comes
        shown.append(scene)
    return shown


def rows_of(model: Path, *paths: Path, how: PredictOptions | None = None) -> list[dict[str, Any]]:
    found = crossfer.load(model).analyze_many(list(paths), **vars(how or PredictOptions()))
    return [dict(zip(found, row, strict=True)) for row in found.itertuples(index=False)]


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["crossfer", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_every_face_is_found_and_answered_as_prepare_would_cut_it_out(
    exported: Path, photographs: Path
) -> None:
    model = crossfer.load(exported)
    faces = model.analyze(photographs / "two.png")
    assert sorted(face["region"]["x"] // 256 for face in faces) == [0, 1]
    for face in faces:
        region, emotion = face["region"], face["emotion"]
        left_eye, right_eye = region["left_eye"], region["right_eye"]
        assert (
            region["x"] < right_eye[0] < left_eye[0] < region["x"] + region["w"]
        )  # the person's own
        assert tuple(emotion) == CLASSES and sum(emotion.values()) == pytest.approx(100, abs=1e-3)
        assert face["dominant_emotion"] == max(emotion, key=emotion.__getitem__)
        assert 0.7 < face["face_confidence"] <= 1
    picture = open_picture(photographs / "0.png")
    cut = face_of(picture, None, Framing(), Detector(), 1.0).image
    expected = model.predict(cut[None])[0]
    (face,) = model.analyze(picture)
    assert list(face["emotion"].values()) == pytest.approx(list(100 * expected), abs=1e-4)
    assert model.analyze(np.stack([picture] * 3, axis=2))[0]["region"] == face["region"]
    assert model.analyze(photographs / "nobody.png") == []
    (whole,) = model.analyze(cut, cropped=True)
    assert whole["emotion"] == face["emotion"]


def test_mirrored_a_face_and_its_mirror_image_are_answered_alike(exported: Path) -> None:
    plain, mirrored = crossfer.load(exported), crossfer.load(exported, mirror=True)
    faces = np.random.default_rng(0).integers(0, 256, (5, *mirrored.engine.framing.shape), np.uint8)
    turned = np.ascontiguousarray(faces[:, :, ::-1])
    expected = (plain.predict(faces) + plain.predict(turned)) / 2
    np.testing.assert_allclose(mirrored.predict(faces), expected, atol=1e-6)
    np.testing.assert_allclose(mirrored.predict(turned), expected, atol=1e-6)
    assert mirrored.engine.identity != plain.engine.identity  # another table, if resumed


def test_a_folder_gives_a_row_for_each_face_and_says_what_gave_none(
    exported: Path, photographs: Path
) -> None:
    rows = rows_of(exported, photographs)
    told = [(Path(row["source"]).name, row["problem"]) for row in rows]
    assert told == [
        *((f"{who}.png", "") for who in range(3)),
        ("broken.jpg", "not an image that can be read"),
        ("nobody.png", "no face found"),
        *[("two.png", "")] * 2,
    ]
    assert [row["face"] for row in rows[-2:]] == [1, 2]
    assert rows[-1]["class"] in CLASSES


def test_the_table_is_the_same_in_every_format(
    exported: Path, photographs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"faces.{suffix}"
        status, said, _ = command(
            monkeypatch, capsys, "predict", exported, photographs, "--out", out
        )
        assert status == 0
        assert "faces: 5, in pictures and videos: 6" in said
        assert "without a face: 1" in said
        assert "not read, not an image that can be read: 1" in said
        assert "neither pictures nor videos, skipped: 1" in said
    lines = [json.loads(line) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    with (tmp_path / "faces.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read == [{k: "" if v is None else str(v) for k, v in line.items()} for line in lines]
    parquet = pyarrow.parquet.read_table(tmp_path / "faces.parquet").to_pylist()
    assert [row["source"] for row in parquet] == [line["source"] for line in lines]
    assert parquet[0]["p_dark"] == pytest.approx(lines[0]["p_dark"])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "faces.csv", "faces.jsonl", "faces.parquet",
    ]  # fmt: skip


def test_where_nothing_can_be_read_the_status_says_so(
    exported: Path, photographs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out, broken = tmp_path / "FACES.CSV", photographs / "broken.jpg"
    status, said, error = command(monkeypatch, capsys, "predict", exported, broken, "--out", out)
    assert status == 2 and "none of 1 pictures and videos could be read" in error
    assert "not an image that can be read" in out.read_text(), "the table says why all the same"
    nobody = photographs / "nobody.png"
    assert command(monkeypatch, capsys, "predict", exported, nobody, broken)[0] == 0


@pytest.mark.parametrize("torn", [b"", b'["half a li', b'["x", null, null, 1'])
def test_interrupted_it_goes_on_to_the_same_table(
    torn: bytes, exported: Path, photographs: Path, tmp_path: Path
) -> None:
    model = crossfer.load(exported)

    def predict(out: Path, stop_after: int, about: str = "same") -> None:
        with sources_in([photographs]) as sources, table(out, CLASSES, {"about": about}) as rows:
            left = [source for source in sources.found if source.name not in rows.done]
            for number, part in enumerate(model.parts(left, PredictOptions())):
                if number == stop_after:
                    raise KeyboardInterrupt
                rows.add(part)

    predict(tmp_path / "whole.csv", 99)
    out = tmp_path / "faces.csv"
    with pytest.raises(KeyboardInterrupt):
        predict(out, 4)
    assert not out.exists()
    unfinished = tmp_path / "faces.csv.unfinished"
    with unfinished.open("ab") as file:
        file.write(torn)
    with pytest.raises(CrossferError, match="another model, other paths or other options"):
        predict(out, 99, about="other")
    predict(out, 2)
    assert out.read_text() == (tmp_path / "whole.csv").read_text()
    with pytest.raises(CrossferError, match="already exists"):
        predict(out, 99)


def test_an_archive_is_looked_into(exported: Path, photographs: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(photographs / "0.png", "inside/0.png")
    (row,) = rows_of(exported, tmp_path / "all.zip")
    assert row["source"] == str(tmp_path / "all.zip" / "inside" / "0.png")
    assert row["class"] in CLASSES


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_in_a_video_a_face_keeps_its_number(suffix: str, exported: Path, tmp_path: Path) -> None:
    rows = rows_of(exported, film(tmp_path / f"walk{suffix}", walk(8)))
    stays = [row for row in rows if row["left"] < 200]
    comes = [row for row in rows if row["left"] > 300]
    assert [row["frame"] for row in stays] == list(range(8))
    assert [row["seconds"] for row in stays] == pytest.approx([frame / 10 for frame in range(8)])
    assert {row["face"] for row in stays} == {1}
    assert [row["frame"] for row in comes] == list(range(3, 8))
    assert {row["face"] for row in comes} == {2}
    few = rows_of(exported, tmp_path / f"walk{suffix}", how=PredictOptions(per_second=2.5))
    assert sorted({row["frame"] for row in few}) == [0, 4]


def test_a_video_that_is_cut_off_gives_what_it_has_and_says_so(
    exported: Path, tmp_path: Path
) -> None:
    whole = film(tmp_path / "whole.avi", walk(12)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    *faces, last = rows_of(exported, tmp_path / "cut.avi")
    assert faces and not any(row["problem"] for row in faces)
    assert last["problem"].startswith("truncated: it ends after ")
    whole = film(tmp_path / "whole.mp4", walk(4)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (row,) = rows_of(exported, tmp_path / "cut.mp4")
    assert row["problem"] == "not a video that can be read"


def test_smoothing_is_the_mean_of_the_frames_so_far_weighted_by_age() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    said = [np.asarray(p, np.float32) for p in ([1, 0], [0, 1], [0, 1])]
    times = [0.0, 0.1, 0.4]
    tracker = FaceTracker(smooth=0.5)
    smoothed = [tracker.update(t, [box], [p])[0] for t, p in zip(times, said, strict=True)]
    weights = np.exp(-(times[-1] - np.array(times)) / 0.5)
    assert smoothed[-1][1] == pytest.approx(np.average(said, axis=0, weights=weights), abs=1e-6)
    assert {number for number, _ in smoothed} == {1}
    plain = FaceTracker(smooth=0)
    for t, p in zip(times, said, strict=True):
        assert plain.update(t, [box], [p])[0][1] == pytest.approx(p)


def test_numbers_follow_the_nearest_box_and_end_when_a_face_is_gone() -> None:
    def number(tracker: FaceTracker, seconds: float, *lefts: float) -> list[int]:
        boxes = [(left, 0.0, 10.0, 10.0) for left in lefts]
        said = [np.full(2, 0.5, np.float32)] * len(boxes)
        return [face for face, _ in tracker.update(seconds, boxes, said)]

    tracker = FaceTracker(smooth=0.5)
    assert number(tracker, 0.0, 0, 100) == [1, 2]
    assert number(tracker, 0.1, 97, 4) == [2, 1]  # whatever the order in which they are found
    assert number(tracker, 0.2, 97) == [2]
    assert number(tracker, 0.9, 5) == [1]  # out of sight for less than a second
    assert number(tracker, 2.5, 5) == [1]  # in the last frame, however long ago
    assert number(tracker, 2.6, 97) == [3]


def test_only_a_few_frames_wait_however_long_the_video() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with ThreadPoolExecutor(2) as pool:
        made = in_order(pool, lambda number: 10 * number, endless())
        assert [next(made) for _ in range(50)] == [10 * number for number in range(1, 51)]
        assert taken <= 50 + AHEAD * 64
        made.close()  # pyrefly: ignore[missing-attribute]


BLOCKED = (
    *("torch", "numba", "safetensors"),
    *("pyarrow", "jinja2", "matplotlib", "yaml", "onnx"),
)


def without_pytorch(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code where only what the light install has can be imported."""
    blocked = f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", blocked + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_light_install_predicts_without_pytorch(exported: Path, photographs: Path) -> None:
    code = (
        "import crossfer, sys\nmodel = crossfer.load(sys.argv[2])\n"
        "assert model.analyze(sys.argv[3] + '/0.png')[0]['dominant_emotion'] in model.classes\n"
        "from crossfer.cli import main\nmain()\n"
    )
    done = without_pytorch(code, "predict", exported, photographs)
    assert done.returncode == 0, done.stderr
    assert "faces: 5, in pictures and videos: 6" in done.stdout


def test_the_light_install_says_what_the_rest_needs(photographs: Path, tmp_path: Path) -> None:
    code = "from crossfer.cli import main\nmain()\n"
    done = without_pytorch(code, "prepare", photographs, "--out", tmp_path / "x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: this needs ") and "crossfer[train]" in done.stderr
    assert done.stderr.count("\n") == 1
    done = without_pytorch(code, "label", photographs, "--by", "ann")
    assert "crossfer[app,train]" in done.stderr, "both at once"
    done = without_pytorch("import crossfer\nassert 'train' in dir(crossfer)\ncrossfer.train\n")
    assert "this needs torch: pip install 'crossfer[train]'" in done.stderr


def test_what_a_terminal_cannot_write_is_escaped(exported: Path, photographs: Path) -> None:
    """On Windows a pipe has an old code page; exit status 1 would mean something else."""
    told = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [
        sys.executable,
        "-m",
        "crossfer",
        "predict",
        str(exported),
        str(photographs / "no−such"),
    ]
    done = subprocess.run(command, capture_output=True, env=told, check=False)
    assert done.returncode == 2 and b"no\\u2212such: no such file" in done.stderr


def damaged(folder: Path, what: str) -> Path:
    """Write an exported classifier with something wrong about it."""
    text = b"This is a text, not a network.\n"
    match what:
        case "card":
            tiny_onnx.write(folder)
            (folder / "model.json").write_text("{")
        case "version":
            tiny_onnx.write(folder, format=99)
        case "no classes":
            tiny_onnx.write(folder, classes=["happy", "happy"])
        case "framing":
            tiny_onnx.write(folder, framing={"side": 3})
        case "altered":
            tiny_onnx.write(folder, models={"fp32": {"file": "model.onnx", "sha256": "0" * 64}})
        case "text":
            (tiny_onnx.write(folder) / "model.onnx").write_bytes(text)
        case "missing":
            (tiny_onnx.write(folder) / "model.onnx").unlink()
        case "two inputs":
            tiny_onnx.write(folder, tiny_onnx.network(inputs=("faces", "more")))
        case "floats":
            tiny_onnx.write(folder, tiny_onnx.network(kind=TensorProto.FLOAT))
        case "other size":
            tiny_onnx.write(folder, framing={"side": 64})
        case "channels first":
            network = tiny_onnx.network()
            face = network.graph.input[0].type.tensor_type.shape.dim
            face.insert(1, type(face[0])(dim_value=1))
            tiny_onnx.write(folder, network)
        case "other classes":
            tiny_onnx.write(folder, tiny_onnx.network(outputs=5))
        case "logits" | "not a number":
            network = tiny_onnx.network()
            if what == "logits":
                network.graph.node[-1].op_type = "LogSoftmax"
            else:
                network.graph.initializer[-1].raw_data = np.full(3, np.nan, np.float32).tobytes()
            tiny_onnx.write(folder, network)
        case "empty":
            folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("card", "model.json: damaged"),
        ("version", "has format 99, but this version reads 1"),
        ("no classes", "at least two different names"),
        ("framing", "side is 3"),
        ("altered", "changed since it was exported"),
        ("text", "not an ONNX model that ONNX Runtime can run"),
        ("missing", "no such file"),
        ("two inputs", "has 2 inputs (faces, more)"),
        ("floats", "reads tensor(float), not tensor(uint8)"),
        ("other size", "fails on two faces of 64×64"),
        ("channels first", "reads bytes as N×C×H×W"),
        ("other classes", "returns (2, 5) for two faces, but model.json lists 3 classes"),
        ("logits", "no probability; is its softmax missing?"),
        ("not a number", "returns nan, no probability"),
        ("empty", "contains no classifier"),
        ("nowhere", "no such folder"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(
    what: str, words: str, photographs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    model = damaged(tmp_path / "model", what)
    status, said, why = command(monkeypatch, capsys, "predict", model, photographs)
    assert (status, said) == (2, "")
    assert words in why and why.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png"], "nowhere.png: no such file or folder"),
        (["."], ".: contains no picture and no video"),
        (["0.png", "--out", "faces.xls"], "must end in one of .csv, .jsonl, .parquet"),
        (["0.png", "--variant", "int8"], "has no int8 model, only fp32"),
        (["0.png", "--fps", "0"], "frames per second is 0"),
        (["0.png", "--fps", "inf"], "frames per second is inf"),
        (["0.png", "--smallest", "3"], "smallest is 3"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    arguments: list[str], words: str, exported: Path, photographs: Path, tmp_path: Path,
    monkeypatch: Any, capsys: Any,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.png").write_bytes(
        (photographs / "0.png").read_bytes() if arguments != ["."] else b""
    )
    if arguments == ["."]:
        (tmp_path / "0.png").unlink()
    status, said, why = command(monkeypatch, capsys, "predict", exported, *arguments)
    assert (status, said) == (2, "")
    assert words in why and why.count("\n") == 1


def test_colours_are_kept_for_a_network_that_reads_them() -> None:
    class Red:
        classes: tuple[str, ...] = ("red", "blue")
        labels: Mapping[str, str] = {"red": "red", "blue": "blue"}
        framing, identity = Framing(side=64, channels=3), "red"

        def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
            mean = faces.reshape(len(faces), -1, 3).mean(1, dtype=np.float32)[:, [0, 2]]
            return np.asarray(mean / mean.sum(1, keepdims=True), np.float32)

    picture = portrait(LAB_TFEID, 0, 6)
    (face,) = Predictor(Red()).analyze(picture)
    assert face["dominant_emotion"] == "red"  # a face is; were it BGR, it would be blue
    with pytest.raises(CrossferError, match="uint8 of 64×64×3"):
        Predictor(Red()).predict(np.zeros((1, 64, 64), np.uint8))


def test_other_paths_do_not_go_on_with_a_table(
    exported: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "faces.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "parts", stop)
        commands.crossfer("predict", exported, photographs, "--out", out)
    one = next(photographs.iterdir())
    assert "another model, other paths" in commands.refused("predict", exported, one, "--out", out)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros((48, 48)) - 1, "some pixels are below 0"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg: an address; download it first"),
        ("clip.mp4", "a video; use analyze_many"),
        (Path(), "not a file"),
    ],
)
def test_what_is_no_picture_is_named(given: Any, why: str, exported: Path) -> None:
    with pytest.raises(CrossferError, match=why):
        crossfer.load(exported).analyze(given)


def test_two_archives_of_one_name_do_not_mix(exported: Path, tmp_path: Path) -> None:
    png = encoded(np.zeros((48, 48), np.uint8))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as inner:
        inner.writestr("a.png", png)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as outer:
        outer.writestr("in/a.png", png)
        outer.write(tmp_path / "in.zip", "in.zip")
    with sources_in([tmp_path / "both.zip"]) as sources:
        assert len(sources.found) == 2


@pytest.mark.parametrize(
    "card",
    [
        {"classes": "abc"},
        {"labels": ["a"]},
        {"models": {"fp32": {"file": "model.onnx"}, "int8": {}}},
        {"models": {"fp32": {"file": "model.onnx"}, "int8": "model.onnx"}},
        {"models": {"fp32": {"file": "../other/model.onnx"}}},
        {"classes": ["angry", "anger", "happy"]},
        {"labels": {"bored": "sleepy"}},
        {"framing": {"side": 48.0}},
        {"framing": {"side": 48, "channels": True}},
    ],
)
def test_a_card_that_somebody_wrote_is_checked(card: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CrossferError, match="model.json: damaged"):
        crossfer.load(tiny_onnx.write(tmp_path / "exported", **card))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (
            {"lables": {"joy": "happy"}},
            "model.json: lables: unknown key, perhaps labels; known are f",
        ),
        (
            {"models": {"fp32": {"file": "model.onnx", "sha265": "0"}}},
            "model.json: models.fp32.sha265: unknown key, perhaps sha256; known are file, sha256",
        ),
        (
            {"models": {name: {"file": "model.onnx"} for name in ("fp32", "int16")}},
            "model.json: models.int16: unknown key",
        ),
    ],
)
def test_a_key_of_a_card_that_would_have_no_effect_is_refused(
    card: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CrossferError, match=said):
        crossfer.load(tiny_onnx.write(tmp_path / "exported", **card))
    crossfer.load(tiny_onnx.write(tmp_path / "web", name="mine", shown="fp32"))


def test_weights_in_another_file_belong_to_an_exported_classifier(tmp_path: Path) -> None:
    """Two of the same graph differ, in identity and in their measured size."""
    from crossfer.deploy.models import open_model

    found = []
    for number in (1, 2):
        folder, network = tiny_onnx.write(tmp_path / str(number)), tiny_onnx.network()
        numbers = numpy_helper.to_array(network.graph.initializer[-1]) * number
        network.graph.initializer[-1].CopyFrom(numpy_helper.from_array(numbers, "numbers"))
        set_external_data(network.graph.initializer[-1], "weights")
        onnx.save_model(network, folder / "model.onnx")
        found.append(open_model(folder))
    one, other = found
    assert one.engine.identity != other.engine.identity
    (graph, weights), (graph_of_other, _) = (
        [tmp_path / number / name for name in ("model.onnx", "weights")] for number in "12"
    )
    assert graph.read_bytes() == graph_of_other.read_bytes()
    assert one.bytes == graph.stat().st_size + weights.stat().st_size


@given(st.integers(0, 500), st.integers(1, 40))
def test_portions_get_smaller_so_that_all_threads_end_together(count: int, size: int) -> None:
    found = list(tapered(range(count), size))
    assert [item for portion in found for item in portion] == list(range(count))
    lengths = list(map(len, found))
    assert all(size >= a >= b for a, b in zip(lengths, lengths[1:], strict=False))
    assert not lengths or lengths[-1] == 1


def test_an_answer_that_is_not_a_number_is_a_problem(tmp_path: Path) -> None:
    """Of a damaged network; resumed or not, in every table, in videos, in Python and in the app."""
    from crossfer.app.try_page import TriedModel, answers

    model = tiny_onnx.write(tmp_path / "model", tiny_onnx.network(most=100))
    faces = tmp_path / "faces"
    faces.mkdir()
    shown = {name: np.full((48, 48), value, np.uint8) for name, value in (("a", 200), ("b", 50))}
    for name, pixels in shown.items():
        cv2.imwrite(str(faces / f"{name}.png"), pixels)
    film(faces / "c.avi", [shown["b"], shown["a"], shown["b"]])
    problem = "the classifier's answer is not a number"
    rows = rows_of(model, faces, how=PredictOptions(cropped=True))
    assert [row["problem"] for row in rows] == [problem, "", "", problem, ""]
    assert np.isfinite([row["p_dark"] for row in rows if not row["problem"]]).all()
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"faces.{suffix}"
        told = commands.crossfer("predict", model, faces, "--cropped", "--out", out)
        assert told.exit_code == 0 and f"not read, {problem}: 2" in told.stdout
    alone = commands.refused("predict", model, faces / "a.png", "--cropped")
    assert alone == "none of 1 pictures and videos could be read and answered"
    found = crossfer.load(model)
    with pytest.raises(CrossferError, match=f"a.png: {problem}; check its weights"):
        found.analyze(faces / "a.png", cropped=True)
    with pytest.raises(CrossferError, match=f"{problem} for row 1"):
        found.predict(np.stack([shown["b"], shown["a"]]))
    with pytest.raises(CrossferError, match=f"new: {problem}"):
        answers(shown["a"], [TriedModel("new", found.engine)], None)


def test_what_is_no_file_or_no_array_is_said(exported: Path, photographs: Path) -> None:
    model: Any = crossfer.load(exported)
    face = np.zeros((48, 48), np.uint8)
    PIL.Image.fromarray(face).save(exported.parent / "a.png")
    with pytest.warns(UserWarning, match="^per_second: there is no video, so it had no effect$"):
        model.analyze_many(exported.parent / "a.png", cropped=True, per_second=2)
    (exported.parent / "notes").mkdir()
    (exported.parent / "a.png").rename(exported.parent / "notes" / "a.png")
    (exported.parent / "notes" / "b.txt").write_text("none")
    with pytest.warns(UserWarning, match="^neither pictures nor videos, skipped: 1$"):
        model.analyze_many(exported.parent / "notes", cropped=True)
    assert model.predict([]).shape == (0, 3)
    assert len(model.analyze_many(photographs / f"{who}.png" for who in range(2))) == 2
    for call, why in (
        (lambda: model.predict([face, face[:40]]), "faces are of several sizes"),
        (lambda: model.predict(face for _ in range(2)), "faces are no numbers"),
        (lambda: model.analyze_many([face]), "reads files, not ndarray; call analyze for each"),
        (lambda: model.analyze_many(PIL.Image.new("L", (48, 48))), "reads files, not Image"),
        (
            lambda: model.analyze_many("https://example.org/a.mp4"),
            "https://example.org/a.mp4: an ad",
        ),
    ):
        with pytest.raises(CrossferError, match=why):
            call()
    address = commands.refused("predict", exported, "https://example.org/a.jpg")
    assert address == "https://example.org/a.jpg: an address; download it first"
    for card, why in (({"format": "1"}, "has format '1', but this version reads 1"),):
        with pytest.raises(CrossferError, match=why):
            crossfer.load(tiny_onnx.write_card(tiny_onnx.write(exported.parent / "odd"), **card))

"""What stand-ins promise: the official layouts, the seven classes, and the same bytes again."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from crossfer.classes import FER7
from crossfer.errors import CrossferError
from crossfer.progress import silent
from crossfer.standins import STANDINS, contact_sheet, layouts, write
from crossfer.standins.canvas import Pose
from crossfer.standins.draw import Light, draw
from crossfer.standins.expression import APEX, Expression, expression
from crossfer.standins.layouts import sequence, subject
from crossfer.standins.worlds import LAB_JAFFE, LAB_MUG, WILD, WORLDS

SMALL = {"fer2013": 60, "jaffe": 14, "tfeid": 14, "mug": 6}


def digest(folder: Path) -> str:
    """Hash names and bytes of everything in a folder."""
    parts = [
        (path.relative_to(folder).as_posix(), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name, images in SMALL.items():
        assert write(name, folder / name, images=images) == folder / name
    return folder


def test_every_standin_says_that_it_is_one(raw: Path) -> None:
    for name in STANDINS:
        assert "NOT the real" in (raw / name / "STAND-IN.txt").read_text()
    assert sorted(path.name for path in raw.iterdir()) == sorted(STANDINS)  # nothing left beside


def test_fer2013_is_the_official_table(raw: Path) -> None:
    with open(raw / "fer2013" / "fer2013.csv", newline="") as file:
        table = csv.DictReader(file)
        assert table.fieldnames == ["emotion", "pixels", "Usage"]
        rows = list(table)
    for usage in ("Training", "PublicTest", "PrivateTest"):
        assert {int(row["emotion"]) for row in rows if row["Usage"] == usage} == set(range(7))
    pixels = np.array([row["pixels"].split(" ") for row in rows], int)
    assert pixels.shape[1] == 48 * 48
    assert 0 <= pixels.min() < 40 and 215 < pixels.max() <= 255
    assert Counter(row["emotion"] for row in rows)["1"] < len(rows) / 10  # disgust is rare


def test_jaffe_is_one_flat_folder_of_gray_tiff(raw: Path) -> None:
    paths = sorted((raw / "jaffe").glob("*.tiff"))
    names = [re.fullmatch(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)(\d)\.(\d+)", p.stem) for p in paths]
    assert all(names) and len(names) == SMALL["jaffe"]
    assert {name[1] for name in names if name} == {"KA", "KL"}
    assert len({name[2] for name in names if name}) == 7
    assert sorted(int(name[4]) for name in names if name) == list(range(1, len(names) + 1))
    picture = cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED)
    assert picture is not None and picture.shape == (256, 256)


def test_jaffe_has_the_official_counts() -> None:
    paths: list[Path] = []

    def note(work: object, jobs: list[tuple[Path, int]], progress: object) -> list[None]:
        paths.extend(job[0] for job in jobs)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "_at_once", note)
        layouts.write_jaffe(Path(), silent)
    names = [path.name.split(".") for path in paths]
    assert len(names) == len({tuple(name[:2]) for name in names}) == 213
    counts = Counter(name[1][:2] for name in names)
    assert counts == {"AN": 30, "DI": 29, "FE": 32, "HA": 31, "NE": 30, "SA": 31, "SU": 30}


def test_tfeid_has_class_folders_of_colour_jpeg(raw: Path) -> None:
    codes = {"anger": "ag", "disgust": "dg", "fear": "fg", "happiness": "hg", "neutral": "ng",
             "sadness": "sg", "surprise": "pg"}  # fmt: skip
    paths = list((raw / "tfeid").glob("*/*.jpg"))
    assert {path.parent.name for path in paths} == set(codes)
    for path in paths:
        assert path.stem.split("_")[-1].startswith(codes[path.parent.name])
    assert {path.stem.split("_")[0] for path in paths} == {"f01", "m01"}
    picture = cv2.imread(str(paths[0]))
    assert picture is not None
    assert 600 <= picture.shape[0] <= 606 and 480 <= picture.shape[1] <= 595


def test_mug_runs_from_neutral_to_apex_and_back(raw: Path) -> None:
    takes = sorted((raw / "mug").glob("subjects3/*/*/take*"))
    assert {take.parent.name for take in takes} == {
        "anger", "disgust", "fear", "happiness", "sadness", "surprise"
    }  # fmt: skip
    for take in takes:
        names = sorted(path.name for path in take.iterdir())
        assert 11 <= len(names) <= 17
        assert names == [f"img_{frame:04d}.jpg" for frame in range(len(names))]
    surprise = next(take for take in takes if take.parent.name == "surprise")
    frames = sequence(LAB_MUG, 0, FER7.index("surprise"))
    assert len(frames) == len(list(surprise.iterdir()))
    first, middle, last = (frames[at].astype(float) for at in (0, len(frames) // 2, -1))
    assert np.abs(middle - first).mean() > 2 * np.abs(last - first).mean()


def test_the_same_bytes_on_however_many_processors(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "FEW_JOBS", 0)  # by several processes this time
    again = write("jaffe", tmp_path / "again", images=SMALL["jaffe"])
    assert digest(again) == digest(raw / "jaffe")


def test_people_differ() -> None:
    people = {subject(world, number) for world in WORLDS for number in range(50)}
    assert len(people) == 50 * len(WORLDS)
    alike = expression(6, 0, np.random.default_rng(0))
    backdrop = np.zeros((64, 64, 3))
    faces = [
        draw(subject(WILD, number), alike, Pose(), Light(), backdrop).picture for number in range(8)
    ]
    for number, face in enumerate(faces):
        assert all(np.abs(face - other).mean() > 3 for other in faces[:number])


@pytest.mark.parametrize("emotion", FER7[:6])
def test_an_expression_changes_the_face_only(emotion: str) -> None:
    who = subject(LAB_JAFFE, 0)
    pose, backdrop = Pose(scale=0.25, centre=(0.5, 0.45)), np.full((160, 160, 3), 128.0)
    shown = [
        draw(who, face, pose, Light(), backdrop).picture
        for face in (Expression(), Expression(**APEX[emotion]))
    ]
    changed = np.abs(shown[1] - shown[0]).max(-1) > 1
    rows, columns = np.nonzero(changed)
    across, down = (columns - 80) / 40, (rows - 72) / 40  # face units
    assert changed.mean() > 0.02
    assert (np.hypot(across / 1.15, (down - 0.15) / 1.7) < 1).all()
    brows_and_eyes = changed[(72 - 18) : (72 + 6), 80 - 30 : 80 + 30]
    mouth = changed[(72 + 30) : (72 + 46), 80 - 20 : 80 + 20]
    assert brows_and_eyes.any() and mouth.any()


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, progress: object) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    monkeypatch.setitem(STANDINS, "jaffe", broken)
    with pytest.raises(OSError, match="disk full"):
        write("jaffe", tmp_path / "jaffe")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(raw: Path) -> None:
    before = digest(raw / "jaffe")
    with pytest.raises(CrossferError, match="already exists"):
        write("jaffe", raw / "jaffe")
    with pytest.raises(CrossferError, match="choose among"):
        write("jaffa", raw / "jaffa")
    assert digest(raw / "jaffe") == before


def test_contact_sheet_is_a_picture() -> None:
    pytest.importorskip("matplotlib")
    sheet = contact_sheet()
    assert sheet.ndim == 3 and sheet.shape[2] == 3 and sheet.dtype == np.uint8
    assert sheet.std() > 30


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    """As the first tutorial has it, saved as a file."""
    script = tmp_path / "draw.py"
    script.write_text(
        "from pathlib import Path\nfrom crossfer import standins\n"
        "standins.write('jaffe', Path('raw'), images=105)\nprint(__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{script}\n", "")
    assert len(list((tmp_path / "raw").glob("*.tiff"))) == 105

"""What preparing promises: interrupted work goes on, nothing is lost, every choice is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from crossfer import standins
from crossfer.datasets import (
    Dataset,
    Preparation,
    extract,
    in_memory,
    open_dataset,
    pictures,
    prepare,
    write_look,
)
from crossfer.datasets.raw import is_unchanged, raw_state
from crossfer.errors import CrossferError


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder per class of drawn photographs, and two pictures without a face."""
    folder = tmp_path_factory.mktemp("photographs")
    standins.write("jaffe", folder / "jaffe", images=14)
    for n, file in enumerate(sorted((folder / "jaffe").glob("*.tiff"))):
        emotion = "happy" if n % 2 else "sad"
        (folder / "mine" / emotion).mkdir(parents=True, exist_ok=True)
        Image.open(file).save(folder / "mine" / emotion / f"{file.name[:2]}-{n}.png")
    for n in range(2):
        wall = np.full((200, 240), 90 + 60 * n, np.uint8)
        Image.fromarray(wall).save(folder / "mine" / "sad" / f"wall{n}.png")
    return folder / "mine"


def found(dataset: Dataset) -> dict[str, int]:
    return dict(dataset.card["faces"]["found"])


def test_a_picture_without_a_face_is_kept_dropped_or_refused(
    photographs: Path, tmp_path: Path
) -> None:
    kept = prepare(photographs, tmp_path / "kept")
    assert found(kept) == {"eyes": 14, "centre": 2}
    dropped = prepare(photographs, tmp_path / "dropped", Preparation(no_face="drop"))
    assert found(dropped) == {"eyes": 14}
    assert dropped.card["skipped"] == {"no face found": 2}
    assert len(dropped.images) == dropped.card["images"] == 14
    with pytest.raises(
        CrossferError, match=r"no face found in 2 pictures \(first: sad/wall0.png\)"
    ):
        prepare(photographs, tmp_path / "refused", Preparation(no_face="refuse"))
    assert not (tmp_path / "refused").exists()


def test_faces_are_aligned_and_the_table_tells_where_they_were(
    photographs: Path, tmp_path: Path
) -> None:
    how = Preparation(side=64, channels=3, eyes=(0.5, 0.4))
    dataset = prepare(photographs, tmp_path / "out", how)
    assert dataset.images.shape == (16, 64, 64, 3)
    table = dataset.samples.to_pydict()
    for how_found, score, width, height in zip(
        table["found"], table["score"], table["width"], table["height"], strict=True
    ):
        assert (score > 0.8) == (how_found == "eyes")
        assert width == height > 60
    assert dataset.card["faces"]["framing"] == {
        "side": 64,
        "channels": 3,
        "eye_distance": 0.5,
        "eye_height": 0.4,
    }


def test_small_pictures_are_taken_as_faces_and_the_user_may_say_otherwise(
    photographs: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small" / "happy"
    small.mkdir(parents=True)
    for file in (photographs / "happy").iterdir():
        Image.open(file).resize((48, 48)).save(small / file.name)
    dataset = prepare(small.parent, tmp_path / "auto")
    assert found(dataset) == {"cropped": 7}
    expected = [np.asarray(Image.open(file)) for file in sorted(small.iterdir())]
    assert np.array_equal(dataset.images, np.stack(expected))
    assert found(prepare(photographs, tmp_path / "b", Preparation(faces="cropped"))) == {
        "cropped": 16
    }


def test_interrupted_work_goes_on_where_it_stopped(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "BLOCK", 4)
    whole = prepare(photographs, tmp_path / "whole")
    decoded: list[object] = []
    original = pictures.open_picture

    def counting(picture: Any) -> object:
        decoded.append(picture)
        return original(picture)

    def stop_at(limit: int) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if done >= limit:
                raise KeyboardInterrupt

        return progress

    monkeypatch.setattr(extract, "open_picture", counting)
    how = Preparation(faces="find")
    with pytest.raises(KeyboardInterrupt):
        prepare(photographs, tmp_path / "out", how, progress=stop_at(9))
    assert not (tmp_path / "out").exists()
    decoded.clear()
    resumed = prepare(photographs, tmp_path / "out", how)
    assert len(decoded) == 16 - 8  # two blocks were finished
    assert np.array_equal(resumed.images, whole.images)
    assert resumed.fingerprint == whole.fingerprint
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "whole"]


def test_other_files_or_another_framing_are_not_taken_for_the_interrupted_ones(
    photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(CrossferError):
        prepare(photographs, tmp_path / "out", Preparation(no_face="refuse"))
    assert (tmp_path / ".out.partial").is_dir()  # what was found is kept: the user will choose
    other = prepare(photographs, tmp_path / "out", Preparation(eyes=(0.3, 0.5)))
    assert other.card["faces"]["framing"]["eye_distance"] == 0.3
    fresh = prepare(photographs, tmp_path / "fresh", Preparation(eyes=(0.3, 0.5)))
    assert np.array_equal(other.images, fresh.images)


def test_a_full_disk_loses_nothing_and_the_same_call_works_later(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(pyarrow.parquet, "write_table", full)
        with pytest.raises(OSError, match="no space"):
            prepare(photographs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare(photographs, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_two_processes_cannot_prepare_the_same_folder(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    holder = (
        "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, os.fspath(tmp_path / ".out.partial" / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(CrossferError, match="another process is preparing it"):
            prepare(photographs, tmp_path / "out")
        other.communicate()
    assert len(prepare(photographs, tmp_path / "out").images) == 16


def test_an_archive_gives_the_same_dataset_as_its_folder(photographs: Path, tmp_path: Path) -> None:
    archive = tmp_path / "mine.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(photographs, "mine")
    packed = prepare(archive, tmp_path / "packed")
    folder = prepare(photographs, tmp_path / "folder")
    assert packed.name == folder.name == "mine"
    assert packed.fingerprint == folder.fingerprint
    assert packed.card["raw"] == str(archive)
    assert (
        packed.samples.column("origin")[0].as_py()
        == "mine/happy/" + sorted(file.name for file in (photographs / "happy").iterdir())[0]
    )


def test_exact_counts_are_reached_with_a_word_on_the_price(
    photographs: Path, tmp_path: Path
) -> None:
    by_name = Preparation(subject="/([A-Z]{2})-", sizes=(10, 3, 3))
    whole = prepare(photographs, tmp_path / "whole", by_name).card["split"]
    assert whole["subjects_in_several_splits"] == 0
    exact = Preparation(subject="/([A-Z]{2})-", sizes=(10, 3, 3), exact=True)
    split = prepare(photographs, tmp_path / "exact", exact).card["split"]
    assert split["reached"] == split["asked"] == {"training": 10, "validation": 3, "test": 3}


def test_a_dataset_in_memory_is_prepared_like_any_other(photographs: Path, tmp_path: Path) -> None:
    images = [np.asarray(Image.open(file)) for file in sorted((photographs / "happy").iterdir())]
    data = in_memory((images, ["happy"] * len(images)), name="borrowed")
    dataset = prepare(data, tmp_path / "out")
    assert dataset.name == "borrowed"
    assert found(dataset) == {"eyes": 7}
    expected = prepare(photographs, tmp_path / "folder")
    assert np.array_equal(dataset.images, expected.images[:7])


def test_the_contact_sheet_marks_doubtful_faces_and_escapes_names(
    photographs: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "raw" / "sad"
    odd.mkdir(parents=True)
    Image.fromarray(np.full((100, 100), 9, np.uint8)).save(odd / "<b>&.png")
    for file in (photographs / "sad").iterdir():
        (odd / file.name).write_bytes(file.read_bytes())
    dataset = prepare(odd.parent, tmp_path / "out")
    page = write_look(dataset).read_text()
    assert page.count('class="doubtful"') == found(dataset)["centre"] == 3
    assert page.count("<figure") == 10
    assert "<b>" not in page and "&lt;b&gt;&amp;.png" in page
    assert prepare(
        odd.parent, tmp_path / "out", replace=True
    )  # a look is no stranger in the folder
    only = write_look(dataset, tmp_path / "sheet.html", only_doubtful=True).read_text()
    assert only.count("<figure") == 3


def test_the_contact_sheet_shows_unlabelled_faces_too(tmp_path: Path) -> None:
    for number in range(9):
        file = tmp_path / "raw" / ("happy", "sad", "unlabelled")[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 48), 25 * number, np.uint8)).save(file)
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    page = write_look(dataset).read_text()
    assert "9 faces of" in page and page.count("<figure") == 9
    assert "unlabelled <small>3 of 3" in page
    page = write_look(dataset, split="training").read_text()
    count = dataset.samples["split"].to_pylist().count("training")
    assert f"{count} faces of" in page and page.count("<figure") == count


def test_a_dataset_is_equal_to_itself_alone(prepared: dict[str, Dataset]) -> None:
    one, other = prepared["jaffe"], open_dataset(prepared["jaffe"].folder)
    assert one != other and len({one, other, one}) == 2


def test_a_stand_in_stays_one_in_an_archive_or_a_folder_deeper(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "jaffe", tmp_path / "deeper" / "jaffe")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "deeper")
    how = Preparation(faces="cropped")
    assert prepare(tmp_path / "deeper", tmp_path / "one", how).stand_in
    assert prepare(archive, tmp_path / "other", how).stand_in


def test_the_state_of_raw_files_is_that_of_what_is_read(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "there")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "sad").symlink_to(tmp_path / "there" / "sad", target_is_directory=True)
    before = raw_state(tmp_path / "here")
    (tmp_path / "there" / "sad" / ".DS_Store").touch()
    assert raw_state(tmp_path / "here") == before
    (tmp_path / "there" / "sad" / "more.png").touch()
    assert raw_state(tmp_path / "here") != before


def test_the_state_of_a_table_is_also_that_of_the_pictures_it_lists(
    photographs: Path, tmp_path: Path
) -> None:
    shutil.copytree(photographs, tmp_path / "pictures")
    listed = sorted((tmp_path / "pictures").rglob("*.png"))
    lines = [f"{file.relative_to(tmp_path)},{file.parent.name}\n" for file in listed]
    table = tmp_path / "mine.csv"
    table.write_text("path,label\n" + "".join(lines))
    how = Preparation(faces="cropped")
    state = prepare(table, tmp_path / "out", how).card["raw_state"]
    assert is_unchanged(table, how, state)
    listed[0].unlink()
    assert not is_unchanged(table, how, state)
    state = prepare(table, tmp_path / "out", how, replace=True).card["raw_state"]
    assert is_unchanged(table, how, state)
    shutil.copy(listed[1], listed[0])  # one that was missing has come
    assert not is_unchanged(table, how, state)


def test_what_cannot_be_prepared_is_said_in_one_line(photographs: Path, tmp_path: Path) -> None:
    for out in (Path("."), tmp_path / "x" / "..", tmp_path / os.fsdecode(b"caf\xe9")):
        with pytest.raises(CrossferError, match="name a new folder"):
            prepare(photographs, out)
    with pytest.raises(CrossferError, match="three numbers"):
        Preparation(sizes=(80, 20))  # pyrefly: ignore[bad-argument-type]
    mixed = tmp_path / "mixed"
    shutil.copytree(photographs / "happy", mixed / "test" / "happy")
    shutil.copytree(photographs / "sad", mixed / "sad")
    with pytest.raises(CrossferError, match=r"9 of 16 images have no split \(first: sad/"):
        prepare(mixed, tmp_path / "out", Preparation(faces="cropped"))

"""Files made to exhaust a machine are refused in one line, at once and in little memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from crossfer.datasets import open_dataset, prepare
from crossfer.datasets.pictures import UnreadableImage, frame_count, open_picture, video_frames
from crossfer.deploy.compare import read as read_comparison
from crossfer.deploy.engine import read_card
from crossfer.errors import CrossferError
from crossfer.executors.slurm import _arrays
from crossfer.experiment.status import status
from crossfer.files import read_json
from crossfer.networks import load as load_classifier
from crossfer.run_folder import read_run
from crossfer.yaml_files import read_yaml

LITTLE = 100 * 2**20


@contextmanager
def in_little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


def png(side: int) -> bytes:
    """Return a PNG file that says how large it is, and holds next to nothing."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(1000)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )


def test_a_picture_of_100_000_pixels_a_side_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(100_000))
    with in_little_memory(), pytest.raises(UnreadableImage, match="too many pixels"):
        open_picture(tmp_path / "x.png")


def endless(folder: Path, name: str, head: bytes) -> None:
    """Write a table whose last line takes twice as much as is allowed, and no room on the disk."""
    with (folder / name).open("wb") as file:
        file.write(head)
        file.truncate(2 * LITTLE)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("faces.csv", b"path,label\na.png,happy\n"),
        ("faces.csv", b""),
        ("fer2013.csv", b"emotion,pixels,Usage\n0,1 2 3,Training\n"),
        ("label.lst", b"a.jpg 0 2 2 40 40 52.1 3\n"),
        ("list_patition_label.txt", b"train_00001.jpg 5\n"),
    ],
)
def test_a_table_with_an_endless_line_is_refused(name: str, head: bytes, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    endless(given, name, head)
    with in_little_memory(), pytest.raises(CrossferError) as error:
        prepare(given, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["given"]


DEEP = b'{"a":' * 100_000
"""JSON that no file of ours looks like, and for which Python has no room."""


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(DEEP), lambda p: p.symlink_to(p)])
def test_a_card_that_is_none_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "dataset.json")
    with pytest.raises(CrossferError) as error:
        open_dataset(tmp_path)
    assert "\n" not in str(error.value)


READERS: dict[str, Callable[[Path], object]] = {
    "classifier.json": lambda file: load_classifier(file.parent),
    "comparison.json": read_comparison,
    "dataset.json": lambda file: open_dataset(file.parent),
    "model.json": lambda file: read_card(file.parent),
    "plan.json": lambda file: status(file.parent),
    "run.json": lambda file: read_run(file.parent),
    "jobs.json": lambda file: _arrays(file.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_json_nested_too_deeply_is_damaged(name: str, tmp_path: Path) -> None:
    for other in ("dataset.json", "images.npy", "samples.parquet"):
        (tmp_path / other).touch()
    (tmp_path / name).write_bytes(DEEP)
    with pytest.raises(CrossferError, match="nested too deeply"):
        READERS[name](tmp_path / name)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / name)


def test_a_video_of_too_many_pixels_is_refused_before_its_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.avi"
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(3):
        video.write(np.zeros((64, 64, 3), np.uint8))
    video.release()
    assert len(list(video_frames(file, [0]))) == 1
    monkeypatch.setattr("crossfer.datasets.pictures.MOST_PIXELS", 64 * 64 - 1)
    for read in (lambda: [*video_frames(file, [0])], lambda: frame_count(file)):
        with pytest.raises(UnreadableImage, match="too many pixels"):
            read()


def bomb(levels: int) -> str:
    """Return YAML whose aliases stand for ten to the power of `levels` values."""
    lists = ["&a0 [x]", *(f"&a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(levels))]
    return "".join(f"  - {text}\n" for text in lists)


@pytest.mark.parametrize("text", [bomb(9), "  &a\n  - *a\n"])
@pytest.mark.parametrize("before", ["arguments:\n", "framing:\n"])
def test_aliases_without_end_are_refused(before: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"network: timm:resnet10t\n{before}{text}")
    with (
        in_little_memory(),
        pytest.raises(CrossferError, match=r"x.yaml: not valid YAML: its aliases"),
    ):
        read_yaml(file)
    file.write_text(f"network: timm:resnet10t\n{before}{bomb(3)}")
    assert read_yaml(file)


def test_aliases_without_end_in_a_list_of_classes_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "data.yaml").write_text(f"names:\n{bomb(9)}")
    with in_little_memory(), pytest.raises(CrossferError):
        prepare(tmp_path, tmp_path / "out")

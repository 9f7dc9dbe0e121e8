"""Every dataset's files as its authors ship them, and as people keep them, are recognised and read."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossfer.classes import FER7
from crossfer.datasets import Preparation, in_memory
from crossfer.datasets.raw import read_raw
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.readers.ferplus import CLASSES, majority
from crossfer.datasets.record import ReadOptions, Record, Skipped
from crossfer.errors import CrossferError
from tests.raw_files import picture, pixels_row, text


def read(path: Path, **options: Any) -> tuple[list[Record], Counter[str]]:
    """Recognise and read; return the records and the reasons for what was skipped."""
    reader, _ = recognise(path)
    items = list(reader.read(path, ReadOptions(**options)))
    return (
        [item for item in items if isinstance(item, Record)],
        Counter(item.reason for item in items if isinstance(item, Skipped)),
    )


def names(records: list[Record]) -> list[str]:
    return [record.label for record in records]


def fer2013(top: Path) -> None:
    rows = "".join(f"{n % 7},{pixels_row(n)},Training\n" for n in range(8))
    text(top / "fer2013.csv", "emotion,pixels,Usage\n" + rows)


def ferplus(top: Path) -> None:
    fer2013(top)
    votes = [
        [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],  # happiness
        [4, 0, 0, 4, 0, 0, 0, 0, 0, 2],  # a tie
        [0, 0, 0, 0, 0, 0, 0, 9, 1, 0],  # contempt
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],  # no face
    ] * 2
    with (top / "fer2013new.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Usage", "Image name", *CLASSES[:-1], "NF"])
        table.writerows(["Training", f"fer{n:07d}.png", *row] for n, row in enumerate(votes))


def jaffe(top: Path) -> None:
    for n, code in enumerate(("AN1", "DI2", "FE3", "HA1", "NE2", "SA3", "SU1")):
        picture(top / f"KA.{code}.{n + 1}.tiff")
    picture(top / "KA.AN1.1.tiff.png")
    picture(top / "copies" / "KA.AN1.1 (1).TIFF")
    picture(top / "cover.png")


def tfeid(top: Path) -> None:
    for code in ("ng", "ag", "dg", "fg", "hg", "sg", "pg"):
        picture(top / code / f"f01_x_{code}1.JPG")
    picture(top / "ng" / "portrait.jpg")


def mug(top: Path) -> None:
    for number in [*range(20), 30, 100]:  # gaps, and 100 after 30
        picture(top / "001" / "session0" / "anger" / "take000" / f"img_{number}.jpg")
    for number in range(5):
        picture(top / "002" / "neutral" / "take001" / f"img_{number:04d}.jpg")
    for number in range(9):
        picture(top / "002" / "happiness" / "take002end" / f"img_{number:04d}.jpg")
    text(top / "002" / "Thumbs.db", "x")


def ckplus(top: Path) -> None:
    for subject, sequence, length in (("S005", "001", 6), ("S005", "002", 4), ("S010", "001", 2)):
        for number in range(1, length + 1):
            folder = top / "cohn-kanade-images" / subject / sequence
            picture(folder / f"{subject}_{sequence}_{number:08d}.png")
    for subject, sequence, code in (("S005", "001", 3), ("S010", "001", 2)):
        name = f"{subject}_{sequence}_00000009_emotion.txt"
        text(top / "Emotion" / subject / sequence / name, f"   {code}.0000000e+00\n")


def ck48(top: Path) -> None:
    for n, emotion in enumerate(("anger", "contempt", "happy")):
        picture(top / emotion / f"S01{n}_004_00000017.png")


def kdef(top: Path) -> None:
    for series, code, angle in (("A", "AF", "S"), ("B", "AF", "S"), ("A", "SU", "S")):
        picture(top / "KDEF" / f"{series}F01" / f"{series}F01{code}{angle}.JPG")
    picture(top / "KDEF" / "AF01" / "AF01ANFL.JPG")
    picture(top / "KDEF" / "AF31" / "AF31V.JPG")


def rafd(top: Path) -> None:
    for angle, emotion in (("090", "angry"), ("090", "contemptuous"), ("045", "sad")):
        picture(top / f"Rafd{angle}_28_Caucasian_male_{emotion}_frontal.jpg")


def rafdb(top: Path) -> None:
    lines = ["train_00001.jpg 5", "train_00002.jpg 1", "test_0001.jpg 7", "test_0002.jpg 4"]
    text(top / "EmoLabel" / "list_patition_label.txt", "\n".join(lines) + "\n")
    for line in lines[:3]:
        name = line.split(".")[0]
        picture(top / "Image" / "aligned" / f"{name}_aligned.jpg")
        picture(top / "Image" / "original" / f"{name}.jpg")


def rafdb_folders(top: Path) -> None:
    for part, label in (("train", 5), ("train", 1), ("test", 7)):
        picture(top / "DATASET" / part / str(label) / f"{part}_0000{label}_aligned.jpg")


def affectnet(top: Path) -> None:
    columns = (
        "subDirectory_filePath,face_x,face_y,face_width,face_height,"
        "facial_landmarks,expression,valence,arousal\n"
    )
    images = top / "Manually_Annotated_Images"
    for name in ("103/a.jpg", "103/b.jpg", "7/c.jpg"):
        picture(images / name)
    text(
        top / "training.csv", columns + "103/a.jpg,1,2,8,9,1;2,1,0,0\n103/b.jpg,1,2,8,9,1;2,7,0,0\n"
    )
    text(top / "validation.csv", columns + "7/c.jpg,0,0,12,12,1;2,6,0,0\n")


def affectnet_folders(top: Path) -> None:
    for part, number, code in (("train_set", 0, 3), ("train_set", 1, 7), ("val_set", 5, 0)):
        picture(top / part / "images" / f"{number}.jpg")
        (top / part / "annotations").mkdir(parents=True, exist_ok=True)
        np.save(top / part / "annotations" / f"{number}_exp.npy", np.array(str(code)))


def expw(top: Path) -> None:
    picture(top / "image" / "angry_actor 104.jpg")
    text(
        top / "label.lst",
        "angry_actor 104.jpg 0 1 2 9 10 99.1 0\nangry_actor 104.jpg 1 3 4 11 12 80 3\n"
        "nowhere.jpg 0 1 2 9 10 70 6\n",
    )


def folder(top: Path) -> None:
    picture(top / "Happiness" / "喜び 1.PNG")
    picture(top / "deep" / "sadness" / "person7" / "a b.png")
    text(top / "README.txt", "x")


Expected = tuple[str, Callable[[Path], None], list[str], Sequence[str | None], dict[str, int]]
LAYOUTS: list[Expected] = [
    ("fer2013", fer2013, [*FER7, "angry"], [None] * 8, {}),
    (
        "ferplus",
        ferplus,
        ["happy", "contempt", "happy", "contempt"],
        [None] * 4,
        {
            "pictures without a majority are left out": 2,
            "class nf is left out": 2,
        },
    ),
    (
        "jaffe",
        jaffe,
        ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"],
        ["KA"] * 7,
        {"a copy of another image is left out": 2, "not named like KA.AN1.39.tiff": 1},
    ),
    (
        "tfeid",
        tfeid,
        ["angry", "disgust", "fear", "happy", "neutral", "surprise", "sad"],
        ["f01"] * 7,
        {},
    ),
    (
        "mug",
        mug,
        ["neutral", *["angry"] * 6, "neutral", *["neutral"] * 5],
        ["001"] * 8 + ["002"] * 5,
        {"takes named …end or …nsg… are left out": 1},
    ),
    (
        "ckplus",
        ckplus,
        ["neutral", "disgust", "disgust", "disgust", "neutral", "contempt"],
        ["S005"] * 4 + ["S010"] * 2,
        {"sequences without a label are left out": 1},
    ),
    ("ck48", ck48, ["angry", "contempt", "happy"], ["S010", "S011", "S012"], {}),
    (
        "kdef",
        kdef,
        ["fear", "surprise", "fear"],
        ["F01"] * 3,
        {"heads that are turned are left out": 1, "not named like AF01ANS.JPG": 1},
    ),
    (
        "rafd",
        rafd,
        ["angry", "contempt"],
        ["28"] * 2,
        {"heads that are turned are left out": 1},
    ),
    ("rafdb", rafdb, ["sad", "surprise", "neutral"], [None] * 3, {"no such file": 1}),
    ("rafdb", rafdb_folders, ["neutral", "surprise", "sad"], [None] * 3, {}),
    ("affectnet", affectnet, ["happy", "contempt", "angry"], [None] * 3, {}),
    (
        "affectnet",
        affectnet_folders,
        ["surprise", "contempt", "neutral"],
        [None] * 3,
        {},
    ),
    ("expw", expw, ["angry", "happy"], [None] * 2, {"no such file": 1}),
    ("folder", folder, ["happy", "sad"], [None] * 2, {}),
]


@pytest.mark.parametrize("expected", LAYOUTS, ids=lambda expected: expected[1].__name__)
@pytest.mark.parametrize("deeper", ["", "one/level deeper"])
def test_a_layout_is_recognised_and_read(expected: Expected, deeper: str, tmp_path: Path) -> None:
    name, write, labels, subjects, skipped = expected
    write(tmp_path / "raw" / deeper)
    picture(tmp_path / "raw" / "__MACOSX" / "._KA.AN1.39.png")
    text(tmp_path / "raw" / ".DS_Store", "x")
    if name == "fer2013" and deeper.count("/"):
        pytest.skip("the table is looked for in the folder and in the folders in it")
    if name == "ferplus" and deeper:
        pytest.skip("the tables are looked for in the folder and in the folders in it")
    reader, why = recognise(tmp_path / "raw")
    assert reader.name == name, why
    records, reasons = read(tmp_path / "raw")
    assert sorted(zip(names(records), map(str, (r.subject for r in records)), strict=True)) == (
        sorted(zip(labels, map(str, subjects), strict=True))
    )
    for reason, count in skipped.items():
        assert reasons[reason] == count, reasons
    origins = [record.origin for record in records]
    assert len(set(origins)) == len(origins)
    assert not any(Path(origin).is_absolute() for origin in origins)
    for record in records:
        assert not isinstance(record.picture, Path) or record.picture.is_file()


def yolo(top: Path) -> None:
    text(top / "data.yaml", "names: [sad, happy]\n")
    for number in range(2):
        picture(top / "images" / f"{number}.png")
        text(top / "labels" / f"{number}.txt", f"{number} 0.5 0.5 0.9 0.9\n")
    text(top / "labels" / "gone.txt", "0 0.5 0.5 0.9 0.9\n")


@pytest.mark.parametrize(
    ("write", "reason", "count"),
    [
        (yolo, "a label file without a picture", 1),
        (rafdb, "a picture that is in no list", 3),
        (ckplus, "a copy of another image is left out", 1),
        (mug, "not a frame of its take: img_0000.jpg", 1),
    ],
)
def test_every_file_that_is_not_used_is_named(
    write: Callable[[Path], None], reason: str, count: int, tmp_path: Path
) -> None:
    """Where most frames of a sequence are left out by design, too."""
    write(top := tmp_path / "raw")
    text(top / "extra_labels.csv", "path,label\nx.png,happy\n")
    picture(top / "Image" / "aligned" / "train_00777_aligned.jpg")  # of RAF-DB, in no list
    picture(top / "again" / "001" / "S005_001_00000001.png")  # of CK+, once more
    picture(top / "001" / "session0" / "anger" / "take000" / "sheet.jpg")  # of MUG, beside a take
    text(top / "Image" / "train_00001_auto_attri.txt", "1 2")
    text(top / "Landmarks" / "S005_001_00000001_landmarks.txt", "1 2")
    raw = read_raw(top, Preparation(), None, tmp_path / "staging")
    left_out = Counter(item.reason for item in raw.left_out)
    assert left_out["a table that is not used"] == 1 and left_out[reason] == count, left_out
    origins = [item.origin for item in raw.left_out]
    assert len(set(origins)) == len(origins)
    assert not any(name.endswith("_00000002.png") for name in origins)  # a frame between


def test_official_parts_boxes_and_codes_are_kept(tmp_path: Path) -> None:
    rafdb(tmp_path / "rafdb")
    assert [r.split for r in read(tmp_path / "rafdb")[0]] == ["training", "training", "test"]
    affectnet(tmp_path / "affectnet")
    first, _, second = read(tmp_path / "affectnet")[0]
    assert (first.split, first.box) == ("training", (1, 2, 8, 9))
    assert second.split == "test"  # the authors' validation set is everybody's test set
    expw(tmp_path / "expw")
    assert [r.box for r in read(tmp_path / "expw")[0]] == [(2, 1, 7, 9), (4, 3, 7, 9)]
    kdef(tmp_path / "kdef")
    assert sorted(names(read(tmp_path / "kdef", everything=True)[0])) == [
        *("angry", "fear", "fear", "surprise")
    ]


def test_votes_decide_as_in_fer_plus_s_own_code() -> None:
    assert majority([0, 6, 1, 3, 0, 0, 0, 0, 0, 0]) == "happiness"  # the single vote is dropped
    assert majority([5, 5, 0, 0, 0, 0, 0, 0, 0, 0]) is None
    assert majority([0, 0, 0, 0, 0, 0, 0, 0, 2, 8]) == "nf"


def test_a_video_is_read_like_a_folder_of_frames(tmp_path: Path) -> None:
    file = tmp_path / "raw" / "017" / "session1" / "surprise" / "take003.avi"
    file.parent.mkdir(parents=True)
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for n in range(24):
        video.write(np.full((64, 64, 3), 10 * n, np.uint8))
    video.release()
    text(file.with_name("take004.avi"), "no video")
    records, reasons = read(tmp_path / "raw")
    assert names(records) == ["neutral", *["surprise"] * 6, "neutral"]
    numbers = [record.frame for record in records]
    assert numbers[0] == 0 and numbers[-1] == 23
    assert all(8 <= n <= 16 for n in numbers[1:-1] if n is not None)
    assert {record.subject for record in records} == {"017"}
    assert sum(reasons.values()) == 1

    from crossfer.datasets import prepare

    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    shades = [10 * n for n in numbers if n is not None]
    assert np.abs(dataset.images.mean((1, 2)) - shades).max() < 4


people = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 6), st.integers(1, 3)),
    min_size=1,
    max_size=30,
    unique=True,
)
CODED: dict[str, Callable[[int, int, int], tuple[str, str]]] = {
    "jaffe": lambda who, label, take: (
        f"K{chr(64 + who)}",
        f"K{chr(64 + who)}.{('AN', 'DI', 'FE', 'HA', 'SA', 'SU', 'NE')[label]}{take}.{take}.tiff",
    ),
    "tfeid": lambda who, label, take: (
        f"m{who:02d}",
        f"m{who:02d}_{take}_{('ag', 'dg', 'fg', 'hg', 'sg', 'pg', 'ng')[label]}{take}.jpg",
    ),
    "kdef": lambda who, label, take: (
        f"M{10 * who + take}",
        f"AM{10 * who + take}{('AN', 'DI', 'AF', 'HA', 'SA', 'SU', 'NE')[label]}S.JPG",
    ),
    "rafd": lambda who, label, take: (
        f"{who:02d}",
        f"Rafd090_{who:02d}_Kid_female_"
        f"{('angry', 'disgusted', 'fearful', 'happy', 'sad', 'surprised', 'neutral')[label]}_"
        f"{('frontal', 'left', 'right')[take - 1]}.jpg",
    ),
    "ck48": lambda who, label, take: (
        f"S{who:03d}",
        f"{('anger', 'disgust', 'fear', 'happy', 'sadness', 'surprise', 'neutral')[label]}/"
        f"S{who:03d}_{label:03d}_{take:08d}.png",
    ),
}


@given(people, st.sampled_from(sorted(CODED)))
def test_label_subject_and_count_are_kept(rows: list[tuple[int, int, int]], name: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        expected: Counter[tuple[str, str | None]] = Counter()
        for row in rows:
            subject, file = CODED[name](*row)
            text(Path(top, file), "")
            expected[FER7[row[1]], subject] += 1
        reader, _ = recognise(Path(top))
        assert reader.name == name
        records = [r for r in reader.read(Path(top), ReadOptions()) if isinstance(r, Record)]
        assert Counter((r.label, r.subject) for r in records) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
def test_a_manifest_of_another_encoding_with_ragged_rows_is_read(
    encoding: str, tmp_path: Path
) -> None:
    for name in ("müller.png", "b.png"):
        picture(tmp_path / name)
    rows = "path,label,subject\nmüller.png,happy,Jürg\n\nb.png,sad,X,too,many\nb.png,joy,X\n"
    (tmp_path / "faces.csv").write_bytes(rows.encode(encoding))
    records, reasons = read(tmp_path / "faces.csv")
    assert names(records) == ["happy", "happy"]
    assert [record.subject for record in records] == ["Jürg", "X"]
    assert sum(reasons.values()) == 1


class HuggingFace:
    """Behaves like a Hugging Face dataset: columns by name, rows by number."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels
        self.column_names = ["image", "label"]
        self.features = {"label": type("ClassLabel", (), {"names": ["happy", "sad", "none"]})}
        self.decoded = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: str | int) -> object:
        if key == "label":
            return self.labels
        assert isinstance(key, int)
        self.decoded += 1
        return {"image": Image.new("RGB", (8, 8), (key, 0, 0)), "label": self.labels[key]}


class Torchvision:
    """Behaves like a torchvision dataset."""

    classes = ("angry", "neutral")
    targets = (1, 0, 1)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, row: int) -> tuple[object, int]:
        return Image.new("L", (8, 8), 50 * row), self.targets[row]


def test_datasets_of_other_libraries_are_taken_as_they_are() -> None:
    borrowed = HuggingFace([1, 0, 2, 1])
    items = list(in_memory({"train": borrowed}, name="hf").read(ReadOptions()))
    records = [item for item in items if isinstance(item, Record)]
    assert names(records) == ["sad", "happy", "sad"]
    assert {record.split for record in records} == {"training"}
    assert [item.reason for item in items if isinstance(item, Skipped)] == [
        "class none is left out"
    ]
    assert borrowed.decoded == 0  # pictures wait until they are needed
    assert callable(records[0].picture) and records[0].picture().size == (8, 8)

    taken: list[Any] = list(in_memory(Torchvision(), name="tv").read(ReadOptions()))
    assert names(taken) == ["neutral", "angry", "neutral"]
    images = np.zeros((2, 8, 8), np.uint8)
    arrays = in_memory((images, ["happy", "fear"]), name="arrays", subject=["a", "b"])
    taken = list(arrays.read(ReadOptions()))
    assert [(r.label, r.subject) for r in taken] == [("happy", "a"), ("fear", "b")]
    with pytest.raises(CrossferError, match="2 images, but 1 labels"):
        in_memory((images, ["happy"]), name="arrays")
    with pytest.raises(CrossferError, match="no length"):
        in_memory(iter([]), name="stream")


def test_every_reader_says_what_a_person_needs_to_know() -> None:
    for reader in READERS.values():
        assert reader.title and reader.size and reader.licence and reader.access and reader.layout
        if reader.name not in ("folder", "manifest", "yolo"):
            assert reader.citation

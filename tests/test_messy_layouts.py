"""What goes wrong in real copies of the datasets: copies, gaps, damage, odd tables, odd objects."""

from __future__ import annotations

import datetime
import os
import re
import sys
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossfer.classes import FER7
from crossfer.datasets import in_memory
from crossfer.datasets.pictures import UnreadableImage, open_picture
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.record import ReadOptions, Record, Remark, Skipped
from crossfer.errors import CrossferError
from tests.raw_files import empty, pixels_row, text
from tests.test_layouts import Torchvision, ckplus, ferplus, mug, names, people, read

COPY = "a copy of another image is left out"
WORDS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def taken(source: Any, **options: Any) -> list[Record]:
    """Return the records of a dataset in memory."""
    items = in_memory(source, name="mine", **options).read(ReadOptions())
    return [item for item in items if isinstance(item, Record)]


def pixels(record: Record) -> np.ndarray:
    assert callable(record.picture)
    return open_picture(record.picture)


@pytest.mark.parametrize(
    ("original", "copies"),
    [
        ("KA.AN1.39.tiff", ["KA.AN1.39.tiff.png", "KA.AN1.39_flip.png", "a/KA.AN1.39 (1).tiff"]),
        ("AF01ANS.JPG", ["AF01ANS - Copy.JPG", "KDEF/AF01ANS.JPG", "AF01ANS_flip.png"]),
        (
            "Rafd090_28_Caucasian_male_angry_frontal.jpg",
            ["Rafd090_28_Caucasian_male_angry_frontal (2).jpg"],
        ),
        ("anger/S010_004_00000017.png", ["anger/S010_004_00000017_copy.png"]),
        ("anger/f01_1_ag1.jpg", ["anger/f01_1_ag1 (1).jpg", "anger/f01_1_ag1.jpg.png"]),
    ],
)
def test_of_copies_the_plainest_name_is_read(
    original: str, copies: list[str], tmp_path: Path
) -> None:
    records, reasons = read(empty(tmp_path, original, *copies))
    assert [record.origin for record in records] == [original]
    assert reasons == {COPY: len(copies)}


def test_an_odd_name_does_not_make_a_dataset(tmp_path: Path) -> None:
    happy = [f"happy/{n}.jpg" for n in range(9)]
    odd = ["me_hg.jpg", "KA.AN1.39.tiff", "AF01ANS.JPG", "S010_004_00000017.png", "Training_1.jpg"]
    for number, name in enumerate(odd):
        top = empty(tmp_path / str(number), *happy, f"happy/{name}")
        assert recognise(top)[0].name == "folder", name
    real = [f"train/happy/Training_{n}.jpg" for n in range(9)]
    assert recognise(empty(tmp_path / "fer", *real, "train/a.jpg"))[0].name == "fer2013"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([9, 10, 2, 1, 11], [1, 9, 10, 11]),  # unordered, with a gap
        ([1, 2, 3], [1, 2, 3]),
        ([21, 22, 23], [None, 21, 22, 23]),  # the last three alone: none is neutral
        ([23], [None, 23]),
    ],
)
def test_a_ck_plus_sequence(numbers: list[int], expected: list[int | None], tmp_path: Path) -> None:
    top = tmp_path / "CK+" / "extended-cohn-kanade-images" / "cohn-kanade-images"
    empty(top, *(f"S005/001/S005_001_{number:08d}.png" for number in numbers))
    label = "Emotion_labels/Emotion/S005/001/S005_001_00000023_emotion.txt"
    text(tmp_path / "CK+" / label, "   7.0000000e+00\n")
    records, reasons = read(tmp_path)
    assert not reasons
    first, *peak = expected
    shown = {
        int(Path(r.origin).stem[-8:]): name for r, name in zip(records, names(records), strict=True)
    }
    assert shown == {n: "neutral" for n in (first,) if n} | dict.fromkeys(peak, "surprise")


@pytest.mark.parametrize("content", ["", "happy", "3.0 4.0", "2.5", "nan", "9"])
def test_a_damaged_emotion_file_costs_its_sequence_only(content: str, tmp_path: Path) -> None:
    ckplus(tmp_path)
    emotion = next((tmp_path / "Emotion" / "S010").rglob("*.txt"))
    text(emotion, content)
    text(tmp_path / "Emotion" / "S999" / "001" / "S999_001_00000009_emotion.txt", "3")
    records, reasons = read(tmp_path)
    assert len(records) == 4
    assert sorted(reasons.values()) == [1, 1, 1]
    assert reasons["a label without frames"] == 1


def test_a_neutral_ck_plus_sequence_is_neutral_throughout(tmp_path: Path) -> None:
    empty(tmp_path, *(f"im/S005/001/S005_001_{number:08d}.png" for number in range(1, 6)))
    text(tmp_path / "Emotion" / "S005" / "001" / "S005_001_00000005_emotion.txt", "0")
    assert names(read(tmp_path)[0]) == ["neutral"] * 4


def test_mug_takes_short_doubled_and_set_aside(tmp_path: Path) -> None:
    def take(place: str, count: int) -> list[str]:
        return [f"{place}/img_{number:04d}.jpg" for number in range(count)]

    top = empty(
        tmp_path / "subjects3",
        *take("001/anger/take000", 5),
        *take("001/fear/take000", 2),
        *take("002/002/sadness", 8),
        *take("003/session0/disgust/take001nsg", 8),
        "001/anger/take000/contact sheet.jpg",
        "001/anger/take000.avi",
    )
    records, reasons = read(tmp_path)
    assert Counter((r.subject, r.label) for r in records) == {
        ("001", "neutral"): 2,
        ("001", "angry"): 3,
        ("002", "neutral"): 2,
        ("002", "sad"): 6,
    }
    assert reasons == {
        "a take of fewer than three frames": 1,
        "takes named …end or …nsg… are left out": 1,
        "videos beside their frames are left out": 1,
        "not a frame of its take: img_0000.jpg": 1,  # the contact sheet
    }
    assert {r.subject for r in read(tmp_path, everything=True)[0]} == {"001", "002", "003"}
    begun = top / "002" / "002"  # the dataset may begin below its subjects
    assert {r.subject for r in read(begun)[0]} == {"002"}


def test_an_empty_video_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfer.datasets import pictures

    lengths = {"take000": 0, "take001": 100}
    monkeypatch.setattr(pictures, "frame_count", lambda file: lengths[file.stem])
    records, reasons = read(empty(tmp_path, *(f"007/fear/{name}.MP4" for name in lengths)))
    assert reasons == {"a video without frames": 1}
    assert names(records) == ["neutral", *["fear"] * 6, "neutral"]
    assert (records[-1].origin, records[-1].frame) == ("007/fear/take001.MP4 frame 99", 99)


@given(people, st.sampled_from(["mug", "ckplus"]))
def test_every_sequence_gives_its_frames(rows: list[tuple[int, int, int]], name: str) -> None:
    expected: Counter[tuple[str, str | None]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for who, label, take in rows:
            if name == "mug":
                subject = f"{who:03d}"
                place = f"{subject}/{WORDS[label]}/take{take:03d}"
                empty(top, *(f"{place}/img_{number:04d}.jpg" for number in range(10)))
                neutral, peak = (10, 0) if WORDS[label] == "neutral" else (2, 6)
            else:
                subject, sequence = f"S{who:03d}", f"{10 * label + take:03d}"
                place = f"{subject}/{sequence}"
                stem = f"{subject}_{sequence}"
                empty(top, *(f"images/{place}/{stem}_{n:08d}.png" for n in range(1, 8)))
                code = (1, 3, 4, 5, 6, 7, 0)[label]
                text(top / "Emotion" / place / f"{stem}_{7:08d}_emotion.txt", f"{code}.0000000e+00")
                neutral, peak = 1, 3
            expected["neutral", subject] += neutral
            expected[FER7[label], subject] += peak
        reader, _ = recognise(top)
        assert reader.name == name
        found = [r for r in reader.read(top, ReadOptions()) if isinstance(r, Record)]
        assert Counter((r.label, r.subject) for r in found) == +expected


def test_fer_plus_must_fit_fer2013_row_by_row(tmp_path: Path) -> None:
    ferplus(tmp_path)
    votes = tmp_path / "fer2013new.csv"
    whole = votes.read_text()
    assert recognise(votes)[0].name == "ferplus"
    assert recognise(tmp_path / "fer2013.csv")[0].name == "fer2013"
    votes.write_text("\n".join(whole.splitlines()[:-1]))
    with pytest.raises(CrossferError, match=r"7 rows, but fer2013\.csv has 8"):
        read(tmp_path)
    before, last, after = whole.rpartition("Training")
    assert last
    votes.write_text(f"{before}PublicTest{after}")
    with pytest.raises(CrossferError, match="row 9: Usage is PublicTest, but Training"):
        read(tmp_path)


def test_fer_plus_s_own_folders_with_and_without_boxes(tmp_path: Path) -> None:
    empty(tmp_path, "data/FER2013Train/fer0000000.png", "data/FER2013Test/fer0000009.png")
    rows = 'fer0000000.png,"(0, 0, 48, 48)",0,0,9,0,0,0,1,0,0,0\n\ngone.png,9,0,0,0,0,0,0,0,0,0\n'
    text(tmp_path / "data" / "FER2013Train" / "label.csv", rows)
    text(tmp_path / "data" / "FER2013Test" / "label.csv", "fer0000009.png,0,0,0,0,8,0,0,0,2,x\n")
    records, reasons = read(tmp_path)
    assert [(r.label, r.split) for r in records] == [("surprise", "training")]
    assert reasons == {"no such file": 1, "its votes are not ten numbers": 1}
    text(tmp_path / "data" / "FER2013Test" / "label.csv", "fer0000009.png,0,0,0,0,8,0,0,0,2,0\n")
    assert [r.split for r in read(tmp_path)[0]] == ["training", "test"]


def test_blank_rows_do_not_shift_row_numbers(tmp_path: Path) -> None:
    rows = ["emotion,pixels,Usage", f"0,{pixels_row(1)},Training", "", "3,1", ""]
    file = text(tmp_path / "f.csv", "\n".join([*rows, f"6,{pixels_row(2)},PrivateTest", ""]))
    found = READERS["fer2013"].read(file, ReadOptions())
    items = [item for item in found if not isinstance(item, Remark)]
    assert [item.origin for item in items] == ["f.csv row 2", "f.csv row 4", "f.csv row 6"]
    assert isinstance(items[1], Skipped)
    table = "\npath;label;;\n\na.png;joy;;\n;sad;;\nb.png;sad;;x\n"
    listed = READERS["manifest"].read(text(tmp_path / "m.csv", table), ReadOptions())
    assert [(item.origin) for item in listed if not isinstance(item, Remark)] == [
        "a.png",
        "m.csv row 5",
        "m.csv row 6",
    ]


def test_affectnet_without_header_and_with_damaged_annotations(tmp_path: Path) -> None:
    empty(tmp_path, "Manually_Annotated_Images/1/a.jpg")
    rows = "1/a.jpg,-1,-1,-1,-1,1;2,5,0,0\n1/b.jpg,0,0,9,9,1;2,8,0,0\n1/c.jpg,0,0,9,9,1;2,77,0,0\n"
    text(tmp_path / "Manually_Annotated_file_lists" / "training.csv", rows)
    records, reasons = read(tmp_path, labels={"none": "neutral"})
    assert [(r.origin, r.label, r.box) for r in records] == [
        ("Manually_Annotated_Images/1/a.jpg", "disgust", None),
        ("Manually_Annotated_Images/1/b.jpg", "neutral", (0, 0, 9, 9)),
    ]
    assert reasons == {"unknown class '77'": 1}
    other = empty(tmp_path / "other", *(f"train_set/images/{n}.jpg" for n in range(4)))
    annotations = other / "train_set" / "annotations"
    text(annotations / "0_exp.npy", "no array")
    np.save(annotations / "1_exp.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(annotations / "2_exp.npy", np.array(6))
    records, reasons = read(other)
    assert names(records) == ["angry"]
    assert reasons == {"its annotation cannot be read": 2, "no annotation": 1}
    (other / "val_set" / "annotations").mkdir(parents=True)
    with pytest.raises(CrossferError, match="val_set: no folder `images`"):
        read(other)


def test_expw_s_own_folders_and_odd_rows(tmp_path: Path) -> None:
    empty(tmp_path, "image/origin/angry_man_1.jpg")
    row = "angry_man_1.jpg 0 1 2 9 10 99.1 0\n"
    odd = f"{row}{row}angry_man_1.jpg 1 9 9 9 9 99 3\nangry 1\n\nangry_man_1.jpg 2 1 2 9 10 9 8\n"
    text(tmp_path / "label" / "label.lst", odd)
    records, reasons = read(tmp_path)
    assert [record.origin for record in records] == ["image/origin/angry_man_1.jpg face 0"]
    assert reasons == {
        "a face that is listed twice is left out": 1,
        "the face box is empty": 1,
        "not a row like: name.jpg 0 top left right bottom confidence class": 1,
        "unknown class '8'": 1,
    }


def test_raf_db_s_original_pictures_and_odd_rows(tmp_path: Path) -> None:
    empty(tmp_path, "Image/original/train_00001.jpg", "Image/original/test_0001.JPG")
    rows = b"train_00001.jpg 5\r\ntest_0001.jpg 9\r\ncaf\xe9\r\n\r\n"
    listed = empty(tmp_path, "EmoLabel/list_patition_label.txt") / "EmoLabel"
    (listed / "list_patition_label.txt").write_bytes(rows)
    with pytest.raises(
        CrossferError, match="labels 9: RAF-DB's basic labels are 1–7.*--order rafdb"
    ):
        read(tmp_path)
    records, reasons = read(tmp_path, order="rafdb")
    assert [(r.label, r.split) for r in records] == [("sad", "training")]
    assert reasons == {"unknown class '9'": 1, "not a row like: train_00001.jpg 5": 1}


def test_the_nearest_folder_that_is_a_class_counts(tmp_path: Path) -> None:
    top = empty(
        tmp_path,
        "Train/happy/subject01/1.jpg",
        "Train/sad/3/1.jpg",  # a numbered subject, not class 3
        "Test/a/b/fear/1.jpg",
        "Test/5/1.jpg",
        "1.jpg",
    )
    with pytest.raises(CrossferError, match="the meaning of the numbers 5 is unknown"):
        read(top)
    records, reasons = read(top, order="fer2013")
    assert [(r.label, r.split) for r in records] == [
        ("surprise", "test"),
        ("fear", "test"),
        ("happy", "training"),
        ("sad", "training"),
    ]
    assert reasons == {"not in the folder of a class": 1}
    with pytest.raises(CrossferError, match=r"smirk: unknown class 'smirk'.*--label"):
        read(empty(tmp_path, "Test/smirk/1.jpg"), order="fer2013")
    assert "happy" in names(read(tmp_path, labels={"smirk": "happy"}, order="fer2013")[0])
    assert (
        read(tmp_path, labels={"smirk": None}, order="fer2013")[1]["class smirk is left out"] == 1
    )


def test_a_user_may_map_a_dataset_s_codes_or_its_classes(tmp_path: Path) -> None:
    ckplus(tmp_path)
    by_name, by_code = ({"contempt": "disgust"}, {"2": "disgust"})
    assert names(read(tmp_path, labels=by_name)[0]) == names(read(tmp_path, labels=by_code)[0])
    assert names(read(tmp_path, labels=by_name)[0]).count("disgust") == 4


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    for here, there in (("happy", "sad"), ("sad", "happy")):
        empty(tmp_path, f"{here}/1.png")
        (tmp_path / here / "more").symlink_to(tmp_path / there, target_is_directory=True)
    assert 2 <= len(read(tmp_path)[0]) <= 6


def test_tensors_and_arrays_become_pixels() -> None:
    gray, colour = torch.full((1, 4, 6), 0.5), torch.zeros((3, 4, 6), dtype=torch.uint8)
    colour[0] = 200
    deep = np.full((4, 6, 4), 255, np.int64)
    first, second, third = taken(
        [(gray, 0), (colour, torch.tensor(3)), (deep, "joy")], order="fer2013"
    )
    assert pixels(first).dtype == np.uint8
    assert pixels(first).tolist() == [[128] * 6] * 4
    assert pixels(second)[0, 0].tolist() == [200, 0, 0]
    assert pixels(third).shape == (4, 6, 3)
    assert names([first, second, third]) == ["angry", "happy", "happy"]
    normalised, flat = taken([(gray - 1, "sad"), (np.zeros(5), "sad")])
    with pytest.raises(UnreadableImage, match="^has values below 0; remove the normalisation"):
        pixels(normalised)
    with pytest.raises(UnreadableImage, match="shape"):
        pixels(flat)


def test_the_names_of_classes_come_from_whoever_names_them() -> None:
    images = np.zeros((3, 4, 6, 3), np.uint8)
    numbers = (images, np.array([0, 1, -1]))  # −1: no label
    assert names(taken(numbers, order="fer2013")) == ["angry", "disgust"]
    assert names(taken(numbers, order="affectnet")) == ["neutral", "happy"]
    assert names(taken((images, [1, 0, 1]), classes=["sad", "fear"])) == ["fear", "sad", "fear"]
    with pytest.raises(
        CrossferError, match="mine row 2: class 2, but there are names only for 0–1"
    ):
        taken((images, [1, 0, 2]), classes=["sad", "fear"])
    with pytest.raises(
        CrossferError, match="mine: labels: the meaning of the numbers 0, 9 is unknown.*--order"
    ):
        taken((images, [9, 0, 0]))
    with pytest.raises(CrossferError, match="must be a number or a name, not list"):
        taken((images, np.eye(3)))


def test_part_of_a_dataset_reads_no_picture_for_its_labels() -> None:
    class Part:  # as torch.utils.data.Subset
        dataset, indices = Torchvision(), (2, 1)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, row: int) -> Any:
            raise AssertionError("a picture was decoded")

    assert names(taken(Part())) == ["neutral", "angry"]


def test_columns_splits_subjects_and_boxes_are_kept() -> None:
    columns = {
        "photo": [np.zeros((8, 8), np.uint8)] * 2,
        "emotion": ["sad", "joy"],
        "who": [7, None],
        "part": ["train", "test"],
        "face": [(1, 2, 3, 4), None],
    }
    how: dict[str, Any] = dict(image="photo", label="emotion", subject="who", box="face")
    first, second = taken(columns, split="part", **how)
    assert (first.subject, first.split, first.box) == ("7", "training", (1, 2, 3, 4))
    assert (second.subject, second.split, second.box) == (None, "test", None)
    third = taken({"Validation": columns}, **how)[0]
    assert (third.split, third.origin) == ("validation", "Validation row 0")
    for wrong, problem in (
        (dict(how, label="mood"), "no column 'mood'"),
        (dict(how, subject="age"), "no column 'age' for subject="),
        (dict(how, subject=["a"]), "2 rows, but 1 for subject="),
        (dict(how, split=["train", "later"]), "unknown split 'later'"),
        (dict(how, box=[(1, 2), None]), "four numbers"),
    ):
        with pytest.raises(CrossferError, match=problem):
            taken(columns, **wrong)
    with pytest.raises(CrossferError, match="unknown split 'later'"):
        taken({"later": columns}, **how)


def test_encoded_pictures_and_paths_are_opened_late(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("L", (8, 8), 99).save(file)
    encoded = {"bytes": file.read_bytes(), "path": None}
    for record in taken(
        [(encoded, "joy"), ({"bytes": None, "path": str(file)}, "joy"), (file, "joy")]
    ):
        assert pixels(record)[0, 0] == 99
    with pytest.raises(UnreadableImage, match="^not an image that can be read$"):
        pixels(taken([({"bytes": b"text"}, "joy")])[0])


def test_no_foreign_library_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("datasets", "torchvision"):
        monkeypatch.setitem(sys.modules, library, None)  # importing it would fail
    assert len(taken(Torchvision())) == 3


def test_a_class_is_mapped_however_its_accents_are_stored(tmp_path: Path) -> None:
    empty(tmp_path, f"{unicodedata.normalize('NFD', 'Böse')}/1.png")
    assert names(read(tmp_path, labels={unicodedata.normalize("NFC", "böse"): "angry"})[0]) == [
        "angry"
    ]


def test_pictures_of_any_suffix_are_read_or_counted(tmp_path: Path) -> None:
    files = [f"happy/{n}{suffix}" for n, suffix in enumerate((".jfif", ".HEIC", ".avif", ".jp2"))]
    assert len(read(empty(tmp_path, *files))[0]) == 4


def test_a_folder_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(tmp_path, "happy/1.png", "sad/1.png")
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "sad":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="sad"):
        read(tmp_path)


def test_names_in_tables_may_be_absolute_or_from_another_system(tmp_path: Path) -> None:
    votes = ",9,0,0,0,0,0,0,0,0,0\n"
    plus = empty(tmp_path / "ferplus", "FER2013Train/a.png")
    text(plus / "FER2013Train" / "label.csv", f"/nowhere/x.png{votes}a.png{votes}")
    records, reasons = read(plus)
    assert [record.origin for record in records] == ["FER2013Train/a.png"]
    assert reasons == {"no such file": 1}
    net = empty(tmp_path / "affectnet", "Manually_Annotated_Images/1/a.jpg")
    header = "subDirectory_filePath,expression\n"
    text(net / "training.csv", f"{header}1\\a.jpg,0\n")
    assert [r.origin for r in read(net)[0]] == ["Manually_Annotated_Images/1/a.jpg"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_fer2013_as_spreadsheets_write_it_in_a_folder_whose_name_is_no_text(
    delimiter: str, tmp_path: Path
) -> None:
    rows = (["emotion", "pixels", "Usage"], ["3", pixels_row(1), "Training"])
    top = tmp_path / os.fsdecode(b"caf\xe9")
    text(top / "fer2013.csv", "".join(delimiter.join(row) + "\n" for row in rows))
    assert names(read(top)[0]) == ["happy"]


def test_a_video_whose_name_is_no_text_is_skipped(tmp_path: Path) -> None:
    empty(tmp_path, os.fsdecode(b"caf\xe9/001/anger/take000.avi"), "001/anger/take001.avi")
    assert set(read(tmp_path)[1]) == {
        "a video whose name is not valid text; rename it",
        "the file is empty",
    }


def test_a_subject_that_is_not_said_is_nobody() -> None:
    images, nan = np.zeros((4, 4, 6), np.uint8), float("nan")
    records = taken((images, ["joy"] * 4), subject=["a", nan, "", None], split=[nan] * 4)
    assert [record.subject for record in records] == ["a", None, None, None]
    assert ReadOptions(subject=re.compile("([a-z]*)_")).subject_of("happy/_1.png") is None


def test_a_data_frame_is_read_by_its_columns() -> None:
    class Frame:  # as of pandas or Polars
        columns = ("image", "label")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, name: str) -> Any:
            return {"image": [np.zeros((8, 8), np.uint8)] * 2, "label": ["sad", "joy"]}[name]

    assert names(taken(Frame())) == ["sad", "happy"]
    with pytest.raises(CrossferError, match="class inf, but there are names only for 0–1"):
        taken((np.zeros((1, 4, 6), np.uint8), [float("inf")]), classes=["sad", "fear"])


def test_rows_of_a_shuffled_series_keep_their_labels() -> None:
    class Series:  # as of pandas: [n] asks for the row whose index is n, .iloc[n] for the n-th
        def __init__(self, values: list[Any], index: list[int]) -> None:
            self.iloc, self.index = values, index

        def __len__(self) -> int:
            return len(self.iloc)

        def __getitem__(self, index: int) -> Any:
            return self.iloc[self.index.index(index)]

        def tolist(self) -> list[Any]:
            return self.iloc

    gray = [np.full((8, 8), level, np.uint8) for level in (10, 20, 30)]
    images, labels = Series(gray, [2, 0, 1]), Series(["sad", "joy", "fear"], [2, 0, 1])
    for source in ((images, labels), {"image": images, "label": labels}):
        records = taken(source)
        assert [int(pixels(r)[0, 0]) for r in records] == [10, 20, 30]
        assert names(records) == ["sad", "happy", "fear"]


def test_numbers_written_as_texts_are_named_by_classes() -> None:
    images = np.zeros((3, 4, 6), np.uint8)
    assert names(taken((images, ["1", "0", "-1"]), classes=["sad", "fear"])) == ["fear", "sad"]


def test_eval_is_the_validation_set_where_there_is_a_test_set_in_memory() -> None:
    two = (np.zeros((2, 4, 6), np.uint8), ["sad", "fear"])
    parts = taken({"train": two, "eval": two, "test": two})
    assert [r.split for r in parts[::2]] == ["training", "validation", "test"]
    assert [r.split for r in taken(two, split=["train", "eval"])] == ["training", "test"]


def test_columns_in_memory_that_are_not_used_are_named() -> None:
    columns = {"image": [*np.zeros((2, 4, 6), np.uint8)], "label": ["sad", "fear"]}
    more = {"age": [20, 21], "when": [datetime.date(2026, 1, 1)] * 2, "tags": [["a"], ["b"]]}
    items = [*in_memory(columns | more, name="mine").read(ReadOptions())]
    assert [item.text for item in items if isinstance(item, Remark)] == [
        "not used, kept as groups: age",
        "not used, neither texts nor numbers: when, tags",
    ]


def test_neutral_frames_of_sequences_are_translated_like_any_class(tmp_path: Path) -> None:
    ckplus(tmp_path / "ck")
    mug(tmp_path / "mug")
    for place in ("ck", "mug"):
        before = Counter(names(read(tmp_path / place)[0]))
        left, reasons = read(tmp_path / place, labels={"neutral": None})
        assert Counter(names(left)) == before - Counter({"neutral": before["neutral"]})
        assert reasons["class neutral is left out"]
        calm = Counter(names(read(tmp_path / place, labels={"neutral": "calm"})[0]))
        assert calm == {"calm" if n == "neutral" else n: count for n, count in before.items()}


@pytest.mark.parametrize(
    ("about", "line", "box"),
    [
        ("", "0 0.5 0.4 0.6 0.5 0.5 0.6 0.4 0.5", (0.4, 0.4, 0.2, 0.2)),  # a polygon
        ("", "0 0.5 0.5 0.2 0.2 0.93", (0.4, 0.4, 0.2, 0.2)),  # a box and its score
        ("kpt_shape: [2, 2]\n", "0 0.5 0.5 0.2 0.2 0.1 0.1 0.9 0.9", (0.4, 0.4, 0.2, 0.2)),
        ("", "0 0.5 0.5 0.2 0.2 0.1 0.1 2", None),
    ],
)
def test_a_line_of_yolo_is_a_box_or_a_polygon(
    about: str, line: str, box: tuple[float, ...] | None, tmp_path: Path
) -> None:
    text(tmp_path / "data.yaml", f"names: [sad]\n{about}")
    empty(tmp_path, "train/images/1.jpg")
    text(tmp_path / "train/labels/1.txt", line)
    records, reasons = read(tmp_path)
    assert [r.box for r in records] == ([pytest.approx(box)] if box else [])
    assert len(records) + sum(reasons.values()) == 1


def test_names_of_classes_in_memory_are_those_of_the_numbers_that_are_given() -> None:
    """`target_transform` makes other numbers of them; joined datasets may have other names."""

    class Turned(Torchvision):
        def __init__(self) -> None:
            self.target_transform = lambda number: 1 - number

        def __getitem__(self, row: int) -> tuple[object, int]:
            image, number = super().__getitem__(row)
            return image, self.target_transform(number)

    join: Any = torch.utils.data.ConcatDataset
    other: Any = Torchvision()
    other.classes = ("neutral", "angry")
    with pytest.raises(CrossferError, match="its numbers are not those of its classes"):
        taken(Turned())
    assert names(taken(Turned(), classes=["neutral", "angry"])) == names(taken(Torchvision()))
    joined = join([Torchvision(), Torchvision()])
    assert names(taken(joined)) == names(taken(Torchvision())) * 2
    assert names(taken(torch.utils.data.Subset(joined, [1, 3]))) == ["angry", "neutral"]
    with pytest.raises(CrossferError, match="number their classes differently"):
        taken(join([Torchvision(), other]))


def test_labels_of_several_numbers_are_refused_in_pairs_too() -> None:
    for one_hot in (np.eye(7)[3], torch.eye(7)[3]):
        with pytest.raises(CrossferError, match="must be a number or a name"):
            taken([(np.zeros((4, 6), np.uint8), one_hot)])

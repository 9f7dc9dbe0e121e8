"""Raw files as people really have them → prepared datasets."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossfer.classes import FER7, PRESETS
from crossfer.datasets import Dataset, Preparation, open_dataset, prepare
from crossfer.datasets.readers.mug import frames_of_the_study
from crossfer.errors import CrossferError
from tests.raw_files import noise, picture

JAFFE_SUBJECTS = {"KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM"}


def fer_rows(
    usages: tuple[str, ...] = ("Training", "PublicTest", "PrivateTest"),
) -> list[list[str]]:
    return [
        [str(label), " ".join(map(str, noise(10 * n + label).ravel())), usage]
        for n, usage in enumerate(usages)
        for label in range(7)
    ]


def write_csv(file: Path, header: list[str], rows: list[list[str]]) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([header, *rows])
    return file


def origins(dataset: Dataset) -> list[str]:
    return list(dataset.samples.column("origin").to_pylist())


def splits(dataset: Dataset) -> list[str]:
    return list(dataset.samples.column("split").to_pylist())


def test_fer2013_csv_keeps_pixels_labels_and_the_official_parts(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "fer2013.csv", ["emotion", "pixels", "Usage"], fer_rows())
    dataset = prepare(file, tmp_path / "out")
    assert np.array_equal(dataset.images[8], noise(11))
    assert dataset.labels.tolist() == list(range(7)) * 3
    assert splits(dataset) == ["training"] * 7 + ["validation"] * 7 + ["test"] * 7
    assert origins(dataset)[0] == "fer2013.csv row 2"
    assert dataset.name == "fer2013"


def test_icml_face_data_has_spaces_in_its_header_and_another_order(tmp_path: Path) -> None:
    rows = [[emotion, usage, pixels] for emotion, pixels, usage in fer_rows()]
    write_csv(tmp_path / "icml_face_data.csv", ["emotion", " Usage", " pixels"], rows)
    dataset = prepare(tmp_path, tmp_path / "out")
    assert np.array_equal(dataset.images[0], noise(0))
    assert Counter(splits(dataset)) == {"training": 7, "validation": 7, "test": 7}


def test_bad_fer2013_rows_are_counted_with_their_reason_and_the_rest_is_kept(
    tmp_path: Path,
) -> None:
    rows = fer_rows(("Training", "PublicTest", "PrivateTest", "Training"))
    good = rows[0][1]
    bad = [
        ["0", good.rsplit(" ", 1)[0], "Training"],
        ["0", "256 " + good.split(" ", 1)[1], "Training"],
        ["0", "x " + good.split(" ", 1)[1], "Training"],
        ["0", "-1 " + good.split(" ", 1)[1], "Training"],
        ["7", good, "Training"],
        ["0", good, "Tuesday"],
        ["0", good],
        ["0", "", "Training"],
    ]
    doubtful = ["3", "  " + good.replace(" ", "  ", 3) + " ", "Training"]
    file = write_csv(tmp_path / "f.csv", ["emotion", "pixels", "Usage"], [*bad, doubtful, *rows])
    dataset = prepare(file, tmp_path / "out")
    assert len(dataset.images) == len(rows) + 1
    assert np.array_equal(dataset.images[0], noise(0))  # odd spacing is no fault
    reasons = dataset.card["skipped"]
    assert sum(reasons.values()) == len(bad)
    assert reasons["2,303 pixels instead of 2,304"] == 1
    assert reasons["pixel value '256' is not an integer from 0 to 255"] == 1
    assert reasons["unknown class '7'"] == 1
    assert reasons["unknown Usage 'Tuesday'"] == 1
    assert reasons["2 columns instead of 3"] == 1
    listed = list(csv.DictReader((tmp_path / "out" / "skipped.csv").open()))
    assert len(listed) == len(bad)
    rows_of = {row["reason"]: row["origin"] for row in listed}
    assert rows_of["2 columns instead of 3"] == "f.csv row 8"
    assert rows_of["0 pixels instead of 2,304"] == "f.csv row 9"


def test_fer2013_folders_of_the_popular_copy(tmp_path: Path) -> None:
    for emotion in FER7:
        picture(tmp_path / "fer" / "train" / emotion / "Training_1.jpg")
        picture(tmp_path / "fer" / "test" / emotion / "PublicTest_2.jpg")
        picture(tmp_path / "fer" / "test" / emotion / "PrivateTest_3.JPG")
    (tmp_path / "fer" / "Thumbs.db").write_bytes(b"x")
    dataset = prepare(tmp_path / "fer", tmp_path / "out")
    assert dataset.card["reader"] == "fer2013"
    assert Counter(splits(dataset)) == {"training": 7, "validation": 7, "test": 7}


def test_ck48_keeps_contempt_for_those_who_ask_and_subjects_apart(tmp_path: Path) -> None:
    for subject in range(20):
        for name in ("anger", "happy", "contempt"):
            for frame in range(3):
                picture(tmp_path / "CK+48" / name / f"S{subject:03d}_001_{frame:08d}.png", subject)
    dataset = prepare(tmp_path / "CK+48", tmp_path / "out")
    assert dataset.card["reader"] == "ck48"
    assert dataset.card["skipped"] == {}
    assert dataset.card["classes"] == ["angry", "happy", "contempt"]
    assert [FER7[label] for label in dataset.classes] == ["angry", "happy"]
    assert dataset.left_out == {"contempt": 60}
    assert sum(sum(counts.values()) for counts in dataset.counts().values()) == 120
    eight = dataset.with_classes(PRESETS["fer8"])
    assert eight.left_out == {} and eight.classes == [0, 3, 7]
    assert all(counts["contempt"] for counts in eight.counts().values())
    sides: dict[str, set[str]] = {}
    for who, split in zip(dataset.subjects, splits(dataset), strict=True):
        sides.setdefault(str(who), set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert Counter(splits(dataset)) == {"training": 126, "validation": 18, "test": 36}


def test_jaffe_stand_in_is_recognised_and_called_a_stand_in(prepared: dict[str, Dataset]) -> None:
    dataset = prepared["jaffe"]
    assert dataset.card["reader"] == "jaffe"
    assert dataset.title == "jaffe (stand-in)"
    assert len(dataset.images) == 84
    assert set(dataset.subjects) <= JAFFE_SUBJECTS
    reached, asked = dataset.card["split"]["reached"], dataset.card["split"]["asked"]
    assert sum(reached.values()) == 84
    assert abs(reached["training"] - asked["training"]) <= 12


def test_mug_takes_give_the_papers_eight_frames(
    prepared: dict[str, Dataset], raw: Path, tmp_path: Path
) -> None:
    dataset = prepared["mug"]
    neutral = FER7.index("neutral")
    assert len(dataset.images) == 7 * 8
    assert (dataset.labels == neutral).sum() == 7 * 2
    copy = tmp_path / "mug"
    shutil.copytree(raw / "mug", copy)
    take = next(copy.rglob("take000"))
    take.rename(take.with_name("take000nsg"))
    again = prepare(copy, tmp_path / "out")
    assert len(again.images) == 6 * 8
    assert again.card["skipped"] == {"takes named …end or …nsg… are left out": 1}


@given(st.integers(1, 200))
def test_frames_of_the_study(length: int) -> None:
    neutral, middle = frames_of_the_study(length)
    assert set(neutral) == {0, length - 1}
    assert not set(neutral) & set(middle)
    assert len(middle) == min(6, max(0, length - 2))
    if length >= 18:
        assert min(middle) >= (length - 1) // 3
        assert max(middle) <= -(-2 * (length - 1) // 3)


def test_a_folder_per_class_with_synonyms_a_label_map_and_subjects(tmp_path: Path) -> None:
    for subject in range(10):
        for name in ("Happiness", "anger", "böse"):
            picture(tmp_path / "raw" / name / f"p{subject}_ß 1.PNG", subject)
    kept = prepare(tmp_path / "raw", tmp_path / "kept")
    assert kept.card["classes"] == ["angry", "happy", "böse"]
    assert kept.left_out == {"böse": 10}
    how = Preparation(labels={"BÖSE": "angry"}, subject=r"/(p\d+)_", sizes=(6, 2, 2))
    dataset = prepare(tmp_path / "raw", tmp_path / "out", how)
    assert dataset.card["split"]["how"] == "subject-disjoint"
    assert Counter(dataset.labels.tolist()) == {
        FER7.index("angry"): 20,
        FER7.index("happy"): 10,
    }
    assert set(dataset.subjects) == {f"p{n}" for n in range(10)}
    assert Counter(splits(dataset)) == {"training": 18, "validation": 6, "test": 6}


def test_a_folder_with_splits_gets_its_missing_validation_set_from_training(tmp_path: Path) -> None:
    for n in range(40):
        picture(tmp_path / "raw" / "train" / "sad" / f"{n}.png", n)
        picture(tmp_path / "raw" / "test" / "sad" / f"{n}.png", 100 + n)
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    assert Counter(splits(dataset)) == {"training": 36, "validation": 4, "test": 40}
    assert "10% of training" in dataset.card["split"]["how"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_with_subjects_splits_and_boxes(suffix: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1, side=96)
    columns = {
        "path": ["a.png"] * 4 + ["missing.png"],
        "label": ["joy", "neutral", "none", "sad", "sad"],
        "subject": ["1", "2", "3", "3", "4"],
        "split": ["train", "val", "test", "test", "train"],
        "left": [0.0, 48.0, 0.0, 60.0, 0.0],
        "top": [0.0, 48.0, 0.0, 60.0, 0.0],
        "width": [48.0] * 5,
        "height": [48.0] * 5,
    }
    file = tmp_path / f"faces{suffix}"
    if suffix == ".csv":
        write_csv(
            file,
            list(columns),
            [[str(v) for v in row] for row in zip(*columns.values(), strict=True)],
        )
    else:
        pa.parquet.write_table(pa.table(columns), file)
    dataset = prepare(file, tmp_path / "out")
    assert np.array_equal(dataset.images[1], noise(1, 96)[48:, 48:])
    assert dataset.subjects == ["1", "2"]
    assert splits(dataset) == ["training", "validation"]
    assert dataset.card["skipped"] == {
        "class none is left out": 1,
        "the face box is outside the 96×96 picture": 1,
        "no such file": 1,
    }


def test_a_table_may_have_hundreds_of_columns(tmp_path: Path) -> None:
    """As a face analysis writes them: what a face shows stands in the last one."""
    for number in range(16):
        Image.new("L", (48, 48), number).save(tmp_path / f"{number}.png")
    features = [f"action_unit_{number}_intensity" for number in range(400)]
    rows = [[f"{n}.png", *["0"] * 400, ["happy", "sad"][n % 2]] for n in range(16)]
    lines = [",".join(row) for row in [["path", *features, "label"], *rows]]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    made = prepare(tmp_path / "table.csv", tmp_path / "out", Preparation(faces="cropped"))
    assert made.card["classes"] == ["happy", "sad"] and len(made.labels) == 16


def test_broken_images_are_reported_and_not_fatal(tmp_path: Path) -> None:
    for n in range(10):
        picture(tmp_path / "raw" / "fear" / f"{n}.png", n)
    whole = (tmp_path / "raw" / "fear" / "1.png").read_bytes()
    (tmp_path / "raw" / "fear" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "raw" / "fear" / "empty.jpg").write_bytes(b"")
    (tmp_path / "raw" / "fear" / "text.jpg").write_text("no picture")
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    assert len(dataset.images) == 10
    assert dataset.card["skipped"] == {
        "truncated": 1,
        "the file is empty": 1,
        "not an image that can be read": 1,
    }


def test_nothing_usable_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CrossferError, match="no images"):
        prepare(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(CrossferError, match="no such file"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty" / "mine.csv").write_text("image,emotion\na.jpg,happy\n")
    with pytest.raises(CrossferError, match="no usable image .a.jpg: no such file"):
        prepare(tmp_path / "empty" / "mine.csv", tmp_path / "out")
    for n in range(3):
        picture(tmp_path / "raw" / "fear" / f"{n}.png")
        (tmp_path / "raw" / "fear" / f"bad{n}.png").write_bytes(b"")
    (tmp_path / "raw" / "fear" / "bad.png").write_bytes(b"")
    with pytest.raises(CrossferError, match=r"4 of 7 pictures cannot be used.*CLASS/IMAGE"):
        prepare(tmp_path / "raw", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "raw"]


def test_an_output_in_use_is_left_alone(tmp_path: Path) -> None:
    raw = picture(tmp_path / "raw" / "fear" / "1.png").parent.parent
    picture(tmp_path / "raw" / "sad" / "1.png")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(CrossferError, match="not empty and not a prepared dataset"):
        prepare(raw, mine, replace=True)
    first = prepare(raw, tmp_path / "out")
    with pytest.raises(CrossferError, match="--replace"):
        prepare(raw, tmp_path / "out")
    again = prepare(raw, tmp_path / "out", replace=True)
    assert again.fingerprint == first.fingerprint
    assert (mine / "thesis.txt").read_text() == "precious"


def test_replacing_never_touches_raw_files(tmp_path: Path) -> None:
    raw = picture(tmp_path / "raw" / "fear" / "1.png").parent.parent
    prepare(raw, tmp_path / "out")
    inside = tmp_path / "out" / "raw"
    shutil.copytree(raw, inside)
    with pytest.raises(CrossferError, match="contains the raw files"):
        prepare(inside, tmp_path / "out", replace=True)
    with pytest.raises(CrossferError, match="also contains raw"):
        prepare(raw, tmp_path / "out", replace=True)
    assert (inside / "fear" / "1.png").is_file()


def test_a_label_map_names_our_classes_and_leaves_the_others_alone(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "fer2013.csv", ["emotion", "pixels", "Usage"], fer_rows())
    dataset = prepare(
        file, tmp_path / "out", Preparation(labels={"contempt": None, "happy": "sad"})
    )
    assert len(dataset.images) == 21
    with pytest.raises(CrossferError, match="labels: joyful=3: '3' is not a valid label"):
        Preparation(labels={"joyful": "3"})
    for size in (float("nan"), float("inf"), 1e308, -1):
        with pytest.raises(CrossferError, match="sizes: must be three numbers"):
            Preparation(sizes=(size, 1e308, 1))


def test_a_damaged_dataset_says_so(tmp_path: Path) -> None:
    picture(tmp_path / "raw" / "fear" / "1.png")
    prepare(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "out" / "images.npy").write_bytes(b"half")
    with pytest.raises(CrossferError, match="damaged"):
        open_dataset(tmp_path / "out")
    with pytest.raises(CrossferError, match="not a prepared dataset"):
        open_dataset(tmp_path / "raw")


@given(st.lists(st.sampled_from(range(7)), min_size=1, max_size=30))
def test_every_row_of_fer2013_keeps_its_label_and_pixels(labels: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        rows = [
            [str(label), " ".join(map(str, noise(n).ravel())), "Training"]
            for n, label in enumerate(labels)
        ]
        file = write_csv(Path(name) / "x.csv", ["emotion", "pixels", "Usage"], rows)
        dataset = prepare(file, Path(name) / "out")
        assert dataset.labels.tolist() == labels
        assert all(np.array_equal(dataset.images[n], noise(n)) for n in range(len(labels)))

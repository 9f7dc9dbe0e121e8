"""A label's meaning is never guessed in silence: numbers, names that nobody knows, people called Joy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossfer.classes import FER7, RAFDB11
from crossfer.cli.remarks import remarks
from crossfer.datasets import Preparation, in_memory, prepare
from crossfer.datasets.raw import read_raw
from crossfer.datasets.readers import READERS, recognise
from crossfer.datasets.readers.labels import ORDERS, label_of, told_beside, understood
from crossfer.datasets.record import ReadOptions, Record, Remark
from crossfer.errors import CrossferError
from tests.raw_files import empty, picture, text

IN_WORDS = "0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral"
NUMBERS = [str(code) for code in range(7)]


def read(path: Path, **options: Any) -> tuple[dict[str, str], list[str]]:
    """Return the label of each picture by its origin, and what is said of the reading."""
    reader, _ = recognise(path)
    items = list(reader.read(path, ReadOptions(**options)))
    labels = {item.origin: item.label for item in items if isinstance(item, Record)}
    return labels, [item.text for item in items if isinstance(item, Remark) and item.text]


def folders(top: Path, names: list[str]) -> Path:
    return empty(top, *(f"{name}/{n}.png" for name in names for n in range(2)))


def manifest(top: Path, labels: list[str]) -> Path:
    empty(top, *(f"{n}.png" for n in range(len(labels))))
    rows = "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels))
    return text(top / "faces.csv", "path,label\n" + rows)


@pytest.mark.parametrize("make", [folders, manifest])
def test_numbers_from_0_to_6_are_fer2013_s_and_the_whole_mapping_is_said(
    make: Any, tmp_path: Path
) -> None:
    labels, said = read(make(tmp_path, NUMBERS))
    assert list(dict.fromkeys(labels.values())) == list(FER7)
    assert [line for line in said if IN_WORDS in line and "--order" in line]


@pytest.mark.parametrize("make", [folders, manifest])
@pytest.mark.parametrize(
    ("numbers", "ways"),
    [
        (
            ["0", "7"],
            "numbers 0, 7 is unknown; add --order affectnet or ckplus or alphabetical-8, or",
        ),
        (NUMBERS[1:] + ["7"], "add --order rafdb or rafdb-compound or affectnet .*--label 1=NAME"),
        (["1", "2", "11"], "add --order rafdb-compound, or name each with --label 1=NAME"),
        (["12", "40"], "add --order fer2013 or rafdb .*--label 12=NAME"),
        (["happy", "3"], "the meaning of the numbers 3 is unknown"),
    ],
)
def test_other_numbers_are_refused_with_the_ways_on(
    make: Any, numbers: list[str], ways: str, tmp_path: Path
) -> None:
    with pytest.raises(CrossferError, match=ways) as error:
        read(make(tmp_path, numbers))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [folders, manifest])
def test_whoever_names_one_number_names_all(make: Any, tmp_path: Path) -> None:
    top = make(tmp_path, ["0", "7"])
    with pytest.raises(CrossferError, match="--label names only 7 of the numbers 0, 7; name each"):
        read(top, labels={"7": "contempt"})
    labels, said = read(top, labels={"0": "sad", "7": "contempt"})
    assert set(labels.values()) == {"sad", "contempt"} and not any("number" in s for s in said)
    labels, said = read(top, labels={"0": None}, order="affectnet")
    assert set(labels.values()) == {"contempt"}
    assert any("0 left out, 7 contempt" in line for line in said)


@pytest.mark.parametrize(
    ("order", "one", "six"),
    [
        ("fer2013", "disgust", "neutral"),
        ("rafdb", "surprise", "angry"),
        ("affectnet", "happy", "angry"),
        ("alphabetical", "disgust", "surprise"),
        ("alphabetical-8", "contempt", "sad"),
    ],
)
def test_an_order_is_named(order: str, one: str, six: str, tmp_path: Path) -> None:
    top = folders(tmp_path, ["train/1", "train/6"])
    labels, said = read(top, order=order)
    assert [labels["train/1/0.png"], labels["train/6/0.png"]] == [one, six]
    assert any(f"order {order}: 1 {one}, 6 {six}" in line for line in said)
    assert list(ORDERS["alphabetical"].values()) == sorted(FER7)


@pytest.mark.parametrize("make", [folders, manifest])
def test_a_translation_of_what_is_not_there_is_refused(make: Any, tmp_path: Path) -> None:
    top = make(tmp_path, ["Joyful", "anger"])
    mistyped = Preparation(labels={"joyfull": "happy"})
    with pytest.raises(
        CrossferError, match="--label joyfull: no such label; the labels are angry, joyful"
    ):
        read_raw(top, mistyped, None, tmp_path)
    absent = Preparation(labels={"contempt": None})  # to leave out what is not there is no mistake
    assert len(read_raw(top, absent, None, tmp_path).records) == len(read(top)[0])
    labels, _ = read(top, labels={"JOYFUL": "happy", "angry": None})
    assert set(labels.values()) == {"happy"}


def test_an_order_that_does_not_fit_or_has_no_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CrossferError, match="--order rafdb has no number 0, but the labels are 0, 3"
    ):
        read(folders(tmp_path / "a", ["0", "3"]), order="rafdb")
    with pytest.raises(
        CrossferError, match="--order rafdb has no effect, because the labels are names"
    ):
        read(folders(tmp_path / "b", ["sad", "happy"]), order="rafdb")
    with pytest.raises(CrossferError, match="order is 'mine': choose one of fer2013, rafdb"):
        Preparation(order="mine")
    picture(tmp_path / "c" / "KA.AN1.39.tiff")
    with pytest.raises(CrossferError, match="--order has no effect on a dataset read as jaffe"):
        prepare(tmp_path / "c", tmp_path / "out", Preparation(order="rafdb"))


def test_numbers_in_memory_mean_nothing_by_themselves() -> None:
    def labels(numbers: Any, **options: Any) -> list[str]:
        images = np.zeros((len(numbers), 8, 8), np.uint8)
        items = in_memory((images, numbers), name="mine", **options).read(ReadOptions())
        return [item.label for item in items if isinstance(item, Record)]

    for numbers, options in (([*range(7)], {}), (NUMBERS, {}), ([*range(7)], {"classes": NUMBERS})):
        with pytest.warns(UserWarning, match=f"mine: the numbers are read in.*{IN_WORDS}.*--order"):
            assert labels(numbers, **options) == list(FER7)
    with pytest.raises(CrossferError, match="mine: labels: the meaning of the numbers 1, 2"):
        labels([1, 2])
    assert labels([1, 2], order="rafdb") == ["surprise", "fear"]
    assert labels([1, 0], classes=["bored", "happy"]) == ["happy", "bored"]


def test_a_list_with_labels_above_7_is_raf_db_s_compound_one(tmp_path: Path) -> None:
    names = [f"train_{n:04d}" for n in range(1, 12)]
    empty(tmp_path, *(f"Image/aligned/{name}_aligned.jpg" for name in names))
    rows = "".join(f"{name}.jpg {code}\n" for code, name in enumerate(names, 1))
    text(tmp_path / "EmoLabel" / "list_patition_label.txt", rows)
    labels, said = read(tmp_path)
    assert list(labels.values()) == list(RAFDB11)
    assert any("eleven compound" in line for line in said)
    folders = empty(tmp_path / "f", *(f"train/{n}/train_{n:05d}.jpg" for n in range(1, 12)))
    assert set(read(folders)[0].values()) == set(RAFDB11)


@pytest.mark.parametrize(
    "names",
    [
        {"angry/Joy/0.png": "angry", "angry/Anna/1.png": "angry", "sad/Bob/2.png": "sad"},
        {"Joy/angry/0.png": "angry", "Joe/angry/1.png": "angry", "Joe/sad/1.png": "sad"},
        {"angry/Joy/0.png": "angry"},
        {"train/Joy/angry/0.png": "angry", "test/Joe/sad/1.png": "sad"},
        {"train/angry/Joy/0.png": "angry", "test/sad/Bob/1.png": "sad"},
        {"bored/Joy/0.png": "bored", "sad/Ann/1.png": "sad", "happy/Bob/1.png": "happy"},
    ],
)
def test_a_person_called_joy_is_no_class(names: dict[str, str], tmp_path: Path) -> None:
    assert read(empty(tmp_path, *names))[0] == names


def test_folders_of_people_with_files_named_like_classes(tmp_path: Path) -> None:
    classes = ("Anger", "Happy", "Sad", "Surprised")
    names = {f"images/{n}/{name}.jpg": name for n in range(6) for name in classes}
    reader, _ = recognise(empty(tmp_path, *names))
    items = list(reader.read(tmp_path, ReadOptions()))
    records = [item for item in items if isinstance(item, Record)]
    assert {r.label for r in records if "Surprised" in r.origin} == {"surprise"}
    assert [r.subject for r in records[:4]] == ["0"] * 4
    with pytest.raises(CrossferError, match="--order rafdb has no effect"):
        read(tmp_path, order="rafdb")
    said = [item.text for item in items if isinstance(item, Remark)]
    assert any("from file names" in line for line in said)
    assert any("subjects: the 6 folders (0, 1, 2, …)" in line for line in said)
    parts = empty(tmp_path / "parts", "train/Anger_1.jpg", "train/Sad_1.jpg", "test/Anger_2.jpg")
    records = [i for i in READERS["folder"].read(parts, ReadOptions()) if isinstance(i, Record)]
    assert [(r.label, r.split, r.subject) for r in records] == [
        ("angry", "test", None),
        ("angry", "training", None),
        ("sad", "training", None),
    ]


def test_names_that_are_not_known_are_kept_where_they_can_only_be_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for n, name in enumerate(("Bored", "confused", "Happiness")):
            picture(tmp_path / "raw" / part / name / f"{part}{n}.png")
    dataset = prepare(tmp_path / "raw", tmp_path / "out", Preparation(faces="cropped"))
    assert dataset.card["classes"] == ["happy", "bored", "confused"]
    assert dataset.left_out == {"bored": 2, "confused": 2}
    line = "unknown labels, kept unchanged: bored, confused; map them with --label"
    assert any(told.startswith(line) for told in remarks(dataset))
    how = Preparation(faces="cropped", labels={"bored": "neutral", "confused": None})
    dataset = prepare(tmp_path / "raw", tmp_path / "mapped", how)
    assert dataset.card["classes"] == ["happy", "neutral"]


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (["images/1.png", "faces/2.png"], "'faces'"),
        (["happy/1.png", "images/2.png"], "'images'"),
        (["happy/1.png", "Test/smirk/2.png"], "'smirk'"),
        (["bored/1.png", "bored/2.png"], "'bored'"),
        (["Joe/bored/1.png", "Joe/calm/2.png", "Ann/bored/3.png"], "'bored'"),
        (["p01/1.png", "p02/2.png"], "'p01'"),
        ([f"{chr(97 + n % 26)}{chr(97 + n // 26)}/1.png" for n in range(40)], "'aa'"),
    ],
)
def test_other_names_that_are_not_known_are_refused(
    names: list[str], unknown: str, tmp_path: Path
) -> None:
    with pytest.raises(CrossferError, match=f"unknown class {unknown}.*--label"):
        read(empty(tmp_path, *names))


def test_a_table_of_many_names_is_no_table_of_classes(tmp_path: Path) -> None:
    few = manifest(tmp_path / "few", ["bored", "happy", "calm"])
    assert list(read(few)[0].values()) == ["bored", "happy", "calm"]
    people = manifest(tmp_path / "many", [f"person {n}" for n in range(31)])
    with pytest.raises(CrossferError, match="31 unknown labels .*--label THEIRS=NAME"):
        read(people)


def test_ck_plus_as_a_table_of_pixels_has_contempt(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 48 * 48)
    rows = "".join(f"{code},{pixels},Training\n" for code in (0, 6, 7))
    file = tmp_path / "ckextended.csv"
    file.write_text(f"emotion,pixels,Usage\n{rows}")
    labels, said = read(file)
    assert list(labels.values()) == ["angry", "neutral", "contempt"]
    assert any("7 contempt" in line for line in said)
    assert recognise(file)[0].name == "ckextended"


def test_rafdb_labels_of_another_list_than_the_order_are_refused(tmp_path: Path) -> None:
    for number in range(1, 12):
        picture(tmp_path / "Image" / "aligned" / f"train_{number:04}_aligned.jpg")
    labels = tmp_path / "list_patition_label.txt"
    labels.write_text("".join(f"train_{n:04}.jpg {n}\n" for n in range(1, 12)))
    with pytest.raises(CrossferError, match="--order rafdb has no number 8, 9, 10, 11"):
        read(tmp_path, order="rafdb")


def test_columns_in_memory_are_kept_as_groups_and_likely_people_are_named() -> None:
    table = {
        "image": [np.full((8, 8), n, np.uint8) for n in range(4)],
        "label": ["sad", "happy", "sad", "happy"],
        "age": [31, None, 5, 7],
        "subject_id": ["a", "a", "b", "b"],
    }
    with pytest.warns(UserWarning, match="set subject='subject_id'"):
        memory = in_memory(table, name="mine")
    items = list(memory.read(ReadOptions()))
    found = [item.groups for item in items if isinstance(item, Record)]
    assert found[0] == {"age": "31", "subject_id": "a"}
    assert found[1] == {"subject_id": "a"}
    assert Remark("not used, kept as groups: age, subject_id") in items
    taken = list(in_memory(table, name="mine", subject="subject_id").read(ReadOptions()))
    assert [item.groups for item in taken if isinstance(item, Record)][0] == {"age": "31"}


def test_a_column_of_names_beside_numbers_says_what_these_mean(tmp_path: Path) -> None:
    """Elsewhere they would be in FER2013's order, against the names in the next column."""
    order = sorted(FER7)
    raw = empty(tmp_path, *(f"{n}.png" for n in range(14)))
    lines = [f"{n}.png,{n % 7},{order[n % 7] if n else ''},{order[n % 5]}" for n in range(14)]

    def written(*columns: int) -> Path:
        kept = [[line.split(",")[at] for at in (0, 1, *columns)] for line in lines]
        names = [["path", "label", "emotion", "guess"][at] for at in (0, 1, *columns)]
        return text(raw / "faces.csv", "\n".join(map(",".join, [names, *kept])))

    labels, told = read(written(2, 3))
    assert [*labels.values()] == order * 2
    assert "the numbers mean what the column emotion says: 0 angry, 1 disgust, 2 fear" in told[0]
    assert read(written(2), labels={"angry": "cross"})[0]["7.png"] == "cross"
    assert [*read(written(3), order="fer2013")[0].values()] == [*FER7] * 2
    with pytest.raises(
        CrossferError, match=r"(?s)column guess .* --column label=guess, or --order"
    ):
        read(written(3))
    table: dict[str, list[Any]] = {
        "image": [np.full((8, 8), n, np.uint8) for n in range(14)],
        "label": [n % 7 for n in range(14)],
        "emotion": order * 2,
    }
    items = in_memory(table, name="mine").read(ReadOptions())
    assert [item.label for item in items if isinstance(item, Record)] == order * 2


NAMES = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "the numbers mean what the column name says"),
        ({(0, "name"): "n/a"}, "the numbers mean what the column name says"),
        ({(0, "name"): "hapy"}, "for 0 it is angry and hapy"),
        ({(row, "name"): "bored" for row in (4, 11)}, "bored"),
        (
            {(row, "other"): NAMES[(row + 1) % 7] for row in range(14)},
            "columns name and other name",
        ),
    ],
)
def test_a_column_of_names_is_believed_or_asked_about(
    change: dict[tuple[int, str], str], told: str
) -> None:
    rows = [{"label": str(row % 7), "name": NAMES[row % 7]} for row in range(14)]
    for (row, column), name in change.items():
        rows[row][column] = name
    beside = [(row["label"], {k: v for k, v in row.items() if k != "label"}) for row in rows]
    if "for" in told or "columns" in told:
        with pytest.raises(CrossferError, match=told):
            told_beside(beside, ReadOptions())
    else:
        known, said = told_beside(beside, ReadOptions())
        assert told in said
        assert known.labels["5"] == "sad", "FER2013's 5 is surprise"


def test_one_label_is_translated_in_all_its_spellings() -> None:
    options, _ = understood(
        ["Very_bored", "very bored", "happy"], ReadOptions({"very_bored": None})
    )
    assert [label_of(x, options.labels) for x in ("Very_bored", "very bored")] == [None, None]


@pytest.mark.parametrize("translate", [int, torch.tensor])
def test_a_transform_that_changes_no_number_keeps_the_names(translate: Any) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (14, 48, 48), dtype=np.uint8)

    class Folder:
        classes, targets = NAMES, [row % 7 for row in range(14)]
        target_transform = staticmethod(translate)

        def __len__(self) -> int:
            return 14

        def __getitem__(self, row: int) -> Any:
            return pictures[row], self.target_transform(self.targets[row])

    def labels(data: Any) -> list[str]:
        found = in_memory(data, name="x").read(ReadOptions())
        return [one.label for one in found if isinstance(one, Record)]

    assert labels(Folder()) == NAMES * 2

    class Turned(Folder):
        target_transform = staticmethod(lambda number: 6 - number)

    with pytest.raises(CrossferError, match="its numbers are not those of its classes"):
        labels(Turned())

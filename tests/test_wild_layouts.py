"""Folders and tables as other people keep them: read, and said how in a line, or refused with a way on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
import zipfile
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from crossfer.cli.remarks import remarks
from crossfer.datasets import Dataset, Preparation, in_memory, pictures, prepare
from crossfer.datasets.faces import face_of
from crossfer.datasets.pictures import open_picture
from crossfer.datasets.record import ReadOptions, Record
from crossfer.datasets.union import unite
from crossfer.errors import CrossferError
from crossfer.framing import Framing
from tests.raw_files import many, noise, picture, pixels_row, text

CLASSES = ("sad", "happy")


def made(raw: Path, **options: Any) -> Dataset:
    """Prepare beside the raw files."""
    out = raw.parent / f"out of {raw.name}"
    return prepare(raw, out, Preparation(**options), replace=True, new_split=True)


def rows(dataset: Dataset, *columns: str) -> dict[str, Any]:
    """Return columns of the sample table, by where each picture came from."""
    table = dataset.samples.to_pydict()
    found = (table[name] for name in columns)
    values = list(zip(*found, strict=True)) if len(columns) > 1 else table[columns[0]]
    return dict(zip(table["origin"], values, strict=True))


def said(dataset: Dataset) -> str:
    return "\n".join(dataset.card["remarks"])


# Splits


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train_Aligned_Faces", "Val_Aligned_Faces", "Test_Aligned_Faces"),
        ("train_set", "val_set", "test_data"),
        ("train_afew", "val_afew", "test_afew"),
        ("Training", "PublicTest", "PrivateTest"),
        ("training", "valid", "holdout"),
        ("train", "dev", "eval"),
        ("train", "eval", "test"),
        ("FER2013Train", "FER2013Valid", "FER2013Test"),
        ("trainset", "valset", "testset"),
    ],
)
def test_folders_named_like_splits_are_splits(
    train: str, val: str, test: str, tmp_path: Path
) -> None:
    names = {train: "training", val: "validation", test: "test"}
    many(
        tmp_path / "raw",
        *(f"{top}/{c}/{n}.png" for top in names for c in ("Angry", "Happy") for n in (1, 2)),
    )
    dataset = made(tmp_path / "raw")
    found = rows(dataset, "split")
    assert found == {origin: names[origin.split("/")[0]] for origin in found}
    assert len(found) == 12
    if train == "train_set":
        assert "train_set = training" in said(dataset)


@pytest.mark.parametrize("reader", ["ck48", "jaffe"])
def test_a_known_dataset_in_folders_of_splits_keeps_them(reader: str, tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    for number, part in enumerate(parts):
        happy = number % 2
        name = f"{['angry', 'happy'][happy]}/S{number:03d}_001_{number:08d}.png"
        if reader == "jaffe":
            name = f"K{'ABCDEFGHIJKLMNOPQRSTUVWX'[number]}.{['AN', 'HA'][happy]}1.{number}.tiff"
        picture(raw / part / name, number)
    dataset = made(raw, faces="cropped")
    assert dataset.card["reader"] == reader and dataset.card["split"]["how"] == "official"
    assert Counter(rows(dataset, "split").values()) == {"training": 12, "validation": 6, "test": 6}
    other = made(raw, faces="cropped", splits={"val": "test"})
    assert Counter(rows(other, "split").values())["test"] == 12
    anew = made(raw, faces="cropped", ignore_splits=True)
    assert anew.card["split"]["how"] != "official"
    picture(raw / "elsewhere" / ("happy" if reader == "ck48" else ".") / parts_name(reader), 99)
    with pytest.raises(CrossferError, match="1 of 25 images have no split"):
        made(raw, faces="cropped")


def parts_name(reader: str) -> str:
    return "S999_001_00000099.png" if reader == "ck48" else "ZZ.HA1.99.tiff"


def test_folders_of_people_of_whom_most_show_one_class_are_named(tmp_path: Path) -> None:
    for number in range(60):
        picture(
            tmp_path
            / "raw"
            / ["happy", "sad"][number % 2]
            / f"S{number // 2 % 23:03d}_{number % 2}"
            / "1.png",
            number,
        )
    assert (
        "(S000_0, S000_1, S001_0, …) are not read as subjects; if they are, add --subject"
        in said(made(tmp_path / "raw", faces="cropped"))
    )


def test_what_is_only_partly_a_split_is_refused_with_the_remedy(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", "train/sad/1.png", "test/sad/2.png", "extra/sad/3.png")
    with pytest.raises(
        CrossferError, match=r"1 of 3 images have no split \(first: extra/sad.*--split"
    ):
        made(raw)
    assert rows(made(raw, splits={"extra": "training"}), "split")["extra/sad/3.png"] != "test"
    with pytest.raises(CrossferError, match="--split more: no such folder or value"):
        made(raw, splits={"more": "test"})
    lone = many(tmp_path / "lone", *(f"my_test/sad/{n}.png" for n in range(10)))
    dataset = made(lone)
    assert set(rows(dataset, "split").values()) == {"training", "validation", "test"}
    assert "my_test contains everything" in said(dataset)


def test_a_test_set_is_cut_where_the_files_have_none(tmp_path: Path) -> None:
    raw = many(
        tmp_path / "raw",
        *(f"train/{c}/{n}.png" for c in ("sad", "happy") for n in range(20)),
        *(f"val/{c}/{n + 50}.png" for c in ("sad", "happy") for n in range(5)),
    )
    assert Counter(rows(made(raw), "split").values()) == {"training": 40, "validation": 10}
    cut = Counter(rows(made(raw, test_share=0.25), "split").values())
    assert cut == {"training": 30, "validation": 10, "test": 10}
    assert rows(made(raw, splits={"val": "test"}), "split")["val/sad/50.png"] == "test"
    anew = Counter(rows(made(raw, ignore_splits=True, sizes=(30, 10, 10)), "split").values())
    assert anew == {"training": 30, "validation": 10, "test": 10}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (dict(sizes=(70, 10, 20)), "--sizes: the files have splits"),
        (dict(exact=True), "--exact: the files have splits"),
        (dict(test_share=0.2), "--test-share: the files have splits"),
        (dict(subject=r"/person(\d+)_"), "matches no path"),
        (dict(everything=True), "--everything has no effect on a dataset read as folder"),
        (dict(columns={"label": "emotion"}, reader="folder"), "--column has no effect"),
        (dict(root=Path("x"), reader="folder"), "--root has no effect"),
        (dict(eyes=(0.3, 0.5)), "--eyes has no effect"),
        (dict(no_face="drop"), "--no-face has no effect"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    raw = many(tmp_path / "raw", *(f"{s}/sad/{n}.png" for s in ("train", "test") for n in range(2)))
    with pytest.raises(CrossferError, match=problem):
        made(raw, **options)


def test_options_of_a_dataset_that_knows_better_are_refused(tmp_path: Path) -> None:
    raw = many(
        tmp_path / "raw", *(f"KA.{c}{n}.{n}.tiff" for c in ("AN", "HA") for n in range(1, 4))
    )
    with pytest.raises(CrossferError, match="--subject has no effect on a dataset read as jaffe"):
        made(raw, subject="([A-Z]+)", faces="cropped")
    with pytest.raises(CrossferError, match="no_face has no effect with faces: cropped"):
        Preparation(faces="cropped", no_face="drop")
    fer = text(
        tmp_path / "fer.csv",
        "emotion,pixels,Usage\n"
        + "".join(
            f"{n % 7},{pixels_row(n)},{('Training', 'PublicTest', 'PrivateTest')[n % 3]}\n"
            for n in range(9)
        ),
    )
    with pytest.raises(CrossferError, match="--seed: the files have splits"):
        made(fer, seed=3)
    loose = many(tmp_path / "loose", *(f"sad/{n}.png" for n in range(9)))
    with pytest.raises(CrossferError, match="--ignore-splits: the files have no splits"):
        made(loose, ignore_splits=True)


def test_a_label_translated_in_vain_is_refused(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"{c}/{n}.png" for c in ("Gioia", "sad") for n in range(4)))
    with pytest.raises(CrossferError, match="--label joyful: no such label"):
        made(raw, labels={"gioia": "happy", "joyful": "happy"})
    assert set(rows(made(raw, labels={"gioia": "happy"}), "label").values()) == {"happy", "sad"}
    women = many(tmp_path / "women", *(f"KA.AN{n}.{n}.tiff" for n in range(1, 4)))
    with pytest.raises(CrossferError, match="--label joyful: no such label; the labels are angry"):
        made(women, labels={"joyful": "happy"})


def test_a_seed_that_draws_nothing_is_refused(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"{s}/sad/{n}.png" for s in ("train", "val") for n in range(9)))
    with pytest.raises(CrossferError, match="--seed: .* so nothing is random"):
        made(raw, seed=3)
    assert "test" in rows(made(raw, seed=3, test_share=0.3), "split").values()


def test_folders_that_begin_like_splits_are_no_people_and_not_guessed(tmp_path: Path) -> None:
    names = [f"{s}/sad/{n}.png" for s in ("trainingsdaten", "testdaten") for n in range(5)]
    raw = many(tmp_path / "raw", *names)
    with pytest.raises(CrossferError, match="testdaten.*: may be a split; .*--split testdaten="):
        made(raw)
    told = made(raw, splits={"trainingsdaten": "training", "testdaten": "test"})
    assert set(rows(told, "split")) == set(names)
    assert "testdaten = test, trainingsdaten = training" in said(told)


def test_an_empty_set_comes_with_options_that_its_files_take(tmp_path: Path) -> None:
    folders = made(many(tmp_path / "a", *(f"train/sad/{n}.png" for n in range(30))))
    (line,) = (line for line in remarks(folders) if "empty" in line)
    assert "its test set is empty: the files have none (--test-share 0.2 takes" in line
    assert "--split NAME=test" in line
    few = made(many(tmp_path / "b", *(f"{s}/sad/{s}.png" for s in ("train", "test"))))
    assert any("validation set is empty: too few" in line for line in remarks(few))
    lone = made(many(tmp_path / "c", "sad/1.png", "happy/2.png"))
    assert any("validation set is empty: too few" in line for line in remarks(lone))
    kept = many(tmp_path / "d", *(f"sad/{n}.png" for n in range(9)), "unlabelled/1.png")
    tested = remarks(made(kept, sizes=(0, 20, 80)))
    assert "its training set is empty, as asked for" in tested
    pixels = "".join(f"{n % 7},{pixels_row(n)},Training\n" for n in range(30))
    table = made(text(tmp_path / "fer.csv", f"emotion,pixels,Usage\n{pixels}"))
    (line,) = (line for line in remarks(table) if "test set is empty" in line)
    assert "--test-share" in line and "--split" not in line


def test_an_archive_beside_a_lone_picture_is_named(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", "loose.png")
    (raw / "faces.zip").write_bytes(b"PK")
    with pytest.raises(CrossferError, match="found 1 archives; 1 pictures; .*unpack them"):
        made(raw)


def test_datasets_with_different_groups_are_used_as_one(tmp_path: Path) -> None:
    parts = []
    for number, column in enumerate(("age", "site")):
        raw = many(tmp_path / column, "1.png", "2.png")
        picture(raw / "1.png", 7 + number)
        text(raw / "faces.csv", f"path,label,{column}\n1.png,sad,x\n2.png,happy,y\n")
        parts.append(made(raw).called(column))
    both = unite(parts).samples
    assert both.column("group.age").to_pylist() == ["x", "y", None, None]
    assert both.column("group.site").to_pylist() == [None, None, "x", "y"]
    assert both.column("origin").to_pylist()[2] == "site/1.png"


# People


@pytest.mark.parametrize(
    "place", ["{who}/{what}/{n}.png", "Strong/{who}/{what}/{n:03d}.png", "{what}/{who}/{n}.png"]
)
def test_folders_of_people_are_subjects(place: str, tmp_path: Path) -> None:
    files = [
        place.format(who=f"P{who:03d}", what=what, n=n)
        for who in range(10)
        for what in ("Anger", "Happiness")
        for n in range(3)
    ]
    dataset = made(many(tmp_path / "raw", *files))
    assert dataset.card["split"]["how"] == "subject-disjoint"
    assert set(dataset.subjects) == {f"P{who:03d}" for who in range(10)}
    assert "subjects: the 10 folders" in said(dataset)
    assert set(made(tmp_path / "raw", subject="").subjects) == {None}


def test_a_class_may_repeat_the_name_of_the_person(tmp_path: Path) -> None:
    raw = many(
        tmp_path / "raw",
        *(
            f"{w}/{w}_{e}/{n}.png"
            for w in ("aia", "mery")
            for e in ("anger", "joy")
            for n in range(3)
        ),
    )
    dataset = made(raw)
    assert Counter(rows(dataset, "label").values()) == {"angry": 6, "happy": 6}
    assert "(aia, mery) are not read as subjects" in said(dataset)


def test_two_collections_are_no_people_but_said(tmp_path: Path) -> None:
    raw = many(
        tmp_path / "raw",
        *(f"{c}/{e}/{n}.png" for c in ("CK", "JAFFE") for e in ("sad", "fear") for n in range(5)),
    )
    dataset = made(raw)
    assert set(dataset.subjects) == {None}
    assert "(CK, JAFFE) are not read as subjects" in said(dataset) and "'^([^/]+)/'" in said(
        dataset
    )


def test_frames_of_one_sequence_on_both_sides_are_called_out(tmp_path: Path) -> None:
    from tests.test_duplicates import drawn

    for person in range(6):
        face = drawn(person).astype(int)
        for n in range(5):
            file = tmp_path / "raw" / ("sad" if person % 2 else "happy") / f"{person}_{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((face + n).clip(0, 255).astype(np.uint8)).save(file)
    found = made(tmp_path / "raw").card["split"]["copies"]
    assert found["test"]["images"] >= 1
    assert made(tmp_path / "raw", subject=r"(\d)_\d\.png").card["split"]["copies"] == {}


# Tables


def table(file: Path, names: str, lines: list[str]) -> Path:
    return text(file, "\n".join([names, *lines]) + "\n")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("image,emotion,subject_id,Usage,age", "{p},{c},{s},{u},{a}"),
        ("pth;label;person;set;age", "{p};{c};{s};{u};{a}"),
        ("file_name\texpression\tactor\tsubset\tage", "{p}\t{c}\t{s}\t{u}\t{a}"),
        ("Image Path,Class,Identity,Partition,age", "{p},{c},{s},{u},{a}"),
        ("Photo,Emotion,Participant No.,Split,age", "{p},{c},{s},{u},{a}"),
    ],
)
def test_usual_names_of_columns_are_taken_and_said(names: str, line: str, tmp_path: Path) -> None:
    usages = ("Training", "PublicTest", "PrivateTest")
    lines = []
    for n in range(12):
        picture(tmp_path / "raw" / "images" / f"{n}.png", n)
        what = {
            "p": f"images\\{n}.png",
            "c": ("Joy", "sad")[n % 2],
            "s": n % 3,
            "u": usages[n % 3],
            "a": 20 + n,
        }
        lines.append(line.format(**what))
    file = table(tmp_path / "raw" / "faces.csv", names, lines)
    for raw in (file, tmp_path / "raw"):
        dataset = made(raw)
        found = rows(dataset, "label", "subject", "split", "group.age")
        assert found["images/4.png"] == ("happy", "1", "validation", "24")
        assert found["images/5.png"] == ("sad", "2", "test", "25")
        assert "not used, kept as groups: age" in said(dataset)
        assert dataset.samples["group.age"].to_pylist()[:2] == ["20", "21"]


def test_a_table_beside_pictures_that_a_known_dataset_names_is_not_passed_over(
    tmp_path: Path,
) -> None:
    """The table's labels may be other than the folders'; or the pictures lie in no class folders."""
    names = [f"S{n:03d}_001_00000010.png" for n in range(8)]
    raw = many(tmp_path / "raw", *(f"{('sad', 'happy')[n % 2]}/{n_}" for n, n_ in enumerate(names)))
    table(raw / "labels.csv", "path,label", [f"{name},fear" for name in names])
    with pytest.raises(CrossferError, match="labels.csv lists its .*--as ck48 or --as manifest"):
        made(raw)
    assert set(rows(made(raw, reader="manifest"), "label").values()) == {"fear"}
    assert set(rows(made(raw, reader="ck48"), "label").values()) == {"sad", "happy"}


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_begin_at_one_are_asked_about(first: int, tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"{first + n % 6}/{n}.png" for n in range(24)))
    assert ("if yours begin at 1" in said(made(raw, order="alphabetical"))) == (first == 1)


def test_a_table_of_labels_is_called_like_its_folder(tmp_path: Path) -> None:
    for folder in ("faces of June", "photos-labels"):
        raw = many(tmp_path / folder, *(f"{n}.png" for n in range(8)))
        listed = [f"{n}.png,{('sad', 'happy')[n % 2]}" for n in range(8)]
        file = table(raw / "labels.csv", "path,label", listed)
        assert made(file).name == folder.removesuffix("-labels")
        file.rename(raw / "mood.csv")
        assert made(raw / "mood.csv").name == "mood"


def test_a_name_that_several_folders_have_is_not_said_to_be_missing(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"cam{n % 2}/{n // 2}.png" for n in range(8)))
    rows = [f"{n}.png,{('sad', 'happy')[n % 2]}" for n in range(4)]
    file = table(raw / "labels.csv", "path,label", rows)
    with pytest.raises(CrossferError, match=r"\(0.png: it is in cam0 and cam1: name the folder in"):
        made(file)


def test_a_picture_whose_row_is_not_used_is_named_once_and_for_its_reason(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"img/{n}.png" for n in range(6)))
    rows = [f"img/{n}.png,{('sad', 'happy')[n % 2]}" for n in range(4)]
    table(raw / "labels.csv", "path,label", [*rows, "img/4.png,", "img/5.png,unknown"])
    dataset = made(raw)
    with (dataset.folder / "skipped.csv").open(newline="") as file:
        skipped = [(row["origin"], row["reason"]) for row in csv.DictReader(file)]
    assert [origin for origin, _ in skipped] == ["labels.csv row 6", "labels.csv row 7"]
    assert skipped[0][1] == "path or label is empty"


def test_an_unknown_split_or_two_labels_columns_are_asked_about(tmp_path: Path) -> None:
    many(tmp_path, "a.png", "b.png")
    file = table(tmp_path / "t.csv", "path,label,set", ["a.png,sad,1", "b.png,sad,later"])
    with pytest.raises(
        CrossferError, match=r"unknown split '1', 'later' in the column set: map.*--split"
    ):
        made(file)
    assert set(rows(made(file, splits={"1": "training", "later": "test"}), "split").values()) >= {
        "test"
    }
    assert made(file, columns={"split": ""}).card["images"] == 2
    both = table(
        tmp_path / "b.csv", "path,emotion,expression", ["a.png,sad,happy", "b.png,sad,fear"]
    )
    with pytest.raises(CrossferError, match="emotion and expression could both be the label"):
        made(both)
    assert rows(made(both, columns={"label": "expression"}), "label") == {
        "a.png": "happy",
        "b.png": "fear",
    }
    with pytest.raises(CrossferError, match="no column 'mood' for label"):
        made(both, columns={"label": "mood"})
    odd = table(tmp_path / "odd.csv", "where,mood", ["a.png,sad", "b.png,fear"])
    with pytest.raises(CrossferError, match="columns where, mood; name yours with --column path"):
        made(odd)
    (tmp_path / "sub").mkdir()
    moved = table(tmp_path / "sub" / "odd.csv", "where,mood", ["a.png,sad", "b.png,fear"])
    own = {"path": "where", "label": "mood"}
    assert made(moved, columns=own, root=tmp_path).card["images"] == 2


def test_splits_in_the_paths_of_a_table_count_too(tmp_path: Path) -> None:
    names = [f"{part}/{n}.png" for part in ("train", "test") for n in range(4)]
    raw = many(tmp_path / "raw", *names)
    table(raw / "labels.csv", "image,emotion", [f"{name},sad" for name in names])
    found = rows(made(raw), "split")
    assert {found[name] for name in names[4:]} == {"test"} and "test" not in map(
        found.get, names[:4]
    )


def test_moved_and_converted_pictures_are_found_but_never_another_one(tmp_path: Path) -> None:
    many(tmp_path, "faces/happy/1.png", "faces/happy/2.png", "faces/sad/2.png", "faces/sad/4.png")
    lines = [
        "C:\\x\\happy\\1.bmp,happy",
        "/home/me/happy/2.jpg,happy",
        "sad/2.png,sad",
        "sad/1.png,sad",
    ]
    dataset = made(table(tmp_path / "t.csv", "path,label", lines))
    assert [len(dataset.images), dataset.card["skipped"]] == [3, {"no such file": 1}]
    assert [int(np.abs(noise(n).astype(int) - dataset.images[n]).max()) for n in range(3)] == [
        0
    ] * 3


def test_every_option_of_preparing_can_be_given_on_the_command_line() -> None:
    from dataclasses import fields
    from inspect import signature

    from crossfer.cli.faces import prepare as command

    called = {"labels": "label", "columns": "column", "splits": "split", "channels": "colour"}
    own = {called.get(field.name, field.name) for field in fields(Preparation)}
    assert own <= set(signature(command).parameters)


def test_one_picture_with_two_labels_is_in_nobody_s_set(tmp_path: Path) -> None:
    many(tmp_path, "a.png", "b.png", "c.png", "d.png")
    lines = ["a.png,happy", "a.png,sad", "b.png,sad", "b.png,sad", "c.png,fear", "d.png,fear"]
    dataset = made(table(tmp_path / "t.csv", "path,label", lines))
    assert dataset.card["skipped"] == {"two labels for one picture": 2, "listed more than once": 1}
    assert set(rows(dataset, "label")) == {"b.png", "c.png", "d.png"}
    assert "warning: 2 rows give a picture another label" in said(dataset)


@pytest.mark.parametrize(
    ("names", "first", "second"),
    [
        ("xmin,ymin,xmax,ymax", "0,0,48,48", "48,48,96,96"),
        ("left,top,right,bottom", "0,0,48,48", "48,48,96,96"),
        ("x1,y1,x2,y2", "0,0,0.5,0.5", "0.5,0.5,1,1"),
        ("left,top,width,height", "0,0,48,48", "48,48,48,48"),
        ("x,y,w,h", "0,0,0.5,0.5", "0.5,0.5,0.5,0.5"),
        ("x_center,y_center,width,height", "0.25,0.25,0.5,0.5", "0.75,0.75,0.5,0.5"),
        ("width,height,xmin,ymin,xmax,ymax", "96,96,0,0,48,48", "96,96,48,48,96,96"),
    ],
)
def test_every_face_of_a_picture_is_read_by_its_box(
    names: str, first: str, second: str, tmp_path: Path
) -> None:
    picture(tmp_path / "a.png", 7, side=96)
    file = table(
        tmp_path / "t.csv", f"path,label,{names}", [f"a.png,sad,{first}", f"a.png,joy,{second}"]
    )
    dataset = made(file)
    whole = noise(7, 96)
    assert len(dataset.images) == 2
    assert np.array_equal(dataset.images[0], whole[:48, :48])
    assert np.array_equal(dataset.images[1], whole[48:, 48:])
    with pytest.raises(CrossferError, match="box, so --crop has no effect"):
        made(file, crop=0.5)


def test_a_table_beside_folders_of_classes_is_read_or_named(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"anger/image{n}.jpg" for n in range(3)), "joy/image3.jpg")
    lines = [
        "0,anger/image0.jpg,surprise,0.9",
        "1,anger/image1.jpg,anger,1",
        "2,anger/image2.jpg,anger,1",
    ]
    table(raw / "labels.csv", ",pth,label,relFCs", lines)
    dataset = made(raw)  # not all of the pictures are in it
    assert dataset.card["reader"] == "folder" and set(rows(dataset, "label").values()) == {
        "angry",
        "happy",
    }
    assert "labels.csv: not used (columns pth, label, relfcs)" in said(dataset)
    assert "it contradicts the folders for 1 of 3 pictures (first: anger/image0.jpg)" in said(
        dataset
    )
    table(raw / "labels.csv", ",pth,label,relFCs", [*lines, "3,joy/image3.jpg,joy,1"])
    dataset = made(raw)
    assert rows(dataset, "label")["anger/image0.jpg"] == "surprise"
    assert "table and folders disagree for 1 pictures (first: anger/image0.jpg)" in said(dataset)
    assert rows(made(raw, reader="folder"), "label")["anger/image0.jpg"] == "angry"


def test_any_table_with_affectnet_s_columns_has_its_numbers_and_boxes(tmp_path: Path) -> None:
    names = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence"
    for n in range(3):
        picture(tmp_path / "raw" / "images" / "1" / f"{n}.jpg", n, side=96)
    lines = [f"1/{n}.jpg,48,48,48,48,1;2,{code},0" for n, code in enumerate((0, 6, 7))]
    file = table(tmp_path / "raw" / "automatically_annotated.csv", names, lines)
    for raw in (tmp_path / "raw", file):
        dataset = made(raw)
        assert dataset.card["reader"] == "affectnet"
        assert [*rows(dataset, "label").values()] == ["neutral", "angry", "contempt"]
        assert np.array_equal(dataset.images[1], noise(1, 96)[48:, 48:])


def test_columns_of_affectnet_s_tables_that_are_not_used_are_told(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"1/{n}.png" for n in range(4)))
    names = "subDirectory_filePath,expression,gender,subject,usage"
    lines = [
        f"1/{n}.png,{(6, 1)[n % 2]},f,p{n},{'test' if n > 2 else 'training'}" for n in range(4)
    ]
    file = table(raw / "faces.csv", names, lines)
    with pytest.raises(CrossferError, match=r"usage, subject would .* --as manifest --order affe"):
        made(raw)
    dataset = made(raw, reader="manifest", order="affectnet")
    assert rows(dataset, "label", "subject", "split")["1/3.png"] == ("happy", "p3", "test")
    table(file, names.removesuffix(",subject,usage"), [",".join(x.split(",")[:3]) for x in lines])
    assert "faces.csv: not used: gender" in said(made(raw))


def test_fer_plus_names_its_pictures_in_folders(tmp_path: Path) -> None:
    raw = many(
        tmp_path / "raw", "images/FER2013Train/fer0000000.png", "images/FER2013Test/fer0000002.png"
    )
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF,age"
    lines = [
        "Training,fer0000000.png,0,9,1,0,0,0,0,0,0,0,30",
        "PublicTest,fer0000001.png,9,0,0,0,0,0,0,0,0,0,30",
        "PrivateTest,fer0000002.png,0,0,0,9,0,0,0,0,0,0,30",
    ]
    table(raw / "fer2013new.csv", header, lines)
    dataset = made(raw)
    assert "fer2013new.csv: not used: age" in said(dataset)
    assert dataset.card["reader"] == "ferplus" and dataset.card["skipped"] == {"no such file": 1}
    assert [*rows(dataset, "label", "split").values()] == [("happy", "training"), ("sad", "test")]


# Files


def test_every_file_that_is_not_taken_is_listed(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"happy/{n}.png" for n in range(3)), "happy/a1b2c0", "stray.png")
    text(raw / "happy" / "clip.avi", "x")
    text(raw / "README", "hello")
    text(raw / "Thumbs.db", "x")
    (raw / "happy" / "unknown").write_bytes(bytes(10))
    dataset = made(raw)
    assert set(rows(dataset, "label")) == {*(f"happy/{n}.png" for n in range(3)), "happy/a1b2c0"}
    lines = (dataset.folder / "skipped.csv").read_text().splitlines()[1:]
    assert sorted(line.split(",")[0] for line in lines) == [
        *("README", "happy/clip.avi", "happy/unknown", "stray.png")
    ]


def test_zips_gz_and_tables_without_a_suffix_are_opened(tmp_path: Path) -> None:
    content = "emotion,pixels\n" + "".join(f"{n % 7},{pixels_row(n)}\n" for n in range(14))
    plain = text(tmp_path / "fer2013", content)
    packed = tmp_path / "train.csv.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    for raw in (plain, packed):
        dataset = made(raw)
        assert dataset.card["reader"] == "fer2013" and len(dataset.images) == 14
        assert "no column Usage" in said(dataset)
    pictures = many(tmp_path / "pictures", *(f"train/sad/{n}.png" for n in range(5)))
    many(pictures, *(f"test/sad/{n + 9}.png" for n in range(5)))
    folder = tmp_path / "zips"
    folder.mkdir()
    for part in ("train", "test"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as file:
            for picture in (pictures / part).rglob("*.png"):
                file.write(picture, picture.relative_to(pictures / part))
    text(folder / "more" / "deep.zip", "no archive")
    assert Counter(rows(made(folder), "split").values())["test"] == 5
    left = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.zip"))
    assert left == ["more/deep.zip", "test.zip", "train.zip"]  # the user's own stay as they are
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        for part in ("train", "test"):
            file.write(folder / f"{part}.zip", f"{part}.zip")
    assert len(made(tmp_path / "outer.zip").images) == 10


def test_label_files_of_yolo_are_read_with_their_boxes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    text(raw / "data.yaml", "names: [Anger, Contempt, happy]\nnc: 3\n")
    for part, number in (("train", 1), ("train", 2), ("valid", 3), ("test", 4)):
        picture(raw / part / "images" / f"{number}.jpg", number, side=96)
        text(raw / part / "labels" / f"{number}.txt", "0 0.25 0.25 0.5 0.5\n2 0.75 0.75 0.5 0.5\n")
    dataset = made(raw)
    assert dataset.card["reader"] == "yolo"
    assert rows(dataset, "label", "split")["train/images/1.jpg face 2"] == ("happy", "training")
    assert np.array_equal(
        dataset.images[rows_index(dataset, "train/images/1.jpg")], noise(1, 96)[:48, :48]
    )
    assert "0 = Anger, 1 = Contempt, 2 = happy" in said(dataset)


def rows_index(dataset: Dataset, origin: str) -> int:
    return int(dataset.samples.column("origin").to_pylist().index(origin))


def test_one_hot_tables_of_roboflow_and_metadata_of_hugging_face(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        many(tmp_path / "robo" / part, "a.jpg", "b.jpg")
        lines = ["a.jpg, 1, 0, 0", "b.jpg, 0, 0, 1"]
        table(tmp_path / "robo" / part / "_classes.csv", "filename, Angry, Disgust, Happy", lines)
        many(tmp_path / "hf" / part, "a.png", "b.png")
        told = [{"file_name": "a.png", "label": "sad"}, {"file_name": "b.png", "label": "joy"}]
        text(tmp_path / "hf" / part / "metadata.jsonl", "\n".join(map(json.dumps, told)))
    for name in ("robo", "hf"):
        found = [*rows(made(tmp_path / name), "label", "split").values()]
        assert len(found) == 6 and found.count(("happy", "validation")) == 1


def test_pictures_in_a_parquet_table_and_its_own_class_names(tmp_path: Path) -> None:
    def png(number: int) -> bytes:
        content = io.BytesIO()
        Image.fromarray(noise(number)).save(content, "PNG")
        return content.getvalue()

    names = {"info": {"features": {"label": {"names": ["happy", "sad"], "_type": "ClassLabel"}}}}
    for part, start in (("train", 0), ("test", 10)):
        data = pa.table(
            {
                "image": [{"bytes": png(start + n), "path": None} for n in range(6)],
                "label": [n % 2 for n in range(6)],
            }
        ).replace_schema_metadata({"huggingface": json.dumps(names)})
        (tmp_path / "hub").mkdir(exist_ok=True)
        pa.parquet.write_table(data, tmp_path / "hub" / f"{part}-00000-of-00001.parquet")
    dataset = made(tmp_path / "hub")
    assert len(dataset.images) == 12 and Counter(rows(dataset, "split").values())["test"] == 6
    assert np.array_equal(
        dataset.images[rows_index(dataset, "test-00000-of-00001.parquet row 2")], noise(11)
    )
    assert rows(dataset, "label")["test-00000-of-00001.parquet row 2"] == "sad"


def test_a_table_without_a_header_is_told_to_get_one(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "raw" / "pictures" / f"{number}.png", number)
    text(tmp_path / "raw" / "labels.csv", "0.png,happy\n1.png,sad\n2.png,sad\n3.png,happy\n")
    with pytest.raises(CrossferError, match="labels.csv begins with a picture, not with a header"):
        made(tmp_path / "raw")


def test_the_command_that_is_proposed_names_the_right_columns(tmp_path: Path) -> None:
    raw = many(tmp_path / "my raw", "a/b/1.png", "a/b/2.png")
    table(raw / "list.csv", "who,Emotion,picture", ["a,sad,no.png", "b,happy,no.png"])
    with pytest.raises(CrossferError) as error:
        made(raw)
    proposed = "list.csv' --column path=picture --column label=emotion [--root"
    assert proposed in str(error.value)


def test_an_unknown_layout_is_told_what_was_found(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", "images/a.png", "images/b.png")
    table(raw / "train.csv", "who,mood", ["a,1", "b,2"])
    with pytest.raises(CrossferError) as error:
        made(raw)
    for part in ("2 pictures", "images", "train.csv (who, mood)", "--column path=NAME"):
        assert part in str(error.value)


# Pictures


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_pictures_are_as_bright_as_they_were(bits: int, tmp_path: Path) -> None:
    gray = noise(3)
    deep = (gray.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.abs(open_picture(tmp_path / "a.png").astype(int) - gray).max() <= 1


HEIC = b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAaFtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAADRpbG9jAAAAAERAAAIAAQAAAAABxQABAAAAAAAAANkAAgAAAAACngABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVp"
    "bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA4GlwcnAAAADAaXBjbwAAAHho"
    "dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAA"
    "AwAAAwAeoDCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAA"
    "AAAAAABgAAAAQAAAABBwaXhpAAAAAAMICAgAAAAJaXJvdAMAAAAYaXBtYQAAAAAAAAABAAEFgQIDBIUAAAAaaXJlZgAAAAAA"
    "AAAOY2RzYwACAAEAAQAAAQVtZGF0AAAA1SgBrwngITl1X//8Nz///It3IfxhY0kEpPPo/yD/jUz//UyVdTLiFHTJrCYQrYYz"
    "2OfVPMqYxSYAES4wbNAl54uiJvHwAMXyycRTGOY9vVpiUCDgAV8UChO+2gxGtUdoAGxPttqEaWXUfSgmtf/5yUQH9Ei1f/J6"
    "8ylkAJv+8bX99Xuaro53qaVPvuuOXq6DzfGfvtVuwx/mIunc5YnxLZNQwiq8W9Vfbd27WT7wbv/zwDC1DNff+S/I91j4PuNG"
    "M53BcRmNTWzLI8xdrapufqu4/7SX+AAAAAZFeGlmAABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)
"""A picture of a telephone, 96 × 64, with the note that it was held upright: see the test."""


def test_pictures_of_telephones_are_read_upright_whatever_their_suffix(tmp_path: Path) -> None:
    for file in (tmp_path / "a.HEIC", tmp_path / "b.jpg"):
        file.write_bytes(HEIC)
        pixels = open_picture(file).astype(int)
        assert pixels.shape == (96, 64, 3)
        corners = pixels[[8, 8, -8, -8], [8, -8, 8, -8]]
        expected = [(30, 30, 230), (230, 30, 30), (240, 240, 240), (30, 230, 30)]
        assert np.abs(corners - expected).max() < 8


def test_what_reads_pictures_of_telephones_is_named_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_formats", lambda: ("JPEG",))
    (tmp_path / "a.HEIC").write_bytes(HEIC)
    for opened in (lambda: open_picture(tmp_path / "a.HEIC"), lambda: pictures.decoded(HEIC)):
        with pytest.raises(pictures.UnreadableImage, match=r"pip install 'crossfer\[heic\]'"):
            opened()


def test_a_photograph_that_stands_on_its_head_is_turned(tmp_path: Path) -> None:
    from crossfer import standins
    from crossfer.datasets.detector import Detector

    standins.write("jaffe", tmp_path / "jaffe", images=2)  # of the third it finds no face then
    detector = Detector()
    for file in sorted((tmp_path / "jaffe").glob("*.tiff")):
        upright = open_picture(file)
        one = face_of(upright, None, Framing(), detector, 0.8)
        other = face_of(np.ascontiguousarray(upright[::-1, ::-1]), None, Framing(), detector, 0.8)
        assert (one.found, other.found) == ("eyes", "turned")
        assert np.array_equal(one.image, other.image)


# In memory


def test_missing_values_pixel_texts_and_arrow_tables_in_memory() -> None:
    class NAType:  # as of pandas
        def __ne__(self, other: object) -> Any:
            return self

        def __bool__(self) -> bool:
            raise TypeError("boolean value of NA is ambiguous")

        __hash__ = None  # pyrefly: ignore[implicit-any-attribute]

    na: Any = NAType()
    data = {
        "image": [pixels_row(5), pixels_row(6), pixels_row(7)],
        "label": ["sad", na, "joy"],
        "who": ["a", "b", na],
    }
    items = list(in_memory(data, name="mine", subject="who").read(ReadOptions()))
    assert [getattr(item, "reason", None) for item in items] == [None, "no label", None]
    first, last = (item for item in items if isinstance(item, Record))
    assert (first.subject, last.subject) == ("a", None)
    assert open_picture(first.picture)[-1, -1] == 5
    arrow = pa.table({"image": [pixels_row(5)], "label": ["sad"]})
    (record,) = in_memory(arrow, name="arrow").read(ReadOptions())
    assert isinstance(record, Record) and open_picture(record.picture).shape == (48, 48)


def test_tables_of_pixels_named_like_splits_are_splits(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("valid", 8), ("test", 7)):
        lines = (f"{n % 7},{pixels_row(n + count)}\n" for n in range(count))
        text(tmp_path / "raw" / f"{part}.csv", "emotion,pixels\n" + "".join(lines))
    dataset = made(tmp_path / "raw")
    found = Counter(rows(dataset, "split").values())
    assert found == {"training": 20, "validation": 8, "test": 7}
    assert "train.csv: all of it is training" in said(dataset)
    (tmp_path / "raw" / "test.csv").rename(tmp_path / "raw" / "more.csv")
    with pytest.raises(CrossferError, match=r"more.csv, train.csv, valid.csv have no column Usage"):
        made(tmp_path / "raw")


def test_a_list_of_everything_beside_lists_of_splits_keeps_the_splits(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(12)))
    lines = [f"images/{n}.png,{('sad', 'happy')[n % 2]}\n" for n in range(12)]
    for name, listed in (("labels", lines), ("train", lines[:8]), ("test", lines[8:])):
        text(raw / f"{name}.csv", "path,label\n" + "".join(listed))
    found = rows(made(raw), "split")
    assert {n for n, split in found.items() if split == "test"} == {
        f"images/{n}.png" for n in range(8, 12)
    }


def test_a_quotation_mark_that_never_ends_swallows_no_rows(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(6)))
    lines = [f"images/{n}.png,sad,{chr(34) if n == 2 else ''}odd\n" for n in range(6)]
    table = text(raw / "labels.csv", "path,label,note\n" + "".join(lines))
    with pytest.raises(CrossferError, match=r"labels.csv: not a readable table"):
        made(table)


def test_lines_of_json_may_leave_out_what_they_have_not(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(8)))
    lines: list[dict[str, Any]] = [
        {"path": f"images/{n}.png", "label": ("sad", "happy")[n % 2]} for n in range(8)
    ]
    for n in range(1, 7):
        lines[n]["subject"] = f"p{n % 3}"
    del lines[5]["label"]
    table = text(raw / "labels.jsonl", "\n".join(map(json.dumps, lines)))
    found = rows(made(table), "subject")
    assert len(found) == 7 and set(found.values()) == {None, "p0", "p1", "p2"}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_column_that_is_there_twice_but_for_its_case_replaces_no_other(
    suffix: str, tmp_path: Path
) -> None:
    raw = many(tmp_path / "raw", "images/0.png", "images/1.png")
    lines = [
        {"path": f"images/{n}.png", "label": "sad", "Label": "happy", "subject": str(n)}
        for n in range(2)
    ]
    if suffix == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(lines), raw / "labels.parquet")
    elif suffix == "jsonl":
        text(raw / "labels.jsonl", "\n".join(map(json.dumps, lines)))
    else:
        table(raw / "labels.csv", ",".join(lines[0]), [",".join(line.values()) for line in lines])
    for place in (raw, raw / f"labels.{suffix}"):
        with pytest.raises(
            CrossferError, match=rf"labels.{suffix}.*: has the column 'label' twice"
        ):
            made(place)


def test_no_subjects_are_taken_from_a_table_where_none_are_wanted(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(8)))
    lines = [f"images/{n}.png,{('sad', 'happy')[n % 2]},p{n % 4}\n" for n in range(8)]
    table = text(raw / "labels.csv", "path,label,subject\n" + "".join(lines))
    assert len(set(rows(made(table), "subject").values())) == 4
    assert set(rows(made(table, subject=""), "subject").values()) == {None}


def test_an_archive_is_not_unpacked_into_the_folder_beside_it(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    own = text(raw / "Emotion" / "S001_corrected.txt", "3")
    with zipfile.ZipFile(raw / "Emotion.zip", "w") as file:
        file.writestr("S001_corrected.txt", "1")
        file.writestr("S999.txt", "1")
    with zipfile.ZipFile(raw / "images.zip", "w") as file:
        for n in range(6):
            file.write(picture(tmp_path / f"{n}.png", n), f"{('sad', 'happy')[n % 2]}/{n}.png")
    made(raw)
    assert own.read_text() == "3" and sorted(own.parent.iterdir()) == [own]


def test_a_stray_picture_does_not_put_everybody_into_several_splits(tmp_path: Path) -> None:
    names = [f"{('sad', 'happy')[n % 2]}/p{n // 4}/{n}.png" for n in range(24)]
    raw = many(tmp_path / "raw", *names, "happy/extra.png")
    dataset = made(raw)
    found = rows(dataset, "subject")
    assert found["happy/extra.png"] is None and found["sad/p0/0.png"] == "p0"
    assert "1 pictures have no subject (first: happy/extra.png)" in said(dataset)
    beside = many(tmp_path / "beside", *names[:8], *(f"sad/{n}.png" for n in range(24, 40)))
    assert set(rows(made(beside), "subject").values()) == {None}


def test_a_person_written_in_two_ways_is_one_and_no_word_for_nobody_is_a_person(
    tmp_path: Path,
) -> None:
    forms = [unicodedata.normalize("NFC", "Jörg"), unicodedata.normalize("NFD", "Jörg")]
    people = many(
        tmp_path / "p", *(f"{c}/{forms[c == 'sad']}{n}/{n}.png" for c in CLASSES for n in "12")
    )
    assert set(rows(made(people), "subject").values()) == {"Jörg1", "Jörg2"}
    written = [*forms, "4", "4.0", "nan", "N/A", "unknown", "?"]
    raw = many(tmp_path / "t", *(f"{n}.png" for n in range(8)))
    table = text(
        raw / "labels.csv",
        "path,label,subject\n"
        + "".join(f"{n}.png,{CLASSES[n % 2]},{who}\n" for n, who in enumerate(written)),
    )
    dataset = made(table)
    assert list(rows(dataset, "subject").values()) == ["Jörg", "Jörg", "4", "4", *[None] * 4]
    assert "4 pictures have no subject" in said(dataset)
    text(table, table.read_text().replace("N/A", "NA"))
    assert "1 pictures are of a subject NA" in said(made(table))
    text(table, "path,label,subject\n0.png,sad,NA\n1.png,happy,KA\n2.png,sad,NA\n")
    assert "NA" not in said(made(table))  # one of JAFFE's people
    images = [noise(n) for n in range(4)]
    memory = in_memory((images, [*CLASSES] * 2), name="m", subject=["4", 4.0, None, float("nan")])
    dataset = prepare(memory, tmp_path / "m", Preparation())
    assert list(rows(dataset, "subject").values()) == ["4", "4", None, None]
    assert "2 pictures have no subject" in said(dataset)


def test_what_several_rows_say_of_a_picture_does_not_depend_on_their_order(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"{n}.png" for n in range(8)))
    listed = [f"{n}.png,{CLASSES[n % 2]},p{n},train\n" for n in range(6)]
    listed += [
        "6.png,sad,,test\n",
        "7.png,happy,,val\n",
        "0.png,sad,,test\n",
        "1.png,happy,x,train\n",
    ]
    for number, order in enumerate((listed, listed[::-1])):
        table = text(raw / f"labels{number}.csv", "path,label,subject,split\n" + "".join(order))
        dataset = made(table)
        found = rows(dataset, "subject", "split")
        assert found.pop("0.png", None) or found.pop(f"0.png row {number}") == ("p0", "test")
        assert not any("1.png" in origin for origin in found) and len(found) == 6
        assert "1 pictures are listed in several splits (first: 0.png" in said(dataset)
        assert "2 rows give a picture another subject" in said(dataset)


def test_folders_of_another_split_than_the_names_of_their_pictures_are_told(tmp_path: Path) -> None:
    names = [
        f"{part}/{c}/Training_{n}.jpg" for n, part in enumerate(("train", "val")) for c in CLASSES
    ]
    popular = [f"test/{c}/PublicTest_9.jpg" for c in CLASSES]
    dataset = made(many(tmp_path / "raw", *names, *popular))
    assert "2 pictures are in folders of another split than their names say (first: val/" in said(
        dataset
    )
    assert "(--as folder uses the folders)" in said(dataset)


def test_a_picture_of_16_bits_with_a_transparent_level_is_as_bright_as_without(
    tmp_path: Path,
) -> None:
    levels = Image.fromarray(noise(1).astype(np.uint16) * 257)
    levels.save(tmp_path / "plain.png")
    levels.save(tmp_path / "transparent.png", transparency=5)
    assert Image.open(tmp_path / "transparent.png").has_transparency_data
    assert np.array_equal(open_picture(tmp_path / "transparent.png"), noise(1))
    assert np.array_equal(open_picture(tmp_path / "plain.png"), noise(1))


def test_a_table_of_windows_has_the_columns_that_its_user_reads(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"{n}.png" for n in range(4)))
    lines = "".join(f"{n}.png;{('Wut', 'Überraschung')[n % 2]};€\n" for n in range(4))
    (raw / "t.csv").write_bytes(f"Datei;Gefühl;Prüfer\n{lines}".encode("cp1252"))
    with pytest.raises(CrossferError, match="columns datei, gefühl, prüfer"):
        made(raw / "t.csv")
    for name in ("Gefühl", unicodedata.normalize("NFD", "Gefühl")):
        dataset = made(raw / "t.csv", columns={"path": "Datei", "label": name})
        assert set(rows(dataset, "label", "group.prüfer").values()) == {
            ("wut", "€"),
            ("überraschung", "€"),
        }


def test_composed_names_in_a_table_find_decomposed_ones_on_the_disk(tmp_path: Path) -> None:
    names = [f"Bilder/Müller{n}/{n}.png" for n in range(4)]
    raw = many(tmp_path / "raw", *(unicodedata.normalize("NFD", name) for name in names))
    text(
        raw / "t.csv",
        "path,label\n" + "".join(f"{n},{c}\n" for n, c in zip(names, CLASSES * 2, strict=True)),
    )
    assert len(rows(made(raw), "label")) == 4


def test_classes_may_be_marked_by_true_and_columns_that_may_be_classes_are_named(
    tmp_path: Path,
) -> None:
    raw = many(tmp_path / "raw", *(f"{n}.png" for n in range(6)))
    marks = ("True,False,False", "False,True,FALSE", "0.0,0,true")
    table = text(
        raw / "t.csv",
        "path,happy,sad,bored\n" + "".join(f"{n}.png,{marks[n % 3]}\n" for n in range(6)),
    )
    dataset = made(table)
    assert sorted(rows(dataset, "label").values()) == ["happy", "happy", "sad", "sad"]
    why = "no class is marked, but bored is; if that is a class, add --label bored=bored"
    assert dataset.card["skipped"] == {why: 2}
    assert len(made(table, labels={"bored": "bored"}).images) == 6


def test_a_packed_table_finds_the_pictures_beside_it(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(4)))
    lines = "".join(f"images/{n}.png,{CLASSES[n % 2]}\n" for n in range(4))
    with gzip.open(raw / "t.csv.gz", "wt") as file:
        file.write("path,label\n" + lines)
    assert len(made(raw / "t.csv.gz").images) == 4


def test_two_columns_that_could_be_the_label_are_told_wherever_the_table_is_left(
    tmp_path: Path,
) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(4)))
    lines = "".join(f"images/{n}.png,{CLASSES[n % 2]},{CLASSES[0]}\n" for n in range(4))
    text(raw / "t.csv", "path,emotion,expression\n" + lines)
    both = "emotion and expression could both be the label; choose with --column label=emotion"
    with pytest.raises(CrossferError, match=both):
        made(raw)
    assert len(made(raw, columns={"label": "emotion"}).images) == 4
    many(raw, *(f"images/{c}/{n}.png" for c in CLASSES for n in (5, 6)))
    for n in range(4):
        (raw / f"images/{n}.png").unlink()
    assert f"t.csv: not used ({both})" in said(made(raw))


def test_small_things_are_said_too(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"images/{n}.png" for n in range(4)), "images/new\nline.png")
    labels: list[Any] = [["very bored"], "very_bored", ["Very-Bored "], "awake"]
    lines = [
        json.dumps({"path": f"images/{n}.png", "label": label, "note": "x" * (199 + n)})
        for n, label in enumerate(labels)
    ]
    table = text(raw / "t.jsonl", "\n".join(lines))
    dataset = made(table)
    assert list(rows(dataset, "label").values()) == ["very bored"] * 3 + ["awake"]
    assert "note: 2 values of more than 200 characters are not kept" in said(dataset)
    assert list(rows(dataset, "group.note").values())[2:] == [None, None]
    whole = made(raw)
    assert "images/new\\nline.png" in (whole.folder / "skipped.csv").read_text()
    text(table, table.read_text().replace('["very bored"]', '["very bored", "sad"]'))
    with pytest.raises(CrossferError, match=r"t.jsonl row 1: \['very bored', 'sad'\] are several"):
        made(table)
    for name, why in (
        ("t.xlsx", "save a table as CSV or Parquet"),
        ("t.rar", "of a kind that is not"),
    ):
        with pytest.raises(CrossferError, match=f"{name}: unknown layout, .*{why}"):
            made(text(raw / name, "\0"))


def test_a_name_that_is_twice_in_an_archive_is_told(tmp_path: Path) -> None:
    raw = many(tmp_path / "raw", *(f"{CLASSES[n % 2]}/{n}.png" for n in range(4)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for n in range(4):
            file.write(raw / f"{CLASSES[n % 2]}/{n}.png", f"{CLASSES[n % 2]}/{n}.png")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.write(raw / "sad/2.png", "sad/0.png")
    dataset = made(tmp_path / "a.zip")
    assert dataset.card["skipped"] == {"in the archive twice; the last is used": 1}
    assert len(dataset.images) == 4

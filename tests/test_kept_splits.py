"""Preparing again keeps what was trained on out of what is measured on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

from crossfer.datasets import Dataset, Preparation, prepare
from crossfer.errors import CrossferError
from crossfer.experiment.config import check_experiment
from crossfer.experiment.opening import open_datasets
from crossfer.experiment.progress import Progress
from tests.raw_files import picture

CLASSES = ("angry", "happy", "sad")


def faces(top: Path, numbers: range, side: int = 48) -> None:
    """Write noise, one picture a number, in folders of classes; four pictures a person."""
    for number in numbers:
        picture(top / CLASSES[number % 3] / f"p{number // 4:02d}_{number:03d}.png", number, side)


def split_of(dataset: Dataset) -> dict[str, str]:
    """Return each face's split, by where it came from."""
    table = dataset.samples.to_pydict()
    return dict(zip(table["origin"], table["split"], strict=True))


@pytest.mark.parametrize("subject", [None, r"/(p\d+)_"])
def test_faces_that_were_there_keep_their_split_and_new_ones_join(
    subject: str | None, tmp_path: Path
) -> None:
    raw, out, how = tmp_path / "raw", tmp_path / "out", Preparation(subject=subject)
    faces(raw, range(200))
    before = split_of(prepare(raw, out, how))
    faces(raw, range(200, 250))
    dataset = prepare(raw, out, how, replace=True)
    after = split_of(dataset)
    assert {origin: after[origin] for origin in before} == before
    assert dataset.card["split"]["kept"]["faces"] == 200
    assert sum(dataset.card["split"]["kept"]["new"].values()) == 50
    reached = Counter(after.values())
    for split, share in (("training", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert abs(reached[split] - 250 * share) <= 4
    anew = split_of(prepare(raw, out, how, replace=True, new_split=True))
    assert {origin: anew[origin] for origin in before} != before
    assert anew == split_of(prepare(raw, tmp_path / "fresh", how))


def test_a_new_picture_of_a_known_person_goes_where_that_person_is(tmp_path: Path) -> None:
    raw, out, how = tmp_path / "raw", tmp_path / "out", Preparation(subject=r"/(p\d+)_")
    faces(raw, range(39))  # of p09 there are three
    before = split_of(prepare(raw, out, how))
    (home,) = {split for origin, split in before.items() if "p09" in origin}
    faces(raw, range(39, 40))
    assert split_of(prepare(raw, out, how, replace=True))["angry/p09_039.png"] == home


def test_a_kept_split_is_not_called_subject_disjoint_when_subjects_become_known(
    tmp_path: Path,
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    faces(raw, range(40))
    prepare(raw, out)
    how = Preparation(subject=r"/(p\d+)_")
    kept = prepare(raw, out, how, replace=True).card["split"]
    assert kept["subjects_in_several_splits"] > 0
    assert kept["how"] == "kept from before, not subject-disjoint"
    again = prepare(raw, out, how, replace=True, new_split=True).card["split"]
    assert (again["subjects_in_several_splits"], again["how"]) == (0, "subject-disjoint")


def test_renamed_pictures_and_another_framing_keep_the_split_too(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    faces(raw, range(60), side=56)
    before = split_of(prepare(raw, out))
    for file in sorted(raw.rglob("*.png")):
        file.rename(file.with_name(f"new {file.name}"))
    after = split_of(prepare(raw, out, Preparation(side=64, crop=0.8), replace=True))
    assert {origin.replace("new ", ""): split for origin, split in after.items()} == before


def test_another_rule_of_division_is_refused_until_all_is_divided_anew(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    faces(raw, range(30))
    prepare(raw, out)
    other = Preparation(sizes=(50, 25, 25))
    with pytest.raises(CrossferError, match=r"with sizes by default, not .*--new-split"):
        prepare(raw, out, other, replace=True)
    assert prepare(raw, out, other, replace=True, new_split=True).card["split"]["kept"] is None


def test_validation_faces_cut_from_official_training_stay_and_moved_ones_are_counted(
    tmp_path: Path,
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    faces(raw / "train", range(60))
    faces(raw / "test", range(100, 130))
    before = split_of(prepare(raw, out))
    faces(raw / "train", range(60, 80))
    moved = raw / "test" / "happy" / "p25_100.png"
    moved.rename(raw / "train" / "happy" / moved.name)
    dataset = prepare(raw, out, replace=True)
    after = split_of(dataset)
    same = before.keys() & after.keys()
    assert len(same) == 89 and all(before[origin] == after[origin] for origin in same)
    assert dataset.card["split"]["kept"]["moved"] == 1


def test_a_raw_dataset_inside_an_experiment_keeps_its_splits_too(tmp_path: Path) -> None:
    for name, start in (("source", 0), ("target", 500)):
        faces(tmp_path / name, range(start, start + 60))
    changes = {"name": "e", "data": tmp_path, "source": "source", "targets": ["target"]}
    experiment, out = check_experiment(changes), tmp_path / "out"
    before = split_of(open_datasets(experiment, out, Progress())[1])
    faces(tmp_path / "target", range(560, 580))
    target = open_datasets(experiment, out, Progress())[1]
    after = split_of(target)
    assert {origin: after[origin] for origin in before} == before and len(after) == 80
    assert target.card["split"]["kept"]["faces"] == 60
    other = check_experiment(changes | {"targets": [{"path": "target", "seed": 1}]})
    assert open_datasets(other, out, Progress())[1].card["split"]["kept"] is None


def test_splits_of_a_dataset_prepared_by_an_older_version_are_kept(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    faces(raw, range(60))
    before = split_of(prepare(raw, out))
    card = json.loads((out / "dataset.json").read_text())
    card["preparation"] = {"sizes": None, "exact": False, "seed": 0}
    (out / "dataset.json").write_text(json.dumps(card | {"format": 3}))
    table = pyarrow.parquet.read_table(out / "samples.parquet").drop_columns(["picture"])
    pyarrow.parquet.write_table(table, out / "samples.parquet")
    faces(raw, range(60, 80))
    after = split_of(prepare(raw, out, replace=True))
    assert {origin: after[origin] for origin in before} == before
    (out / "samples.parquet").write_bytes(b"damaged")
    with pytest.raises(CrossferError, match="cannot be kept; add --new-split"):
        prepare(raw, out, replace=True)
    assert len(prepare(raw, out, replace=True, new_split=True).images) == 80

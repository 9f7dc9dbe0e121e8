"""What a reviewer would find in a dataset, the audit finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.datasets import Preparation, prepare
from crossfer.datasets.audit import audit
from tests.commands import refused


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a raw dataset: 2 of 6 test images are in training, one pair of copies has two labels."""
    folder, rng = tmp_path_factory.mktemp("dirty") / "faces", np.random.default_rng(0)

    def picture() -> Image.Image:
        coarse = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        return Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)

    def save(image: Image.Image, split: str, label: str, name: str) -> None:
        file = folder / split / label / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)

    training = [picture() for _ in range(12)]
    for number, image in enumerate(training):
        save(image, "train", ("angry", "happy")[number % 2], f"ann_{number}")
    for number in range(4):
        save(picture(), "valid", ("angry", "happy")[number % 2], f"bob_{number}")
        save(picture(), "test", ("angry", "happy")[number % 2], f"cem_{number}")
    save(training[0], "test", "angry", "cem_copy")
    save(training[1], "test", "angry", "ann_relabelled")  # in training it is happy
    return folder


def test_it_finds_what_is_there(dirty: Path, tmp_path: Path) -> None:
    dataset = prepare(dirty, tmp_path / "prepared", Preparation(subject=r"/([a-z]+)_"))
    (found,) = audit([dataset]).datasets
    training, validation, test = found.splits
    assert (training.images, validation.images, test.images) == (12, 4, 6)
    assert test.classes == {"angry": 4, "happy": 2}
    assert (test.also_in_training, test.exact, validation.also_in_training) == (2, 2, 0)
    assert found.subjects_in_several_splits == ("ann",)
    assert found.conflicts == {"groups": 1, "images": 2}
    assert found.findings[0].startswith("2 of 6 test images (33.3%) have a copy in a training set")
    assert len(found.findings) == 4


def test_unlabelled_copies_are_copies_and_contradict_nothing(dirty: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(dirty, raw)
    (raw / "train/unlabelled").mkdir()
    shutil.copy(raw / "test/happy/cem_1.png", raw / "train/unlabelled/dora_1.png")
    dataset = prepare(raw, tmp_path / "prepared", Preparation(subject=r"/([a-z]+)_"))
    found = audit([dataset])
    (one,) = found.datasets
    assert one.splits[2].also_in_training == 3 and one.conflicts == {"groups": 1, "images": 2}
    (training_and_test,) = (o for o in found.overlaps if o.leaks)
    assert training_and_test.exact == 3 and training_and_test.relabelled == 1


def test_two_datasets_are_compared_with_one_another(dirty: Path, tmp_path: Path) -> None:
    one = prepare(dirty, tmp_path / "one", Preparation(subject=r"/([a-z]+)_"))
    other = prepare(dirty, tmp_path / "two", Preparation(subject=r"/([a-z]+)_"), name="other")
    assert [a.splits[2].also_in_training for a in audit([one, other]).datasets] == [2, 2]
    assert [a.splits[2].also_in_training for a in audit([other]).datasets] == [2]


def test_the_command_takes_raw_files_and_writes_a_page_without_pictures(
    dirty: Path, tmp_path: Path
) -> None:
    page = tmp_path / "audit.html"
    done = CliRunner().invoke(app, ["audit", str(dirty), "--json", "--strict", "--page", str(page)])
    assert done.exit_code == 1
    assert f"prepare it first: crossfer prepare {dirty}" in done.stderr
    assert "split: official" in done.stderr and "skipped.csv" not in done.stderr
    content = json.loads(done.stdout)
    assert content["datasets"][0]["splits"][2]["also_in_training"] == 2
    into_test = {o["first"]["split"]: o["exact"] for o in content["overlaps"] if o["leaks"]}
    assert into_test == {"training": 2}
    assert "never on test sets" in content["selection"]
    html = page.read_text(encoding="utf-8")
    (dirty / "elsewhere").mkdir()
    (dirty / "train/happy/ann_1.png").rename(dirty / "elsewhere/happy.png")
    said = refused("audit", dirty)
    (dirty / "elsewhere/happy.png").rename(dirty / "train/happy/ann_1.png")
    (dirty / "elsewhere").rmdir()
    assert " --" in said and f"first, with the option: crossfer prepare {dirty}" in said
    assert "2 of 6 test images (33.3%)" in html
    assert "<img" not in html

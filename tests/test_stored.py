"""Many images stay in their file, and train to the same bits as those that are copied into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfer.experiment import check_experiment, run_experiment
from crossfer.files import digest
from crossfer.machine import Machine
from crossfer.memory.file import Memory
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Faces, stored
from crossfer.training.stored import Stored, as_tensor, united

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8)


@given(
    st.lists(st.integers(0, 39), min_size=1, max_size=30),
    st.lists(st.integers(0, 39), min_size=1, max_size=30),
    st.data(),
)
def test_it_is_indexed_as_a_tensor_is(first: list[int], second: list[int], data: Any) -> None:
    both = united(Stored([IMAGES], [np.array(first)]), torch.from_numpy(IMAGES[second]))
    plain = torch.from_numpy(np.concatenate([IMAGES[first], IMAGES[second]]))
    assert isinstance(both, Stored)
    assert (len(both), both.shape, both.ndim) == (len(plain), plain.shape, plain.ndim)
    positions = st.lists(st.integers(0, len(plain) - 1), min_size=4, max_size=4)
    chosen = torch.tensor(data.draw(positions))
    for picked in (chosen, chosen.view(2, 2), plain[:, 0, 0] > 100, slice(1, 5), slice(None)):
        assert torch.equal(both[picked], plain[picked])


def test_a_large_set_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "IN_MEMORY", 100)
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = np.arange(0, 40, 2)
    faces = Faces.from_numpy(mapped, np.arange(40) % 7, rows=rows)
    assert isinstance(faces.images, Stored)
    assert all(np.shares_memory(array, mapped) for array in faces.images.arrays)
    assert torch.equal(faces.images[:], torch.from_numpy(IMAGES[rows]))
    assert faces.labels.tolist() == (rows % 7).tolist()
    mixed = faces + faces
    assert isinstance(mixed.images, Stored), "neither is the union"


def test_every_strategy_trains_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        "name": "small",
        "data": data,
        "source": "fer2013",
        "targets": ["jaffe"],
        "strategies": ["FC", "MIX+KD", "ER-50-herding", "EWC"],
        "fractions": [1.0],
        "model": {"width": 0.05},
        "recipes": {"default": {"epochs": 1, "batch_size": 32}, "FC": {"views": 2}},
    }

    def weights(out: Path) -> dict[str, str]:
        results = run_experiment(check_experiment(content), out)
        assert not results.failed
        return {r.key: digest(out / r.folder / "model.safetensors") for r in results.runs}

    in_memory = weights(tmp_path / "in memory")
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    assert weights(tmp_path / "stored") == in_memory


def test_a_memory_file_describes_validation_images_that_stay_in_their_file() -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (40, 48, 48), np.uint8)
    images = torch.from_numpy(drawn)
    labels = torch.arange(40) % 4
    network, machine = Classifier(study_cnn(0.03)).eval(), Machine.of("cpu", "32-true")
    faces, mapped = Faces(images, labels), Stored([drawn], [np.arange(40)])
    found = [
        Memory.of(network, faces, machine, validation=Faces(shown, labels), name="x")
        for shown in (as_tensor(mapped), images)
    ]
    assert found[0].calibration and found[0].calibration == found[1].calibration

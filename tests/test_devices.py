"""Two processes train one network as one does, and each goes on where the other number of them stopped."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from crossfer.adaptation import untrained
from crossfer.datasets import Dataset
from crossfer.datasets.union import unite
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment, run_experiment
from crossfer.experiment.run import run_one
from crossfer.files import digest
from crossfer.machine import Machine
from crossfer.memory.penalties import SourceDistillation
from crossfer.networks import Classifier
from crossfer.training import Faces, Mixture, Recipe, State, Trained, train
from crossfer.training.checkpoint import Checkpoints
from crossfer.training.devices import on_devices
from tests.test_survival import commanded

RECIPE = Recipe(epochs=2, batch_size=33, learning_rate=0.02, averaging=0.5)
MIDDLE = 6
"""Standings: after the second step of the second epoch."""


def faces(count: int, seed: int) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), dtype=torch.uint8, generator=generator)
    return Faces(images, torch.arange(count) % 7)


def network() -> Classifier:
    """Build a smooth one: rounding cannot turn a ReLU, after which weights would part by more."""
    return untrained(
        lambda: Classifier(
            nn.Sequential(
                *(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2)),
                *(nn.Conv2d(6, 32, 3, 2), nn.BatchNorm2d(32), nn.Tanh(), nn.AvgPool2d(2)),
                *(nn.Flatten(), nn.Linear(128, 32), nn.Tanh(), nn.Dropout(), nn.Linear(32, 7)),
            )
        ),
        0,
    )


def trained(machine: Machine, resume: State | None = None, **more: Any) -> Trained:
    """Train everything, with dropout and batch normalisation, on batches of an odd number of images."""
    shown, validation = faces(133, 1), {"source": faces(15, 2)}
    return train(network(), shown, validation, RECIPE, 3, machine, resume=resume, **more)


def held(machine: Machine) -> Trained:
    """Train with a penalty that looks at the old images of a batch."""
    shown = Mixture.of(faces(27, 1), faces(40, 2), 0.4)
    penalty = SourceDistillation().term(network(), shown, None, 0, machine)
    return train(network(), shown, {}, RECIPE, 3, machine, penalty=penalty, keep="last")


def last_layers(machine: Machine) -> Trained:
    """Train the fully connected layers, in their dual form, on what was calculated once."""
    model = network()
    model.train_only("FC")
    recipe = Recipe(epochs=2, batch_size=9, views=1)
    return train(model, faces(40, 1), {"source": faces(15, 2)}, recipe, 3, machine)


def everything(
    file: Path, machine: Machine, on_step: Callable[[int], None], stopping: Callable[[], bool]
) -> list[Trained]:
    """Do all of it; go on from one process's checkpoint, and leave one."""
    resume, mine = Checkpoints(file).load(), Checkpoints(file.with_suffix(".two"))
    again = trained(machine, resume)
    steps: list[int] = []

    def save(standing: Callable[[], State]) -> None:
        steps.append(1)
        if len(steps) == MIDDLE and machine.number == 0:
            mine.save(standing())

    whole = trained(machine, on_step=on_step, on_state=save)
    return [whole, again, held(machine), last_layers(machine)]


def far(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return max(float((a.float() - b.float()).abs().max()) for a, b in pairs)


def test_two_processes_give_the_weights_of_one_and_go_on_from_each_other(tmp_path: Path) -> None:
    machine, file = Machine.of("cpu", "32-true"), tmp_path / "checkpoint"
    steps: list[int] = []

    def save(standing: Callable[[], State]) -> None:
        steps.append(1)
        if len(steps) == MIDDLE:
            Checkpoints(file).save(standing())

    one = [trained(machine, on_state=save), held(machine), last_layers(machine)]
    assert min(far(network(), each.model) for each in one) > 1e-2, "they have learnt"
    heard: list[int] = []
    whole, again, *others = on_devices(2, machine, partial(everything, file), heard.append)
    assert sum(heard) == whole.images_seen == one[0].images_seen
    for before, after in zip(one, [whole, *others], strict=True):
        assert far(before.model, after.model) < 1e-5
        assert before.kept_epoch == after.kept_epoch
    assert far(one[0].model, again.model) < 1e-5
    resume = Checkpoints(file.with_suffix(".two")).load()
    assert resume and resume.step and resume.history
    assert far(one[0].model, trained(machine, resume).model) < 1e-5


def small(prepared: dict[str, Dataset], width: float, epochs: int) -> dict[str, Any]:
    """Configure an experiment that trains a baseline alone."""
    return {
        "name": "small",
        "data": next(iter(prepared.values())).folder.parent,
        "source": "fer2013",
        "targets": ["jaffe"],
        "strategies": ["BL"],
        "model": {"width": width},
        "precision": "32-true",
        "recipes": {"default": {"epochs": epochs, "batch_size": 32}},
    }


def test_an_experiment_on_two_devices(prepared: dict[str, Dataset], tmp_path: Path) -> None:
    content = small(prepared, width=0.05, epochs=1)
    two = check_experiment(content | {"devices": 2})
    with pytest.raises(CrossferError, match="--workers 2: has no effect with devices: 2"):
        run_experiment(two, tmp_path / "out", workers=2)
    (run,) = run_experiment(two, tmp_path / "out").runs
    assert run.machine["devices"] == 2
    (same,) = run_experiment(check_experiment(content), tmp_path / "out").runs
    assert same == run, "how many devices trained it is no part of its identity"


def in_a_group(command: list[str], folder: Path) -> None:
    """Do what a command does, in a group of processes of its own."""
    os.setpgrp()
    commanded(command, folder)


def test_a_stop_is_that_of_all_devices_after_the_same_step_and_no_bit_is_lost(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    """Also if all processes of a training get the signal, as a scheduler sends it."""
    content = small(prepared, width=0.03, epochs=25) | {"devices": 2}
    out, stdout, stderr = (tmp_path / name for name in ("out", "stdout", "stderr"))
    (run,) = run_experiment(check_experiment(content), out).runs
    folder = out / run.folder
    whole = digest(folder / "model.safetensors")
    for name in ("run.json", "model.safetensors"):
        (folder / name).unlink()
    command = ["crossfer", "run-one", str(out), run.key]
    process = multiprocessing.get_context("forkserver").Process(
        target=in_a_group, args=(command, tmp_path)
    )
    process.start()
    assert process.pid
    try:
        while not (stdout.is_file() and "%: BL" in stdout.read_text()):
            assert process.is_alive(), stderr.read_text()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        process.join(60)
    finally:
        process.kill()
    assert (process.exitcode, stderr.read_text().splitlines()[-1:]) == (
        130,
        ["stopped; run the same command again to resume"],
    )
    assert not (folder / "run.json").exists() and not (folder / "error.txt").exists()
    stopped = Checkpoints(folder / "checkpoint.safetensors").load()
    with pytest.raises(KeyboardInterrupt):
        run_one(out, run.key, stopping=lambda: True)
    further = Checkpoints(folder / "checkpoint.safetensors").load()
    assert stopped and further and further.images_seen > stopped.images_seen
    run_one(out, run.key)
    assert digest(folder / "model.safetensors") == whole


def test_more_devices_than_images_of_a_batch_are_refused() -> None:
    four = replace(Machine.of("cpu", "32-true"), count=4)
    with pytest.raises(CrossferError, match="^devices: 4: more than the 3 images of a batch; use"):
        train(network(), faces(3, 1), {}, RECIPE, 3, four, keep="last")


def test_a_dataset_travels_without_its_images(prepared: dict[str, Dataset]) -> None:
    one, other = prepared["fer2013"], prepared["jaffe"]
    half = replace(one, table=one.samples.slice(0, 80))
    for dataset in (one, half, unite([one, other])):
        sent = pickle.dumps(dataset)
        again = pickle.loads(sent)
        assert len(sent) < one.images.nbytes / 5
        told = ["label", "subject", "split", "origin", "sha256"]
        assert again.samples.select(told) == dataset.samples.select(told)
        assert again.card == dataset.card
        for mine, theirs in zip(dataset.parts, again.parts, strict=True):
            assert (mine.images == theirs.images).all()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (CrossferError("the training diverged"), CrossferError("the training diverged")),
        (ValueError("two\nlines"), CrossferError("devices: 2: ValueError: two lines")),
        (OSError(errno.ENOSPC, "full", "a"), OSError(errno.ENOSPC, "full", "a")),
        (PermissionError(errno.EACCES, "no", "a"), PermissionError(errno.EACCES, "no", "a")),
    ],
)
def test_what_fails_on_a_device_fails_here(
    raised: Exception, seen: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(work: Any, given: tuple[Any, ...], *_: object, **options: object) -> None:
        def fails(*_: object, **__: object) -> None:
            raise raised

        monkeypatch.setattr("torch.distributed.init_process_group", fails)
        with pytest.raises(type(raised)):
            work(1, *given)
        raise ProcessRaisedException("Traceback", 1, 1)

    monkeypatch.setattr("crossfer.training.devices.start_processes", launch)
    with pytest.raises(type(seen)) as error:
        on_devices(2, Machine.of("cpu", "32-true"), partial(everything, Path()), print)
    assert type(error.value) is type(seen) and str(error.value) == str(seen)


@pytest.mark.parametrize(("stopping", "seen"), [(True, KeyboardInterrupt), (False, CrossferError)])
def test_a_process_that_a_signal_ends_while_it_starts_has_not_failed(
    stopping: bool, seen: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*_: object, **options: object) -> None:
        raise ProcessExitedException("process 1 terminated with signal SIGTERM", 1, 1, -15)

    monkeypatch.setattr("crossfer.training.devices.start_processes", launch)
    two = Machine.of("cpu", "32-true")
    with pytest.raises(seen):
        on_devices(2, two, partial(everything, Path()), print, lambda: stopping)

"""The training loop: pure, repeatable, resumable."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crossfer.adaptation import untrained
from crossfer.errors import CrossferError
from crossfer.machine import Machine
from crossfer.memory.penalties import L2SP
from crossfer.networks import Classifier, study_cnn
from crossfer.networks.preprocessing import normalise
from crossfer.selection import MARGIN
from crossfer.training import (
    Augmentation,
    Faces,
    Misfit,
    Mixture,
    Recipe,
    State,
    predict,
    specialised,
    train,
)
from crossfer.training.backends.cuda import is_recordable
from crossfer.training.batches import augment, chances
from crossfer.training.checkpoint import Checkpoints
from crossfer.training.loss import cross_entropy
from crossfer.training.schedule import learning_rate
from tests.stops import Stops

RECIPE = Recipe(epochs=3, batch_size=16)


def squares(count: int = 56, seed: int = 0) -> Faces:
    """Return pictures whose class is where a bright square stands: easily learnt."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 48, 48), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 7
    for image, label in zip(images, labels.tolist(), strict=True):
        image[6 * label + 2 : 6 * label + 8, 12:36] = 255
    return Faces(images, labels)


def small() -> Classifier:
    return untrained(lambda: Classifier(study_cnn(0.05)), 0)


def weights_equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("warmup", [Recipe.warmup, 1.0])
def test_a_single_step_trains(warmup: float) -> None:
    """The warm-up begins at a learning rate of 0, and what follows it ends there."""
    recipe = Recipe(epochs=1, batch_size=56, warmup=warmup)
    trained = train(small(), squares(), {"source": squares()}, recipe, 0, Machine.of("cpu"))
    assert len(trained.history) == 1
    before, after = (m.network.state_dict()["fc3.weight"] for m in (small(), trained.model))
    assert not torch.equal(before, after)


def test_it_learns_what_can_be_learnt() -> None:
    recipe = Recipe(
        epochs=5,
        batch_size=14,
        learning_rate=0.05,
        augmentation=Augmentation(flip=True, shift=0.0),
    )
    machine = Machine.of("cpu")
    trained = train(small(), squares(84), {"source": squares(56, 1)}, recipe, 0, machine)
    test = squares(70, 2)
    decided = predict(trained.model, test.images, machine).argmax(1)
    assert (decided == test.labels).float().mean() > 0.9
    assert len(trained.history) == 5
    assert trained.images_seen == 5 * 84


def test_same_seed_same_bits_and_nothing_else_is_touched() -> None:
    model, faces, machine = small(), squares(), Machine.of("cpu")
    untouched, state = copy.deepcopy(model), torch.random.get_rng_state()
    first = train(model, faces, {"source": faces}, RECIPE, 3, machine)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights_equal(model, untouched)
    torch.manual_seed(99)
    second = train(model, faces, {"source": faces}, RECIPE, 3, machine)
    other = train(model, faces, {"source": faces}, RECIPE, 4, machine)
    assert weights_equal(first.model, second.model)
    assert not weights_equal(first.model, other.model)


def of_each_kind() -> nn.Module:
    """Build a network with one of each layer that has loops of its own."""
    return nn.Sequential(
        nn.Conv2d(1, 5, 5, 2), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(605, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 7),
    )  # fmt: skip


def bits_of_trainings() -> list[str]:
    """Train every layer, and the last one alone; return what tells the bits of each apart."""
    every = untrained(lambda: Classifier(of_each_kind()), 0)
    last = copy.deepcopy(every)
    last.train_only("FC")
    found = []
    for model, recipe in ((every, RECIPE), (last, replace(RECIPE, views=2))):
        machine = Machine.of("cpu", "bf16-mixed")
        trained = train(model, squares(), {"source": squares()}, recipe, 0, machine).model
        weights = b"".join(weight.numpy().tobytes() for weight in trained.state_dict().values())
        found.append(hashlib.sha256(weights).hexdigest())
    return found


TWICE = """
import os, sys
from tests.test_training import bits_of_trainings

for _ in range(2):
    if not (child := os.fork()):
        print(*bits_of_trainings(), "torch._dynamo" in sys.modules, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Imports once; the first child has to compile the loops, and the second finds them compiled.

PyTorch's own compiler, which takes two seconds to import, is not needed.
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX forks processes")
def test_other_processes_give_the_same_bits(tmp_path: Path) -> None:
    """One that has to compile its loops, and one that finds them compiled."""
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert any(tmp_path.rglob("*.nbc"))
    compiling, finding = (line.split() for line in done.stdout.splitlines())
    assert compiling == finding == [*bits_of_trainings(), "False"]


@pytest.mark.parametrize("change", [{}, {"averaging": 0.9}, {"views": 2}])
def test_an_interrupted_training_goes_on_to_the_same_bits(
    change: dict[str, Any], tmp_path: Path
) -> None:
    """Wherever it stopped: between epochs, or after any step of one."""
    faces, machine = squares(), Machine.of("cpu")
    recipe = replace(RECIPE, **change)
    stops = Stops(tmp_path, (0, 1), (1, 0), (2, 3), (3, 0))

    whole = train(small(), faces, {"source": faces}, recipe, 0, machine, on_state=stops.keep)
    for stop, resume in stops:
        seen: list[int] = []
        resumed = train(
            small(), faces, {"source": faces}, recipe, 0, machine,
            resume=resume, on_step=seen.append,
        )  # fmt: skip
        assert sum(seen) == (recipe.epochs - stop[0]) * 56 - stop[1] * 14
        assert weights_equal(resumed.model, whole.model)
        assert resumed.kept_epoch == whole.kept_epoch
        assert resumed.images_seen == whole.images_seen
        for ours, theirs in zip(resumed.history, whole.history, strict=True):
            assert ours | {"seconds": 0} == theirs | {"seconds": 0}


def test_checkpoints_take_less_than_a_fiftieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a save takes, and however that changes."""
    clock, took = 0.0, [0.1, 3.0, 0.5, 8.0, 0.2]
    saves: list[float] = []

    def save(self: Checkpoints, state: State) -> None:
        nonlocal clock
        saves.append(took[len(saves) % len(took)])
        clock += saves[-1]

    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr("crossfer.training.checkpoint.time.monotonic", lambda: clock)
    checkpoints = Checkpoints(tmp_path / "checkpoint.safetensors", 0.0)
    for _ in range(10_000):
        clock += 1.0
        checkpoints.save_if_due(State)
    assert len(saves) > 20
    assert sum(saves) < 0.021 * clock


def test_a_damaged_checkpoint_is_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoint.safetensors")
    assert checkpoints.load() is None
    checkpoints.save(State({"a": torch.ones(2)}))
    assert checkpoints.load() is not None
    whole = checkpoints.file.read_bytes()
    for damaged in (whole[:-3], whole[:-3] + b"?" + whole[-2:], whole.replace(b'"step', b'"stop')):
        checkpoints.file.write_bytes(damaged)
        assert checkpoints.load() is None


def test_a_state_of_another_training_is_refused_before_it_is_used(tmp_path: Path) -> None:
    faces, machine, stops = squares(), Machine.of("cpu"), Stops(tmp_path, (1, 1))
    train(small(), faces, {"source": faces}, RECIPE, 0, machine, on_state=stops.keep)
    ((_, state),) = stops
    some = next(iter(state.weights))
    for other in (
        replace(state, weights={some: state.weights[some]}),
        replace(state, kept=state.kept | {some: torch.zeros(99)}),
        replace(state, averaged=state.weights),
        replace(state, inside={}),
    ):
        with pytest.raises(Misfit):
            train(small(), faces, {"source": faces}, RECIPE, 0, machine, resume=other)


def test_selection_keeps_the_best_epoch_or_the_last() -> None:
    faces, machine = squares(), Machine.of("cpu")
    best = train(small(), faces, {"source": faces}, RECIPE, 0, machine)
    in_doubt = [
        row["epoch"]
        for row in best.history
        if row["loss_behind"] <= MARGIN * row["loss_behind_error"]
        or row["accuracy_ahead"] > MARGIN * row["accuracy_ahead_error"]
    ]
    assert best.kept_epoch == max(in_doubt)
    last = train(small(), faces, {"source": faces}, RECIPE, 0, machine, keep="last")
    assert last.kept_epoch == RECIPE.epochs
    with pytest.raises(ValueError, match="no validation image"):
        train(small(), faces, {}, RECIPE, 0, machine)
    with pytest.raises(ValueError, match="no image to train on"):
        train(small(), squares(0), {"source": faces}, RECIPE, 0, machine)


def test_epochs_are_chosen_among_the_classes_that_a_dataset_has() -> None:
    """What is reported and what an epoch is chosen by are the same measure."""
    model, machine, faces = small(), Machine.of("cpu"), squares()
    with torch.no_grad():
        model.get_parameter("network.fc3.bias")[6] = 8.0  # always neutral
    kept = faces.labels < 6
    every = Faces(faces.images[kept], faces.labels[kept])
    some = Faces.from_numpy(every.images.numpy(), every.labels.numpy(), range(6), of=7)
    recipe = Recipe(epochs=1, learning_rate=0)
    (row,) = train(model, faces, {"some": some, "every": every}, recipe, 0, machine).history
    assert row["every_accuracy"] == 0
    assert row["some_accuracy"] > 0
    assert row["some_loss"] < row["every_loss"]


def test_a_dataset_teaches_nothing_about_a_class_that_it_lacks() -> None:
    """No gradient reaches that class from it, and the others are learnt as if it did not exist."""
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(6)
    known = torch.ones(6, 7, dtype=torch.bool)
    known[:3, 6] = False
    loss = cross_entropy(logits, labels, known, 0.1)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[:3, 6].eq(0).all() and gradient[3:, 6].ne(0).all()
    among_six = F.cross_entropy(logits[:3, :6], labels[:3], label_smoothing=0.1, reduction="sum")
    among_all = F.cross_entropy(logits[3:], labels[3:], label_smoothing=0.1, reduction="sum")
    assert loss.item() == pytest.approx(((among_six + among_all) / 6).item(), rel=1e-6)


def test_what_images_know_follows_them_into_unions_and_choices() -> None:
    """The old and the new are told apart image by image, in whatever way they are mixed."""
    old = squares(12)
    new = Faces.from_numpy(old.images[:4].numpy(), old.labels[:4].numpy() % 6, range(6), of=7)
    expected = torch.ones(16, 7, dtype=torch.bool)
    expected[12:, 6] = False
    for both in (old + new, (old + new).to(torch.device("cpu"))):
        assert both.known is not None and both.known.equal(expected)
    mixed = Mixture.of(new, old, 0.5)
    assert mixed.known is not None
    assert mixed.known[:4, 6].logical_not().all() and mixed.known[4:].all()
    rows = torch.tensor([0, 13])
    chosen = (old + new)[rows].known
    assert chosen is not None and chosen.equal(expected[rows])
    assert (old + old).known is None


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_adds_in_a_fixed_order_unless_asked_not_to(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set; no test has a GPU to see what comes of it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        Machine.of("cuda", "32-true", deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.benchmark != deterministic
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False
        torch.utils.deterministic.fill_uninitialized_memory = True  # pyrefly: ignore[missing-attribute]


def test_a_gpu_replays_steps_unless_somebody_elses_code_is_called_in_them() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.mean().item() > 0 else -x

    def penalty(network: Any, images: Any, logits: torch.Tensor, rows: Any) -> torch.Tensor:
        return logits.sum() * logits.mean().item()

    def recorded(*added: nn.Module, penalty: Any = None) -> bool:
        return is_recordable(nn.Sequential(small(), *added), penalty)

    ours = L2SP().term(small(), squares(), None, 0, Machine.of("cpu"))
    assert recorded() and recorded(penalty=ours)
    assert not recorded(penalty=penalty)
    assert not recorded(Own())
    assert not recorded(nn.BatchNorm1d(7, momentum=None))
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda module, x, y: print(y.mean().item()))
    assert not recorded(hooked)


def test_a_network_that_answers_with_no_numbers_is_not_kept() -> None:
    """Its loss was measured before the last step, and is still a number."""
    model, faces = small(), squares()
    for parameter in model.parameters():
        parameter.data *= 3e4
    recipe = Recipe(learning_rate=100, epochs=1, warmup=0, batch_size=len(faces))
    with pytest.raises(CrossferError, match="diverged in epoch 1"):
        train(model, faces, {"source": faces}, recipe, 0, Machine.of("cpu", "32-true"))
    kept = train(model, faces, {}, recipe, 0, Machine.of("cpu", "32-true"), keep="last")
    assert math.isfinite(kept.history[0]["training_loss"])


def test_a_diverged_training_says_so() -> None:
    with pytest.raises(CrossferError, match="diverged in epoch"):
        train(
            small(),
            squares(),
            {},
            Recipe(learning_rate=100, epochs=9, warmup=0),
            0,
            Machine.of("cpu"),
            keep="last",
        )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_network_made_for_a_device_answers_the_same_up_to_rounding(precision: Any) -> None:
    model, shown, machine = small().eval(), squares(), Machine.of("cpu", precision)
    model.get_buffer("network.norm2.running_mean").fill_(0.1)
    before = copy.deepcopy(model)
    fast = specialised(model, shown.images, machine.device)
    close = 1e-5 if precision == "32-true" else 0.02
    assert torch.allclose(
        predict(fast, shown.images, machine), predict(model, shown.images, machine), atol=close
    )
    assert weights_equal(fast, model) and weights_equal(model, before)
    assert str(model) == str(before) != str(fast)


def test_normalise_is_blind_to_light_and_contrast() -> None:
    images = squares(3).images.float()
    changed = 0.5 * images + 20
    assert torch.allclose(normalise(images), normalise(changed), atol=1e-4)
    assert torch.equal(
        normalise(torch.full((1, 48, 48), 7, dtype=torch.uint8)).sum(), torch.tensor(0.0)
    )


def test_augment_changes_every_image_its_own_way_and_can_be_off() -> None:
    images = normalise(squares(16).images)
    off = Augmentation(flip=False, shift=0, rotate=0, scale=0, erase=0)
    chance = chances(16, torch.Generator().manual_seed(0))
    assert torch.equal(augment(images, off, chance), images)
    flips = Augmentation(flip=True, shift=0, rotate=0, scale=0)
    flipped = augment(images, flips, chance)
    mirrored = [
        torch.allclose(a, b.flip(-1), atol=1e-4) for a, b in zip(flipped, images, strict=True)
    ]
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(flipped, images, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 0 < sum(mirrored) < 16
    erased = augment(images, Augmentation(False, 0, 0, 0, erase=0.5), chance)
    assert 0 < (erased != images).float().mean() < 0.3


def test_learning_rate_rises_and_falls_to_zero() -> None:
    recipe = Recipe(learning_rate=0.1, warmup=0.25)
    rates = [learning_rate(recipe, step / 100) for step in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[25] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_a_recipe_refuses_nonsense_by_name() -> None:
    with pytest.raises(ValueError, match="epochs is 0"):
        Recipe(epochs=0)
    with pytest.raises(ValueError, match="shift is 0.9"):
        Augmentation(shift=0.9)

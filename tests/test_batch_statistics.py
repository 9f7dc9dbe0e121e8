"""After a training, batch-norm statistics are those of the weights that are kept."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from crossfer.adaptation import untrained
from crossfer.machine import Machine
from crossfer.memory.merging import best_mixture
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Augmentation, Faces, Mixture, Recipe, normalise, train
from crossfer.training import statistics as module
from crossfer.training.statistics import batch_norms, dealt, moving_norms, renew_statistics
from tests.tiny_networks import Residual

AS_THEY_ARE = Augmentation(flip=False, shift=0)
RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.02, augmentation=AS_THEY_ARE)


def faces(count: int = 40, seed: int = 0) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


def small(kind: str = "study", momentum: float = 0.1, layers: str = "all") -> Classifier:
    model = untrained(lambda: Classifier(study_cnn(0.1) if kind == "study" else Residual(1)), 0)
    for norm in batch_norms(model).values():
        norm.momentum = momentum
    model.train_only(layers)
    return model


@pytest.mark.parametrize("kind", ["study", "residual"])
@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_after_few_steps_the_momentum_makes_no_difference(kind: str, averaging: float) -> None:
    """Six steps: with 0.01 the running statistics would still be those of the start."""
    recipe, machine, shown = replace(RECIPE, averaging=averaging), Machine.of("cpu"), faces()
    slow, quick = (
        train(small(kind, momentum), shown, {"target": shown}, recipe, 0, machine)
        for momentum in (0.01, 0.1)
    )
    for name, tensor in slow.model.state_dict().items():
        assert torch.equal(tensor, quick.model.state_dict()[name]), name
    assert [row["target_loss"] for row in slow.history] == [r["target_loss"] for r in quick.history]
    assert {norm.momentum for norm in batch_norms(slow.model).values()} == {0.01}


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_kept_statistics_are_those_of_the_kept_weights(averaging: float) -> None:
    recipe, machine, shown = (
        replace(RECIPE, averaging=averaging),
        Machine.of("cpu", "32-true"),
        faces(),
    )
    model = train(small(), shown, {}, recipe, 0, machine, keep="last").model
    given = model.network.get_submodule("conv1")(normalise(shown.images))
    norm = batch_norms(model.network)["norm1"]
    assert norm.running_mean is not None and norm.running_var is not None
    assert torch.allclose(norm.running_mean, given.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, given.var((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("layers", ["FC", "FC+CL"])
def test_statistics_of_frozen_layers_never_move(layers: str) -> None:
    """ "The parameters of the other layers are not modified" (section II.B); nor are they by merging."""
    machine, shown, start = Machine.of("cpu"), faces(), small(layers=layers)
    trained = train(start, shown, {"target": shown}, RECIPE, 0, machine).model
    free = {"norm5"} if layers == "FC+CL" else set()
    mixed, _, _ = best_mixture(start, trained, {"target": shown}, shown, machine, [0.5])
    for after in (trained, mixed):
        for name, norm in batch_norms(after.network).items():
            before = batch_norms(start.network)[name].state_dict()
            same = all(torch.equal(before[key], value) for key, value in norm.state_dict().items())
            assert same == (name not in free), name


def test_batches_together_have_the_moments_of_all_images() -> None:
    """The law of total variance, and nothing else of the network moves."""
    machine, shown, model = Machine.of("cpu", "32-true"), faces(64), small()
    norms, kept = moving_norms(model)[:1], copy.deepcopy(dict(model.named_parameters()))
    batches = torch.split(normalise(shown.images), 16)
    with torch.no_grad():
        given = model.network.get_submodule("conv1")(torch.cat(batches))
    renew_statistics(model, norms, batches, machine)
    (norm,) = norms
    assert norm.running_mean is not None and norm.running_var is not None
    assert torch.allclose(norm.running_mean, given.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, given.var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == 0.1 and not any(part.training for part in model.modules())
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters())
    for name, other in batch_norms(model).items():
        assert other is norm or other.running_mean.eq(0).all(), name  # pyrefly: ignore[missing-attribute]


def test_a_bounded_number_of_images_is_looked_at_in_the_shares_that_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IMAGES", 40)
    monkeypatch.setattr(module, "AT_ONCE", 20)
    rows = dealt(Mixture.of(faces(100), faces(200, 1), 0.25), torch.Generator())
    assert rows.numel() == 40
    assert (rows < 100).sum(1).eq(5).all()
    assert dealt(faces(7), torch.Generator()).numel() == 7


def test_a_normalisation_in_two_places_has_the_statistics_of_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Linear(4, 7)

        def forward(self, images: Tensor) -> Tensor:
            first = self.norm(self.conv(images))
            return self.head(self.norm(5 * first + 3).mean((2, 3)))

    network, machine = Twice(), Machine.of("cpu", "32-true")
    model = Classifier(network)
    images = normalise(faces(16).images)
    renew_statistics(model, moving_norms(model), [images], machine)
    with torch.no_grad():
        given = network.conv(images)
        mean, var = given.mean((0, 2, 3)), given.var((0, 2, 3))
        second_mean, second_var = torch.full((4,), 3.0), 25 * var / (var + network.norm.eps)
    found, means = network.norm, torch.stack([mean, second_mean])
    assert found.running_mean is not None and found.running_var is not None
    assert torch.allclose(found.running_mean, means.mean(0), atol=1e-4)
    expected = (var + second_var) / 2 + means.var(0, correction=0)
    assert torch.allclose(found.running_var, expected, rtol=1e-3)

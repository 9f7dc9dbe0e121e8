"""Frozen layers calculate once, and nothing changes by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossfer.adapt import untrained
from crossfer.models import fully_connected, last_convolution, study_cnn, train_only
from crossfer.training import Faces, Recipe, machine, train, views
from crossfer.training.recipe import Augmentation
from crossfer.training.views import Views, split_frozen

RECIPE = Recipe(epochs=5, batch_size=8, learning_rate=0.01, views=2)


def faces(count: int = 40) -> Faces:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


def partly_frozen(what: str) -> nn.Module:
    model = untrained(lambda: study_cnn(0.1), 0)
    convolution = last_convolution(model) if what == "FC+CL" else []
    train_only(model, convolution + fully_connected(model))
    return model


@pytest.mark.parametrize("what", ["FC", "FC+CL"])
@pytest.mark.parametrize("limit", [2**31, 0], ids=["in memory", "in a file"])
def test_reuse_gives_the_same_weights_up_to_rounding(
    what: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32 to 1e-5 of a weight; the order of sums in a convolution depends on the batch."""
    monkeypatch.setattr(views, "LARGEST_IN_MEMORY", limit)
    model, shown, fabric = partly_frozen(what), faces(), machine("cpu", "32-true")
    options = {"keep": "last"}
    reused = train(model, shown, {}, RECIPE, 0, fabric, **options)  # type: ignore[arg-type]
    anew = train(model, shown, {}, RECIPE, 0, fabric, reuse=False, **options)  # type: ignore[arg-type]
    before, after = model.state_dict(), anew.model.state_dict()
    for name, tensor in reused.model.state_dict().items():
        assert torch.allclose(tensor.float(), after[name].float(), atol=1e-5), name
        if name.startswith(("conv1", "norm1", "conv4", "norm4")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(after["fc1.weight"], before["fc1.weight"])


def test_frozen_layers_see_each_version_of_an_image_once() -> None:
    model, shown = partly_frozen("FC"), faces()
    seen: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 1:  # one alone is tried before the training
            seen.append(len(inputs[0]))

    def counting(epochs: int, versions: int) -> int:
        seen.clear()
        recipe = Recipe(epochs=epochs, batch_size=8, learning_rate=0.01, views=versions)
        # `train` copies the network, hooks included.
        train(model, shown, {}, recipe, 0, machine("cpu"), keep="last")
        return sum(seen)

    handle = model.get_submodule("conv1").register_forward_pre_hook(count)
    try:
        assert counting(6, 2) == 2 * len(shown)
        assert counting(6, 0) == 6 * len(shown)
    finally:
        handle.remove()


def test_versions_differ_and_come_back_in_turn() -> None:
    shown, fabric = faces(), machine("cpu", "32-true")
    of = Views(shown.images, 3, Augmentation(), 5, nn.Sequential(), fabric)
    versions = [of.show(epoch).clone() for epoch in range(6)]
    assert all(torch.equal(versions[n], versions[n + 3]) for n in range(3))
    assert not torch.equal(versions[0], versions[1])
    batch = of.take(of.show(0), torch.tensor([4, 2]))
    assert batch.shape == (2, 1, 48, 48)


def test_a_network_is_cut_before_the_first_layer_that_trains() -> None:
    model = partly_frozen("FC+CL").eval()
    frozen, rest = split_frozen(model)
    images = torch.randn(3, 1, 48, 48)
    assert torch.equal(rest(frozen(images)), model(images))
    assert [name for name, _ in frozen.named_children()][-1] == "relu4"
    assert rest.get_parameter("conv5.weight") is model.get_parameter("conv5.weight")
    everything = untrained(lambda: study_cnn(0.1), 0)
    frozen, rest = split_frozen(everything)
    assert len(frozen) == 0 and rest is everything

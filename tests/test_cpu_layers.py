"""Batch normalisation, ReLU and pooling as one layer: PyTorch's own, but for rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from crossfer.adaptation import untrained
from crossfer.machine import Machine
from crossfer.networks import Classifier, study_cnn
from crossfer.training import Faces, Recipe, train
from crossfer.training.backends.cpu.layers import Dropout, NormReluPool, fuse

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
"""Of a number near 1."""


def layers(channels: int, pooled: bool, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight)  # negative ones too: they turn the order of a window round
    nn.init.normal_(norm.bias)
    pool = [nn.MaxPool2d(2)] if pooled else []
    return nn.Sequential(norm, nn.ReLU(), *pool)


def pictures(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(dtype, memory_format=torch.channels_last)


def distance(ours: Tensor, truth: Tensor) -> float:
    return float((ours.detach().double() - truth.detach()).norm())


def through(network: nn.Module, x: Tensor, slopes: Tensor) -> list[Tensor]:
    """Return what a network makes of x, and the gradients of x and of its parameters."""
    x = x.clone().requires_grad_()
    y = network(x)
    dy = slopes[tuple(slice(side) for side in y.shape)]
    return [y, *torch.autograd.grad(y, [x, *network.parameters()], dy.to(y.dtype))]


@given(
    shape=st.tuples(st.integers(2, 5), st.integers(1, 80), st.integers(2, 9), st.integers(2, 9)),
    pooled=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    far=st.sampled_from([0.0, 3.0, -50.0]),
    seed=st.integers(0, 2**31),
)
def test_it_is_as_near_to_double_precision_as_pytorch_s_layers(
    shape: tuple[int, ...], pooled: bool, dtype: torch.dtype, far: float, seed: int
) -> None:
    """What it gives, its gradients and its moments: whatever the shape, however far from 0 the numbers."""
    plain = layers(shape[1], pooled, seed).train()
    fused, truth = fuse(copy.deepcopy(plain)), copy.deepcopy(plain).double()
    assert type(fused.get_submodule("0")) is NormReluPool
    x = (pictures(shape, torch.float32, seed) + far).to(dtype)
    slopes = pictures(shape, dtype, seed + 1)
    # What lies within rounding of 0, or of the largest of its window, may fall to either side.
    at = layers(shape[1], pooled, seed).double()[0](x.double())
    decided = at.abs().min() > 1e-5 and not (pooled and _closest(at) < 1e-5)
    results = []
    for network, like in ((fused, dtype), (plain, dtype), (truth, torch.float64)):
        found = through(network, x.to(like), slopes)
        with torch.no_grad():
            measured = network.eval()(x.to(like))
        results.append([measured, *network.buffers(), *found[: None if decided else 1]])
    for ours, pytorch_s, exact in zip(*results, strict=True):
        slack = ROUNDING.get(ours.dtype, 0.0) * (1 + distance(exact, torch.zeros(())))
        assert distance(ours, exact) <= 3 * distance(pytorch_s, exact) + slack


def _closest(numbers: Tensor) -> float:
    """Return how near the two largest of any pooling window are."""
    windows = numbers.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    first, second = windows.detach().topk(2).values.unbind(-1)
    return float((first - second).min())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    network, x = fuse(layers(16, True)).train(), pictures((9, 16, 12, 13), dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            given_ = x.clone().requires_grad_()
            y = copy.deepcopy(network)(given_)
            y.float().square().sum().backward()
            assert given_.grad is not None
            found.append((y, given_.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_numbers_that_are_none_show() -> None:
    """A training that diverges must not go on with zeros."""
    x = pictures((2, 3, 4, 4), torch.bfloat16)
    x[0, 1, 0, 0] = float("nan")
    y = fuse(layers(3, False)).train()(x)
    assert y[:, 1].isnan().all() and not y[:, [0, 2]].isnan().any()


@pytest.mark.parametrize(
    "x",
    [
        pictures((2, 4, 6, 6), torch.float64),
        pictures((2, 4, 6, 6), torch.float16),
        pictures((2, 4, 6, 6), torch.float32).contiguous(),
    ],
    ids=["double precision", "half precision", "channels first"],
)
def test_what_the_loops_are_not_made_for_pytorch_calculates(x: Tensor) -> None:
    plain = layers(4, True)
    plain = plain.double() if x.dtype == torch.float64 else plain
    assert torch.equal(fuse(copy.deepcopy(plain)).train()(x), plain.train()(x))


def test_frozen_layers_let_gradients_through() -> None:
    """Running moments, and yet something before them learns."""
    plain = layers(4, True).eval()
    fused, found = fuse(copy.deepcopy(plain)), []
    for network in (plain, fused):
        x = pictures((2, 4, 6, 6), torch.float32).requires_grad_()
        network(x).sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_layers_are_fused_where_they_stand_in_a_row_and_keep_their_names() -> None:
    model = study_cnn(0.1)
    fused = fuse(copy.deepcopy(model))
    assert [*fused.state_dict()] == [*model.state_dict()]
    found = {
        name: layer.side for name, layer in fused.named_children() if type(layer) is NormReluPool
    }
    assert found == {"norm1": 1, "norm2": 2, "norm3": 1, "norm4": 1, "norm5": 2}
    assert fused.get_parameter("norm1.weight") is not model.get_parameter("norm1.weight")
    nested = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    assert isinstance(fuse(nested).get_submodule("1.0"), NormReluPool)


class OfTheirOwn(nn.Sequential):
    """Looks at what is between its layers."""

    def forward(self, x: Tensor) -> Tensor:
        between = self[0](x)
        return torch.add(between, self[1](between))


def test_whatever_else_could_notice_is_left_alone() -> None:
    relu = nn.ReLU()
    listened = nn.ReLU()
    listened.register_forward_hook(lambda *a: None)
    for network in (
        OfTheirOwn(nn.BatchNorm2d(3), nn.ReLU()),
        nn.Sequential(OfTheirOwn(nn.BatchNorm2d(3), nn.ReLU())),
        nn.Sequential(nn.BatchNorm2d(3), listened),
        nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.ReLU()),
        nn.Sequential(relu, nn.BatchNorm2d(3), nn.Tanh(), relu),
    ):
        before = str(network)
        assert str(fuse(network)) == before
    pools = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2, padding=1))
    assert isinstance(fuse(pools).get_submodule("2"), nn.MaxPool2d)


def test_training_is_the_same_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (48, 48, 48), generator=torch.Generator().manual_seed(0))
    shown = Faces(images.byte(), torch.arange(48) % 7)
    model, recipe = (
        untrained(lambda: Classifier(study_cnn(0.2)), 0),
        Recipe(epochs=2, batch_size=16),
    )
    for name in ("fc1_dropout", "fc2_dropout"):
        dropout: Any = model.network.get_submodule(name)
        dropout.p = 0.3  # no multiple of 1/256: PyTorch draws, with and without
    machine = Machine.of("cpu", "32-true")
    fused = train(model, shown, {}, recipe, 0, machine, keep="last")
    monkeypatch.setattr("crossfer.training.backends.cpu.layers.fuse", lambda network: network)
    plain = train(model, shown, {}, recipe, 0, machine, keep="last")
    losses = [[row["training_loss"] for row in trained.history] for trained in (fused, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    weights = plain.model.state_dict()
    for name, tensor in fused.model.state_dict().items():
        assert torch.allclose(tensor, weights[name], atol=5e-3), name
    assert type(fused.model.network.get_submodule("norm1")) is nn.BatchNorm2d


@pytest.mark.parametrize("p", [1 / 256, 0.25, 0.5, 0.75])
def test_dropout_by_bytes_keeps_as_many_as_it_should(p: float) -> None:
    torch.manual_seed(0)
    x = torch.full((1000, 8, 16), 3.0, requires_grad=True)
    (network,) = fuse(nn.Sequential(nn.Dropout(p)).train()).children()
    assert type(network) is Dropout
    y = network(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(y, 3 * x.grad)
    assert y.unique().tolist() == pytest.approx([0, 3 / (1 - p)])
    kept = (y != 0).float()
    spread = (p * (1 - p)) ** 0.5
    assert abs(kept.mean().item() - (1 - p)) < 4 * spread / kept.numel() ** 0.5
    # Each of the eight bytes that are drawn at a time is as good as the others.
    of_byte = kept.view(-1, 8).mean(0)
    assert (of_byte - (1 - p)).abs().max() < 5 * spread / (kept.numel() / 8) ** 0.5
    neighbours = kept.view(-1)
    together = (neighbours[1:] * neighbours[:-1]).mean().item()
    assert together == pytest.approx((1 - p) ** 2, abs=0.01)
    assert torch.equal(network.eval()(x), x)


def test_dropout_at_other_rates_is_pytorch_s() -> None:
    x = torch.randn(7, 9)
    for p in (0.0, 0.3, 1.0):
        answers = []
        for network in (nn.Dropout(p), Dropout(p)):
            torch.manual_seed(1)
            answers.append(network(x))
        assert torch.equal(*answers)

"""A descent that reads and writes every weight once: PyTorch's own, but for rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from crossfer.training.backends.cpu.descent import SGD, Linear, half_of
from crossfer.training.backends.cpu.layers import fuse

HOW: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}


def network(inputs: int = 5, units: int = 7, bias: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, units, bias), nn.Tanh(), nn.Linear(units, 3, bias))


def copies_of(model: nn.Module) -> list[Tensor]:
    return [half for p in model.parameters() if (half := half_of(p)) is not None]


def descended(
    model: nn.Module, kind: type[torch.optim.SGD], how: dict[str, Any], steps: int
) -> nn.Module:
    """Learn from the same numbers, in mixed precision."""
    numbers = torch.Generator().manual_seed(1)
    optimizer = kind(model.train().parameters(), fused=True, **how)
    for _ in range(steps):
        x = torch.randn(4, next(model.parameters()).shape[1], generator=numbers)
        with torch.autocast("cpu", torch.bfloat16):
            answers = model(x).float()
        (answers**2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@given(
    inputs=st.integers(1, 40),
    units=st.integers(1, 9),
    bias=st.booleans(),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    steps=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_it_takes_pytorch_s_steps(
    inputs: int,
    units: int,
    bias: bool,
    momentum: float,
    weight_decay: float,
    steps: int,
    seed: int,
) -> None:
    """One step differs by the rounding of single precision; later ones by what bfloat16 makes of that."""
    how = {"lr": 0.01, "momentum": momentum, "weight_decay": weight_decay, "nesterov": momentum > 0}
    plain = network(inputs, units, bias, seed)
    ours = fuse(copy.deepcopy(plain))
    descended(plain, torch.optim.SGD, how, steps)
    descended(ours, SGD, how, steps)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for name, theirs in plain.state_dict().items():
        tolerance = 1e-6 if steps == 1 else 1e-3
        assert torch.allclose(ours.state_dict()[name], theirs, atol=tolerance), name
    weights = [p for p in ours.parameters() if p.ndim == 2]
    for weight, half in zip(weights, copies_of(ours), strict=True):
        assert half.grad is None
        assert not momentum or torch.equal(half, weight.bfloat16())


def test_it_sees_weights_that_somebody_changed() -> None:
    model = descended(fuse(network()), SGD, HOW, 2)
    x = torch.randn(4, 5)
    for mode in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            model.load_state_dict({k: 2 * v for k, v in model.state_dict().items()})
            expected = network()
            expected.load_state_dict(model.state_dict())
            assert torch.equal(model.train(mode)(x), expected(x))


def with_a_penalty(kind: type[torch.optim.SGD], model: nn.Module, penalty: str) -> nn.Module:
    optimizer = kind(model.train().parameters(), fused=True, **HOW)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x).float() ** 2).sum()
        if penalty == "weights":
            loss = loss + sum((p**3).sum() for p in model.parameters())
        elif penalty == "answers":  # to other numbers, in single precision
            loss = loss + (model(x + 1) ** 2).sum()
        elif penalty == "evaluation":
            with torch.no_grad():
                model.eval()(x)
            model.train()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("penalty", ["weights", "answers", "evaluation"])
def test_whatever_else_a_loss_asks_of_a_network_counts(penalty: str) -> None:
    """A penalty may look at the weights, or ask the network again, before the step."""
    before = network()
    theirs = with_a_penalty(torch.optim.SGD, network(), penalty).state_dict()
    ours = with_a_penalty(SGD, fuse(network()), penalty).state_dict()
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, atol=2e-3), name
        assert (tensor - before.state_dict()[name]).norm() > 0.05, name


def test_a_step_that_was_not_taken_is_forgotten() -> None:
    model = fuse(network()).train()
    optimizer = SGD(model.parameters(), fused=True, **HOW)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.ones(2, 5)).sum().backward()
    assert all(half.grad is not None for half in copies_of(model))
    optimizer.zero_grad()
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_in_single_precision_there_is_no_copy() -> None:
    model = fuse(network()).train()
    assert isinstance(next(model.children()), Linear)
    model(torch.ones(2, 5))
    assert not copies_of(model)


@torch.no_grad()
def test_what_does_not_change_is_rounded_once() -> None:
    plain, x = network().eval(), torch.randn(4, 5)
    model = fuse(copy.deepcopy(plain)).requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), plain(x))
        kept = [id(half) for half in copies_of(model)]
        assert torch.equal(model(x), plain(x))
    assert len(kept) == 2 and kept == [id(half) for half in copies_of(model)]


def test_what_was_only_measured_learns_afterwards() -> None:
    """As between the epochs: a copy that was made to measure takes part in the next step."""
    measured, plain = fuse(network()), fuse(network())
    x = torch.randn(4, 5)
    for frozen in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            measured.eval().requires_grad_(not frozen)(x)
    descended(measured, SGD, HOW, 2)
    descended(plain, SGD, HOW, 2)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(measured.state_dict()[name], tensor), name

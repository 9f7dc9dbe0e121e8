"""Every backend could be deleted: training keeps its promises on PyTorch's own layers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import crossfer
from crossfer.machine import Machine, measured_faster
from crossfer.networks import Classifier
from crossfer.training import Recipe, specialised
from crossfer.training.backends import BACKENDS, Plain, backend_of
from tests import test_inputs, test_training
from tests.test_batch_statistics import (  # noqa: F401
    test_after_few_steps_the_momentum_makes_no_difference,
    test_statistics_of_frozen_layers_never_move,
)
from tests.test_training import (  # noqa: F401
    small,
    squares,
    test_it_learns_what_can_be_learnt,
    test_same_seed_same_bits_and_nothing_else_is_touched,
    test_selection_keeps_the_best_epoch_or_the_last,
)


@pytest.fixture(autouse=True)
def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tested here, imported tests included, has no backend."""
    monkeypatch.setattr("crossfer.training.backends.BACKENDS", {})


def test_without_backends_every_layer_is_pytorch_s() -> None:
    assert type(backend_of(torch.device("cpu"))) is Plain
    network = specialised(small(), squares(1).images, torch.device("cpu"))
    kinds = {type(module) for module in network.modules()} - {Classifier}
    assert all(kind.__module__.startswith("torch.nn.") for kind in kinds)
    rate = torch.zeros(())
    optimizer = Plain().optimizer([nn.Parameter(torch.ones(2))], rate, Recipe())
    assert type(optimizer) is Plain.descent and optimizer.param_groups[0]["lr"] is rate


def test_the_plain_descent_is_pytorch_s_to_the_bit() -> None:
    told: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    for weight, kind in ((ours, Plain.descent), (theirs, torch.optim.SGD)):
        optimizer = kind([weight], **told)
        for _ in range(3):
            weight.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert weight.grad is None
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("slow", "chosen"), [(torch.bfloat16, "32-true"), (torch.float32, "bf16-mixed")]
)
def test_bfloat16_is_chosen_where_the_processor_has_it_and_multiplies_faster_in_it(
    slow: torch.dtype, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        time.sleep(0.002 if a.dtype == slow else 0)

    monkeypatch.setattr("crossfer.machine.cpuinfo", lambda key: ["fpu avx512_bf16"])
    monkeypatch.setattr(torch, "mm", product)
    measured_faster.cache_clear()
    try:
        assert Machine.of("cpu").precision == chosen
    finally:
        measured_faster.cache_clear()


@pytest.mark.parametrize("what", ["FC", "FC+CL"])
def test_reuse_gives_the_same_weights_and_goes_on(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_inputs.test_reuse_gives_the_same_weights_up_to_rounding(what, {}, 2**31, monkeypatch)
    test_inputs.test_interrupted_it_goes_on_to_the_same_bits(what, tmp_path)


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    test_training.test_an_interrupted_training_goes_on_to_the_same_bits({}, tmp_path)


def test_nothing_but_the_cpu_s_backend_knows_its_compiler() -> None:
    root = Path(crossfer.__file__).parent
    home = root / "training" / "backends" / "cpu"
    for file in root.rglob("*.py"):
        if home not in file.parents:
            text = file.read_text(encoding="utf-8")
            assert "import numba" not in text and "from numba" not in text, file
            assert "training.backends.cpu." not in text, file


def test_a_short_training_is_not_compiled() -> None:
    network = small()
    assert BACKENDS["cuda"].compiled(network, 1000) is network


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_compiled_steps_give_the_same_bits_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfer.training import train
    from tests.test_training import RECIPE, weights_equal

    machine = Machine.of("cuda", "32-true")
    monkeypatch.setattr("crossfer.training.backends.BACKENDS", BACKENDS)
    monkeypatch.setattr("crossfer.training.backends.cuda.WORTH_COMPILING", 0)
    once, again = (train(small(), squares(), {}, RECIPE, 0, machine, keep="last") for _ in range(2))
    assert weights_equal(once.model, again.model)
    assert once.history[-1]["training_loss"] < once.history[0]["training_loss"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_s_replayed_steps_give_the_bits_of_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from crossfer.training import train
    from tests.test_training import RECIPE, weights_equal

    machine = Machine.of("cuda", "32-true")
    plain = train(small(), squares(), {}, RECIPE, 0, machine, keep="last")
    monkeypatch.setattr("crossfer.training.backends.BACKENDS", BACKENDS)
    replayed = train(small(), squares(), {}, RECIPE, 0, machine, keep="last")
    assert weights_equal(plain.model, replayed.model)

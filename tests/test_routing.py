"""A mixture of experts: neither network changes, and a router tells old faces from new ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

import crossfer
from crossfer.adaptation import adapt, check_strategy, untrained
from crossfer.datasets import Dataset
from crossfer.deploy.export import ExportOptions, export
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment, run_experiment
from crossfer.machine import Machine
from crossfer.memory import statistics
from crossfer.memory.closed_form import penultimate
from crossfer.memory.file import Memory
from crossfer.memory.routing import Router, mixed
from crossfer.memory.statistics import Moments
from crossfer.networks import Classifier, load, study_cnn
from crossfer.networks.sources import Spec
from crossfer.strategies import STRATEGIES
from crossfer.strategy import Strategy
from crossfer.training import Faces, Recipe, predict
from tests.test_remember import NETWORKS
from tests.tiny_networks import Residual

MACHINE = Machine.of("cpu", "32-true")


def drawn(seed: int, striped: bool = False, count: int = 140) -> Faces:
    """Draw noise: as it is, or with every other row dark."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    if striped:
        images[:, ::2] //= 4
    return Faces(images, torch.arange(count) % 7)


def study(seed: int) -> Classifier:
    network = untrained(lambda: study_cnn(0.05), seed)
    spec = Spec("study", {"width": 0.05, "classes": 7})
    return Classifier(network, spec=spec).eval()


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    monkeypatch.setattr(statistics, "PER_DIRECTION", 1)
    return study(0)


def test_the_router_is_linear_discriminant_analysis(old: Classifier) -> None:
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(6, 6))
    sides = [generator.normal(size=(400, 6)) @ spread + mean for mean in (0.0, 0.7)]
    labels = torch.zeros(400, dtype=torch.int64)
    memory = Memory.of(old, drawn(0), MACHINE)
    memory = replace(memory, moments=Moments.of(torch.tensor(sides[0]), labels, 7))
    w, b = Router(ridge=1e-12).score(memory, torch.tensor(sides[1]))
    theirs = LinearDiscriminantAnalysis(solver="lsqr")
    theirs.fit(np.concatenate(sides), np.repeat([0, 1], 400))
    assert np.allclose(w.numpy(), theirs.coef_[0], rtol=1e-4)
    assert math.isclose(b, theirs.intercept_[0], rel_tol=1e-4)
    _, rarer = Router(prior=0.2, ridge=1e-12).score(memory, torch.tensor(sides[1]))
    assert math.isclose(rarer - b, math.log(0.2 / 0.8))


def test_probabilities_are_mixed_and_the_bundle_answers_the_same(
    old: Classifier, tmp_path: Path
) -> None:
    new, faces = study(1), drawn(3, count=10)
    features = penultimate(old, faces, MACHINE).double()
    w = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0)).double()
    weight = torch.sigmoid(features @ w + 0.3)[:, None].numpy()
    mixture = mixed(old, new, w, 0.3)
    pictures = faces.images.numpy()
    wanted = (1 - weight) * old.predict(pictures) + weight * new.predict(pictures)
    assert np.allclose(mixture.predict(pictures), wanted, atol=1e-5)
    bundle = mixture.save(tmp_path / "bundle")
    assert np.array_equal(load(bundle).predict(pictures), mixture.predict(pictures))
    export(load(bundle), tmp_path / "exported", ExportOptions(), origin="a test")
    assert np.allclose(crossfer.load(tmp_path / "exported").predict(pictures), wanted, atol=1e-4)
    card = (tmp_path / "exported/README.md").read_text(encoding="utf-8")
    assert "a mixture of two networks" in card


def test_the_router_says_in_bfloat16_what_its_export_says(old: Classifier) -> None:
    """Its weights are large, so rounded features would be told apart otherwise than by an export."""
    w = 100 * torch.randn(51, generator=torch.Generator().manual_seed(0)).double()
    mixture, scores = mixed(old, study(1), w, 0.3), []
    mixture.network.get_submodule("old").register_forward_hook(
        lambda module, given, made: scores.append(made)
    )
    for precision in ("32-true", "bf16-mixed"):
        predict(mixture, drawn(3, count=10).images, Machine.of("cpu", precision))
    assert torch.equal(*scores)


@pytest.mark.parametrize("name", ["GFR+MOE", "RE+MOE"])
def test_old_faces_are_left_to_the_old_network(old: Classifier, name: str) -> None:
    source, target = drawn(1, count=700), drawn(2, striped=True, count=700)
    memory, expert = Memory.of(old, source, MACHINE), study(1)
    adapted = adapt(
        STRATEGIES[name], expert, old, {"target": target}, {}, Recipe(), 0, MACHINE, memory
    )
    again = drawn(4), drawn(5, striped=True)
    answers = [
        [model.predict(faces.images.numpy()) for faces in again]
        for model in (adapted.model, old, expert)
    ]
    for side, like in enumerate((1, 2)):
        near, far = (abs(answers[0][side] - answers[n][side]).mean() for n in (like, 3 - like))
        assert near < far / 3


def test_a_mixture_is_measured_and_not_adapted_any_further(
    old: Classifier, prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    mixture = mixed(old, study(1), torch.zeros(51), 0.0)
    assert not any(parameter.requires_grad for parameter in mixture.parameters())
    with pytest.raises(CrossferError, match="is not adapted any further"):
        adapt(STRATEGIES["RE"], mixture, mixture, {}, {}, Recipe(), 0, MACHINE)
    with pytest.raises(CrossferError, match="no memory file of it: a mixture of experts is not"):
        Memory.of(mixture, drawn(1), MACHINE)
    content = {
        "name": "again",
        "source": str(prepared["fer2013"].folder),
        "targets": [str(prepared["jaffe"].folder)],
        "model": str(mixture.save(tmp_path / "bundle")),
        "strategies": ["RE"],
        "copies": "ignore",
    }
    with pytest.raises(CrossferError, match="not adapted any further.*set strategies: \\[BL\\]"):
        run_experiment(check_experiment(content), tmp_path / "out")
    assert not list((tmp_path / "out").glob("runs/*"))
    results = run_experiment(check_experiment(content | {"strategies": ["BL"]}), tmp_path / "out")
    assert not results.failed
    merge = {"name": "X", "start": "RE+MOE", "layers": "none", "data": "target", "merge": True}
    with pytest.raises(CrossferError, match="X: starts from RE.MOE: a mixture of experts is not"):
        check_experiment(content | {"strategies": [merge]})
    moe = {"name": "X", "start": "RE", "layers": "none", "data": "target"}
    for router, said in (({"prior": 1.2}, "prior must be between"), ({"priorr": 1}, "unknown key")):
        memory = {"memory": {"kind": "router", **router}}
        with pytest.raises(CrossferError, match=rf"memory.*{said}"):
            check_experiment(content | {"strategies": [moe | memory]})


@pytest.mark.parametrize("network", [n[0] for n in NETWORKS], ids=[n[2] for n in NETWORKS])
def test_any_network_with_a_linear_head_is_an_expert(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "PER_DIRECTION", 1)
    how = next(how for one, how, _ in NETWORKS if one is network)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (140, *how.image_shape), generator=generator, dtype=torch.uint8)
    faces = Faces(images, torch.arange(140) % 7)
    old = Classifier(network, preprocessing=how).eval()
    new = copy.deepcopy(old)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    memory = Memory.of(old, faces, MACHINE)
    mixture = Router().between(old, new, memory, faces[torch.arange(40)], MACHINE).model
    ends = np.stack([old.predict(images.numpy()), new.predict(images.numpy())])
    found = mixture.predict(images.numpy())
    assert (found > ends.min(0) - 1e-5).all() and (found < ends.max(0) + 1e-5).all()


class Followed(nn.Module):
    """Its last linear layer is not what gives its outputs."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.own, self.then = Residual(1), then

    def forward(self, images: Tensor) -> Tensor:
        return self.then(self.own(images))


FOLLOWED: list[Callable[[Tensor], Tensor]] = [
    lambda y: y.log_softmax(1),
    lambda y: y * torch.linspace(1, 2, 7),
    lambda y: y.view(-1, 7),
    lambda y: y[:, :7],
    lambda y: 2 * y,
]


def test_a_network_whose_head_a_router_would_disturb_is_refused(old: Classifier) -> None:
    faces = drawn(1)
    for then in FOLLOWED:
        network = Classifier(Followed(then)).eval()
        memory = Memory.of(network, faces, MACHINE)
        with pytest.raises(CrossferError, match="router: .* does not produce its outputs"):
            Router().between(network, network, memory, drawn(2, striped=True), MACHINE)
    bare = Residual(1)
    bare.head = nn.Linear(bare.head.in_features, 7, bias=False)
    network = Classifier(bare).eval()
    memory = Memory.of(network, faces, MACHINE)
    with pytest.raises(CrossferError, match="GFR.MOE: the network's last layer head has no bias"):
        check_strategy(STRATEGIES["GFR+MOE"], network)
    with pytest.raises(CrossferError, match="two networks of the same form"):
        Router().between(network, old, memory, drawn(2, striped=True), MACHINE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": "baseline"}, "router: start: another strategy"),
        ({"layers": "FC"}, "router: layers: none"),
        ({"data": "source+target"}, "memory: needs data: target"),
    ],
)
def test_what_does_not_go_together_is_said(given: dict[str, str], said: str) -> None:
    point = {"name": "X", "start": "RE", "layers": "none", "data": "target", "memory": Router()}
    with pytest.raises(ValueError, match=said):
        Strategy(**point | given)  # pyrefly: ignore
    with pytest.raises(ValueError, match="prior must be between 0 and 1"):
        Router(prior=1.0)

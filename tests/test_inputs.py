"""Frozen layers calculate once, and nothing changes by it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from crossfer.adaptation import untrained
from crossfer.machine import Machine, Precision
from crossfer.networks import Classifier, Preprocessing, study_cnn
from crossfer.networks.layers import channels_last, train_only
from crossfer.strategies import STRATEGIES
from crossfer.training import Faces, Recipe, inputs, predict, train
from crossfer.training.devices import Devices
from crossfer.training.dual import MOST, Dual, is_worth_it
from crossfer.training.inputs import Anew, Kept
from crossfer.training.split import Split, split_frozen
from crossfer.training.surrogate import Surrogate, surrogate_of
from tests.stops import Stops

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.01, views=2)
LARGEST_DIFFERENCE = 1e-5
"""Of a weight, in single precision: sums are taken in another order."""


def faces(count: int = 40, seed: int = 0) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


def partly_frozen(what: str, width: float = 0.1) -> Classifier:
    model = untrained(lambda: Classifier(study_cnn(width)), 0)
    model.train_only(what.removesuffix(" many images"))
    return model


def learner(model: Classifier, shown: Faces, recipe: Recipe = RECIPE) -> Surrogate:
    machine, generator = Machine.of("cpu", "32-true"), torch.Generator()
    return surrogate_of(
        model.eval(),
        shown,
        {"target": faces(9, 1)},
        recipe,
        0,
        generator,
        machine,
        reuse=True,
        devices=Devices(machine),
    )


def cut(model: Classifier, images: torch.Tensor) -> Split:
    split = split_frozen(model, images)
    assert split
    return split


def part_before(model: Classifier) -> nn.Module:
    return cut(model, faces(1).images).frozen


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("FC", {}),
        ("FC", {"averaging": 0.9}),
        ("FC", {"momentum": 0.0}),
        ("FC", {"batch_size": 7, "views": 1}),
        ("FC many images", {"batch_size": 32}),
        ("FC+CL", {}),
    ],
)
@pytest.mark.parametrize("limit", [2**31, 0], ids=["in memory", "in a file"])
def test_reuse_gives_the_same_weights_up_to_rounding(
    what: str, change: dict[str, Any], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large: the dual form for few images, outputs in memory or on the disk for many."""
    monkeypatch.setattr(inputs, "LARGEST_IN_MEMORY", limit)
    model, machine, recipe = (
        partly_frozen(what),
        Machine.of("cpu", "32-true"),
        replace(RECIPE, **change),
    )
    shown, sides = faces(210 if "many" in what else 40), {"target": faces(9, 1)}
    is_dual = bool(learner(partly_frozen(what), shown, recipe).dual)
    assert is_dual == (what == "FC")
    reused = train(model, shown, sides, recipe, 0, machine, keep="last")
    anew = train(model, shown, sides, recipe, 0, machine, keep="last", reuse=False)
    before, after = model.state_dict(), anew.model.state_dict()
    for name, tensor in reused.model.state_dict().items():
        assert torch.allclose(tensor.float(), after[name].float(), atol=LARGEST_DIFFERENCE), name
        if name.startswith(("network.conv1", "network.norm1", "network.conv4", "network.norm4")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(after["network.fc1.weight"], before["network.fc1.weight"])
    for ours, theirs in zip(reused.history, anew.history, strict=True):
        assert ours["target_loss"] == pytest.approx(theirs["target_loss"], abs=1e-4)


@pytest.mark.parametrize("what", ["FC", "FC+CL"])
def test_interrupted_it_goes_on_to_the_same_bits(what: str, tmp_path: Path) -> None:
    shown, sides, machine = faces(), {"target": faces(9, 1)}, Machine.of("cpu")
    stops = Stops(tmp_path, (0, 2), (2, 3), (3, 0))

    model = partly_frozen(what)
    whole = train(model, shown, sides, RECIPE, 0, machine).model.state_dict()
    others = [train(model, shown, sides, RECIPE, 0, machine, on_state=stops.keep)]
    for _, resume in stops:
        others.append(train(model, shown, sides, RECIPE, 0, machine, resume=resume))
    for other in others:
        assert all(torch.equal(t, whole[name]) for name, t in other.model.state_dict().items())


def test_the_study_s_network_too() -> None:
    """All of its 8,192 features: FC as 73 inputs."""
    model, machine = partly_frozen("FC", width=1.0), Machine.of("cpu", "32-true")
    recipe, shown = Recipe(epochs=2, batch_size=16, learning_rate=0.01, views=2), faces(32)
    assert learner(partly_frozen("FC", width=1.0), shown, recipe).dual == "network.fc1"
    reused = train(model, shown, {}, recipe, 0, machine, keep="last").model
    anew = train(model, shown, {}, recipe, 0, machine, keep="last", reuse=False).model
    for name, tensor in reused.state_dict().items():
        assert torch.allclose(tensor, anew.state_dict()[name], atol=LARGEST_DIFFERENCE), name


@given(
    count=st.integers(1, 12),
    copies=st.integers(0, 3),
    bias=st.booleans(),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    batches=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=6), max_size=8),
    seed=st.integers(0, 2**31),
)
def test_the_dual_form_learns_what_the_layer_would(
    count: int,
    copies: int,
    bias: bool,
    momentum: float,
    weight_decay: float,
    batches: list[list[int]],
    seed: int,
) -> None:
    """Inputs that are copies of one another, nothing at all, or twice in a batch, included."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(count, 48, generator=generator).relu()
    shown = torch.cat([shown, shown[:copies], torch.zeros(1, 48)])
    torch.manual_seed(seed)
    layer = nn.Linear(48, 5, bias=bias)
    dual = Dual(copy.deepcopy(layer), shown)
    how: dict[str, Any] = {
        "momentum": momentum,
        "weight_decay": weight_decay,
        "nesterov": momentum > 0,
    }
    optimizers = [
        torch.optim.SGD(module.parameters(), lr=0.005, fused=True, **how)
        for module in (layer, dual)
    ]
    for batch in batches:
        which = torch.tensor(batch) % len(shown)
        for answers in (layer(shown[which]), dual(which)):
            (answers.tanh() ** 2).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    every = torch.arange(len(shown))
    assert torch.allclose(dual(every), layer(shown), atol=1e-5)
    assert torch.allclose(dual.widened(dual.weight, dual.rest), layer.weight, atol=1e-5)
    assert not bias or torch.allclose(dual.bias, layer.bias, atol=1e-5)


def test_a_layer_learns_in_its_dual_form_where_that_is_much_less() -> None:
    layer = nn.Linear(400, 3)
    assert is_worth_it(layer, 200) and not is_worth_it(layer, 201)
    assert not is_worth_it(nn.Linear(4 * MOST, 3), MOST + 1)
    assert not is_worth_it(nn.Conv2d(1, 1, 1), 1)
    layer.weight.requires_grad_(False)
    assert not is_worth_it(layer, 200)


def test_frozen_layers_see_each_version_of_an_image_once() -> None:
    model, shown, validation = partly_frozen("FC"), faces(), faces(9, 1)
    seen: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 2:  # so many are tried, to know how many fit into memory
            seen.append(len(inputs[0]))

    def counting(epochs: int, versions: int) -> int:
        seen.clear()
        recipe = Recipe(epochs=epochs, batch_size=8, learning_rate=0.01, views=versions)
        # `train` copies the network, hooks included.
        train(model, shown, {"target": validation}, recipe, 0, Machine.of("cpu"))
        return sum(seen)

    handle = model.network.get_submodule("conv1").register_forward_pre_hook(count)
    try:
        assert counting(6, 2) == 2 * len(shown) + len(validation)
        assert counting(2, 5) == 2 * len(shown) + len(validation)
        assert counting(6, 0) == 6 * len(shown) + len(validation)
    finally:
        handle.remove()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("frozen", ["nothing", "convolutions"])
def test_versions_differ_and_come_back_in_turn(frozen: str, precision: Precision) -> None:
    """Images are augmented in single precision, whatever layers calculate in."""
    shown, machine, rows = faces(), Machine.of("cpu", precision), torch.arange(40)
    layers = nn.Sequential() if frozen == "nothing" else part_before(partly_frozen("FC")).eval()
    recipe = replace(RECIPE, views=3, epochs=9)
    anew = Anew(shown.images, layers, recipe, 5, torch.Generator(), machine, Preprocessing())
    versions = []
    for of in (anew, Kept(anew)):
        for epoch in range(6):
            of.begin(epoch)
            versions.append(of(rows))
    assert all(torch.equal(versions[n], versions[n + 3]) for n in range(9))
    assert not torch.allclose(versions[0], versions[1])
    assert torch.equal(Kept(anew).anew(torch.tensor([4, 2])), anew(torch.tensor([4, 2])))


def test_a_layer_that_is_used_otherwise_is_left_as_it_is() -> None:
    """In two places, at several places of a picture at once, or within a block."""
    twice, to_logits = nn.Linear(64, 64), nn.Linear(64, 7)
    wide = nn.Linear(4 * 47 * 47, 64)
    block = nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU())
    for trained, layers in (
        (["2.0", "4"], [nn.ReLU(), block, nn.Flatten(), nn.Linear(2 * 45 * 45, 7)]),
        (["3", "6"], [nn.Flatten(), wide, twice, nn.ReLU(), twice, to_logits]),
        (
            ["2", "5"],
            [nn.Flatten(2), nn.Linear(47 * 47, 7), nn.ReLU(), nn.Flatten(), nn.Linear(28, 7)],
        ),
    ):
        torch.manual_seed(0)
        model = Classifier(nn.Sequential(nn.Conv2d(1, 4, 2), *layers))
        train_only(model.network, trained)
        machine, shown, sides = Machine.of("cpu", "32-true"), faces(8), {"target": faces(9, 1)}
        recipe = replace(RECIPE, learning_rate=0.001)
        reused = train(model, shown, sides, recipe, 0, machine, keep="last").model
        anew = train(model, shown, sides, recipe, 0, machine, keep="last", reuse=False).model
        for name, tensor in reused.state_dict().items():
            assert torch.allclose(tensor, anew.state_dict()[name], atol=LARGEST_DIFFERENCE), name


def test_what_would_be_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LARGEST_IN_MEMORY", 0)
    assert isinstance(learner(partly_frozen("FC"), faces()).inputs, Kept)
    monkeypatch.setattr("crossfer.training.surrogate.LARGEST_IN_A_FILE", 0)
    cut = learner(partly_frozen("FC"), faces())
    assert isinstance(cut.inputs, Anew) and not cut.dual


@pytest.mark.parametrize("what", ["FC", "FC+CL"])
def test_how_much_would_be_kept_is_known_beforehand(what: str) -> None:
    """It decides whether anything is."""
    model = partly_frozen(what).eval()
    machine, shown = Machine.of("cpu", "32-true"), faces()
    frozen = part_before(model)
    anew = Anew(shown.images, frozen, RECIPE, 0, torch.Generator(), machine, Preprocessing())
    kept = Kept(anew)
    kept.begin(0)
    assert (
        kept.outputs is not None and anew.size() * RECIPE.views * len(shown) == kept.outputs.nbytes
    )


def test_what_trains_the_last_layers_alone_shows_four_versions_unless_asked_otherwise() -> None:
    shown = {name: strategy.default_recipe().views for name, strategy in STRATEGIES.items()}
    last = {"HEAD", "FC", "FC+CL", "GFR", "GFR+LDC"}
    assert {name for name, views in shown.items() if views} == last
    assert set(shown.values()) == {0, 4}


def test_outputs_keep_the_layout_that_the_frozen_layers_gave() -> None:
    model = channels_last(partly_frozen("FC+CL"), torch.zeros(1, 1, 48, 48)).eval()
    kept = learner(model, faces()).inputs
    kept.begin(1)
    assert kept(torch.tensor([3, 1])).is_contiguous(memory_format=torch.channels_last)


def test_validation_is_measured_by_what_is_kept() -> None:
    model = partly_frozen("FC").eval()
    whole = predict(model, faces(9, 1).images, Machine.of("cpu", "32-true"))
    cut = learner(model, faces())
    kept = predict(cut.part, cut.given["target"], Machine.of("cpu", "32-true"))
    assert isinstance(cut.part.network.get_submodule("fc1"), Dual)
    assert torch.allclose(kept, whole, atol=1e-6)


def test_a_network_is_cut_before_the_first_layer_that_trains() -> None:
    model = partly_frozen("FC+CL").eval()
    images = torch.randn(3, 1, 48, 48)
    frozen, rest, _ = cut(model, images)
    assert torch.equal(rest(frozen(images)), model(images))
    assert [name for name, _ in frozen.named_children()][-1] == "relu4"
    assert rest.get_parameter("network.conv5.weight") is model.get_parameter("network.conv5.weight")
    everything = untrained(lambda: Classifier(study_cnn(0.1)), 0)
    assert split_frozen(everything, images) is None


def test_a_layer_that_stands_in_two_places_is_in_both() -> None:
    """Many a network makes one ReLU and uses it everywhere."""
    relu = nn.ReLU()
    layers = [nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 7), relu]
    model = Classifier(nn.Sequential(*layers))
    train_only(model.network, ["4"])
    numbers = torch.randn(5, 4)
    frozen, rest, _ = cut(model, numbers)
    assert torch.equal(rest(frozen(numbers)), model(numbers))
    assert [*rest.state_dict()] == ["network.4.weight", "network.4.bias"]


def small_sequence(*between: nn.Module) -> nn.Sequential:
    """Return a network whose last layers train, with modules behind its convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 8, 8),
        *between,
        nn.Flatten(),
        nn.Linear(144, 8),
        *between[:1],
        nn.Linear(8, 7),
    )


def test_a_hook_on_the_whole_network_is_not_cut_off() -> None:
    """It changes what the first layer is given, which the cut would pass over."""
    network = small_sequence(nn.ReLU())
    network.register_forward_pre_hook(lambda module, given: (3 * given[0] + 2,))
    classifier = Classifier(network)
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    images = torch.randn(3, 1, 48, 48)
    cut = split_frozen(classifier, images)
    classifier.eval()
    assert cut is None or torch.allclose(
        cut.rest(cut.frozen(images)), classifier(images), atol=1e-5
    )


@pytest.mark.parametrize(("shared", "is_cut"), [(nn.ReLU(), True), (nn.Dropout(0.5), False)])
def test_a_module_on_both_sides_is_cut_only_if_training_does_not_change_it(
    shared: nn.Module, is_cut: bool
) -> None:
    classifier = Classifier(small_sequence(shared))
    for parameter in classifier.network.get_submodule("0").parameters():
        parameter.requires_grad_(False)
    assert (split_frozen(classifier, torch.randn(3, 1, 48, 48)) is not None) == is_cut

"""What keeps the old in mind: exemplars, penalties, merging, mixed batches."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from crossfer.adaptation import adapt, untrained
from crossfer.classes import FER7
from crossfer.cost import flop_of
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment
from crossfer.machine import Machine
from crossfer.memory import merging
from crossfer.memory.exemplars import ExemplarChoice, choose_exemplars, herd
from crossfer.memory.file import Memory
from crossfer.memory.merging import best_mixture, by_depth, by_fisher, interpolate
from crossfer.memory.penalties import (
    EWC,
    L2SP,
    DarkExperience,
    Distillation,
    FocalDistillation,
    Penalty,
    SourceDistillation,
    fisher,
)
from crossfer.networks import Classifier, study_cnn
from crossfer.networks.adapters import LowRank, adapt_linear, fold
from crossfer.networks.flop import training_flop
from crossfer.strategies import BEYOND, STRATEGIES, starts
from crossfer.strategy import Strategy
from crossfer.terms import PAST_DATA
from crossfer.training import (
    Augmentation,
    Faces,
    Mixture,
    Recipe,
    normalise,
    predict,
    train,
)
from crossfer.training.loss import cross_entropy, log_shares
from crossfer.training.prediction import features, judge
from crossfer.training.statistics import batch_norms
from crossfer.training.trainer import _partners
from crossfer.unlabelled import Shot, Tent
from tests.tiny_networks import Vision

PENALTIES: list[Penalty] = [
    Distillation(),
    SourceDistillation(),
    DarkExperience(forward=0.1),
    FocalDistillation(),
    L2SP(),
    EWC(samples=9),
]
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.01)


def faces(count: int = 42, seed: int = 0) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


def small(seed: int = 0) -> Classifier:
    return untrained(lambda: Classifier(study_cnn(0.05)), seed).eval()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@given(
    new=st.integers(1, 60),
    old=st.integers(1, 90),
    share=st.floats(0.1, 0.9),
    size=st.integers(2, 32),
)
def test_a_mixture_shows_every_new_face_once_and_keeps_its_share(
    new: int, old: int, share: float, size: int
) -> None:
    mixture = Mixture.of(faces(new), faces(old), share)
    batches = mixture.batches(size, torch.Generator().manual_seed(0))
    fresh = batches[batches < new]
    assert len(torch.unique(fresh)) == len(fresh) > new - len(batches)
    per_batch = (batches < new).sum(1).tolist()
    assert len(set(per_batch)) == 1
    assert per_batch[0] == mixture.fresh(batches.shape[1])
    assert (batches[:, : per_batch[0]] < new).all()
    wanted = per_batch[0] * (1 - share) / share
    assert abs(batches.shape[1] - per_batch[0] - max(1, wanted)) <= 0.5 + 1e-6
    shown = Counter(batches[batches >= new].tolist())
    assert max(shown.values()) - min(shown[row] for row in range(new, new + old)) <= 1


def test_exemplars_are_so_many_of_each_class() -> None:
    source = faces(70)
    machine = Machine.of("cpu")
    choices: tuple[ExemplarChoice, ...] = ("random", "herding")
    for how in choices:
        kept = choose_exemplars(source, 3, how, small(), 0, machine)
        assert torch.bincount(kept.labels).tolist() == [3] * 7
        known = {image.numpy().tobytes() for image in source.images}
        assert {image.numpy().tobytes() for image in kept.images} <= known
    assert len(choose_exemplars(source, 99, "random", small(), 0, machine)) == 70


def test_herding_follows_the_mean_better_than_chance() -> None:
    points = F.normalize(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) + 0.3)
    mean = points.mean(0)
    chosen = (points[herd(points, 10)].mean(0) - mean).norm()
    by_chance = [
        (
            points[torch.randperm(200, generator=torch.Generator().manual_seed(n))[:10]].mean(0)
            - mean
        )
        .norm()
        .item()
        for n in range(50)
    ]
    assert chosen < min(by_chance)
    assert len(set(herd(points, 200).tolist())) == 200


def test_features_are_what_the_layer_is_given() -> None:
    model, shown, machine = small(), faces(10), Machine.of("cpu", "32-true")
    found = features(model, "fc3", shown.images, machine)
    with torch.no_grad():
        again = model.network.get_submodule("fc3")(found)
        assert torch.allclose(again, model(normalise(shown.images)), atol=1e-5)
    many = faces(40).images  # so many that it is tried first how many fit
    parts = [features(model, "fc3", part, machine) for part in many.split(4)]
    assert torch.allclose(features(model, "fc3", many, machine), torch.cat(parts), atol=1e-5)


def test_distillation_is_nothing_while_the_answers_stay_and_grows_when_they_change() -> None:
    machine, start, images = Machine.of("cpu", "32-true"), small(), normalise(faces(8).images)
    term = Distillation(temperature=2.0, weight=0.5).term(start, faces(8), None, 0, machine)
    with torch.no_grad():
        old, new = start(images), small(1)(images)
    assert term(start, images, old, torch.arange(8)) == pytest.approx(0, abs=1e-6)
    soft_old, soft_new = (old / 2).softmax(1), (new / 2).softmax(1)
    by_hand = 0.5 * 4 * (soft_old * (soft_old / soft_new).log()).sum(1).mean()
    assert term(start, images, new, torch.arange(8)) == pytest.approx(float(by_hand), rel=1e-4)


def test_source_distillation_is_distillation_on_the_old_images_of_a_mixture_alone() -> None:
    machine, start, images = Machine.of("cpu", "32-true"), small(), normalise(faces(8).images)
    mixture = Mixture.of(faces(4), faces(9), 0.25)
    rows = mixture.batches(8, torch.Generator().manual_seed(0))[0]
    old = rows >= 4
    assert old.sum() == 6
    with torch.no_grad():
        answers = small(1)(images)
    term = SourceDistillation(temperature=3.0, weight=0.5).term(start, mixture, None, 0, machine)
    alone = Distillation(temperature=3.0, weight=0.5).term(start, mixture, None, 0, machine)
    found = term(start, images, answers, rows)
    assert found == pytest.approx(float(alone(start, images[old], answers[old], rows[old])))
    assert found > 0
    assert term(start, images, torch.where(old[:, None], answers, 0 * answers), rows) == found


def test_l2_sp_is_half_the_squared_distance_of_what_trains() -> None:
    machine, start = Machine.of("cpu", "32-true"), small()
    moved = copy.deepcopy(start)
    with torch.no_grad():
        moved.get_parameter("network.fc3.bias").add_(2.0)
        moved.get_parameter("network.fc1.bias").add_(1.0)
    moved.get_parameter("network.fc1.bias").requires_grad_(False)
    term = L2SP(weight=0.1).term(start, faces(1), None, 0, machine)
    none = torch.empty(0)
    assert term(start, none, none, none) == 0
    assert term(moved, none, none, none).item() == pytest.approx(0.05 * 7 * 4)


def test_mixup_mixes_the_images_of_a_batch_and_their_losses(monkeypatch: Any) -> None:
    monkeypatch.setattr(Beta, "sample", lambda self: torch.tensor(0.3))
    network = untrained(
        lambda: Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7)), FER7), 0
    )
    shown, plain = faces(6), Augmentation(flip=False, shift=0.0)
    recipe = Recipe(1, 6, 1e-12, label_smoothing=0.0, mixup=0.2, augmentation=plain)
    trained = train(network, shown, {}, recipe, 0, Machine.of("cpu", "32-true"), keep="last")
    losses = []
    for order in itertools.permutations(range(6)):  # whatever the order was, it is one of these
        rows = torch.tensor(order)
        images = normalise(shown.images[rows])
        with torch.no_grad():
            logits = network(0.3 * images + 0.7 * images.flip(0))
        labels = shown.labels[rows]
        loss = 0.3 * F.cross_entropy(logits, labels) + 0.7 * F.cross_entropy(logits, labels.flip(0))
        losses.append(loss.item())
    found = trained.history[0]["training_loss"]
    assert min(abs(found - loss) for loss in losses) < 1e-5
    assert max(losses) - min(losses) > 1e-2
    with pytest.raises(CrossferError, match="mixup: cannot be combined with a penalty"):
        penalty = L2SP().term(network, shown, None, 0, Machine.of("cpu"))
        train(network, shown, {}, recipe, 0, Machine.of("cpu"), keep="last", penalty=penalty)


def test_the_fisher_information_is_the_mean_of_squared_gradients_image_by_image() -> None:
    machine, model, shown = Machine.of("cpu", "32-true"), small(), faces(5)
    found = fisher(model, shown.images, 3, machine)
    generator = torch.Generator().manual_seed(3)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for part in torch.split(normalise(shown.images), 2):
        drawn = torch.multinomial(model(part).softmax(1), 1, generator=generator)[:, 0]
        for image, label in zip(part, drawn, strict=True):
            model.zero_grad()
            F.cross_entropy(model(image[None]), label[None]).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                expected[name] += parameter.grad.square() / 5
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=1e-3, atol=1e-8), name


def test_ewc_charges_by_importance() -> None:
    machine, start, past = Machine.of("cpu", "32-true"), small(), faces(14)
    moved = copy.deepcopy(start)
    with torch.no_grad():
        moved.get_parameter("network.fc3.bias")[2] += 3
    term = EWC(weight=10.0, samples=99).term(start, faces(1), past, 5, machine)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(5))
    importance = fisher(start, past.images[order], 5, machine)["network.fc3.bias"][2]
    none = torch.empty(0)
    assert term(moved, none, none, none).item() == pytest.approx(
        float(5 * importance * 9), rel=1e-4
    )


class Overheard(TorchDispatchMode):
    """Listens to what PyTorch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def mixed() -> tuple[Mixture, Tensor, Tensor, Tensor]:
    """Return four new and nine old faces, the rows and images of a batch, and another network's logits."""
    mixture = Mixture.of(faces(4), faces(9, seed=1), 0.5)
    rows = mixture.batches(8, torch.Generator().manual_seed(0))[0]
    images = normalise(mixture.images[rows])
    with torch.no_grad():
        return mixture, rows, images, small(1)(images)


def test_der_is_half_of_equation_6_with_stored_logits() -> None:
    machine, start = Machine.of("cpu", "32-true"), small()
    mixture, rows, images, logits = mixed()
    term = DarkExperience(weight=0.5).term(start, mixture, None, 0, machine)
    seen_otherwise = images.flip(3)  # as augmented: the stored logits are of the image as it is
    with torch.no_grad():
        stored = start(normalise(mixture.images[rows[4:]]))
    labels = mixture.labels[rows]
    equation_6 = (
        F.cross_entropy(logits[:4], labels[:4])
        + 0.5 * F.mse_loss(logits[4:], stored)
        + F.cross_entropy(logits[4:], labels[4:])
    )
    found = F.cross_entropy(logits, labels) + term(start, seen_otherwise, logits, rows)
    assert 2 * found.item() == pytest.approx(equation_6.item(), rel=1e-5)


def test_strong_replay_also_keeps_the_logits_on_new_images() -> None:
    machine, start = Machine.of("cpu", "32-true"), small()
    mixture, rows, images, logits = mixed()
    backward = DarkExperience(weight=0.2).term(start, mixture, None, 0, machine)
    both = DarkExperience(weight=0.2, forward=0.3).term(start, mixture, None, 0, machine)
    with torch.no_grad():
        old = start(images[:4])
    more = both(start, images, logits, rows) - backward(start, images, logits, rows)
    assert 2 * more.item() == pytest.approx(0.3 * F.mse_loss(logits[:4], old).item(), rel=1e-4)


def test_focal_distillation_looks_most_at_what_the_old_network_has_right() -> None:
    machine, start = Machine.of("cpu", "32-true"), small()
    shown, images = faces(8), normalise(faces(8).images)
    with torch.no_grad():
        old, new = start(images), small(1)(images)
    labels = torch.where(torch.arange(8) < 3, old.argmax(1), (old.argmax(1) + 1) % 7)
    term = FocalDistillation(temperature=2.0, weight=0.5, base=1.0, focus=5.0)
    penalty = term.term(start, Faces(shown.images, labels), None, 0, machine)
    soft_old, soft_new = (old / 2).softmax(1), (new / 2).softmax(1)
    divergence = (soft_old * (soft_old / soft_new).log()).sum(1)
    by_hand = 0.5 * 4 * (6 * divergence[:3].sum() + divergence[3:].sum()) / 8
    found = penalty(start, images, new, torch.arange(8))
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_logit_adjustment_is_balanced_softmax_on_the_shares_that_are_shown() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    shares = log_shares(labels, 3, torch.ones(4))
    assert torch.allclose(shares[:2].exp(), torch.tensor([0.75, 0.25]))
    p = logits.exp() * torch.tensor([0.75, 0.25, 0.0])
    p = (p / p.sum(1, keepdim=True))[:, :2]
    for smoothing in (0.0, 0.1):
        by_hand = -(1 - smoothing) * p[torch.arange(4), labels].log() - smoothing * p.log().mean(1)
        given = logits.clone().requires_grad_()
        loss = cross_entropy(given, labels, None, smoothing, shares)
        (slope,) = torch.autograd.grad(loss, given)
        assert loss.item() == pytest.approx(by_hand.mean().item(), rel=1e-5)
        assert not slope[:, 2].any(), "nothing teaches to say a class that was never shown"
    mixture = Mixture.of(Faces(faces(4).images, torch.zeros(4).long()), faces(7), 0.25)
    weighed = log_shares(mixture.labels, 7, mixture.weights).exp()
    assert weighed[0].item() == pytest.approx(0.25 + 0.75 / 7)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_asks_the_host_for_no_number(penalty: Penalty) -> None:
    """On a GPU it would have to wait for it in every step, and no step could be replayed."""
    machine, start, mixture = (
        Machine.of("cpu", "32-true"),
        small(),
        Mixture.of(faces(4), faces(9), 0.5),
    )
    term = penalty.term(start, mixture, faces(9), 0, machine)
    network, images = small(1), normalise(mixture.images[:8])
    logits = network(images)
    with Overheard() as overheard:
        term(network, images, logits, torch.arange(8)).backward()
    assert overheard.names
    assert not overheard.names & {"_local_scalar_dense", "nonzero", "masked_select", "equal"}


def test_interpolation_has_both_networks_at_its_ends_bit_for_bit() -> None:
    before, after = weights(small(0)), weights(small(1))
    for alpha, end in ((0.0, before), (1.0, after)):
        mixed = interpolate(before, after, alpha)
        assert all(torch.equal(mixed[name], end[name]) for name in end)
    middle = interpolate(before, after, 0.5)
    name = "network.fc1.weight"
    assert torch.allclose(middle[name], (before[name] + after[name]) / 2)
    with pytest.raises(ValueError, match="different networks"):
        interpolate(before, {"other": torch.zeros(1)}, 0.5)


def test_layers_keep_the_more_of_what_they_learnt_the_deeper_they_are() -> None:
    before, after = small(0), small(1)
    mixed = by_depth(after)(weights(before), weights(after), 0.4)
    layers = [f"conv{n}" for n in range(1, 6)] + [f"fc{n}" for n in range(1, 4)]
    for place, layer in enumerate(layers):
        share = 0.4 + 0.6 * place / 7  # λ of LiNeS, with α = 0.4 and β = 0.6
        for name in (f"network.{layer}.weight", f"network.{layer.replace('conv', 'norm')}.weight"):
            old, new = weights(before)[name], weights(after)[name]
            assert torch.allclose(mixed[name], old + share * (new - old), atol=1e-6), name
    bare = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2))
    zeros = {name: torch.zeros_like(value) for name, value in bare.state_dict().items()}
    ones = {name: torch.ones_like(value) for name, value in zeros.items()}
    alone = by_depth(bare)(zeros, ones, 0.0)
    assert alone["1.running_mean"].eq(0).all() and alone["2.weight"].eq(1).all()
    whole = by_depth(after)(weights(before), weights(after), 1.0)
    assert all(torch.equal(whole[name], value) for name, value in weights(after).items())


def test_fisher_merging_takes_each_weight_from_where_it_matters() -> None:
    before, after = {"w": torch.tensor([0.0, 0.0, 0.0])}, {"w": torch.tensor([1.0, 1.0, 1.0])}
    own, other = {"w": torch.tensor([3.0, 1.0, 0.0])}, {"w": torch.tensor([1.0, 1.0, 1.0])}
    merged = by_fisher(own, other)(before, after, 0.5)["w"]
    assert torch.allclose(merged, torch.tensor([0.25, 0.5, 1.0]), atol=1e-5)
    assert torch.equal(by_fisher(own, other)(before, after, 0.0)["w"], before["w"])


def test_the_mixture_with_the_best_validation_accuracy_is_chosen() -> None:
    machine, before, after = Machine.of("cpu"), small(0), small(1)
    images = faces().images
    shown = Faces(images, predict(after, images, machine).argmax(1))  # what `after` alone knows
    model, alpha, tried = best_mixture(before, after, {"target": shown}, None, machine, (0, 0.5, 1))
    best = max(tried, key=lambda row: row["target"])
    assert [row["alpha"] for row in tried] == [0, 0.5, 1]
    assert dict((row["alpha"], row["target"]) for row in tried)[alpha] == best["target"]
    assert best["target"] > tried[0]["target"]
    expected = interpolate(weights(before), weights(after), alpha)
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_layers_that_two_networks_share_calculate_once_for_all_mixtures(monkeypatch: Any) -> None:
    machine, before, validation = (
        Machine.of("cpu", "32-true"),
        small(0),
        {"source": faces(), "target": faces(1)},
    )
    after = copy.deepcopy(before)
    for name, parameter in after.named_parameters():
        if ".fc" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    with FlopCounterMode(display=False) as once:
        _, alpha, tried = best_mixture(before, after, validation, None, machine)
    with monkeypatch.context() as patch, FlopCounterMode(display=False) as all_of_fc1:
        patch.setattr("crossfer.memory.merging._first_linear", lambda part: None)
        best_mixture(before, after, validation, None, machine)
    monkeypatch.setattr("crossfer.training.surrogate.LARGEST_IN_A_FILE", 0)  # no room
    with FlopCounterMode(display=False) as anew:
        _, other, expected = best_mixture(before, after, validation, None, machine)
    assert other == alpha
    for row, one in zip(tried, expected, strict=True):
        assert row == pytest.approx(one, abs=1e-5)
    assert anew.get_total_flops() > 5 * once.get_total_flops()
    assert all_of_fc1.get_total_flops() > once.get_total_flops()
    assert best_mixture(before, copy.deepcopy(before), validation, None, machine)[1] == 0.5


class Cosine(nn.Linear):
    """A layer of somebody's that is not linear in its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the cosines of (N, inputs) and the rows of the weight."""
        return nn.functional.linear(x, nn.functional.normalize(self.weight), self.bias)


@pytest.mark.parametrize("kind", ["plain", "another", "made of others", "listened to"])
def test_only_a_layer_that_is_just_linear_is_mixed_by_what_it_gives(
    kind: str, monkeypatch: Any
) -> None:
    before = small(0)
    layer = before.network.get_submodule("fc1")
    assert isinstance(layer, nn.Linear)
    if kind == "another":
        before.network.add_module("fc1", Cosine(layer.in_features, layer.out_features))
    elif kind == "made of others":
        nn.utils.parametrizations.weight_norm(layer)
    elif kind == "listened to":
        layer.register_forward_hook(lambda module, given, made: made**2)
    after, validation = copy.deepcopy(before), {"target": faces(1)}
    for name, parameter in after.named_parameters():
        if ".fc" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    cut: list[str] = []
    ends = merging._ends
    monkeypatch.setattr(
        merging, "_ends", lambda split, *given: cut.append(split.layer) or ends(split, *given)
    )
    _, _, tried = best_mixture(before, after, validation, None, Machine.of("cpu", "32-true"))
    assert cut == (["fc1"] if kind == "plain" else [])
    for row in tried:
        mixed = copy.deepcopy(after)
        mixed.load_state_dict(interpolate(weights(before), weights(after), row["alpha"]))
        right, _ = judge(mixed, faces(1), Machine.of("cpu"))
        assert row["target"] == pytest.approx(right.float().mean().item(), abs=0.02)


def test_where_all_mixtures_are_as_good_the_middle_is_chosen(monkeypatch: Any) -> None:
    generator, shown = torch.Generator().manual_seed(0), {"source": faces(1), "target": faces(1)}
    for _ in range(5):
        right = torch.rand((), generator=generator).item()
        judged = {f"{side}/right": torch.tensor([True]) for side in shown}
        judged |= {f"{side}/likelihood": torch.tensor([right]) for side in shown}
        monkeypatch.setattr(merging, "judged_on", lambda *of, judged=judged: judged)
        assert best_mixture(small(0), small(1), shown, None, Machine.of("cpu"))[1] == 0.5


def test_averaged_weights_lag_behind_and_are_what_is_kept() -> None:
    machine, shown, start = Machine.of("cpu", "32-true"), faces(), small()
    plain = train(start, shown, {}, RECIPE, 0, machine, keep="last").model
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.01, averaging=0.9)
    lagging = train(start, shown, {}, recipe, 0, machine, keep="last").model

    def moved(model: nn.Module) -> float:
        change = model.get_parameter("network.fc1.weight") - start.get_parameter(
            "network.fc1.weight"
        )
        return float(change.detach().norm())

    assert 0 < moved(lagging) < moved(plain)


@pytest.mark.parametrize("name", ["FC", "AdaBN", "WiSE-FT", "RIDGE"])
def test_no_option_is_ignored_by_strategies_that_do_not_train(name: str) -> None:
    sides: Any = {"source": faces(7, 1), "target": faces(7, 2)}
    given: Any = (STRATEGIES[name], small(), small(), sides, sides, Recipe(), 0, Machine.of("cpu"))
    with pytest.raises(TypeError, match="nonsense: no such option; use keep, "):
        adapt(*given, nonsense=1)
    with pytest.raises(ValueError, match="keep 'nonsense': choose among best, last"):
        adapt(*given, keep="nonsense")
    if not STRATEGIES[name].memory:
        memory: Any = object()
        with pytest.raises(ValueError, match=f"{name} reads no memory file; leave memory out"):
            adapt(*given, memory=memory)


# Those that read a memory file: tests/test_remember.py.
@pytest.mark.parametrize(
    "strategy", [s for s in BEYOND if not s.memory], ids=lambda strategy: strategy.name
)
def test_every_strategy_starts_from_a_network_that_crossfer_did_not_train(
    strategy: Strategy,
) -> None:
    """A network from elsewhere, the images that the strategy says it needs, and no others."""
    machine, deployed = Machine.of("cpu"), small()
    untouched = weights(deployed)
    sides = {"source": faces(70, 1), "target": faces(21, 2)}
    trained = adapt(
        strategy,
        deployed,
        deployed,
        {side: sides[side] for side in strategy.needs},
        sides,
        Recipe(epochs=2, batch_size=16, learning_rate=0.01),
        0,
        machine,
        keep="last",
    )
    assert all(torch.equal(v, untouched[k]) for k, v in deployed.state_dict().items())
    changed = [
        name
        for name, parameter in trained.model.named_parameters()
        if not torch.equal(parameter, untouched[name])
    ]
    if strategy.layers == "head":
        assert changed == ["network.fc3.weight", "network.fc3.bias"]
    elif strategy.rank:
        assert set(changed) == {f"network.fc{n}.weight" for n in (1, 2, 3)} | {"network.fc3.bias"}
        assert trained.model.state_dict().keys() == untouched.keys()
        moved = trained.model.get_parameter("network.fc1.weight") - untouched["network.fc1.weight"]
        assert torch.linalg.matrix_rank(moved.detach(), rtol=1e-3) <= strategy.rank
    elif strategy.layers == "all":
        assert len(changed) == len(list(deployed.parameters()))
    assert (trained.alpha is not None) == bool(strategy.merge)
    assert strategy.past_data in PAST_DATA
    assert strategy.past_data == "none" or "source" in strategy.needs
    if strategy.past_data == "none":
        assert strategy.needs == {"target"}


def test_adapters_begin_as_nothing_and_end_in_plain_weights() -> None:
    model, images = small(), normalise(faces(4).images)
    model.train_only("FC")
    with torch.no_grad():
        before = model(images)
        adapt_linear(model, 2, 0)
        assert torch.equal(model(images), before)
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
        fc1 = model.network.get_submodule("fc1")
        (low,) = (m for m in fc1.modules() if isinstance(m, LowRank))
        by_hand = small().get_parameter("network.fc1.weight") + low.B @ low.A
        adapted = model(images)
        fold(model)
        assert torch.equal(model(images), adapted) and not torch.equal(adapted, before)
        assert torch.allclose(model.get_parameter("network.fc1.weight"), by_hand)
    with pytest.raises(CrossferError, match="no trained linear layer is larger"):
        adapt_linear(small(), 500, 0)


@pytest.mark.parametrize("normalised", ["fc1", "fc3"])
def test_adapters_leave_a_weight_that_is_normalised_and_the_network_it_was_copied_from(
    normalised: str,
) -> None:
    """Copies share the class that PyTorch makes for such a layer."""
    start = small(0)
    nn.utils.parametrizations.weight_norm(start.network.get_submodule(normalised))
    shown = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        before = start.eval()(shown)
    adapted = copy.deepcopy(start)
    adapt_linear(adapted, 2, 0)
    assert not any(
        isinstance(m, LowRank) for m in adapted.network.get_submodule(normalised).modules()
    )
    fold(adapted)
    with torch.no_grad():
        assert torch.allclose(adapted(shown), before, atol=1e-6)
        assert torch.equal(start(shown), before)
    assert adapted.state_dict().keys() == start.state_dict().keys()


def test_adapters_stand_on_attention_too() -> None:
    model, images = Classifier(Vision().eval()).eval(), torch.randn(3, 1, 32, 32)
    names = list(model.state_dict())
    model.train_only("all")
    with torch.no_grad():
        before = model(images)
        adapt_linear(model, 1, 0)
        assert torch.allclose(model(images), before, atol=1e-6)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("in_proj_weight.0.B" in name for name in trained)
    assert any("out_proj.parametrizations.weight.0.B" in name for name in trained)
    model.train()(images).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    fold(model)
    assert sorted(model.state_dict()) == sorted(names)


def test_in_a_mixture_new_images_are_mixed_with_new_ones_too() -> None:
    """As by a random permutation: a pair of new images is as frequent as chance has it."""
    mixture = Mixture.of(faces(64), faces(64, seed=1), 0.5)
    (batch, *_) = mixture.batches(128, torch.Generator().manual_seed(0))
    partners = _partners(mixture, len(batch))
    assert sorted(partners.tolist()) == list(range(len(batch)))
    new = batch < mixture.new
    both = int((new & new[partners]).sum())
    assert 20 < both < 44, "of 64"


def test_a_strategy_that_makes_no_sense_says_so() -> None:
    for wrong, why in (
        ({"data": "target", "share": 0.5}, "share"),
        ({"data": "target", "exemplars": 5}, "exemplars"),
        ({"start": "random", "merge": True}, "starts at random"),
        ({"start": "X"}, "starts from itself"),
        ({"penalty": SourceDistillation()}, "needs a share"),
        ({"penalty": DarkExperience()}, "needs a share"),
        ({"data": "target", "merge": "Fisher"}, "needs images of both"),
        ({"rank": 8, "layers": "head"}, "rank: must be at least 1"),
        ({"rank": 8, "penalty": L2SP()}, "adapters do not have"),
        ({"rank": 8, "data": "target", "unlabelled": Tent()}, "rank: has no effect on entropy"),
        ({"data": "target", "unlabelled": Tent()}, "entropy: layers: norms"),
        ({"data": "target", "unlabelled": Shot()}, "information-maximisation: layers: body"),
        ({"start": "random", "rank": 8}, "without penalty, merge or rank"),
        ({"choice": "herding"}, "choice: only for exemplars"),
        ({"layers": "none", "penalty": L2SP()}, "trains nothing, so penalty has no effect"),
        ({"layers": "none", "merge": True, "share": 0.5}, "so share has no effect"),
        ({"penalty": L2SP(weight=float("nan"))}, "l2-sp: weight is nan: must be a number"),
        ({"penalty": L2SP(weight=-1)}, "l2-sp: weight is -1"),
        ({"penalty": EWC(samples=0)}, "ewc: samples must be above 0"),
        ({"penalty": Distillation(temperature=0)}, "distillation: temperature must be above 0"),
    ):
        told: dict[str, Any] = {
            "start": "baseline",
            "layers": "all",
            "data": "source+target",
        } | wrong
        with pytest.raises(ValueError, match=why):
            Strategy("X", **told)
    assert starts(STRATEGIES["LP-FT"]) == ["HEAD"]
    a = Strategy("A", "B", "all", "target")
    b = Strategy("B", "A", "all", "target")
    with pytest.raises(ValueError, match="refers back to itself"):
        starts(a, {"A": a, "B": b})
    with pytest.raises(ValueError, match="does not exist"):
        starts(a, {"A": a})


def test_flop_are_counted_for_what_trains() -> None:
    model = study_cnn()
    forward = 2 * (163_586_816 + 18_880_512)  # multiply-adds of convolutions and linear layers
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    counted = training_flop(model, (1, 48, 48))
    assert counted == pytest.approx(forward, rel=0.01)
    model.get_parameter("fc3.weight").requires_grad_(True)
    assert training_flop(model, (1, 48, 48)) - counted == 2 * 1024 * 7
    with FlopCounterMode(display=False) as pytorch_s:
        model.eval()(torch.zeros(1, 1, 48, 48)).sum().backward()
    assert training_flop(model, (1, 48, 48)) == pytorch_s.get_total_flops()


@pytest.mark.parametrize(
    ("name", "forward", "gradients"),
    [
        ("RE", 0, 0),
        ("LwF", 1000, 0),
        ("MIX+KD", 750, 0),
        ("MIX+FD", 1000, 0),
        ("DER++", 40, 0),
        ("SER", 1040, 0),
        ("L2-SP", 0, 0),
        ("EWC", 0, 40),
        ("SHOT", 1000, 0),
    ],
)
def test_what_the_old_network_is_asked_counts(name: str, forward: int, gradients: int) -> None:
    """Of 1,000 images that were shown; the source has 40, the target 30."""
    strategy, model = STRATEGIES[name], Classifier(study_cnn(0.05))
    training = {"source": faces(40), "target": faces(30)}
    whole, seen = training_flop(model, (1, 48, 48)), 1000
    once = training_flop(copy.deepcopy(model).requires_grad_(False), (1, 48, 48))
    model.train_only(strategy.layers)
    step = training_flop(model, (1, 48, 48))
    expected = seen * step + forward * once + gradients * whole
    assert flop_of(strategy, model, seen, training) == expected
    fisher_merged = Strategy("F", "RE", "none", "source+target", merge="Fisher")
    assert flop_of(fisher_merged, model, 0, training) == 70 * whole


def test_samples_from_a_memory_file_pass_the_last_layers_only() -> None:
    network, strategy = Classifier(study_cnn(0.05)), STRATEGIES["GFR"]
    memory = Memory.of(network, faces(140), Machine.of("cpu", "32-true"))
    network.train_only("FC")
    step = training_flop(network, (1, 48, 48))
    sizes = [network.network.get_parameter(f"fc{n}.weight").numel() for n in (1, 2, 3)]
    sample = 2 * (3 * sum(sizes) - sizes[0])  # no gradient of what the first is given
    recipe = replace(strategy.default_recipe(), epochs=10, views=4)  # two views: a divisor of ten
    asked = 3 * 2 * 9 * 2 * sum(sizes)  # of each sample, once, what the old network says
    assert (
        flop_of(strategy, network, 400, {"target": faces(9)}, memory, recipe)
        == 100 * step + 300 * sample + asked
    )


@pytest.mark.parametrize(("old", "new"), [("iCaRL-50", "ER-50-herding")])
def test_a_name_that_promised_another_method_says_the_new_one(old: str, new: str) -> None:
    content = {"name": "x", "source": "a", "targets": ["b"], "strategies": [old]}
    with pytest.raises(CrossferError, match=f"now called {re.escape(new)}"):
        check_experiment(content)
    assert new in STRATEGIES and old not in STRATEGIES


def test_tied_weights_are_merged_once_by_the_layer_that_stands_first() -> None:
    """A state dictionary names them twice; the second name would overwrite the first."""

    def tied(seed: int) -> Classifier:
        def build() -> Classifier:
            first, last = nn.Linear(4, 4), nn.Linear(4, 4)
            last.weight = first.weight
            return Classifier(
                nn.Sequential(
                    nn.Conv2d(1, 4, 48), nn.Flatten(), first, nn.ReLU(), last, nn.Linear(4, 7)
                )
            )

        return untrained(build, seed)

    before, after = tied(0), tied(1)
    merged, alpha, _ = best_mixture(
        before, after, {"v": faces(14)}, None, Machine.of("cpu"), alphas=[0.0], mix=by_depth(after)
    )
    old, new, now = (weights(model)["network.2.weight"] for model in (before, after, merged))
    assert torch.allclose(now, old + (new - old) / 3, atol=1e-6)  # the second of four layers


def test_layers_merged_by_depth_have_new_statistics_at_alpha_0_too() -> None:
    """There LiNeS still mixes all layers but the first."""
    before, after = small(0), small(1)
    for model in (before, after):
        for norm in batch_norms(model).values():
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.fill_(float(model is after))
            norm.running_var.fill_(1000.0)
    merged, _, _ = best_mixture(
        before,
        after,
        {"v": faces(14)},
        faces(28),
        Machine.of("cpu"),
        alphas=[0.0],
        mix=by_depth(after),
    )
    for norm in list(batch_norms(merged).values())[1:]:
        assert norm.running_var is not None and norm.running_var.max() < 1000

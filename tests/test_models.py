"""The study's network and what freezing promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossfer.adaptation import adapt, untrained
from crossfer.machine import Machine
from crossfer.networks import Classifier, study_cnn
from crossfer.networks.layers import (
    fully_connected,
    last_convolution,
    layers_with_parameters,
    train_only,
    training_mode,
)
from crossfer.networks.sources import project, widen
from crossfer.strategies import STRATEGIES, STUDY
from crossfer.strategy import Strategy
from crossfer.training import Faces, Recipe


def test_study_cnn_has_the_parameters_and_features_of_the_paper() -> None:
    model = study_cnn()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 19_271_431
    assert model.get_parameter("fc1.weight").shape == (2_048, 8_192)
    assert model(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


def test_layers_are_found_by_module_order() -> None:
    model = study_cnn(0.1)
    assert fully_connected(model) == ["fc1", "fc2", "fc3"]
    assert last_convolution(model) == ["conv5", "norm5"]
    assert len(layers_with_parameters(model)) == 5 + 5 + 3

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3)
            self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
            self.head = nn.Linear(4, 7)

    assert last_convolution(Residual()) == ["block.0", "block.1"]
    assert fully_connected(Residual()) == ["head"]
    with pytest.raises(ValueError, match="no convolution"):
        last_convolution(nn.Sequential(nn.Linear(3, 7)))


def test_the_five_strategies_are_the_papers_points() -> None:
    points = {s.name: (s.start, s.layers, s.data) for s in STUDY}
    assert points == {
        "BL": ("random", "all", "source"),
        "FC": ("baseline", "FC", "target"),
        "FC+CL": ("baseline", "FC+CL", "target"),
        "RE": ("baseline", "all", "target"),
        "FU": ("random", "all", "source+target"),
    }


def faces(count: int = 24) -> Faces:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


@pytest.mark.parametrize("name", ["FC", "FC+CL", "RE"])
def test_frozen_layers_stay_as_they_are_bit_for_bit(name: str) -> None:
    """Every tensor of a frozen layer, batch statistics included; every trained one moves."""
    strategy = STRATEGIES[name]
    baseline = untrained(lambda: Classifier(study_cnn(0.1)), 0)
    before = {key: value.clone() for key, value in baseline.state_dict().items()}
    sides = {"target": faces()}
    recipe = Recipe(epochs=2, batch_size=8)
    trained = adapt(
        strategy, baseline, baseline, sides, sides, recipe, 0, Machine.of("cpu"), keep="last"
    )
    trained_layers = set(baseline.layer_names(strategy.layers))
    for key, value in trained.model.state_dict().items():
        if key.removeprefix("network.").rsplit(".", 1)[0] in trained_layers:
            assert not torch.equal(value, before[key]), key
        else:
            assert torch.equal(value, before[key]), key
    assert all(torch.equal(v, before[k]) for k, v in baseline.state_dict().items())


def test_one_step_of_the_real_network_trains_every_layer() -> None:
    sides = {"source": faces(16)}
    model = untrained(lambda: Classifier(study_cnn()), 0)
    trained = adapt(
        STRATEGIES["BL"], model, model, sides, sides, Recipe(epochs=1, batch_size=16, warmup=0), 0,
        Machine.of("cpu"),
    )  # fmt: skip
    for (name, old), new in zip(model.named_parameters(), trained.model.parameters(), strict=True):
        assert not torch.equal(old, new), name


def test_what_stands_before_the_first_trained_layer_stays_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3), nn.Dropout())
    train_only(model, ["2"])
    training_mode(model)
    assert [module.training for module in model] == [False, False, True, True]
    with pytest.raises(ValueError, match="no layer nowhere"):
        train_only(model, ["nowhere"])


def test_a_new_strategy_is_one_declaration() -> None:
    warm = Strategy("warm FU", "baseline", "all", "source+target")
    baseline = untrained(lambda: Classifier(study_cnn(0.1)), 0)
    sides = {"source": faces(24), "target": faces(8)}
    trained = adapt(
        warm,
        baseline,
        baseline,
        sides,
        sides,
        Recipe(epochs=1, batch_size=16),
        0,
        Machine.of("cpu"),
    )
    assert trained.images_seen == 32
    with pytest.raises(ValueError, match="needs the training set of the source"):
        adapt(warm, baseline, baseline, {"target": faces(8)}, sides, Recipe(), 0, Machine.of("cpu"))


def test_faces_that_do_not_suit_the_network_are_refused_and_nothing_is_drawn() -> None:
    """−1 is the label of a row without a class: as an index it would be the last class."""
    baseline, good = untrained(lambda: Classifier(study_cnn(0.1)), 0), faces(8)
    for wrong, why in (
        (Faces(good.images, good.labels - 1), "label -1 in .* rows is not one of the 7 classes"),
        (Faces(good.images / 255, good.labels), "images are torch.float32; they must be pixels"),
    ):
        with pytest.raises(ValueError, match=why):
            adapt(
                STRATEGIES["FC"],
                baseline,
                baseline,
                {"target": wrong},
                {},
                Recipe(),
                0,
                Machine.of("cpu"),
            )
    for images, labels in ((good.images, good.labels[:5]), (good.images, good.labels.float())):
        with pytest.raises(ValueError, match="labels"):
            Faces(images, labels)
    for epochs in (1.5, "3"):
        with pytest.raises(ValueError, match="epochs is .*: must be a whole number"):
            Recipe(epochs=epochs)  # pyrefly: ignore[bad-argument-type]


def test_a_wider_head_draws_no_random_number() -> None:
    network, state = study_cnn(0.1), torch.get_rng_state()
    widen(network, "fc3", 1)
    project(network, "fc3", 10)
    assert torch.equal(torch.get_rng_state(), state)

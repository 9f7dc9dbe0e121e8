"""New faces that nobody has labelled: batch-norm adaptation, TENT, SHOT, T3A."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from crossfer.adaptation import adapt, untrained
from crossfer.datasets import Preparation, open_dataset, prepare
from crossfer.datasets.record import SPLITS
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment
from crossfer.experiment.data import rows_to_learn
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.plan import plan
from crossfer.machine import Machine
from crossfer.networks import Classifier, study_cnn
from crossfer.strategies import STRATEGIES, UNLABELLED
from crossfer.strategy import Strategy
from crossfer.training import Faces, Recipe, features, normalise, predict, train
from crossfer.training.trainer import State
from crossfer.unlabelled import AdaBN, Shot, entropy, pseudo_labels, templates

RECIPE = Recipe(epochs=2, batch_size=14, learning_rate=0.01)
MACHINE = Machine.of("cpu", "32-true")


def faces(count: int = 42, seed: int = 0) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % 7)


def small(seed: int = 0) -> Classifier:
    return untrained(lambda: Classifier(study_cnn(0.05)), seed).eval()


def adapted(strategy: Strategy, start: Classifier, target: Faces) -> Classifier:
    return adapt(strategy, start, start, {"target": target}, {}, RECIPE, 3, MACHINE).model


@pytest.mark.parametrize("strategy", UNLABELLED, ids=lambda strategy: strategy.name)
def test_no_bit_depends_on_a_label_and_no_image_of_the_source_is_needed(strategy: Strategy) -> None:
    start, target = small(), faces()
    before = copy.deepcopy(start.state_dict())
    shuffled = replace(
        target, labels=target.labels.flip(0), known=torch.zeros(42, 7, dtype=torch.bool)
    )
    first, second = (adapted(strategy, start, shown).state_dict() for shown in (target, shuffled))
    assert strategy.needs == {"target"} and strategy.past_data == "none"
    assert strategy.unlabelled
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], before[name]) for name in first)
    assert all(torch.equal(before[name], now) for name, now in start.state_dict().items())


def test_each_changes_what_its_paper_says_and_nothing_else() -> None:
    start = small()
    before = start.state_dict()
    changed = {
        strategy.name: {
            name
            for name, tensor in adapted(strategy, start, faces()).state_dict().items()
            if not torch.equal(tensor, before[name]) and not name.endswith("num_batches_tracked")
        }
        for strategy in UNLABELLED
    }
    norms = {n for n, m in start.named_modules() if isinstance(m, nn.BatchNorm2d)}
    statistics = {f"{n}.running_{what}" for n in norms for what in ("mean", "var")}
    head = {"network.fc3.weight", "network.fc3.bias"}
    assert changed["AdaBN"] == statistics
    assert changed["TENT"] == statistics | {f"{n}.{w}" for n in norms for w in ("weight", "bias")}
    assert changed["T3A"] == head
    trained = {name for name, _ in start.named_parameters()}
    assert changed["SHOT"] == (statistics | trained) - head


def test_batch_norm_adaptation_gives_each_normalisation_the_moments_of_the_target() -> None:
    start, target = small(), faces(600)
    model = AdaBN().applied(start, target.images, MACHINE)
    norm = next(m for m in start.modules() if isinstance(m, nn.BatchNorm2d))
    convolution = next(m for m in start.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        given = convolution(normalise(target.images))
    found = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert found.running_mean is not None and found.running_var is not None
    assert torch.allclose(found.running_mean, given.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(found.running_var, given.var((0, 2, 3)), rtol=1e-3)
    assert norm.running_mean is not None and not norm.running_mean.any()


def test_what_has_no_batch_normalisation_is_told_so_in_one_line() -> None:
    network = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7)))
    with pytest.raises(CrossferError, match="AdaBN: the network has no batch normalisation"):
        adapted(STRATEGIES["AdaBN"], network, faces())
    with pytest.raises(ValueError, match="no normalisation with weights"):
        adapted(STRATEGIES["TENT"], network, faces())


def test_entropy_is_that_of_the_softmax() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(1)
    assert torch.allclose(entropy(logits), -(p * p.log()).sum(1), atol=1e-6)
    assert entropy(torch.tensor([[1e4, 0.0, -1e4]])).item() == 0


def test_information_is_maximised_by_sure_and_diverse_answers() -> None:
    objective = Shot(weight=0.3).objective(small(), MACHINE)
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(9) % 7
    p = logits.softmax(1)
    by_hand = -(p * p.log()).sum(1).mean() + (p.mean(0) * p.mean(0).log()).sum()
    by_hand += 0.3 * -p.log()[torch.arange(9), labels].mean()
    assert objective.loss(logits, labels, None).item() == pytest.approx(by_hand.item(), rel=1e-5)


def reference_pseudo_labels(given: Tensor, probabilities: Tensor) -> list[int]:
    """Equations 5 and 6 of SHOT, image by image."""
    points = [np.append(x, 1) / np.linalg.norm(np.append(x, 1)) for x in given.numpy()]
    weights = probabilities.numpy()
    labels: list[int] = []
    there = sorted(set(weights.argmax(1).tolist()))
    for _ in range(2):
        centroids = {
            k: sum(w[k] * x for w, x in zip(weights, points, strict=True)) / weights[:, k].sum()
            for k in there
            if weights[:, k].sum()
        }
        labels = [
            max(centroids, key=lambda k: x @ centroids[k] / np.linalg.norm(centroids[k]))  # noqa: B023
            for x in points
        ]
        weights = np.eye(weights.shape[1])[labels]
    return labels


def test_pseudo_labels_are_the_nearest_centroids() -> None:
    generator = torch.Generator().manual_seed(2)
    given = torch.randn(60, 8, generator=generator)
    probabilities = (3 * torch.randn(60, 5, generator=generator)).softmax(1)
    probabilities[:, 4] = 0  # nobody is taken for it
    found = pseudo_labels(given, probabilities)
    assert found.tolist() == reference_pseudo_labels(given, probabilities)
    assert 4 not in found


def test_templates_are_mean_directions_of_the_surest_supports() -> None:
    generator = torch.Generator().manual_seed(4)
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    given = torch.randn(40, 6, generator=generator)
    found = templates(weight, bias, given, kept=5)
    supports = torch.cat([weight, given])
    logits = supports @ weight.T + bias
    for label in range(3):
        mine = [i for i in range(43) if logits[i].argmax() == label]
        mine.sort(key=lambda i: entropy(logits[i : i + 1]).item())
        mean = torch.stack([F.normalize(supports[i], dim=0) for i in mine[:5]]).sum(0)
        assert torch.allclose(found[label], F.normalize(mean, dim=0), atol=1e-6)


def test_templates_answer_by_the_likeness_of_features_and_their_mean() -> None:
    start, target = small(), faces()
    model = adapted(STRATEGIES["T3A"], start, target)
    given = features(start, "fc3", target.images, MACHINE)
    head = start.network.get_submodule("fc3")
    assert isinstance(head, nn.Linear)
    rows = templates(head.weight, head.bias, given, 100)
    likeness = F.normalize(given) @ rows.T
    answers = predict(model, target.images, MACHINE).argmax(1)
    assert torch.equal(answers, likeness.argmax(1))


def test_pseudo_labels_survive_an_interruption_in_the_middle_of_an_epoch() -> None:
    start, shown = small(), faces()
    start.train_only("body")
    objective, states = Shot().objective(start, MACHINE), list[State]()

    def keep(standing) -> None:
        states.append(copy.deepcopy(standing()))

    def run(**more) -> dict[str, Tensor]:
        trained = train(
            start, shown, {}, RECIPE, 0, MACHINE, objective=objective, keep="last", **more
        )
        return trained.model.state_dict()

    whole = run(on_state=keep)
    middle = next(s for s in states if s.step and len(s.history) == 1)
    resumed = run(resume=middle)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def drawn(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(folder / f"{number}.png")


def test_pictures_without_labels_are_kept_and_are_shown_to_those_who_need_none(
    tmp_path: Path,
) -> None:
    raw = tmp_path / "raw"
    drawn(raw / "training/unlabelled", 9, 0)
    for number, (split, name) in enumerate(
        (split, name) for split in ("training", "validation", "test") for name in ("happy", "sad")
    ):
        drawn(raw / split / name, 2, number + 1)
    dataset = prepare(raw, tmp_path / "mine")
    assert dataset.card["classes"] == ["happy", "sad"] and not dataset.left_out
    assert len(dataset.rows("training")) == 4 and len(dataset.unlabelled("training")) == 9
    assert len(rows_to_learn(dataset, 1.0, 0, labelled=True)) == 4
    assert len(rows_to_learn(dataset, 1.0, 0, labelled=False)) == 13
    assert len(open_dataset(tmp_path / "mine").unlabelled("test")) == 0


def test_pictures_without_labels_are_for_training_unless_they_show_who_is_tested(
    tmp_path: Path,
) -> None:
    """A person is in one split alone; a picture that no test can use is not kept from training."""
    raw = tmp_path / "raw"
    for person in range(10):
        for number, name in enumerate(("happy", "sad", "unlabelled")):
            drawn(raw / name / f"p{person}", 2, 3 * person + number)
    drawn(raw / "unlabelled/stranger", 5, 90)
    drawn(raw / "unlabelled/nobody knows", 20, 91)
    dataset = prepare(raw, tmp_path / "mine", Preparation(subject=r"(p\d|stranger)/"))
    table = dataset.samples
    who, where = table.column("subject").to_pylist(), table.column("split").to_pylist()
    splits = {name: {s for w, s in zip(who, where, strict=True) if w == name} for name in set(who)}
    assert all(len(found) == 1 for found in splits.values())
    assert splits[None] == splits["stranger"] == {"training"}
    known = Counter(s for w, s in zip(who, where, strict=True) if w and w != "stranger")
    assert known == {"training": 42, "validation": 6, "test": 12}
    assert dataset.card["split"]["asked"] == {"training": 67, "validation": 6, "test": 12}
    drawn(raw / "unlabelled/another", 3, 92)
    again = prepare(
        raw, tmp_path / "mine", Preparation(subject=r"(p\d|stranger|another)/"), replace=True
    )
    assert again.card["split"]["kept"]["new"] == {"training": 3, "validation": 0, "test": 0}


def test_who_needs_labels_is_told_in_one_line_that_there_are_none(tmp_path: Path) -> None:
    folders = [f"{split}/{name}" for split in SPLITS for name in ("happy", "sad")]
    for number, folder in enumerate(folders):
        drawn(tmp_path / "old" / folder, 2, number)
        if not folder.startswith("training"):
            drawn(tmp_path / "new" / folder, 2, number + 10)
    drawn(tmp_path / "new/training/unlabelled", 5, 20)
    source, target = (prepare(tmp_path / n, tmp_path / f"{n}-data") for n in ("old", "new"))
    content = {"name": "x", "source": "a", "targets": ["b"], "fractions": [1.0]}

    def planned(*names: str) -> list[int]:
        experiment = check_experiment({**content, "strategies": ["BL", *names]})
        runs = plan(experiment, source, [target], Arithmetic("cpu", "32-true"))
        return [run.target_images for run in runs]

    assert planned("AdaBN", "SHOT") == [0, 5, 5]
    with pytest.raises(CrossferError, match="FC needs labels, and no training image has"):
        planned("AdaBN", "FC")


def test_a_strategy_without_labels_that_makes_no_sense_says_so() -> None:
    wrong: dict[str, Any]
    for wrong, why in (
        ({"data": "source+target"}, "data: target"),
        ({"merge": True}, "data: target"),
        ({"layers": "all"}, "needs layers: none"),
        ({"unlabelled": Shot()}, "needs layers to train"),
    ):
        point: dict[str, Any] = {
            "start": "baseline",
            "layers": "none",
            "data": "target",
            "unlabelled": AdaBN(),
            **wrong,
        }
        with pytest.raises(ValueError, match=why):
            Strategy("X", **point)
    content = {
        "name": "x",
        "source": "a",
        "targets": ["b"],
        "strategies": [
            {
                "name": "mine",
                "start": "baseline",
                "layers": "body",
                "data": "target",
                "unlabelled": {"kind": "information-maximisation", "weight": 0.1},
            }
        ],
    }
    assert check_experiment(content).strategies[-1].unlabelled == Shot(weight=0.1)

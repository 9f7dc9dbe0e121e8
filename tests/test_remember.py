"""A memory file stands for the source's images: no image in it, and strategies need nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from crossfer.adaptation import adapt, untrained
from crossfer.cli import app
from crossfer.datasets import Dataset, open_dataset
from crossfer.errors import CrossferError
from crossfer.experiment import Progress, check_experiment, run_experiment, verify
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.opening import open_datasets
from crossfer.experiment.protocols import plan_all
from crossfer.files import digest, write_json
from crossfer.machine import Machine
from crossfer.memory import drift, statistics
from crossfer.memory.closed_form import SLDA, Head, Ridge, ridge_regression, streamed, with_head
from crossfer.memory.drift import moved
from crossfer.memory.file import (
    AGAIN,
    MEMORY,
    Memory,
    check_projections,
    load_memory,
    projection,
    sizes_within,
)
from crossfer.memory.replay import FeatureReplay
from crossfer.memory.statistics import Gaussians, Moments
from crossfer.networks import Classifier, load, study_cnn
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.sources import Spec
from crossfer.strategies import STRATEGIES
from crossfer.strategy import Strategy
from crossfer.training import Faces, Recipe, normalise
from crossfer.training.cut import cut_of
from crossfer.training.prediction import features
from tests import tiny_networks

FROM_MEMORY = [s for s in STRATEGIES.values() if s.past_data == "statistics"]
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.01, views=2)


def drawn(count: int = 140, seed: int = 0, classes: int = 7) -> Faces:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return Faces(images, torch.arange(count) % classes)


def small(seed: int = 0) -> Classifier:
    spec = Spec(arguments={"width": 0.05})
    return untrained(lambda: Classifier(study_cnn(0.05), spec=spec), seed).eval()


@pytest.fixture(scope="module", autouse=True)
def few_images_do() -> Iterator[None]:
    """Let two images make a direction; twenty do where people's memories are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "PER_DIRECTION", 2)
        yield


@pytest.fixture(scope="module")
def memory(few_images_do: None) -> Memory:
    return Memory.of(small(), drawn(), Machine.of("cpu", "32-true"))


def points(count: int, size: int, seed: int = 0) -> Tensor:
    """Return features that hang together, and are not about zero."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(size, size, generator=generator)
    return torch.randn(count, size, generator=generator) @ mixed + 5


def test_moments_add_up_to_those_of_all_images_whatever_the_order() -> None:
    x, labels = points(90, 6), torch.arange(90) % 3
    whole = Moments.of(x, labels, 4)
    parts = [Moments.of(x[rows], labels[rows], 4) for rows in torch.split(torch.arange(90), 31)]
    for several in (parts[0] + parts[1] + parts[2], parts[2] + parts[0] + parts[1]):
        for name in ("counts", "sums", "products"):
            assert torch.allclose(getattr(several, name), getattr(whole, name), rtol=1e-6)
    assert np.allclose(whole.scatter / 90, np.cov(x.double().T, bias=True), rtol=1e-4)
    within = torch.cat([x[labels == c] - x[labels == c].mean(0) for c in range(3)]).double()
    assert torch.allclose(whole.shared_covariance, within.T @ within / 90, rtol=1e-3)
    assert whole.means[3].eq(0).all()


def test_draws_have_the_mean_and_the_covariance_of_their_class() -> None:
    generator = torch.Generator().manual_seed(0)
    low_rank = torch.randn(4000, 2, generator=generator) @ torch.randn(2, 9, generator=generator)
    x = 3 + low_rank + 0.1 * torch.randn(4000, 9, generator=generator)
    gaussians = Gaussians.none(2, 9, 2)
    gaussians.describe(1, x)
    again = gaussians.draw(torch.ones(40_000, dtype=torch.int64), generator)
    assert torch.allclose(again.mean(0), x.mean(0), atol=0.05)
    assert (again.T.cov() - x.T.cov()).norm() < 0.05 * x.T.cov().norm()


def test_ridge_regression_is_the_one_on_all_images_each_with_its_weight() -> None:
    """And to a class that a dataset lacks its images are no example, neither for nor against."""
    old, new = points(60, 5), points(40, 5, 1)
    old_labels, new_labels = torch.arange(60) % 3, torch.arange(40) % 2
    everything, lacking = torch.tensor([True] * 3), torch.tensor([True, True, False])
    rows, intercepts = ridge_regression(
        [
            (everything, Moments.of(old, old_labels, 3)),
            (lacking, Moments.of(new, new_labels, 3) * 0.7),
        ],
        0.01,
    )
    for label in range(3):
        sees = label < 2
        x = torch.cat([old, new]) if sees else old
        y = (torch.cat([old_labels, new_labels]) if sees else old_labels).eq(label).double()
        w = torch.cat([torch.ones(60), torch.full((40,), 0.7)])[: len(x)].double()
        about = x.double() - (w[:, None] * x.double()).sum(0) / w.sum()
        gram = about.T @ (w[:, None] * about)
        gram += 0.01 * gram.diagonal().mean() * torch.eye(5)
        by_hand = torch.linalg.solve(gram, about.T @ (w * y))
        assert torch.allclose(rows[label], by_hand, rtol=1e-4, atol=1e-6)
        residual = y - x.double() @ rows[label] - intercepts[label]
        assert abs(float((w * residual).sum())) < 1e-4


def test_on_projections_it_is_the_second_phase_of_ranpac_about_the_mean() -> None:
    f, labels = points(200, 8), torch.arange(200) % 3
    weight = projection(8, 50)
    h = (f @ weight).relu()
    rows, _ = ridge_regression([(torch.ones(3, dtype=torch.bool), Moments.of(h, labels, 3))], 0.02)
    h = (h - h.mean(0)).double()
    gram, sums = h.T @ h, h.T @ torch.nn.functional.one_hot(labels).double()
    ridge = 0.02 * gram.diagonal().mean() * torch.eye(50)
    assert torch.allclose(rows.T, torch.linalg.solve(gram + ridge, sums), rtol=1e-3, atol=1e-6)
    assert weight.mean().abs() < 0.2 and weight.std() == pytest.approx(1, abs=0.1)
    assert torch.equal(weight, projection(8, 50)) and weight[0, 0] == pytest.approx(1.7640524)


def test_streaming_lda_is_updated_as_its_paper_says() -> None:
    """Hayes and Kanan (2020), equations 2 to 4, one image after the other."""
    old, new = points(30, 4).double(), points(9, 4, 1).double()
    labels, new_labels = torch.arange(30) % 3, torch.arange(9) % 3
    before = Moments.of(old, labels, 3)
    means, counts, sigma, t = before.means, before.counts, before.shared_covariance, 30
    for z, k in zip(new, new_labels, strict=True):
        delta = t * torch.outer(z - means[k], z - means[k]) / (t + 1)
        sigma = (t * sigma + delta) / (t + 1)
        means = means.clone()
        means[k] = (counts[k] * means[k] + z) / (counts[k] + 1)
        counts = counts.clone()
        counts[k] += 1
        t += 1
    found = streamed(before, new, new_labels)
    for ours, theirs in zip(found, (means, counts, sigma), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4)


def test_calibration_changes_no_decision() -> None:
    head = Head(points(3, 4).double(), torch.zeros(3).double())
    x = points(50, 4, 2)
    faces = replace(drawn(50, classes=3), labels=head.scores(x).argmax(1))
    scaled = head.calibrated([(x, faces)])
    assert torch.equal(scaled.scores(x).argmax(1), faces.labels)
    assert float(scaled.rows[0, 0] / head.rows[0, 0]) > 100  # it is always right, and says so


NETWORKS = [
    (study_cnn(0.05), Preprocessing(), "fc1"),
    (tiny_networks.Residual(1), Preprocessing(side=32), "head"),
    (tiny_networks.Vision(), Preprocessing(side=32), "head"),
    (tiny_networks.Next(), Preprocessing(side=32), "fc"),
    (tiny_networks.wrapped(), Preprocessing(3, 32), "backbone.head"),
]


@pytest.mark.parametrize(
    ("network", "how", "layer"), NETWORKS, ids=[type(n[0]).__name__ for n in NETWORKS]
)
def test_any_classifier_is_cut_before_layers_that_are_given_vectors(
    network: nn.Module, how: Preprocessing, layer: str
) -> None:
    model, machine = Classifier(network, preprocessing=how).eval(), Machine.of("cpu", "32-true")
    images = torch.randint(0, 256, (5, *how.image_shape), dtype=torch.uint8)
    cut = cut_of(model)
    assert cut.layer == layer
    at_cut = cut.features(model, images, machine)
    with torch.no_grad():
        logits = model(normalise(images, how))
        assert torch.allclose(cut.rest(at_cut), logits, atol=1e-4)
        assert torch.allclose(cut.body(model)(normalise(images, how)), at_cut, atol=1e-5)
        last = cut.penultimate(at_cut, machine)
        assert torch.allclose(last, features(model, cut.head, images, machine), atol=1e-5)
        other = untrained(lambda: cut.joined(model, cut.rest), 1)
        assert torch.allclose(other(normalise(images, how)), logits, atol=1e-4)


def test_a_network_without_a_vector_for_each_face_has_no_memory() -> None:
    model = Classifier(tiny_networks.WithAnIdleHead(), preprocessing=Preprocessing(3, 32)).eval()
    with pytest.raises(CrossferError, match="idle does not map one vector .* model.FC: "):
        cut_of(model)
    how = Preprocessing(side=32)
    with pytest.raises(CrossferError, match="^model: the network has no linear layer"):
        cut_of(Classifier(tiny_networks.fully_convolutional(), preprocessing=how).eval())


def test_too_few_images_for_random_projections_are_known_without_training() -> None:
    machine, labels = Machine.of("cpu", "32-true"), torch.arange(140) % 7
    check_projections(small(), labels, machine)
    assert Memory.of(small(), drawn(140), machine).projection.shape[1]
    with pytest.raises(CrossferError, match="no random projections.* too few images"):
        check_projections(small(), labels[:70], machine)
    assert not Memory.of(small(), drawn(70), machine).projected.sums.shape[1]


def test_a_memory_file_comes_back_as_it_was_but_for_rounding(
    memory: Memory, tmp_path: Path
) -> None:
    saved = memory.save(tmp_path / MEMORY)
    again = load_memory(saved)
    again.check(small())
    assert (again.classes, again.model) == (memory.classes, memory.model)
    assert again.counts.tolist() == [20] * 7
    for ours, theirs in ((again.moments, memory.moments), (again.projected, memory.projected)):
        assert (ours.scatter - theirs.scatter).norm() < 2e-3 * theirs.scatter.norm()
        assert torch.linalg.eigvalsh(ours.scatter).min() > -1e-3 * ours.scatter.diagonal().max()
    assert torch.allclose(again.gaussians.mean, memory.gaussians.mean, rtol=1e-2)
    known = {bytes(image.numpy()) for image in drawn().images}
    assert not any(image in saved.read_bytes() for image in known)


def test_nothing_is_said_of_classes_with_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "PER_DIRECTION", 20)
    faces = drawn(77)
    rows = torch.cat([torch.arange(77)[faces.labels > 0], torch.tensor([0, 7])])
    memory = Memory.of(small(), faces[rows], Machine.of("cpu", "32-true"))
    assert memory.counts.tolist() == [0] + [11] * 6
    assert not memory.gaussians.mean[0].any() and not memory.moments.sums[0].any()
    assert not memory.gaussians.factor.any()
    with pytest.raises(CrossferError, match="remember --max-mb` and name it as memory:"):
        _ = memory.projection
    drawn_features, labels = memory.draw(200, torch.Generator().manual_seed(0))
    assert set(labels.tolist()) == {1, 2, 3, 4, 5, 6}
    assert memory.rectified and drawn_features.min() >= 0
    with pytest.raises(CrossferError, match="no class with 10 training images"):
        Memory.of(small(), drawn(21), Machine.of("cpu", "32-true"))


@given(
    st.floats(0.3, 20),
    st.integers(2, 11),
    st.sampled_from([(8192, 1024), (512, 512), (408, 51)]),
    st.sampled_from([100, 5_000, 50_000]),
)
def test_a_memory_file_is_no_larger_than_it_may_be(
    max_mb: float, classes: int, sizes: tuple[int, int], images: int
) -> None:
    at_cut, last = sizes
    try:
        rank, projections = sizes_within(max_mb, classes, at_cut, last, images)
    except CrossferError as error:
        assert str(error).startswith(
            f"--max-mb {max_mb:g}: too small; this network's memory file needs at least"
        )
        return
    numbers = classes * at_cut * (rank + 2)
    for size in (last, projections):
        numbers += size * (size + 1) // 2 + 2 * size * (classes + 1)
    assert 1 <= rank <= 32 and (projections == 0 or last <= projections <= images / 2)
    assert 2 * numbers + 4096 < max_mb * 1e6


def test_the_file_itself_keeps_its_bound(memory: Memory, tmp_path: Path) -> None:
    narrow = Memory.of(small(), drawn(), Machine.of("cpu", "32-true"), max_mb=0.05)
    assert narrow.save(tmp_path / "narrow").stat().st_size <= 50_000
    assert memory.save(tmp_path / "wide").stat().st_size <= 5_000_000


def test_a_memory_file_that_cannot_be_trusted_is_refused_in_one_line(
    memory: Memory, tmp_path: Path
) -> None:
    whole, odd = memory.save(tmp_path / MEMORY), tmp_path / "odd.safetensors"

    def why(model: Classifier | None = None) -> str:
        with pytest.raises(CrossferError) as error:
            found = load_memory(odd)
            assert model
            found.check(model, odd)
        assert str(error.value).startswith(f"{odd}: ") and "\n" not in str(error.value)
        assert "crossfer remember MODEL SOURCE" in str(error.value)
        return str(error.value)

    assert "no such file" in why()
    odd.write_bytes(whole.read_bytes()[:-100])
    assert "truncated or damaged" in why()
    changed = bytearray(whole.read_bytes())
    changed[-5] ^= 1
    odd.write_bytes(changed)
    assert "changed since it was made" in why()
    save_file(load_file(whole), odd)
    assert "not a memory file" in why()
    save_file(load_file(whole), odd, {"memory": json.dumps({"format": "99", "digest": ""})})
    assert "has format 99" in why()
    for metadata in ("{", "[]"):
        save_file(load_file(whole), odd, {"memory": metadata})
        assert AGAIN in why()
    shutil.copy(whole, odd)
    assert "made for another model" in why(small(1))
    other = small()
    other.classes = (*other.classes[:-1], "contempt")
    assert "made for a model with the classes angry, " in why(other)
    with pytest.raises(CrossferError, match="made for another model"):
        sides = {"target": drawn(21, 2)}
        adapt(
            STRATEGIES["RIDGE"],
            small(1),
            small(1),
            sides,
            sides,
            RECIPE,
            0,
            Machine.of("cpu"),
            memory,
        )


def test_a_memory_file_knows_the_order_of_classes_and_the_arguments_of_its_model() -> None:
    def built(scale: float, classes: tuple[str, ...] = ("happy", "sad")) -> Classifier:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 8), nn.ReLU(), nn.Linear(8, 2))
        spec = Spec("tests.anywhere:build", {"scale": scale})
        return Classifier(network, classes, preprocessing=Preprocessing(), spec=spec).eval()

    images = torch.randint(0, 256, (40, 48, 48), dtype=torch.uint8)
    faces = Faces(images, torch.arange(40) % 2)
    made = Memory.of(built(20), faces, Machine.of("cpu", "32-true"))
    made.check(built(20))
    with pytest.raises(CrossferError, match="made for another model .weights, arguments or prepr"):
        made.check(built(2000))
    with pytest.raises(CrossferError, match="in the order happy, sad; list them so under classes:"):
        made.check(built(20, ("sad", "happy")))


def test_a_strategy_that_reads_a_memory_makes_sense() -> None:
    for wrong, why in (
        ({"data": "source+target"}, "memory: needs data: target"),
        ({"merge": True}, "cannot be combined with other ways"),
        ({"layers": "all"}, "feature-replay: layers: FC"),
        ({"memory": Ridge(), "layers": "FC"}, "ridge: layers: none"),
        ({"memory": Ridge(), "layers": "none", "start": "FC"}, "ridge: start: baseline"),
        ({"memory": Ridge(share=0), "layers": "none"}, "ridge: share must be above 0"),
        ({"memory": FeatureReplay(draws=0)}, "feature-replay: draws must be above 0"),
    ):
        point = {"start": "baseline", "layers": "FC", "data": "target", "memory": FeatureReplay()}
        told: dict[str, Any] = point | wrong
        with pytest.raises(ValueError, match=why):
            Strategy("X", **told)
    with pytest.raises(ValueError, match="shrinkage"):
        SLDA(shrinkage=2)


@pytest.mark.parametrize("images", [30, 90])
def test_drift_is_a_ridge_regression(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scikit-learn's, with more features than images and with fewer."""
    from sklearn.linear_model import Ridge as Reference

    draw = np.random.default_rng(0)
    before, samples = draw.normal(2, 3, (images, 50)), draw.normal(2, 3, (20, 50))
    after = before + before @ draw.normal(0, 0.1, (50, 50)) + draw.normal(size=50)
    expected = Reference(alpha=drift.RIDGE * images * before.var(0).mean()).fit(
        before, after - before
    )
    found = moved(*(torch.from_numpy(x).float() for x in (samples, before, after)))
    np.testing.assert_allclose(found, samples + expected.predict(samples), rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(drift, "MOST_IMAGES", 10)
    few = moved(*(torch.from_numpy(x).float() for x in (samples, before, before + 1)))
    np.testing.assert_allclose(few, samples + 1, atol=1e-5)
    alike = torch.ones(2, 50)
    assert torch.equal(moved(torch.zeros(3, 50), alike, 2 * alike), torch.ones(3, 50))


def test_samples_move_only_with_features(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained from a network with other features is what is drawn, moved; teaches what was drawn."""
    old, machine, sides = small(), Machine.of("cpu", "32-true"), {"target": drawn(21, 2)}
    other = small()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    told: list[tuple[Tensor, Tensor]] = []

    def watched(samples: Tensor, before: Tensor, after: Tensor) -> Tensor:
        told.append((before, after))
        return moved(samples, before, after)

    monkeypatch.setattr(drift, "moved", watched)
    strategy = STRATEGIES["GFR"]
    adapt(strategy, old, old, sides, sides, RECIPE, 0, machine, memory)
    assert not told
    trained = adapt(strategy, other, old, sides, sides, RECIPE, 0, machine, memory).model
    ((before, after),) = told
    for network, features_ in ((old, before), (other, after)):
        expected = cut_of(network).features(network, drawn(21, 2).images, machine)
        assert torch.allclose(features_, expected, atol=1e-5)
    assert torch.equal(next(trained.parameters()), next(other.parameters()))


@pytest.mark.parametrize(("epochs", "views"), [(8, 4), (10, 2), (6, 3), (5, 1)])
def test_gfr_shows_as_many_epochs_as_it_is_asked_for(
    epochs: int, views: int, memory: Memory
) -> None:
    """In passes over as many views as divide them."""
    recipe = replace(RECIPE, epochs=epochs, views=4, batch_size=4)
    start, machine, sides = small(), Machine.of("cpu", "32-true"), {"target": drawn(21, 2)}
    trained = adapt(STRATEGIES["GFR"], start, start, sides, sides, recipe, 0, machine, memory)
    assert len(trained.history) == epochs // views
    assert trained.images_seen == epochs * 21 * 4, "three draws beside each image"


@pytest.mark.parametrize("strategy", FROM_MEMORY, ids=lambda strategy: strategy.name)
def test_only_what_a_strategy_names_changes_and_the_result_is_a_bundle(
    strategy: Strategy, memory: Memory, tmp_path: Path
) -> None:
    start, machine, sides = small(), Machine.of("cpu", "32-true"), {"target": drawn(21, 2)}
    assert strategy.needs == {"target"} and strategy.looks_back
    model = adapt(strategy, start, start, sides, sides, RECIPE, 0, machine, memory).model
    before, after = start.network.state_dict(), model.network.state_dict()
    changed = {
        name for name in before if not torch.equal(before[name], after.get(name, before[name]))
    }
    heads = {"fc3.weight", "fc3.bias"}
    assert changed <= (heads if strategy.layers == "none" else {n for n in before if "fc" in n})
    images = drawn(5, 3).images
    model.save(tmp_path / "bundle")
    assert np.array_equal(load(tmp_path / "bundle").predict(images), model.predict(images))
    again = adapt(strategy, start, start, sides, sides, RECIPE, 0, machine, memory).model
    assert np.array_equal(again.predict(images), model.predict(images))


def test_of_several_outputs_of_a_class_one_is_kept_and_one_of_no_class_is_never_the_answer() -> (
    None
):
    start = small()
    old = Classifier(start.network, start.classes, [[0, 1], [], *([n] for n in range(2, 7))])
    head = Head(torch.arange(7.0)[:, None].expand(7, 51).double(), torch.zeros(7).double())
    layer = with_head(old, head).network.get_submodule("fc3")
    assert isinstance(layer, nn.Linear)
    assert layer.weight[0].eq(0).all() and layer.bias[1] == -1e4
    assert layer.weight[6].eq(6).all() and layer.bias[6] == 0


def test_a_class_that_is_new_to_the_network_is_learnt_from_the_target_alone() -> None:
    spec, own = Spec(arguments={"width": 0.05, "classes": 6}), [[n] for n in range(6)]
    start = untrained(
        lambda: Classifier(study_cnn(0.05, 6), outputs=[*own, []], spec=spec), 0
    ).eval()
    source, target, machine = drawn(120, classes=6), drawn(70, 1), Machine.of("cpu", "32-true")
    known = torch.tensor([True] * 6 + [False]).expand(120, -1)
    memory = Memory.of(start, replace(source, known=known), machine)
    model = adapt(
        STRATEGIES["RIDGE"], start, start, {"target": target}, {}, RECIPE, 0, machine, memory
    ).model
    said = model.predict(target.images).argmax(1)
    assert (
        start.unknown == ("neutral",)
        and not model.unknown
        and (said[target.labels == 6] == 6).any()
    )


# From here on: whole experiments.


def without_training(dataset: Dataset, folder: Path) -> Path:
    """Copy a prepared dataset without its training and validation images: its test set is all there is."""
    folder.mkdir(parents=True)
    rows = dataset.rows("test")
    np.save(folder / "images.npy", dataset.images[rows])
    pyarrow.parquet.write_table(dataset.samples.take(rows), folder / "samples.parquet")
    sums = {name: digest(folder / name) for name in ("images.npy", "samples.parquet")}
    card = dataset.card | {"images": len(rows), "sha256": sums, "fingerprint": "only a test set"}
    write_json(folder / "dataset.json", card)
    return folder


@pytest.fixture(scope="module")
def finished(
    few_images_do: None, prepared: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Return a baseline's folder, and an experiment that goes on from it without the source's images."""
    out = tmp_path_factory.mktemp("remembering")
    content: dict[str, Any] = {
        "name": "remember",
        "source": str(prepared["fer2013"].folder),
        "targets": [str(prepared["jaffe"].folder)],
        "model": {"width": 0.05},
        "fractions": [1.0],
        "strategies": ["RIDGE"],
        "recipes": {"default": {"epochs": 2, "batch_size": 16}},
        "copies": "ignore",
    }
    results = run_experiment(check_experiment(content), out / "trained")
    assert not results.failed
    (folder,) = (out / "trained" / "runs").glob("BL-*")
    later = content | {
        "source": str(without_training(prepared["fer2013"], out / "tests-only")),
        "model": str(folder),
        "memory": str(folder / MEMORY),
        "strategies": [*(strategy.name for strategy in FROM_MEMORY), "GFR+WiSE"],
    }
    return folder, later


def test_all_run_when_the_training_images_are_deleted(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """An experiment whose source has only a test set and a memory file works."""
    folder, content = finished
    source = open_dataset(content["source"])
    assert not len(source.rows("training")) and not len(source.rows("validation"))
    results = run_experiment(check_experiment(content), tmp_path / "out")
    assert not results.failed
    done = {row.strategy for row in results.summary}
    names = {"GFR+WiSE", *(strategy.name for strategy in FROM_MEMORY)}
    assert names < done and len(names) == 8
    tested, held_out = (getattr(results.summary[0].on_source, s) for s in ("test", "validation"))
    assert tested.images + held_out.images == len(source.rows("test")) and held_out.images
    (left,) = (tmp_path / "out" / "runs").glob(f"BL-*/{MEMORY}")
    assert left.read_bytes() == (folder / MEMORY).read_bytes()
    facts = {one.name: one.past_data for one in results.strategies}
    assert {facts[name] for name in names} == {"statistics"}
    assert verify(tmp_path / "out")[-1].checked == ("derived results verified",)


def test_a_baseline_leaves_the_file_that_the_command_makes(
    finished: tuple[Path, dict[str, Any]], prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    folder, _ = finished
    told = json.loads((folder / "run.json").read_text())
    assert told["files"][MEMORY] == digest(folder / MEMORY)
    assert told["memory"]["bytes"] < 5e6
    made_file, source = tmp_path / "sub" / MEMORY, str(prepared["fer2013"].folder)
    made = CliRunner().invoke(app, ["remember", str(folder), source, "--out", str(made_file)])
    assert made.exit_code == 0 and f"written: {made_file}" in made.output.replace("\n", "")
    own, again = load_memory(folder / MEMORY), load_memory(made_file)
    assert (own.model, own.classes) == (again.model, again.classes)
    assert torch.allclose(own.moments.sums, again.moments.sums, rtol=1e-4)


def test_a_memory_that_was_deleted_is_made_again(
    finished: tuple[Path, dict[str, Any]], prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    folder, content = finished
    shutil.copytree(folder.parent.parent, tmp_path / "trained")
    (gone,) = (tmp_path / "trained" / "runs").glob(f"BL-*/{MEMORY}")
    gone.unlink()
    trained = json.loads((tmp_path / "trained" / "experiment.json").read_text())
    assert not run_experiment(check_experiment(trained), tmp_path / "trained").failed
    load_memory(gone)


def test_a_given_memory_is_part_of_its_baseline_s_key(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """It lies in the baseline's folder, where an experiment without it would find it."""
    experiment = check_experiment(finished[1])
    source, *targets = open_datasets(experiment, tmp_path, Progress())
    arithmetic = Arithmetic("cpu", "32-true")
    runs = plan_all(experiment, source, targets, arithmetic).runs
    (deployed,) = {run.key: run for run in runs if run.strategy.start == "deployed"}.values()
    assert deployed.memory and replace(deployed, memory=None).key != deployed.key


def test_what_cannot_be_is_said_in_one_line_before_anything_runs(
    finished: tuple[Path, dict[str, Any]], prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    _, content = finished

    def why(**changes: Any) -> str:
        out = tmp_path / "out"
        with pytest.raises(CrossferError) as error:
            run_experiment(check_experiment(content | changes), out)
        assert "\n" not in str(error.value) and not out.exists()
        return str(error.value)

    assert "memory: only for a deployed model" in why(model={"width": 0.05})
    assert "set memory: for" in why(memory=None)
    assert "no such file" in why(memory=str(tmp_path / "none"))
    odd = small(1)
    odd.save(tmp_path / "other")
    assert f"{content['memory']}: made for another model" in why(model=str(tmp_path / "other"))
    assert "made for a model with the classes" in why(
        classes={"good": ["happy"], "other": ["angry", "sad", "fear", "disgust", "neutral"]},
        model={"network": f"bundle:{content['model']}"},
    )
    one = prepared["jaffe"]
    labels = one.samples.column("label").to_pylist()
    kept = [i for i, name in enumerate(labels) if name == "happy" or i not in one.rows("training")]
    folder = tmp_path / "one-class"
    folder.mkdir()
    np.save(folder / "images.npy", one.images[kept])
    pyarrow.parquet.write_table(one.samples.take(kept), folder / "samples.parquet")
    sums = {name: digest(folder / name) for name in ("images.npy", "samples.parquet")}
    write_json(folder / "dataset.json", one.card | {"images": len(kept), "sha256": sums})
    assert "training set has only the class happy" in why(targets=[str(folder)])

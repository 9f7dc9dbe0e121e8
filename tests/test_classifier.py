"""A classifier on disk: whole, checked, and the same bits when it is back."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import crossfer
from crossfer import Classifier
from crossfer.adaptation import untrained
from crossfer.classes import FER7, FER8
from crossfer.errors import CrossferError
from crossfer.framing import Framing
from crossfer.networks import NamedLayers, NetworkConfig, Normalisation, Preprocessing, Spec, load
from crossfer.networks.answers import find_logits
from crossfer.networks.classifier import _digest
from crossfer.networks.prediction import MOST_AT_ONCE, images_at_once, probabilities_of

ZOO = "tests.tiny_networks"
COLOUR = Preprocessing(3, 32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), order="BGR")


def pictures(classifier: Classifier, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *classifier.preprocessing.image_shape), np.uint8)


def of(spec: Spec, **told: Any) -> Classifier:
    return untrained(lambda: Classifier(spec.build(), spec=spec, **told), 3).eval()


def study() -> Classifier:
    return of(Spec(arguments={"width": 0.05}))


def reordered() -> Classifier:
    spec = Spec(f"{ZOO}:Residual", {"outputs": 8})
    outputs = tuple((i,) for i in (6, 5, 4, 1, 2, 3, 0))
    layers = NamedLayers(CL=("stages.2",))
    framing = Framing(32, 3, 0.5, 0.4)
    return of(
        spec, outputs=outputs, answers=8, preprocessing=COLOUR, layers=layers, framing=framing
    )


def tuple_output() -> Classifier:
    return of(Spec(f"{ZOO}:with_features"), preprocessing=COLOUR)


def cannot_say_contempt() -> Classifier:
    return of(
        Spec(arguments={"width": 0.05}), classes=FER8, outputs=(*((i,) for i in range(7)), ())
    )


BUNDLES = [study, reordered, tuple_output, cannot_say_contempt]


@pytest.mark.parametrize("make", BUNDLES)
def test_what_is_saved_comes_back_to_the_bit(
    make: Callable[[], Classifier], tmp_path: Path
) -> None:
    before = make()
    state = torch.get_rng_state()
    after = load(before.save(tmp_path / "bundle"))
    assert torch.equal(torch.get_rng_state(), state)
    shown = pictures(before)
    assert np.array_equal(after.predict(shown), before.predict(shown))
    for name in ("classes", "labels", "outputs", "answers", "preprocessing", "framing", "layers"):
        assert getattr(after, name) == getattr(before, name), name
    again = load(after.save(tmp_path / "again"))
    assert (tmp_path / "again/classifier.json").read_bytes() == (
        tmp_path / "bundle/classifier.json"
    ).read_bytes()
    assert np.array_equal(again.predict(shown), before.predict(shown))


def test_the_weights_have_the_network_s_own_names(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    classifier = reordered()
    weights = load_file(classifier.save(tmp_path) / "model.safetensors")
    assert weights.keys() == classifier.network.state_dict().keys()


def test_a_class_that_the_network_cannot_say_is_never_the_answer() -> None:
    classifier = cannot_say_contempt()
    answers = classifier.predict(pictures(classifier))
    assert answers.shape == (5, 8) and (answers[:, 7] == 0).all()
    assert np.allclose(answers.sum(1), 1)


def broken(folder: Path, what: str) -> None:
    weights, card = folder / "model.safetensors", folder / "classifier.json"
    content = json.loads(card.read_text())
    if what == "altered":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif what == "cut off":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif what == "no weights":
        weights.unlink()
    elif what == "no card":
        card.unlink()
    elif what == "no JSON":
        card.write_text("{")
    elif what == "another version":
        card.write_text(json.dumps(content | {"format": 99}))
    elif what == "a key less":
        del content["outputs"]
        card.write_text(json.dumps(content))
    elif what == "other classes":
        card.write_text(json.dumps(content | {"classes": content["classes"][::-1]}))
    elif what == "a factory that is gone":
        content["network"]["network"] = "no_such_module:build"
        del content["digest"]
        card.write_text(json.dumps(content | {"digest": _digest(content)}))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("altered", r"model.safetensors: changed or truncated"),
        ("cut off", r"model.safetensors: changed or truncated"),
        ("no weights", r"model.safetensors: cannot be read \(No such file"),
        ("no card", r"classifier.json: no such file; name the folder of a bundle"),
        ("no JSON", r"classifier.json: damaged"),
        ("another version", r"classifier.json: has format 99, but this version reads 1"),
        ("a key less", r"classifier.json: damaged \(KeyError: 'outputs'\)"),
        ("other classes", r"classifier.json: changed by hand"),
        ("a factory that is gone", r"no_such_module:build failed: no module no_such_module on"),
    ],
)
def test_a_damaged_bundle_is_one_line(what: str, words: str, tmp_path: Path) -> None:
    study().save(tmp_path)
    broken(tmp_path, what)
    with pytest.raises(CrossferError, match=words) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": {"joy": "bored"}}, "labels: bored is not a class"),
        ({"labels": ["joy"]}, "ValueError"),
        ({"outputs": [[0], [1], [2], [3], [4], [5], [-1]]}, "outputs: -1 is not one of 7"),
        ({"classes": ["angry"] * 7}, "classes: one is listed twice"),
        ({"preprocessing": {"side": 48, "mean": [0], "deviation": [float("nan")]}}, "finite"),
    ],
)
def test_a_card_with_odd_content_is_damaged(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    card = study().save(tmp_path) / "classifier.json"
    content = json.loads(card.read_text()) | changes
    del content["digest"]
    card.write_text(json.dumps(content | {"digest": _digest(content)}))
    with pytest.raises(CrossferError, match=rf"classifier.json: damaged \(.*{why}"):
        load(tmp_path)


def test_a_classifier_built_by_hand_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CrossferError, match="cannot be saved; specify how its network is built"):
        Classifier(nn.Linear(3, 7)).save(tmp_path)


def test_pictures_that_it_does_not_read_are_refused() -> None:
    classifier = study()
    wrongs: list[Any] = [np.zeros((2, 32, 32), np.uint8), np.zeros((2, 48, 48), np.float32)]
    for wrong in wrongs:
        with pytest.raises(CrossferError, match="this classifier reads faces of uint8 N×48×48"):
            classifier.predict(wrong)
    assert classifier.predict(np.zeros((0, 48, 48), np.uint8)).shape == (0, 7)


def test_conventions_are_not_lost_on_a_traced_module() -> None:
    """`torch.fx` keeps no attribute that it does not know, nor does a deep copy of what it made."""
    import copy

    outputs, how = (
        tuple((i,) for i in reversed(range(7))),
        Preprocessing(mean=(0.5,), deviation=(0.2,)),
    )
    plain = of(Spec(arguments={"width": 0.05}), outputs=outputs, preprocessing=how)
    traced = copy.deepcopy(plain.around(torch.fx.symbolic_trace(plain.network)))
    shown = pictures(plain)
    assert np.allclose(traced.eval().predict(shown), plain.predict(shown), atol=1e-6)
    trained = copy.deepcopy(traced)
    trained.train_only("head")
    assert (trained.preprocessing, trained.outputs) == (how, outputs)


def test_logits_are_found_in_whatever_a_network_answers_with() -> None:
    logits, features, mask = torch.randn(2, 7), torch.randn(2, 512), torch.ones(2, 7).bool()

    class Output(dict[str, Tensor]):
        logits: Tensor

    output = Output()
    output.logits = logits
    for answer, place in (
        (logits, ""),
        ((features, logits), "[1]"),
        ([mask, logits, features], "[1]"),
        ({"aux": torch.randn(2, 7), "logits": logits}, "['logits']"),
        ({"features": features, "out": logits}, "['out']"),
        (output, ".logits"),
    ):
        found, where = find_logits(answer, 7)
        assert torch.equal(found, logits) and where == place
    with pytest.raises(
        TypeError, match=r"returns a tensor \(2, 512\), str, without a tensor of logits"
    ):
        find_logits((features, "logits"), 7)


def test_a_batch_is_as_large_as_memory_allows() -> None:
    """The study's network takes 512 faces at once, one of 224 pixels and many channels far fewer."""
    small = study()
    images = torch.from_numpy(pictures(small, 70))
    whole = probabilities_of(small, images, small.preprocessing)
    one_by_one = probabilities_of(small, images, small.preprocessing, batch_size=1)
    assert torch.allclose(whole, one_by_one, atol=1e-6)
    assert images_at_once(small, torch.zeros(2, 1, 48, 48)) == MOST_AT_ONCE
    wide = nn.Sequential(nn.Conv2d(3, 96, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert images_at_once(wide, torch.zeros(2, 3, 224, 224)) == 2**30 // (2 * 96 * 224**2 * 4)


def test_normalisation_has_the_scale_and_the_order_of_the_network() -> None:
    """One network in four conventions that mean the same."""
    image = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    bytes_ = Preprocessing(3, 16, (100.0, 110.0, 120.0), (50.0, 51.0, 52.0), white=255)
    unit = Preprocessing(3, 16, (100 / 255, 110 / 255, 120 / 255), (50 / 255, 51 / 255, 52 / 255))
    ours, theirs = (crossfer.networks.normalise(image, how) for how in (bytes_, unit))
    assert torch.allclose(ours, theirs, atol=1e-5)
    reversed_ = Preprocessing(3, 16, unit.mean[::-1], unit.deviation[::-1], order="BGR")
    assert torch.equal(crossfer.networks.normalise(image, reversed_), theirs.flip(1))


def test_a_folder_is_copied_and_works_elsewhere(tmp_path: Path) -> None:
    before = study()
    before.save(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert np.array_equal(
        load(tmp_path / "there").predict(pictures(before)),
        before.predict(pictures(before)),
    )


def test_configuration_becomes_a_classifier_for_any_classes() -> None:
    told = NetworkConfig(
        network=f"{ZOO}:Residual",
        arguments={"outputs": 8},
        input=(3, 32, 32),
        normalisation=Normalisation((0.5,) * 3, (0.5,) * 3),
        classes=("Neutral", "Happiness", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
    )
    assert told.build(FER7).outputs == tuple((i,) for i in (6, 5, 4, 1, 2, 3, 0))
    assert told.build(("happy", "bored", "contempt")).outputs == ((1,), (), (7,))
    assert NetworkConfig(width=0.1).build(("yes", "no", "perhaps")).answers == 3


def doubled() -> nn.Module:
    """Build the study's network, narrow, with logits twice as large."""
    from tests.tiny_networks import Scale

    return nn.Sequential(OrderedDict(study=Spec(arguments={"width": 0.05}).build(), twice=Scale()))


def halved() -> nn.Module:
    """Build one with the same weights' names that answers otherwise."""
    return nn.Sequential(
        OrderedDict(study=Spec(arguments={"width": 0.05}).build(), twice=nn.Tanh())
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    here = "tests.test_classifier"
    good = of(Spec(f"{here}:doubled"))
    assert np.array_equal(
        load(good.save(tmp_path / "good")).predict(pictures(good)), good.predict(pictures(good))
    )
    for factory, why in (
        (f"{here}:halved", "answers differently with the same weights"),
        (f"{ZOO}:Residual", r"does not build this network \(.*correct spec="),
        ("__main__:doubled", "move the factory to a module"),
    ):
        with pytest.raises(CrossferError, match=why):
            Classifier(good.network, spec=Spec(factory)).save(tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_a_classifier_that_does_not_fit_together_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 8))
    told: list[tuple[dict[str, Any], str]] = [
        ({"classes": "fer7"}, "'fer7' is one name; list the classes"),
        ({"classes": ("happy", "happy")}, "listed twice"),
        ({"classes": ("happy", "sad"), "outputs": ((-1,), (0,))}, "-1 is not one of 1"),
    ]
    for arguments, why in told:
        with pytest.raises(ValueError, match=why):
            Classifier(network, **arguments)
    with pytest.raises(CrossferError, match=r"returns \(5, 8\), not \(N, 7\)"):
        Classifier(network).predict(np.zeros((5, 48, 48), np.uint8))


def test_any_array_of_faces_is_read() -> None:
    classifier = study()
    shown = pictures(classifier)
    expected = classifier.predict(shown[..., ::-1].copy())
    shown.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(classifier.predict(shown[..., ::-1]), expected)
    half = of(Spec(arguments={"width": 0.05})).half()
    assert np.allclose(half.predict(pictures(half)), study().predict(pictures(half)), atol=0.01)

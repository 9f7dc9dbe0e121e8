"""A run's key is made of everything that determines its weights, whatever fields are added to it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from crossfer.classes import PRESETS, ClassSet
from crossfer.experiment.data import DataRef, DatasetRef
from crossfer.experiment.identity import Arithmetic, described
from crossfer.experiment.plan import Run
from crossfer.memory.penalties import EWC, L2SP, Distillation
from crossfer.networks import NetworkConfig, Normalisation
from crossfer.strategies import STRATEGIES
from crossfer.strategy import Strategy
from crossfer.training.recipe import Recipe

PLAIN = {"note", "source_images", "target_images"}
"""What of a run determines nothing: words, and what is counted."""
MEANT = PLAIN | {"name", "about", "paper", "devices"}


def a_run(penalty: Any = None, **changes: Any) -> Run:
    source = DataRef((DatasetRef("fer", "f" * 64, tuple(range(7))),))
    target = DataRef(
        (DatasetRef("mine", "a" * 64, (0, 3, 4)), DatasetRef("more", "b" * 64, (0, 1)))
    )
    network = NetworkConfig(
        network="nets:make",
        arguments={"depth": 3},
        normalisation=Normalisation((0.5,), (0.2,)),
        classes=("angry", "happy"),
        FC=("head",),
    )
    baseline = Run(
        Strategy("BL", "random", "all", "source"),
        Recipe(),
        network,
        PRESETS["fer7"],
        source,
        None,
        None,
        0,
        None,
        None,
        ("source",),
        "best",
        Arithmetic("cpu", "32-true"),
        100,
        0,
    )
    strategy = Strategy(
        "X", "baseline", "all", "source+target", share=0.25, penalty=penalty, merge=True
    )
    own = vars(baseline) | {
        "strategy": strategy,
        "target": target,
        "fraction": 0.5,
        "parent": baseline,
        "baseline": baseline,
        "target_images": 40,
    }
    return Run(**{f.name: (own | changes)[f.name] for f in fields(Run)})


def other(value: Any) -> Any:
    """Return another value of about the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, (tuple, list)):
        return type(value)([*value, *(value[-1:] or ["x"])])
    if isinstance(value, Mapping):
        return {**value, "x": "x"}
    return "x"


def perturbed(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a name for, and a copy with a change in, every field of a dataclass and of those in it."""
    for field in fields(value):
        inside, where = getattr(value, field.name), f"{path}.{field.name}"
        if isinstance(inside, Run):
            continue  # its own key stands for it
        changes = (
            list(perturbed(inside, where)) if is_dataclass(inside) else [(where, other(inside))]
        )
        if isinstance(inside, tuple) and inside and is_dataclass(inside[0]):
            changes += [(name, (one, *inside[1:])) for name, one in perturbed(inside[0], where)]
        for name, change in changes:
            changed = copy.copy(value)
            for cached in ("identity", "key"):
                vars(changed).pop(cached, None)
            object.__setattr__(changed, field.name, change)
            yield name, changed


@pytest.mark.parametrize("penalty", [None, Distillation(), L2SP(), EWC()])
def test_every_field_but_names_changes_the_key(penalty: Any) -> None:
    run = a_run(penalty)
    seen = set()
    for name, changed in perturbed(run):
        last = name.rpartition(".")[2]
        seen.add(last)
        # A recipe and a start of a strategy are there twice: what counts are the run's recipe and parent.
        same = last in MEANT or name in (".strategy.recipe", ".strategy.start", ".network.expect")
        # Places: the digest of what is there counts.
        same = same or name in (".network.folder", ".network.weights")
        same = same or name == ".network.framing"  # a run has that of its source's faces
        assert (changed.key == run.key) == same, name
    assert {"layers", "views", "flip", "width", "fingerprint", "members", "device", "keep"} <= seen


def test_a_parent_and_a_baseline_count_by_their_keys() -> None:
    run, another = a_run(), a_run(seed=1)
    assert a_run(parent=another).key != run.key != a_run(baseline=another).key


def test_a_run_is_plain_data_and_comes_back_from_another_process_as_it_was() -> None:
    run = a_run(EWC())
    back = pickle.loads(pickle.dumps(run))
    assert back == run and back.key == run.key and back.identity == run.identity


def test_what_cannot_be_written_down_is_no_identity() -> None:
    with pytest.raises(TypeError, match="object cannot be part of an identity"):
        described({"a": object()})


def test_a_map_of_classes_and_their_order_enter_the_key() -> None:
    keys = {
        a_run(classes=ClassSet.of(value)).key
        for value in (
            ["happy", "sad"],
            ["sad", "happy"],
            {"happy": ["happy"], "sad": ["sad", "angry"]},
            {"happy": ["happy", "angry"], "sad": ["sad"]},
        )
    }
    assert len(keys) == 4


def test_strategies_that_train_the_same_layers_alike_are_one_run() -> None:
    """A residual network has one linear layer behind its convolutions: its head."""
    network = NetworkConfig("tests.tiny_networks:Residual", input=(3, 64, 64))

    def key(layers: Any) -> str:
        strategy = Strategy(f"only {layers}", "baseline", layers, "target")
        return a_run(network=network, strategy=strategy).key

    assert key("FC") == key("head") != key("FC+CL")


def test_a_strategy_stays_itself_when_its_description_is_reworded() -> None:
    """Experiments of earlier wordings are still read; see `Experiment.strategies`."""
    assert (
        replace(STRATEGIES["FC"], about="other words", paper="another way to cite")
        == STRATEGIES["FC"]
    )

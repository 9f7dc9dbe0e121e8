"""What would have no effect, or fail later, is refused in one line before anything runs."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from crossfer import Machine
from crossfer.datasets import Dataset, Preparation, in_memory, open_dataset, prepare
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment
from crossfer.experiment.opening import check_paths
from crossfer.networks import NetworkConfig
from crossfer.networks.preprocessing import Normalisation
from crossfer.networks.sources import Spec
from crossfer.strategy import Strategy
from tests.commands import crossfer, refused

IDLE = {"name": "mine", "start": "baseline", "layers": "none", "data": "target"}
DEPLOYED = {"network": "bundle:a"}
EXPERIMENT: dict[str, Any] = {"name": "x", "source": "old", "targets": ["new", "newer"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"classes": {True: ["happy"], False: ["sad"]}},
            "in quotes where YAML reads something else",
        ),
        ({"fractions": [50, 100]}, "fractions.0: 50: must be less than or equal to 1"),
        ({"seeds": ["a"]}, "seeds.0: 'a': must be a valid integer"),
        ({"source": {"path": "old", "sizes": "70/10/20"}}, "source.sizes: must be a list: [a, b]"),
        (
            {"recipes": {"default": {"mixup": 0.2}}},
            "mixup cannot be combined with the loss of MIX+KD",
        ),
        ({"recipes": {"default": {"mixup": 0.2}}, "strategies": ["GFR"]}, "the loss of GFR"),
        (
            {"recipes": {"RE": {"mixup": 0.2}}, "strategies": ["RE"], "devices": 2},
            "mixup cannot be combined with devices: 2",
        ),
        (
            {"recipes": {"FC": {"batch_size": 3}}, "devices": 4},
            "devices: 4: more than the 3 images of a batch of FC; use fewer",
        ),
        (
            {"recipes": {"GFR": {"views": 0}}, "strategies": ["GFR"]},
            "GFR needs views of at least 1",
        ),
        ({"strategies": ["RIDGE"], "protocols": ["in-turn"]}, "none of BL, RIDGE can do"),
        (
            {"memory": "m.safetensors", "model": {"network": "bundle:a"}, "strategies": ["FC"]},
            "memory: none of BL, FC reads it; add GFR",
        ),
        (
            {
                "strategies": [
                    {
                        "name": "mine",
                        "start": "RE",
                        "layers": "none",
                        "data": "target",
                        "merge": True,
                    }
                    | {"recipe": {"epochs": 9}}
                ]
            },
            "trains nothing, so recipe has no effect",
        ),
        (
            {
                "strategies": [
                    {"name": "mine", "start": "baseline", "layers": "none", "data": "source+target"}
                    | {"exemplars": 5}
                ]
            },
            "trains nothing, so exemplars have no effect",
        ),
        ({"strategies": [IDLE]}, "mine: changes nothing: it would be baseline again"),
        ({"strategies": [IDLE | {"merge": True}]}, "mine: changes nothing"),
        ({"strategies": ["FC", IDLE | {"start": "FC"}]}, "it would be FC again; choose layers"),
        ({"strategies": ["BL"], "selection": "target"}, "selection: target has no effect on BL"),
        ({"strategies": ["TENT"], "selection": "both"}, "has no effect on BL, TENT; remove it"),
        (
            {"strategies": [IDLE | {"layers": "all", "merge": True}], "selection": "target"},
            "has no effect on BL, mine",
        ),
        (
            {"strategies": ["BL"], "recipes": {"default": {"epochs": 7}}, "model": DEPLOYED},
            "recipes.default: nothing is trained, so it has no effect; remove it",
        ),
        (
            {"strategies": ["TENT"], "recipes": {"default": {"label_smoothing": 0.3}}}
            | {"model": DEPLOYED},
            "recipes.default.label_smoothing: has no effect without labels; remove it",
        ),
    ],
)
def test_a_configuration(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CrossferError, match="^[^\n]*$") as error:
        check_experiment(EXPERIMENT | changes)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"penalty": {"kind": "mine"}},
            "penalty: 'mine': write {kind: …} with one of the kinds dist",
        ),
        (
            {"penalty": "l2-sp"},
            "penalty: 'l2-sp': write {kind: …} with one of the kinds distillation",
        ),
        (
            {"penalty": {"weight": 2}},
            "penalty: write {kind: …} with one of the kinds distillation, ",
        ),
        (
            {"penalty": {"kind": "l2-sp", "wieght": 2}},
            "penalty.wieght: unknown key, perhaps weight",
        ),
        ({"memory": {"kind": "mine"}}, "with one of the kinds feature-replay, ridge, slda, router"),
        ({"unlabelled": "mine"}, "with one of the kinds batch-norm, entropy, "),
        ({"merge": "wise"}, "merge: 'wise': must be False, True, 'LiNeS' or 'Fisher'"),
    ],
)
def test_a_strategy_names_what_there_is_to_choose_from(changes: dict[str, Any], words: str) -> None:
    mine = {"name": "mine", "start": "baseline", "layers": "all", "data": "target"}
    with pytest.raises(CrossferError, match=f"^experiment: strategies.0.[^\n]*{re.escape(words)}"):
        check_experiment(EXPERIMENT | {"strategies": [mine | changes]})


@pytest.mark.parametrize("penalty", [{"kind": "distillation"}, lambda network: 0])
def test_a_strategy_in_python_takes_penalties_only(penalty: Any) -> None:
    with pytest.raises(ValueError, match=r"^mine: penalty: .*: write Distillation\(…\) or "):
        Strategy("mine", "baseline", layers="all", data="target", penalty=penalty)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategies": ["RIDGE"], "selection": "target"},
        {"strategies": ["BL"], "selection": "last"},
        {"strategies": ["WiSE-FT"], "selection": "last"},
        {"strategies": [IDLE | {"data": "source+target", "merge": True}]},
        {"strategies": ["TENT"], "recipes": {"default": {"label_smoothing": 0.3}}},
    ],
)
def test_what_has_an_effect_is_possible(changes: dict[str, Any]) -> None:
    check_experiment(EXPERIMENT | changes)


def test_a_data_root_that_is_not_there(tmp_path: Path) -> None:
    """Also where all paths are absolute."""
    (tmp_path / "old").mkdir()
    content = EXPERIMENT | {"source": tmp_path / "old", "targets": [tmp_path / "old"]}
    with pytest.raises(CrossferError, match="nowhere: no such data root; correct --data or data:"):
        check_paths(check_experiment(content | {"data": tmp_path / "nowhere"}))
    check_paths(check_experiment(content | {"data": tmp_path}))


def test_mixup_for_the_others_is_possible() -> None:
    recipes = {"default": {"mixup": 0.2}, "MIX+KD": {"mixup": 0}}
    experiment = check_experiment(EXPERIMENT | {"recipes": recipes})
    found = {one.name: experiment.recipe(one).mixup for one in experiment.strategies}
    assert (found["RE"], found["MIX+KD"]) == (0.2, 0)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"order": "BGR"}, "order: not an option of the study's network"),
        ({"weights": Path("as-built")}, "the study's network has none of its own"),
        ({"network": "onnx:a.onnx", "arguments": {"a": 1}}, "an ONNX file takes none"),
        ({"network": "bundle:a", "weights_key": "ema"}, "weights_key: only for a file of weights"),
        ({"network": "timm:a", "input": (1, 48, 48), "order": "BGR"}, "reads no colours"),
        ({"network": "timm:a", "normalisation": "nonsense"}, "write per-image, or {mean"),
        ({"network": "timm:a", "normalisation": {"foo": 1}}, "normalisation: write {mean"),
    ],
)
def test_a_network(network: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NetworkConfig(**network)


@pytest.mark.parametrize("key", ["layers", "data", "choice", "merge"])
def test_a_misspelt_value_in_python(key: str) -> None:
    values: dict[str, Any] = {"layers": "all", "data": "target", key: "misspelt"}
    with pytest.raises(ValueError, match=f"{key}: misspelt: choose among "):
        Strategy("mine", "baseline", **values)
    wrong: Any = "bf16"
    with pytest.raises(
        CrossferError, match="precision bf16: choose among auto, 32-true, bf16-mixed"
    ):
        Machine.of("cpu", wrong)


def test_a_misspelt_split(prepared: dict[str, Dataset]) -> None:
    wrong: Any = "train"
    with pytest.raises(ValueError, match="split 'train': choose among training, validation, test"):
        prepared["jaffe"].rows(wrong)


def test_an_option(tmp_path: Path) -> None:
    Image.new("L", (48, 48)).save(tmp_path / "a.png")
    comparison = tmp_path / "compared.json"
    comparison.write_text('{"kind": "comparison"}')
    prepared = ("prepare", tmp_path, "--out", tmp_path / "x")
    for command, words in {
        ("export", "run", "--out", "x", "--calibrate", "data"): "--calibrate: only for --int8",
        ("audit", tmp_path, tmp_path / "." / "a" / ".."): "given twice; remove one",
        (
            "predict",
            "x",
            tmp_path,
            "--cropped",
            "--smallest",
            0.3,
        ): "--smallest: no face is looked for",
        ("verify", "out", "--workers", 2): "--workers: only for --retrain",
        ("label", tmp_path, "--by", "me", "--blind"): "--blind: only with --model",
        ("label", tmp_path, "--by", "me", "--variant", "int8"): "--variant: only with --model",
        ("label", tmp_path, "--table", "--port", 0): "--port: --table opens no page",
        ("label", tmp_path, "--table", "--open"): "--open: --table opens no page",
        ("label", tmp_path, "--table", "--order", "files"): "--order: --table opens no page",
        ("label", tmp_path, "--table", "--by", "me"): "--by: --table opens no page",
        ("label", tmp_path, "--table", "--also", "bored"): "--also: --table opens no page",
        ("app", comparison, "--smallest", 0.3): "is a comparison, and no face is looked for",
        (*prepared, "--classes", ""): "classes: one has no name",
        (*prepared, "--classes", "sad,sad"): "classes: sad is named twice; remove one",
        (*prepared, "--crop", 0.5, "--no-face", "drop"): "crop has no effect with no_face: drop",
        (*prepared, "--sizes", "0,0,1", "--seed", 5): "seed has no effect, since sizes puts all",
        (*prepared, "--root", tmp_path / "none"): "none: no such folder",
        (*prepared, "--label", "Happy=joy", "--label", "happy=sad"): "given twice",
    }.items():
        assert words in refused(*command), command


def test_data_in_memory() -> None:
    images = list(np.zeros((2, 48, 48), np.uint8))
    with pytest.raises(CrossferError, match="labels are names, so classes= has no effect"):
        in_memory((images, ["happy", "sad"]), name="mine", classes=["fear", "disgust"])
    with pytest.raises(CrossferError, match="no columns, so image= and label= have no effect"):
        in_memory((images, ["happy", "sad"]), name="mine", label="emotion")
    with pytest.raises(CrossferError, match="classes= names happy twice"):
        in_memory((images, [0, 1]), name="mine", classes=["happy", "happy"])


def test_a_box_without_a_face_is_a_picture_without_a_face(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), [("path", "label", "left", "top", "width", "height")]
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", ("happy", "sad")[number % 2], "8", "8", "48", "48"))
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    kept = prepare(tmp_path, tmp_path.with_name("kept"))
    assert len(kept.images) == 12 and kept.card["faces"]["found"] == {"box": 12}
    with pytest.raises(CrossferError, match="no face found in 12 pictures"):
        prepare(tmp_path, tmp_path.with_name("none"), Preparation(no_face="refuse"))


def test_paths_and_lists_in_python() -> None:
    """What is a path or a tuple may be given as a string or a list."""
    given: Any = {"weights": "a.safetensors", "folder": "b", "input": [1, 48, 48], "FC": ["fc"]}
    told: Any = {"classes": list("ab"), "normalisation": "per-image"}
    config = NetworkConfig("code:build", **given, **told)
    assert (config.weights, config.folder) == (Path("a.safetensors"), Path("b"))
    assert (config.input, config.FC, config.classes) == ((1, 48, 48), ("fc",), ("a", "b"))
    own: Any = {"mean": [0.5], "deviation": [0.25]}
    config = NetworkConfig("code:build", input=(1, 48, 48), normalisation=own)
    assert config.normalisation == Normalisation((0.5,), (0.25,))
    assert not NetworkConfig("timm:resnet18", weights=cast(Any, "start")).is_deployed
    assert Spec("code:build", folder=cast(Any, "b")).folder == Path("b")
    assert Preparation(root=cast(Any, "faces")).read_options.root == Path("faces")


def test_what_is_read_is_not_written_over(prepared: dict[str, Dataset], tmp_path: Path) -> None:
    folder, junit = tmp_path / "mug", tmp_path / "comparison.json"
    shutil.copytree(prepared["mug"].folder, folder)
    junit.write_text("{}")
    for command in (
        ("look", folder, "--out", folder / "dataset.json"),
        ("audit", folder, "--page", folder / "dataset.json"),
        ("remember", "model", folder, "--out", folder / "images.npy"),
        ("gate", junit, "--junit", junit),
    ):
        assert "which is read; name another file" in refused(*command), command
    twice = tmp_path / "twice.json", tmp_path / "." / "a" / ".." / "twice.json"
    compare = ("compare", junit, junit, folder, "--json", twice[0], "--flips", twice[1])
    assert "--flips" in (said := refused(*compare)) and "written by --json too" in said
    open_dataset(folder).check()
    for _ in range(2):  # its own page lies in the dataset, and is made again
        assert crossfer("look", folder).exit_code == 0


def test_the_advice_of_a_dataset_can_be_followed(tmp_path: Path) -> None:
    """People in several official splits are divided again, by what the warning says, in any folder."""
    raw, out = tmp_path / "raw", tmp_path / "with a space"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for person in range(12):
            for name in ("happy", "sad"):
                file = raw / split / name / f"S{person:02}_{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(file)
    command = ["prepare", raw, "--out", out, "--faces", "cropped", "--subject", r"/(S\d+)_"]
    said = crossfer(*command, "--replace").stdout.replace("\n", " ")
    assert "--replace: there was no dataset to replace" in said
    remedy = re.search(r"in more than one split, .*?\((--.*?) divides again\)", said)
    assert remedy and f"crossfer look '{out}'" in said
    again = crossfer(*command, *remedy[1].split(), "--split", "train=test")
    assert again.exit_code == 0 and "in more than one split" not in again.stdout
    assert "--split: only tells which names are splits" in again.stdout
    assert "no dataset to replace" not in again.stdout


def test_a_gray_network_reads_no_colours() -> None:
    """Neither is `order` ignored where the network says itself what it reads."""
    told: Any = {"weights": "as-built", "classes": list("ab"), "normalisation": "per-image"}
    with pytest.raises(ValueError, match="order: a gray network reads no colours; remove it"):
        NetworkConfig("code:build", order="BGR", **told)

"""From photographs to a shipped model: every command of docs/from-photos.md, on drawn faces."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import urllib.request
from collections.abc import Callable, Sequence
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from typer.testing import CliRunner

from crossfer.app import Page
from crossfer.classes import FER7
from crossfer.cli import app
from crossfer.datasets import Dataset, open_dataset
from crossfer.networks import Classifier, Spec, study_cnn
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE
from tests.browser import served

PEOPLE, CLASSES = 6, (0, 3, 6)
DOC = Path(__file__).parents[1] / "docs" / "from-photos.md"
Ask = Callable[..., Any]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def place(tmp_path: Path, prepared: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what the page supposes: photos, the old model, its dataset, mine.yaml."""
    torch.manual_seed(0)
    Classifier(study_cnn(width=0.05), spec=Spec("study", {"width": 0.05})).save(tmp_path / "old")
    shutil.copytree(prepared["fer2013"].folder, tmp_path / "data" / "fer2013")
    (tmp_path / "photos").mkdir()
    for who in range(PEOPLE):
        for label in CLASSES:
            cv2.imwrite(
                str(tmp_path / "photos" / f"{who}-{label}.png"), portrait(LAB_JAFFE, who, label)
            )
    (written,) = blocks("yaml")
    quick = "recipes: {default: {epochs: 1, batch_size: 32}}\n"
    (tmp_path / "mine.yaml").write_text(written.replace("[FC, RE, MIX+KD]", "[FC]") + quick)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def label_all(ask: Ask) -> None:
    """Label every face by the name of its photo, and say who it is."""
    faces: dict[str, list[str]] = {}
    turn = ask("/label/turn", {})
    while (face := turn["face"]) is not None:
        who, label = face["photo"].removesuffix(".png").split("-")
        turn = ask("/label/say", {"face": face["id"], "did": "label", "label": FER7[int(label)]})
        faces.setdefault(who, []).append(face["id"])
    while ask("/people/describe", {})["left"]:
        pass
    for who, own in faces.items():
        ask("/people/name", {"faces": own, "name": f"person {who}"})


def try_both(ask: Ask) -> None:
    """Show a photo to both models."""
    (face,) = ask("/try/look", Path("photos/0-3.png").read_bytes())["faces"]
    assert len(face["models"]) == 2


def test_every_command_of_the_page_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clicks: list[Callable[[Ask], None]] = [label_all, label_all, try_both]

    def serve(pages: Sequence[Page], port: int, ready: Callable[[str], None]) -> None:
        """Serve as `crossfer.app.serve` does, until the clicks are done."""
        with served(pages) as address:
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            browser.open(address).read()

            def ask(path: str, given: Any) -> Any:
                body = given if isinstance(given, bytes) else json.dumps(given).encode()
                return json.loads(browser.open(address.partition("/?")[0] + path, body).read())

            clicks.pop(0)(ask)

    monkeypatch.setattr("crossfer.app.serve", serve)
    told: dict[str, str] = {}
    for line in blocks("sh")[0].splitlines():
        _, *words = shlex.split(line, comments=True)
        words = [word.replace("KEY", finished(told)) for word in words if word != "--open"]
        if words[0] == "run":
            words += ["--workers", "1"]
        result = CliRunner().invoke(app, words)
        proven = (0, 1) if words[0] == "gate" else (0,)  # on so few faces nothing is proven
        assert result.exit_code in proven, (line, result.output, result.exception)
        told[words[0]] = " ".join(result.output.split())
    assert clicks == []

    dataset = open_dataset("data/photos")
    names = [f"{who}-{label}" for who in range(PEOPLE) for label in CLASSES]
    assert [Path(str(o)).stem for o in dataset.samples.column("origin").to_pylist()] == names
    assert dataset.samples.column("label").to_pylist() == [FER7[c] for c in CLASSES] * PEOPLE
    assert dataset.card["subjects"] == PEOPLE
    assert dataset.card["split"]["subjects_in_several_splits"] == 0
    assert set(dataset.groups["labeller"]) == {"ann+ben"}
    assert dataset.card["suggestions"]["shown"] == len(names)
    assert "ann and ben: Cohen's kappa 1.00" in told["label"]
    assert "suggestions of a model were accepted" in told["prepare"]
    assert "suggestions of a model were accepted" in Path("runs/mine/report.html").read_text()


def finished(told: dict[str, str]) -> str:
    """Return the run that was recommended, once there is one."""
    if "run" not in told:
        return "KEY"
    result = CliRunner().invoke(app, ["recommend", "runs/mine", "--json"])
    return Path(json.loads(result.stdout)[0]["folder"]).name

"""Labelling by two people through the pages, as docs/tutorials/photos.md has it, on drawn faces."""

from __future__ import annotations

import json
import re
import shlex
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
from crossfer.datasets import open_dataset
from crossfer.networks import Classifier, Spec, study_cnn
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE
from tests.browser import served

PEOPLE, CLASSES = 6, (0, 3, 6)
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorials" / "photos.md"
Ask = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with photos and the old model."""
    torch.manual_seed(0)
    Classifier(study_cnn(width=0.05), spec=Spec("study", {"width": 0.05})).save(tmp_path / "old")
    (tmp_path / "photos").mkdir()
    for who in range(PEOPLE):
        for label in CLASSES:
            cv2.imwrite(
                str(tmp_path / "photos" / f"{who}-{label}.png"), portrait(LAB_JAFFE, who, label)
            )
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


def test_two_people_label_what_prepare_then_reads(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    lines = re.findall(r"^crossfer (label .* --by .*|prepare .*)$", text, re.M)
    people: list[Callable[[Ask], None]] = [label_all, label_all]

    def serve(pages: Sequence[Page], port: int, ready: Callable[[str], None]) -> None:
        """Serve as `crossfer.app.serve` does, until the clicks are done."""
        with served(pages) as address:
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            browser.open(address).read()

            def ask(path: str, given: Any) -> Any:
                body = given if isinstance(given, bytes) else json.dumps(given).encode()
                return json.loads(browser.open(address.partition("/?")[0] + path, body).read())

            people.pop(0)(ask)

    monkeypatch.setattr("crossfer.app.serve", serve)
    told: dict[str, str] = {}
    for line in lines:
        words = [word for word in shlex.split(line, comments=True) if word != "--open"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (line, result.output, result.exception)
        told[words[0]] = " ".join(result.output.split())
    assert people == []

    dataset = open_dataset("data/photos")
    names = [f"{who}-{label}" for who in range(PEOPLE) for label in CLASSES]
    assert [Path(str(o)).stem for o in dataset.samples.column("origin").to_pylist()] == names
    assert dataset.samples.column("label").to_pylist() == [FER7[c] for c in CLASSES] * PEOPLE
    assert dataset.card["subjects"] == PEOPLE
    assert dataset.card["split"]["subjects_in_several_splits"] == 0
    assert set(dataset.samples["group.labeller"].to_pylist()) == {"ann+ben"}
    assert dataset.card["suggestions"]["shown"] == len(names)
    assert "ann and ben: Cohen's kappa 1.00" in told["label"]
    assert "suggestions of a model were accepted" in told["prepare"]

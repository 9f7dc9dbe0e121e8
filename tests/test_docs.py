"""README and docs: tutorials run as they stand, commands and options exist, the site is built strictly."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from glob import glob
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from crossfer import standins
from crossfer.cli import app
from crossfer.progress import OnProgress, silent
from crossfer.strategy import CHOICES, PARTS, Strategy
from crossfer.training.recipe import Recipe
from tests.conftest import SIZES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = [ROOT / "docs/tutorials" / f"{n}.md" for n in ("study", "photos", "your-own")]
"""In the order in which a reader takes them: those after the first go on in its folder."""
ON_A_CLUSTER = ROOT / "docs/tutorials/cluster.md"
"""Runs beside the other tests of clusters, in `tests/test_ray.py`."""
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    title: str | None
    code: str
    reason: str | None

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python") and not self.title and not self.reason


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, m["language"], m["title"], m["code"], m["reason"]) for m in found]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every line that calls crossfer."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                if line.startswith("crossfer "):
                    yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    if page not in (*TUTORIALS, ON_A_CLUSTER):
        assert [block.code for block in blocks(page) if block.runs] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_shown_is_valid(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, str(page), "exec")
        elif block.language == "yaml":
            yaml.safe_load(block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    known = get_command(app).commands  # pyrefly: ignore[missing-attribute]
    for _, name, *words in commands(page):
        if name.startswith("-"):
            continue
        options = {one for each in known[name].params for one in each.opts + each.secondary_opts}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked - options - {"--help"} == set(), f"crossfer {name}"


def test_every_key_choice_and_kind_of_a_strategy_is_in_the_table() -> None:
    page = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    table = page.partition("| key | value | meaning |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([^`]+)`", table))
    choices = {each for kind in CHOICES.values() for each in get_args(kind)}
    assert {field.name for kind in (Strategy, Recipe) for field in fields(kind)} | choices <= told
    parts = [part() for key in ("penalty", "memory", "unlabelled") for part in get_args(PARTS[key])]
    shown = [yaml.safe_load(each) for each in told if each.startswith("{kind: ")]
    assert sorted(shown, key=str) == sorted(map(asdict, parts), key=str)


def test_the_tutorials_run_as_they_stand(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All their blocks, one after the other, in one folder that was empty.

    In this process, which has imported everything, and with the other tests' faces where they are as many.
    """
    assert {*TUTORIALS, ON_A_CLUSTER} == {*(ROOT / "docs/tutorials").glob("*.md")}
    draw = standins.write

    def write(
        name: str, folder: Path, images: int | None = None, told: OnProgress = silent
    ) -> Path:
        if SIZES.get(name) != images:
            return draw(name, folder, images, told)
        return shutil.copytree(raw / name, folder)

    monkeypatch.setattr(standins, "write", write)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for page in TUTORIALS:
        follow(page)
    report = Path("runs/photos/report.html").read_text(encoding="utf-8")
    assert "suggestions of a model were accepted" in report
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert re.search(r"in its experiment, by PyTorch in (single precision|bfloat16) \|", card)
    assert "1905.12082" in card and "Dark Experience" in card


def follow(page: Path) -> None:
    """Do what a tutorial says, in the working directory."""
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.runs and block.language == "python":
            exec(compile(block.code, page.name, "exec"), {"__name__": "__main__"})
        elif block.runs:
            for line in block.code.splitlines():
                run(line)


def run(line: str) -> None:
    """Run a line of a shell; crossfer's commands in this process, which has imported PyTorch already.

    On a cluster, in one process at a time, so that one imports it.
    """
    command, _, otherwise = line.partition(" || ")
    words = [found for word in shlex.split(command, comments=True) for found in expanded(word)]
    if words[:1] != ["crossfer"]:
        subprocess.run(["bash", "-ec", line], check=True, timeout=60)
        return
    alone = ["--workers", "1"] if words[1] == "run" else []
    result = CliRunner().invoke(app, words[1:] + alone)
    allowed = (0, 1) if otherwise else (0,)
    assert result.exit_code in allowed, (line, result.output, result.exception)


def expanded(word: str) -> list[str]:
    """Return what a shell makes of a word."""
    return sorted(glob(word)) or [word]


def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    if not shutil.which("mkdocs", path=str(Path(sys.executable).parent)):
        pytest.skip("MkDocs is not installed: pip install 'crossfer[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<(?:script|img)[^>]+src=\"https?://", page) == []

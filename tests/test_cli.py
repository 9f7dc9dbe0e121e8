"""The command line: one clear line for bad input, and help that teaches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crossfer import __all__ as public_names
from crossfer import __version__
from crossfer.app.opening import pages_of
from crossfer.cli import app, main
from crossfer.cli.application import error_console, out_console
from crossfer.cli.output import say, say_json, table_of
from crossfer.datasets import READERS
from crossfer.errors import CrossferError
from crossfer.experiment import load_results
from crossfer.networks.classifier import _digest
from crossfer.strategies import STRATEGIES
from tests.browser import asked, served
from tests.commands import refused


def crossfer(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["demo", "prepare", "datasets", "run", "report"])
def test_every_help_shows_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert f"crossfer {command}" in shown.output


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"crossfer {__version__}\n"
    assert __version__ == metadata.version("crossfer")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("gate x --max-source-drop 1 --max-drop 90", "--max-source-drop or --max-drop"),
        ("prepare x --sizes 1,1,1 --sizes=2,1,1 --out y", "--sizes"),
        ("recommend x --json --json", "--json"),
    ],
)
def test_an_option_of_which_only_the_last_value_would_count_is_refused(
    arguments: str, names: str
) -> None:
    assert refused(*arguments.split()) == f"{names}: given twice; leave one out"


def test_a_repeatable_option_may_be_repeated() -> None:
    assert "x: no such" in refused("prepare", "x", "--label", "a=b", "--label", "c=d", "--out", "y")


def test_datasets_lists_every_reader_with_its_licence_and_layout() -> None:
    shown = CliRunner().invoke(app, ["datasets"]).output
    for reader in READERS.values():
        assert reader.title in shown
        assert reader.layout in shown
        assert reader.licence in shown


@pytest.fixture(scope="module")
def place(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Return a folder with the dataset "women" and an experiment, and what was said of each."""
    folder = tmp_path_factory.mktemp("cli")
    out = folder / "data" / "jaffe"
    prepared = crossfer(
        "prepare", raw / "jaffe", "--out", out, "--sizes", "6,2,2", "--name", "women"
    )
    assert prepared.exit_code == 0, prepared.output
    file = folder / "tiny.yaml"
    file.write_text(
        f"source: {raw / 'fer2013'}\ntargets: [{out}]\nstrategies: [HEAD, FC]\nfractions: [0.5, 1.0]\n"
        "model: {width: 0.05}\nrecipes: {default: {epochs: 1}}\n"
    )
    ran = crossfer("run", file, "--out", folder / "run")
    assert ran.exit_code == 0, ran.output
    return folder, prepared.stdout, ran.stdout


def test_prepare_then_run_then_report(place: tuple[Path, str, str]) -> None:
    folder, prepared, ran = place
    assert "prepared 84 faces" in prepared
    assert "requested 50/17/17" in prepared
    rows = [line.split()[:3] for line in ran.splitlines() if line.startswith(" women ")]
    assert [row[1:] for row in rows[1:]] == [
        ["50%", "HEAD"], ["50%", "FC"], ["100%", "HEAD"], ["100%", "FC"],
    ]  # fmt: skip
    assert (folder / "run" / "figures" / "fig6.png").is_file()
    report = (folder / "run" / "report.html").read_bytes()
    (folder / "run" / "report.html").unlink()
    assert crossfer("report", folder / "run").exit_code == 0
    assert (folder / "run" / "report.html").read_bytes() == report


def test_a_baseline_is_assessed_by_its_own_predictions(place: tuple[Path, str, str]) -> None:
    """Without ``--source``: what it knows of the source is what the experiment measured there."""
    folder, file = place[0], place[0] / "assessed.json"
    (baseline,) = (folder / "run" / "runs").glob("BL-*")
    done = crossfer("assess", baseline, folder / "data" / "jaffe", "--json", file)
    assert done.exit_code == 0, done.output
    found, results = json.loads(file.read_text()), load_results(folder / "run")
    (own, *_) = (row for row in results.results if row.strategy == "BL")
    assert found["known"]["accuracy"] == pytest.approx(own.on_source.validation.accuracy)
    assert found["known"]["images"] == own.on_source.validation.images


def test_an_experiment_is_opened_in_the_app(place: tuple[Path, str, str]) -> None:
    """Its baseline and what it recommends can be tried; what each strategy changed can be looked at."""
    folder = place[0] / "run"
    with served(pages_of([folder])) as address:
        tried, compared = (asked(address, path)[1] for path in ("/try", "/compare"))
    assert "BL (seed 0)" in tried
    for strategy in ("HEAD", "FC"):
        assert f"{strategy} (50% of women, seed 0" in compared
    with pytest.raises(CrossferError, match="an experiment; name it alone"):
        pages_of([folder, folder])
    with pytest.raises(CrossferError, match="has its own datasets; leave --data out"):
        pages_of([folder], [folder])
    with pytest.raises(CrossferError, match="--trust: only for an experiment"):
        pages_of([folder / "results.json"], trust=True)


def test_code_that_an_experiment_names_is_run_only_if_it_is_trusted(
    place: tuple[Path, str, str], tmp_path: Path
) -> None:
    shutil.copytree(place[0] / "run", tmp_path / "run")
    for file in tmp_path.glob("run/runs/*/classifier.json"):
        card = json.loads(file.read_text())
        card["network"]["network"] = "a_stranger_s_module:net"
        del card["digest"]
        file.write_text(json.dumps(card | {"digest": _digest(card)}))
    with pytest.raises(
        CrossferError, match="runs the code of a_stranger_s_module:net; add --trust"
    ):
        pages_of([tmp_path / "run"])
    with pytest.raises(CrossferError, match="no module a_stranger_s_module"):
        pages_of([tmp_path / "run"], trust=True)


def test_every_strategy_is_listed_with_its_paper() -> None:
    shown = crossfer("strategies").stdout
    for strategy in STRATEGIES.values():
        assert f"{strategy.name}  {strategy.about}" in shown
        assert strategy.paper in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "nowhere", "--out", "x"], "nowhere: no such file or folder"),
        (["prepare", ".", "--out", "x", "--as", "fer1066"], "unknown dataset 'fer1066'"),
        (["prepare", ".", "--out", "x", "--label", "oops"], "--label oops: write THEIRS=OURS"),
        (["prepare", ".", "--out", "x", "--sizes", "1,2"], "--sizes 1,2: write 3 numbers"),
        (["prepare", ".", "--out", "x", "--subject", "("], "not a valid regular expression"),
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["report", "nowhere"], "no results"),
        (["prepare", ".", "--out", f"{__file__}/x"], "expected a folder, found a file"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["crossfer", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert words in told.err
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert not told.out


def test_the_package_imports_quickly_and_its_heart_needs_but_torch_and_numpy() -> None:
    code = (
        "import sys, crossfer\nassert 'torch' not in sys.modules\n"
        "import crossfer.adaptation, crossfer.training, crossfer.strategies, crossfer.networks\n"
        "import crossfer.evaluation.metrics, crossfer.evaluation.summary\n"
        "heavy = {'pydantic', 'typer', 'rich', 'matplotlib', 'cv2', 'jinja2', 'PIL', 'pyarrow'}\n"
        "heavy.add('torch._dynamo')\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        f"first = {{name: getattr(crossfer, name) for name in {public_names!r}}}\n"
        "assert all(getattr(crossfer, name) is first[name] for name in first)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stdout + done.stderr


def test_a_name_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b]0;x\x07b\x9b31m\u202fc\r"
    rows = table_of("images")
    rows.add_row(name)
    say(name)
    out_console.print(rows)
    assert capsys.readouterr().out.count("a\\x1b]0;x\\x07b\\x9b31m\u202fc\\r") == 2
    say_json({name: 1})
    told = capsys.readouterr().out
    assert "\x9b" not in told and json.loads(told) == {name: 1}


def test_a_name_between_colons_is_printed_as_it_is() -> None:
    for console in (out_console, error_console):
        with console.capture() as printed:
            console.print("nets:two: fails")
        assert printed.get() == "nets:two: fails\n"

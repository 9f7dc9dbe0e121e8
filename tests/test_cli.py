"""The command line: one clear line for bad input, and help that teaches."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crossfer import __all__ as public_names
from crossfer import __version__
from crossfer.cli import app, main
from crossfer.cli.application import error_console, out_console
from crossfer.datasets import READERS


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


def test_datasets_lists_every_reader_with_its_licence_and_layout() -> None:
    shown = CliRunner().invoke(app, ["datasets"]).output
    for reader in READERS.values():
        assert reader.title in shown
        assert reader.layout in shown
        assert reader.licence in shown


def test_prepare_then_run_then_report(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "jaffe"
    done = crossfer("prepare", raw / "jaffe", "--out", out, "--sizes", "6,2,2", "--name", "women")
    assert done.exit_code == 0, done.output
    assert "prepared 84 faces" in done.stdout
    assert "requested 50/17/17" in done.stdout
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"source: {raw / 'fer2013'}\ntargets: [{out}]\nstrategies: [HEAD, FC]\nfractions: [0.5, 1.0]\n"
        "model: {width: 0.05}\nrecipes: {default: {epochs: 1}}\n"
    )
    done = crossfer("run", file, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    rows = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith(" women ")]
    assert [row[1:] for row in rows[1:]] == [
        ["50%", "HEAD"], ["50%", "FC"], ["100%", "HEAD"], ["100%", "FC"],
    ]  # fmt: skip
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "figures" / "fig6.png").is_file()
    report = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    assert crossfer("report", tmp_path / "run").exit_code == 0
    assert (tmp_path / "run" / "report.html").read_bytes() == report


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


def test_the_package_imports_quickly_and_its_heart_needs_but_torch_numpy_and_fabric() -> None:
    code = (
        "import sys, crossfer\nassert 'torch' not in sys.modules\n"
        "import crossfer.adaptation, crossfer.training, crossfer.strategies, crossfer.networks\n"
        "import crossfer.evaluation.metrics, crossfer.evaluation.summary\n"
        "heavy = {'pydantic', 'typer', 'rich', 'matplotlib', 'cv2', 'jinja2', 'PIL', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        f"first = {{name: getattr(crossfer, name) for name in {public_names!r}}}\n"
        "assert all(getattr(crossfer, name) is first[name] for name in first)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stdout + done.stderr


def test_a_name_between_colons_is_printed_as_it_is() -> None:
    for console in (out_console, error_console):
        with console.capture() as printed:
            console.print("nets:two: fails")
        assert printed.get() == "nets:two: fails\n"

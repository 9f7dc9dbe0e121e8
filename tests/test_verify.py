"""A result is checked against what it was made from; whatever was changed since is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.errors import CrossferError
from crossfer.experiment import check_experiment, load_results, run_experiment, verify
from crossfer.experiment.finished import Finished
from crossfer.experiment.verify import _beyond_chance
from crossfer.files import digest
from crossfer.report import write_report

CONTENT: dict[str, Any] = {
    "name": "small",
    "source": "fer2013",
    "targets": [{"path": "jaffe", "faces": "cropped"}],
    "strategies": ["HEAD", "LP-FT", "MIX+WiSE"],
    "fractions": [1.0],
    "model": {"width": 0.05},
    "copies": "drop",
    "recipes": {"default": {"epochs": 1, "batch_size": 32}},
}


@pytest.fixture(scope="module")
def kept(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the small experiment once."""
    out = tmp_path_factory.mktemp("verify") / "small"
    run_experiment(check_experiment(CONTENT | {"data": raw}), out)
    return out


@pytest.fixture
def out(kept: Path, tmp_path: Path) -> Path:
    """Return a copy that may be spoilt."""
    shutil.copytree(kept, tmp_path / "small")
    return tmp_path / "small"


def folder_of(out: Path, strategy: str) -> Path:
    record = next(r for r in load_results(out).runs if r.strategy == strategy)
    return out / record.folder


def contents(folder: Path) -> dict[str, str]:
    return {str(file): digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def test_what_nobody_touched_holds_and_trains_to_the_same_bits(out: Path) -> None:
    before = contents(out)
    verdicts = verify(out, retrain=True, workers=2)
    assert len(verdicts) == 5 + 1  # MIX+WiSE starts where MIX arrived; results.json
    assert [verdict.problems for verdict in verdicts] == [()] * 6
    assert verdicts[-1].checked == ("derived results verified",)
    assert contents(out) == before, "nothing is changed"


def test_one_run_by_its_folder_or_its_hash(out: Path) -> None:
    folder = folder_of(out, "HEAD")
    assert [verdict.label for verdict in verify(folder)] == ["HEAD · jaffe · 100% · seed 0"]
    assert verify(folder) == verify(out, runs=[folder.name.rpartition("-")[2][:6]])
    known = folder.name.rpartition("-")[2]
    for runs in (["nothing"], [known, "nothing"]):
        with pytest.raises(CrossferError, match="--run nothing: no such run in the results"):
            verify(out, runs=runs)
    shutil.move(folder, out.parent / "elsewhere")
    with pytest.raises(CrossferError, match="outside"):
        verify(out.parent / "elsewhere")


def better(folder: Path) -> None:
    """Let one prediction be right, and put the new hash down, as somebody who cheats would."""
    file = folder / "predictions.parquet"
    table = pa.parquet.read_table(file)
    rows = table.to_pylist()
    emotions = load_results(folder.parent.parent).classes
    wrong = next(
        row
        for row in rows
        if row["split"] == "test" and max(emotions, key=row.__getitem__) != emotions[row["label"]]
    )
    wrong[emotions[wrong["label"]]] = 2.0
    pa.parquet.write_table(pa.Table.from_pylist(rows, table.schema), file)
    put_down(folder)


def put_down(folder: Path) -> None:
    content = json.loads((folder / "run.json").read_text())
    content["files"] = {name: digest(folder / name) for name in content["files"]}
    (folder / "run.json").write_text(json.dumps(content))


def better_number(folder: Path) -> None:
    file = folder.parent.parent / "results.json"
    content = json.loads(file.read_text())
    row = next(r for r in content["results"] if r["runs"] == [folder.name.rpartition("-")[2]])
    row["on_target"]["test"]["accuracy"] += 0.5
    file.write_text(json.dumps(content))


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1e-3}, folder / "model.safetensors")


def other_seed(folder: Path) -> None:
    content = json.loads((folder / "run.json").read_text())
    content["identity"]["seed"] = 7
    (folder / "run.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (better, "accuracy is "),
        (better_number, "jaffe, test: accuracy is"),
        (other_weights, "model.safetensors: changed or damaged since it was written"),
        (other_seed, "identity"),
        (lambda folder: (folder / "predictions.parquet").unlink(), "predictions.parquet"),
        (lambda folder: (folder / "history.csv").write_text("epoch\n"), "history.csv: changed"),
        (lambda folder: (folder / "run.json").write_text("{"), "damaged"),
    ],
)
def test_whatever_was_changed_is_named(out: Path, spoil: Callable[[Path], Any], words: str) -> None:
    spoil(folder_of(out, "LP-FT"))
    problems = {verdict.label: verdict.problems for verdict in verify(out)}
    wrong = problems.pop("LP-FT · jaffe · 100% · seed 0")
    assert any(words in problem for problem in wrong)
    assert not any(problems.values())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("results", 2, "gain", "points"), "results: LP-FT jaffe 1.0: gain: points is"),
        (("summary", 1, "gain", "interval", 0), "summary: HEAD jaffe 1.0: gain: interval: 0 is"),
        (("averages", 0, "memory_integrity", "points"), "averages: HEAD 1.0: memory_integrity: "),
        (("comparisons", 0, "paired", "p"), "comparisons: HEAD BL jaffe 1.0 source: paired: p is"),
        (("recommendations", 0, "validation_balance"), "validation_balance is"),
        (("strategies", 1, "exemplars"), "strategies: HEAD: exemplars is None, not 2"),
    ],
)
def test_whatever_follows_from_the_runs_is_computed_again(
    out: Path, path: tuple[Any, ...], words: str
) -> None:
    file = out / "results.json"
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = 2 if path[-1] == "exemplars" else 2.5
    file.write_text(json.dumps(content))
    *runs, whole = verify(out)
    assert not any(verdict.problems for verdict in runs)
    assert (whole.label, whole.checked) == ("results.json", ())
    assert words in whole.problems[0]


def test_weights_that_were_not_trained_so_are_found_by_training_again(out: Path) -> None:
    folder = folder_of(out, "HEAD")
    other_weights(folder)
    put_down(folder)
    assert verify(folder)[0].problems == ()
    (verdict,) = verify(folder, retrain=True)
    assert "tensors differ, by 0.001" in verdict.problems[0]


def test_other_versions_are_named_where_the_bits_differ(out: Path) -> None:
    folder = folder_of(out, "HEAD")
    other_weights(folder)
    put_down(folder)
    for file in (folder / "run.json", out / "results.json"):
        file.write_text(file.read_text().replace('"torch": "', '"torch": "0.'))
    (verdict,) = verify(folder, retrain=True)
    assert any("torch was 0." in problem for problem in verdict.problems)


def test_on_another_processor_accuracy_holds_within_chance(out: Path, tmp_path: Path) -> None:
    """Rounding differs there; what decides otherwise more often than chance would is another network."""
    folder, other = folder_of(out, "HEAD"), tmp_path / "other"
    other_weights(folder)
    put_down(folder)
    for file in (folder / "run.json", out / "results.json"):
        file.write_text(file.read_text().replace('"processor": "', '"processor": "another '))
    (verdict,) = verify(folder, retrain=True)
    assert verdict.problems == ()
    assert (
        verdict.checked[-1]
        == "retrained on another system: at most 0.0% of a set's predictions differ"
    )
    shutil.copytree(folder, other)
    table = pa.parquet.read_table(other / "predictions.parquet")
    emotions = load_results(out).classes
    rows = [row | {emotions[row["label"]]: 2.0} for row in table.to_pylist()]
    pa.parquet.write_table(pa.Table.from_pylist(rows, table.schema), other / "predictions.parquet")
    problems, share = _beyond_chance(folder, other, Finished(out, load_results(out)).datasets)
    assert "is now 100.00 %, more than chance" in problems[0]
    assert share > 0.5


def test_without_its_data_nothing_is_trained_again(out: Path) -> None:
    shutil.rmtree(out / "datasets")
    verdicts = verify(out)
    assert not any(verdict.problems for verdict in verdicts)
    assert "not recomputed: fer2013: the data that were measured" in verdicts[-1].checked[0]
    assert not verdicts[-1].passed
    told = CliRunner().invoke(app, ["verify", str(out)])
    assert told.exit_code == 1 and "5 of 6 passed, 1 not done" in told.stdout
    with pytest.raises(CrossferError, match="are not at .*raw.fer2013; restore them"):
        verify(out, retrain=True)


def test_code_that_an_experiment_names_is_run_only_if_it_is_trusted(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebodys.py").write_text("open('ran', 'w').close()\n\ndef net(): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("results.json", "experiment.json"):
        content = json.loads((out / name).read_text())
        content.get("config", content)["model"] |= {"network": "somebodys:net", "width": 1.0}
        (out / name).write_text(json.dumps(content))
    *_, whole = verify(out)
    assert not whole.passed and "add --trust if you trust it" in whole.checked[0]
    told = CliRunner().invoke(app, ["verify", str(out), "--retrain"])
    assert "add --trust if you trust it" in str(told.exception)
    assert not (tmp_path / "ran").exists()
    assert not verify(out, trust=True)[-1].passed
    assert (tmp_path / "ran").exists()


def test_the_command(out: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(out)]).exit_code == 0
    better_number(folder_of(out, "HEAD"))
    told = runner.invoke(app, ["verify", str(out)])
    assert told.exit_code == 1
    assert "4 of 5 passed" in told.stdout


def test_a_run_says_where_it_came_from(out: Path) -> None:
    for record in load_results(out).runs:
        assert {"crossfer", "torch", "numpy"} <= record.versions.keys()
        assert (
            record.identity["source"]["parts"][0]["fingerprint"]
            == load_results(out).source.fingerprint
        )
        assert record.machine["threads"] >= 1
        assert record.seed == 0
    page = write_report(load_results(out), out).read_text()
    assert load_results(out).source.fingerprint[:16] in page


def test_a_changed_memory_file_is_named(out: Path) -> None:
    file = next(out.glob("runs/*/memory.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    (found,) = [verdict for verdict in verify(out) if verdict.problems]
    assert "memory.safetensors: changed or damaged" in found.problems[0]

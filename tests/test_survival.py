"""Nothing is lost: killed, stopped, out of room, started twice, or failed in one of its runs."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from crossfer.adaptation import adapt
from crossfer.cli import app, main
from crossfer.datasets import Dataset, Preparation, open_dataset, prepare
from crossfer.errors import CrossferError
from crossfer.experiment import Progress, check_experiment, load_results, run_experiment, verify
from crossfer.experiment.finished import Finished
from crossfer.experiment.folder import check_weights
from crossfer.experiment.plan import Run
from crossfer.experiment.run import run_one
from crossfer.experiment.status import status
from crossfer.files import alone, digest
from crossfer.machine import threads_of
from crossfer.networks.weights import save_tensors
from crossfer.report import write_report
from crossfer.training import State
from crossfer.training.checkpoint import Checkpoints, read_checkpoint
from tests.stress import kill
from tests.test_training import small

CROPPED = Preparation(faces="cropped")
"""No faces are looked for: that takes longest, and is not what these tests are about."""

EXECUTE = "crossfer.experiment.execute"


def configuration(prepared: dict[str, Dataset], **changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "source": str(prepared["fer2013"].folder),
        "targets": [str(prepared["jaffe"].folder)],
        "strategies": ["FC", "RE", "FU"],
        "fractions": [1.0],
        "model": {"width": 0.03},
        "device": "cpu",
        "recipes": {"default": {"epochs": 1, "batch_size": 32}},
    } | changes


class Heard(Progress):
    def __init__(self) -> None:
        self.images = 0

    def step(self, run: Run, images: int) -> None:
        self.images += images


def broken(*names: str) -> Callable[..., Any]:
    """Return an `adapt` that fails for some strategies and seeds: ``"FC 1"``."""

    def failing(strategy: Any, *arguments: Any, **options: Any) -> Any:
        if f"{strategy.name} {arguments[5]}" in names:
            raise RuntimeError("out of\nmemory")
        return adapt(strategy, *arguments, **options)

    return failing


def test_killed_at_random_moments_an_experiment_ends_in_the_same_bits(
    raw: Path, tmp_path: Path
) -> None:
    """A short round of ``python -m tests.stress.kill``."""
    (tmp_path / "raw").symlink_to(raw)
    (outcome,) = kill.rounds(tmp_path, 1, seed=0, most_kills=3)
    assert outcome.differing == []
    assert outcome.kills > 0


def test_a_failed_run_does_not_fail_the_others(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mine = tmp_path / "out", {"name": "after", "start": "RE", "layers": "FC", "data": "target"}
    content = configuration(prepared, strategies=["FC", "RE", mine], seeds=[0, 1])
    whole = run_experiment(check_experiment(content), tmp_path / "whole")
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(f"{EXECUTE}.adapt", broken("RE 0", "BL 1"))
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(out)], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "failed: RE · fer2013" not in done.output
    assert "failed: RE · jaffe · 100% · seed 0: RuntimeError: out of memory" in done.output
    results = load_results(out)
    why = {run.label: run.why for run in results.failed}
    assert why == {
        "RE · jaffe · 100% · seed 0": "RuntimeError: out of memory",
        "after · jaffe · 100% · seed 0": "it starts from RE · jaffe · 100% · seed 0, which failed",
        "BL · seed 1": "RuntimeError: out of memory",
        "FC · jaffe · 100% · seed 1": "it starts from BL · seed 1, which failed",
        "RE · jaffe · 100% · seed 1": "it starts from BL · seed 1, which failed",
        "after · jaffe · 100% · seed 1": "it starts from RE · jaffe · 100% · seed 1, which failed",
    }
    assert {row.strategy for row in results.summary} == {"BL", "FC"}
    assert {row.seeds[0] for row in results.results} == {0}, "seed 1 has nothing to compare with"
    assert "6 of 8 runs failed" in (out / "report.html").read_text()
    (error,) = out.glob("runs/RE-*/error.txt")
    assert "Traceback" in error.read_text()
    monkeypatch.undo()
    finished = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/run.json")}
    assert len(finished) == 2
    again = run_experiment(check_experiment(content), out)
    assert again.failed == ()
    assert all(file.stat().st_mtime_ns == time for file, time in finished.items())
    assert [row.gain for row in again.summary] == [row.gain for row in whole.summary]
    assert not list(out.glob("runs/*/error.txt"))


def test_whatever_fails_the_report_copes(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every adapted run; runs of different seeds; at last the baseline, without which nothing is left."""
    monkeypatch.setattr(f"{EXECUTE}.adapt", broken("FC 0", "RE 0", "FU 0"))
    nothing = run_experiment(check_experiment(configuration(prepared)), tmp_path / "nothing")
    assert "3 of 4 runs failed" in write_report(nothing, tmp_path / "nothing").read_text()
    seeds = configuration(prepared, seeds=[0, 1], strategies=["FC", "RE"])
    monkeypatch.setattr(f"{EXECUTE}.adapt", broken("FC 0", "RE 1"))
    mixed = run_experiment(check_experiment(seeds), tmp_path / "mixed")
    assert {row.strategy: row.seeds for row in mixed.summary} == {
        "BL": (0,),
        "RE": (0,),
    }, "only the same seeds are compared"
    page = write_report(mixed, tmp_path / "mixed").read_text()
    assert (
        "of the same seeds only (JAFFE stand-in: seed 0, without FC); results.csv has all" in page
    )
    monkeypatch.setattr(f"{EXECUTE}.adapt", broken("BL 0"))
    with pytest.raises(CrossferError, match="BL · seed 0 failed: RuntimeError: out of memory"):
        run_experiment(check_experiment(configuration(prepared)), tmp_path / "none")


def test_two_experiments_share_a_cache(
    prepared: dict[str, Dataset], raw: Path, tmp_path: Path
) -> None:
    other = prepare(
        raw / "jaffe", tmp_path / "other", Preparation(seed=1, faces="cropped"), name="other"
    )
    first = configuration(prepared, strategies=["FC"], cache=str(tmp_path / "cache"))
    second = first | {"targets": [str(other.folder)]}
    heard = [Heard(), Heard(), Heard()]
    jaffe = run_experiment(check_experiment(first), tmp_path / "a" / "jaffe", heard[0])
    elsewhere = run_experiment(check_experiment(second), tmp_path / "b" / "other", heard[1])
    again = run_experiment(check_experiment(first), tmp_path / "a" / "jaffe", heard[2])
    trained = {run.label: run.cost.images_seen for r in (jaffe, elsewhere) for run in r.runs}
    assert heard[0].images + heard[1].images == sum(trained.values()), "the baseline once"
    assert heard[2].images == 0
    assert again == jaffe
    for results, out in ((jaffe, tmp_path / "a" / "jaffe"), (elsewhere, tmp_path / "b" / "other")):
        assert all((out / run.folder / "run.json").is_file() for run in results.runs)
        assert "polyline" in write_report(results, out).read_text()


def hold(lock: Path, ready: Any, go: Any) -> None:
    def refuse(owner: str) -> None:
        raise AssertionError(owner)

    with alone(lock, refuse):
        ready.set()
        go.wait()


@pytest.mark.parametrize("end", ["finished", "killed"])
def test_a_lock_names_its_owner_and_dies_with_it(end: str, tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    ready, go = processes.Event(), processes.Event()
    other = processes.Process(target=hold, args=(tmp_path / "lock", ready, go))
    other.start()
    assert ready.wait(60)
    heard: list[str] = []

    def taken(owner: str) -> None:
        heard.append(owner)
        go.set() if end == "finished" else other.kill()

    with alone(tmp_path / "lock", taken):
        assert heard == [f"process {other.pid} on {os.uname().nodename}"]
        assert str(os.getpid()) in (tmp_path / "lock.owner").read_text()
    other.join()


def test_an_experiment_that_cannot_begin_leaves_nothing_behind(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    content = configuration(prepared, targets=[str(tmp_path / "empty")])
    with pytest.raises(CrossferError, match="empty"):
        run_experiment(check_experiment(content), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    (tmp_path / "out" / "experiment.json.partial").touch()  # killed in its first moment
    content = configuration(prepared, strategies=["BL"])
    assert run_experiment(check_experiment(content), tmp_path / "out").failed == ()


@pytest.mark.parametrize("files", [0, 4, 8])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    files: int, prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file there is no room for."""
    content = configuration(prepared, strategies=["FC"])
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content))
    left = files

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        stopped = CliRunner().invoke(app, ["run", str(file), "--out", str(out)])
    assert isinstance(stopped.exception, OSError)
    assert str(out) in stopped.exception.filename
    assert not list(out.rglob("*.partial"))
    assert run_experiment(check_experiment(content), out).failed == ()


def test_no_room_for_weights_is_an_error_of_the_system_that_names_the_file(tmp_path: Path) -> None:
    """Really no room: the system lets no file grow beyond a limit."""
    file = tmp_path / "model.safetensors"
    save_tensors(small().state_dict(), file)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            save_tensors(small().state_dict(), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(file))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def commanded(command: list[str], folder: Path) -> None:
    """Do what a command does, in a process that has imported everything; write down what it says."""
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.argv = command
    main()


@pytest.mark.parametrize(("times", "workers"), [(1, "auto"), (2, "1")])
def test_control_c_stops_cleanly_and_says_how_to_go_on(
    times: int, workers: str, prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    content = configuration(prepared, recipes={"default": {"epochs": 100_000}})
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content))
    command = ["crossfer", "run", str(file), "--out", str(out), "--workers", workers]
    processes = multiprocessing.get_context("forkserver")
    process = processes.Process(target=commanded, args=(command, tmp_path))
    process.start()
    assert process.pid
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    try:
        while not (stdout.is_file() and "4 runs" in stdout.read_text()):
            assert process.is_alive(), stderr.read_text()
            time.sleep(0.1)
        for _ in range(times):
            os.kill(process.pid, signal.SIGINT)
        process.join(60)
    finally:
        process.kill()
    said = stderr.read_text()
    if times == 1:
        assert said == "stopped; run the same command again to resume\n"
        assert process.exitcode == 130
    else:
        assert process.exitcode in (130, -signal.SIGINT)
    assert "Traceback" not in said
    assert not list(out.rglob("*.partial"))


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A read-only place: here one where nobody, not even the administrator, can make a folder."""
    (tmp_path / "a.yaml").write_text("source: .\ntargets: [.]\n")
    command = ["crossfer", "run", str(tmp_path / "a.yaml"), "--out", "/proc/out"]
    monkeypatch.setattr(sys, "argv", [*command, "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: /proc/out: ")
    assert said.count("\n") == 1


def test_a_picture_that_vanishes_is_not_left_out_in_silence(raw: Path, tmp_path: Path) -> None:
    photos = tmp_path / "jaffe"
    shutil.copytree(raw / "jaffe", photos)
    victim = sorted(photos.glob("*.tiff"))[-1]
    content = victim.read_bytes()

    def unplug(done: int, total: int) -> None:
        victim.unlink(missing_ok=True)

    whole = prepare(photos, tmp_path / "whole", CROPPED)
    with pytest.raises(FileNotFoundError, match=victim.name):
        prepare(photos, tmp_path / "out", CROPPED, progress=unplug)
    assert not (tmp_path / "out").exists()
    victim.write_bytes(content)
    assert prepare(photos, tmp_path / "out", CROPPED).fingerprint == whole.fingerprint


def test_killed_between_two_renames_the_older_dataset_comes_back(raw: Path, tmp_path: Path) -> None:
    out, staging = tmp_path / "out", tmp_path / ".out.partial"
    before = prepare(raw / "jaffe", out, CROPPED).fingerprint
    staging.mkdir()
    out.rename(staging / "replaced")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CrossferError):
        prepare(tmp_path / "empty", out, replace=True)
    assert open_dataset(out).fingerprint == before


def test_an_array_file_is_what_numpy_would_write(raw: Path, tmp_path: Path) -> None:
    """Also where pictures were left out, so that its beginning was written twice."""
    photos = tmp_path / "jaffe"
    shutil.copytree(raw / "jaffe", photos)
    min(photos.glob("*.tiff")).write_bytes(b"none")
    images = prepare(photos, tmp_path / "out", CROPPED).images
    np.save(tmp_path / "again.npy", images)
    assert len(images) == 83
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "out" / "images.npy").read_bytes()


def spoil(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["images.npy", "samples.parquet"])
def test_a_dataset_that_is_not_what_was_prepared_is_not_used(
    name: str, raw: Path, tmp_path: Path
) -> None:
    photos = prepare(raw / "jaffe", tmp_path / "jaffe", CROPPED)
    photos.check()
    spoil(photos.folder / name)
    with pytest.raises(CrossferError, match=f"{name}: changed or damaged.*prepare the dataset"):
        photos.check()
    content = {"name": "x", "source": photos.folder, "targets": [raw / "fer2013"]}
    with pytest.raises(CrossferError, match=name):
        run_experiment(check_experiment(content), tmp_path / "out")


def test_weights_and_predictions_that_are_not_what_was_trained_are_not_used(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    experiment = check_experiment(configuration(prepared))
    before = run_experiment(experiment, tmp_path)
    folder = tmp_path / before.runs[0].folder
    predictions = (folder / "predictions.parquet").read_bytes()
    spoil(folder / "predictions.parquet")
    assert run_experiment(experiment, tmp_path).results == before.results
    assert (folder / "predictions.parquet").read_bytes() == predictions
    spoil(folder / "model.safetensors")
    with pytest.raises(
        CrossferError, match=r"model.safetensors: changed or damaged since .*delete"
    ):
        run_experiment(experiment, tmp_path)
    shutil.rmtree(folder)
    again = run_experiment(experiment, tmp_path)
    assert [row.on_source.test for row in again.results] == [
        row.on_source.test for row in before.results
    ]


def test_a_cache_is_found_below_a_link_and_after_a_move(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    out = tmp_path / "link" / "out"
    content = configuration(prepared, strategies=["FC"], cache=str(tmp_path / "cache"))
    run_experiment(check_experiment(content), out)
    for moved in (False, True):
        out = out.resolve().rename(tmp_path / "moved") if moved else out
        assert {one.state for one in status(out)} == {"finished"}
        verdicts = verify(out)
        assert [verdict.problems for verdict in verdicts] == [()] * 3
        assert verdicts[-1].checked == ("derived results verified",)


def test_a_file_that_one_may_not_read_is_not_to_be_deleted(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And everybody may read weights who may read the other files."""
    results = run_experiment(check_experiment(configuration(prepared, strategies=["BL"])), tmp_path)
    folder = tmp_path / results.runs[0].folder
    modes = {file.name: file.stat().st_mode for file in folder.iterdir()}
    assert len(set(modes.values())) == 1, modes

    def forbidden(file: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))

    monkeypatch.setattr("crossfer.run_folder.digest", forbidden)
    with pytest.raises(CrossferError, match="this user may not read it; change its permissions"):
        check_weights(folder)


class Noted(Heard):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def said(self, line: str) -> None:
        label, _, what = line.partition(" · seed 0: ")
        if what:
            self.notes.append(f"{label.partition(' · ')[0]}: {what}")


def weights_of(out: Path) -> dict[str, str]:
    return {file.parent.name: digest(file) for file in out.glob("runs/*/model.safetensors")}


def otherwise(strategy: Any, *arguments: Any, **options: Any) -> Any:
    """Adapt, but end in another baseline."""
    trained = adapt(strategy, *arguments, **options)
    if strategy.name == "BL":
        next(trained.model.parameters()).data += 0.01
    return trained


def test_what_started_from_other_weights_is_named_and_trained_again(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, heard = check_experiment(configuration(prepared)), Noted()
    results = run_experiment(experiment, tmp_path)
    before = weights_of(tmp_path)
    (folder,) = tmp_path.glob("runs/BL-*")
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(f"{EXECUTE}.adapt", otherwise)
        run_one(tmp_path, results.runs[0].key)
    found = {verdict.label.split(" · ")[0]: verdict.problems for verdict in verify(tmp_path)}
    assert found.pop("FU") == (), "it starts at random"
    why = "BL · seed 0, which it starts from, has other weights now; run the experiment again"
    assert [found[name][-1] for name in ("FC", "RE")] == [why, why]
    monkeypatch.setattr(f"{EXECUTE}.adapt", otherwise)
    run_experiment(experiment, tmp_path, heard)
    why = "trained again, since BL · seed 0, which it starts from, has other weights now"
    assert heard.notes == [f"FC: {why}", f"RE: {why}"]
    now = weights_of(tmp_path)
    assert {name[:2] for name in now if now[name] != before[name]} == {"BL", "FC", "RE"}
    assert not any(verdict.problems for verdict in verify(tmp_path))


def test_a_training_resumes_with_its_threads_and_elsewhere_that_is_recorded(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = check_experiment(configuration(prepared, strategies=["BL"]))
    whole = run_experiment(experiment, tmp_path / "whole", threads=2)
    out, key = tmp_path / "out", whole.runs[0].key
    run_experiment(experiment, out)
    (folder,) = out.glob("runs/BL-*")
    for processor in ("", "another"):
        (folder / "run.json").unlink()
        with threads_of(2), pytest.raises(KeyboardInterrupt):
            run_one(out, key, stopping=lambda: True)
        if processor:
            monkeypatch.setattr("crossfer.machine.processor", lambda: "another")
        heard = Noted()
        with pytest.raises(KeyboardInterrupt):
            run_one(out, key, heard, stopping=lambda: True)
        run_one(out, key)
        notes = ["BL: resumes with 2 threads, as it began, for the same bits"]
        assert weights_of(out) == weights_of(tmp_path / "whole")
        content = json.loads((folder / "run.json").read_text())
        assert content["machine"]["threads"] == 2
        run_experiment(experiment, out)
        first = verify(out)[0]
        if not processor:
            assert heard.notes == notes
            assert (content["resumed"], len(first.checked)) == ([], 1)
        else:
            assert "BL: resumes on another system (processor was " in heard.notes[0]
            assert "training resumed on another system (processor was " in first.checked[1]


@pytest.mark.parametrize("what", ["damaged", "of another version or training"])
def test_a_checkpoint_that_is_of_no_use_is_named(
    what: str, prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    experiment, heard = check_experiment(configuration(prepared, strategies=["BL"])), Noted()
    key = run_experiment(experiment, tmp_path).runs[0].key
    before = weights_of(tmp_path)
    (file,) = tmp_path.glob("runs/BL-*/run.json")
    file.unlink()
    with pytest.raises(KeyboardInterrupt):
        run_one(tmp_path, key, stopping=lambda: True)
    checkpoint = file.with_name("checkpoint.safetensors")
    if what == "damaged":
        spoil(checkpoint)
    else:
        state, facts = read_checkpoint(checkpoint) or (State(), {})
        Checkpoints(checkpoint, facts=facts).save(replace(state, kept=state.weights))
    run_one(tmp_path, key, heard)
    assert heard.notes == [f"BL: its checkpoint is {what}, so it is trained from the beginning"]
    assert weights_of(tmp_path) == before


def test_predictions_that_another_experiment_made_again_for_its_data_are_not_missed_in_silence(
    prepared: dict[str, Dataset], raw: Path, tmp_path: Path
) -> None:
    """Predictions that are damaged are not trusted for any dataset: each experiment makes its own again."""
    how = Preparation(seed=1, faces="cropped")
    other = prepare(raw / "jaffe", tmp_path / "other", how, name="other")
    first = configuration(prepared, strategies=["FC"], cache=str(tmp_path / "cache"))
    second = first | {"targets": [str(other.folder)]}
    run_experiment(check_experiment(first), tmp_path / "a")
    (file,) = tmp_path.glob("cache/BL-*/predictions.parquet")
    spoil(file)
    run_experiment(check_experiment(second), tmp_path / "b")
    why = f"{file}: has no predictions for jaffe, test; run the experiment again"
    results = load_results(tmp_path / "a")
    with pytest.raises(CrossferError, match=f"^{why}$"):  # as `crossfer gate` does
        Finished(tmp_path / "a", results).evidence(results.results)
    assert f"jaffe, test: {why}" in verify(tmp_path / "a")[0].problems
    run_experiment(check_experiment(first), tmp_path / "a")
    for out in (tmp_path / "a", tmp_path / "b"):
        assert not any(verdict.problems for verdict in verify(out))


def test_one_damaged_run_does_not_stop_the_others_and_the_advice_is_its_own(
    prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(configuration(prepared)))
    command = ["run", str(file), "--out", str(out), "--workers", "1"]
    assert CliRunner().invoke(app, command).exit_code == 0
    (folder,) = out.glob("runs/FC-*")
    (folder / "run.json").write_text("{}")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "run.json: damaged (KeyError('key')); delete the folder\n" in done.stderr
    assert "run the same command" not in done.stderr
    assert {run.strategy for run in load_results(out).runs} == {"BL", "RE", "FU"}


@pytest.mark.parametrize("name", ["experiment.json", "results.json"])
def test_a_damaged_file_of_an_experiment_is_named_and_made_again(
    name: str, prepared: dict[str, Dataset], tmp_path: Path
) -> None:
    experiment = check_experiment(configuration(prepared, strategies=["BL"]))
    results, file = run_experiment(experiment, tmp_path), tmp_path / name
    whole = file.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\xff\x00"):
        file.write_bytes(content)
        why = f"^{file}: damaged .*; run the experiment again, which writes it anew$"
        with pytest.raises(CrossferError, match=why):
            load_results(tmp_path)
        if name == "experiment.json":
            with pytest.raises(CrossferError, match=why):
                run_one(tmp_path, results.runs[0].key)
    assert run_experiment(experiment, tmp_path) == load_results(tmp_path) == results
    assert file.read_bytes() == whole


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_the_state_of_an_experiment_that_one_may_only_read(
    code: int, prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run_experiment(
        check_experiment(configuration(prepared, strategies=["FC", "RE"])), tmp_path
    )
    for run in results.runs[1:]:
        (tmp_path / run.folder / "run.json").unlink()
    owner = tmp_path / "runs" / ".locks" / f"{results.runs[1].key}.owner"
    owner.write_text("process 7 on elsewhere")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    found = status(tmp_path)
    assert [one.state for one in found] == ["finished", "running", "interrupted"]
    assert found[1].detail.startswith("process 7 on elsewhere, unless it has ended")


def test_whoever_reads_the_output_may_stop_and_its_terminal_may_be_narrow(
    prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(configuration(prepared)))
    command = [sys.executable, "-m", "crossfer", "run", file, "--out", out, "--workers", "1"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        assert (process.wait(120), process.stderr.read()) == (0, "")
    assert (out / "report.html").is_file()
    told = CliRunner().invoke(app, ["report", str(out)], env={"COLUMNS": "40"})
    assert " target  strategy  source %  target %  integrity " in told.stdout
    assert " jaffe   FC " in told.stdout

    def read_only(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("crossfer.report.write_report", read_only)
    told = CliRunner().invoke(app, ["report", str(out)])
    assert "copy the folder to where you may write" in str(told.exception)

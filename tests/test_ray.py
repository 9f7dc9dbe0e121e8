"""Ray as an executor, on a cluster of this machine; `tests/cluster/ray.py` has one of three nodes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from crossfer import standins
from crossfer.cli import app, options
from crossfer.datasets import extract, in_memory, prepare
from crossfer.datasets.extract import Extraction
from crossfer.datasets.on_ray import Blocks, _open
from crossfer.datasets.record import Record
from crossfer.errors import CrossferError
from crossfer.executors import Task
from crossfer.executors.copies import Files, Sent, _copy_of, _fetch
from crossfer.executors.ray import Ray, _check_versions, run_on_ray
from crossfer.executors.travel import CannotBegin, Unseen
from crossfer.experiment import check_experiment, load_results, run_experiment
from crossfer.framing import Framing
from tests.test_docs import ON_A_CLUSTER, follow
from tests.test_executors import DIAMOND, Log, opened, opened_copy

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra “ray”")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    """Start a cluster of two cores: what takes longest."""
    script = "import ray, sys; print(ray.init(address='local', num_cpus=2, include_dashboard=False)"
    script += ".address_info['gcs_address'], flush=True); sys.stdin.read()"
    token = (Path.home() / ".ray" / "auth_token").is_file()
    mode = {"RAY_AUTH_MODE": "token"} if token else {}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | mode,
        text=True,
    ) as process:
        assert process.stdout and process.stdin
        yield Ray(process.stdout.readline().strip())
        process.stdin.close()


@pytest.fixture
def imported_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process that is connected import everything anew, as users' does."""
    own = multiprocessing.get_context(None)
    monkeypatch.setattr(multiprocessing, "get_context", own.get_context)


def test_a_graph_on_ray_whatever_happens_to_its_processes(
    cluster: Ray, tmp_path: Path, imported_anew: None
) -> None:
    lost = [Task("killed-once"), Task("fails"), Task("x", ("fails",))]
    tasks = [*DIAMOND, *lost]
    (tmp_path / "always.txt").write_text("sent")
    files = Files(
        tmp_path,
        "no node sees this",
        partial(opened, tmp_path),
        opened_copy,
        always={"always.txt": tmp_path / "always.txt"},
        needs={task.key: {} for task in tasks},
        makes={task.key: (task.key, tmp_path / task.key) for task in tasks},
        last="",
    )
    log = Log()
    failures = run_on_ray(tasks, log, cluster, files)
    assert failures.keys() == {"fails", "x"}
    assert failures["fails"].why == "ValueError: it was asked to"
    assert failures["x"].because_of == "fails"
    assert "again" in (tmp_path / "killed-once" / "killed-once").read_text()
    assert log.lines.count(("started", "killed-once")) >= 2
    for task in DIAMOND:
        assert (tmp_path / task.key / task.key).read_text() == "1"  # thread
        assert ("step", task.key, 3) in log.lines
        for before in task.after:
            began, ended = ("started", task.key), ("succeeded", before)
            assert log.lines.index(ended) < log.lines.index(began)


def test_the_tutorial_runs_as_it_stands(
    cluster: Ray, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address or "")
    assert options.ray_of("ray") == cluster
    follow(ON_A_CLUSTER)
    assert load_results(tmp_path / "runs/cluster").failed == ()


def test_without_an_address_ray_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert options.ray_of("ray") == Ray()


def test_faces_found_on_ray_are_those_found_here(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "BLOCK", 3)
    raw = tmp_path / "jaffe"
    standins.write("jaffe", raw, images=7)
    torn = max(raw.glob("*.tiff"))
    torn.write_bytes(torn.read_bytes()[:500])
    counts: list[tuple[int, ...]] = []
    here = prepare(raw, tmp_path / "here")
    one = replace(cluster, at_a_time=1)  # one process imports
    there = prepare(raw, tmp_path / "there", on=one, progress=lambda *n: counts.append(n))
    for file in ("images.npy", "samples.parquet", "skipped.csv"):
        assert (here.folder / file).read_bytes() == (there.folder / file).read_bytes(), file
    assert (
        here.card["skipped"] and counts[0] == (0, 7) and counts[-1] == (7, 7) and len(counts) == 4
    )
    assert not list(tmp_path.glob(".there*"))


def test_processes_of_a_node_that_fetch_the_same_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    both = threading.Barrier(2)

    def arrives(content: Any) -> Any:
        both.wait(timeout=30)
        return content

    monkeypatch.setattr(ray, "get", arrives)
    for number in range(20):
        content: Any = bytes([number]) * 1_000_000
        one = (hashlib.sha256(content).hexdigest(), content)
        sent = Sent({f"{number}/{file}": one for file in range(50)}, "made")
        with ThreadPoolExecutor(2) as processes:
            list(processes.map(_fetch, [tmp_path] * 2, [sent] * 2))
        assert (tmp_path / f"{number}/49").read_bytes() == content
        shutil.rmtree(tmp_path / f"{number}")
    assert {file.name for file in tmp_path.iterdir()} == {"content"}


def test_what_somebody_else_put_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr("crossfer.executors.copies.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(ray, "get", lambda content: content)
    copy = _copy_of(tmp_path)
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    content: Any = b"mine"
    sha = hashlib.sha256(content).hexdigest()
    (copy / "content").mkdir(parents=True)
    (copy / "content" / sha).write_bytes(b"theirs")
    _fetch(copy, Sent({"a": (sha, content)}, "made"))
    assert (copy / "a").read_bytes() == b"mine"
    copy.parent.chmod(0o755)
    with pytest.raises(CannotBegin, match="open to others; remove it on this node"):
        _copy_of(tmp_path)
    copy.parent.rename(tmp_path / "elsewhere")
    copy.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotBegin, match="a link"):
        _copy_of(tmp_path)


@pytest.mark.parametrize("gone", [True, False])
def test_a_node_that_does_not_see_the_files_is_sent_them(tmp_path: Path, gone: bool) -> None:
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for file in files:
        Image.effect_noise((90, 80), 50).save(file)
    files[2].write_bytes(files[2].read_bytes()[:500])
    records = [Record(file, "happy", file.name) for file in files]
    how = Extraction(Framing(), find=False, crop=0.8)
    blocks = Blocks(tmp_path, how, {"b": (tmp_path / "b.npz", records)})
    carry, told = _open(how), partial(print)
    little, all_of_it = blocks.pack("b", False, False), blocks.pack("b", True, False)
    _, here = carry("b", little, told)
    for file in files:  # now this node sees none, or others
        file.unlink() if gone else Image.new("L", (64, 64)).save(file)
    with pytest.raises(Unseen):
        carry("b", little, told)
    _, there = carry("b", all_of_it, told)
    for name, values in vars(here).items():
        assert np.array_equal(values, vars(there)[name], equal_nan=name == "scores"), name
    assert list(there.problems) == ["", "", "truncated"]


def test_what_is_no_file_is_not_sent(tmp_path: Path) -> None:
    columns = {"image": [np.zeros((48, 48), np.uint8)] * 4, "label": ["happy", "sad"] * 2}
    with pytest.raises(CrossferError, match="its pictures are no files of their own.*leave --on"):
        prepare(in_memory(columns, name="mine"), tmp_path / "out", on=Ray())


@pytest.mark.parametrize("named", ["--on ", "RAY_ADDRESS="])
def test_a_cluster_that_is_not_there(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if named != "--on ":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(CrossferError, match=f"{named}127.0.0.1:1: no Ray cluster answers there"):
        Ray("127.0.0.1:1").check()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head", "::1:6379"])
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(CrossferError, match=f"RAY_ADDRESS={address}: write HOST:PORT or ray://"):
        options.ray_of("ray")


def test_ray_gives_a_run_one_device(data: Path, tmp_path: Path) -> None:
    content = {"name": "x", "source": data / "fer2013", "targets": [data / "jaffe"], "devices": 2}
    with pytest.raises(CrossferError, match="devices: 2 train one network within a machine"):
        run_experiment(check_experiment(content), tmp_path / "out", on=Ray())
    assert not (tmp_path / "out").exists()


def test_only_ray_prepares_on_a_cluster(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["prepare", str(tmp_path), "--out", "x", "--on", "slurm"])
    assert "--on slurm: write here, ray, HOST:PORT or ray://HOST:PORT" in str(result.exception)


def test_a_node_with_another_version_is_named() -> None:
    ours = {"crossfer": "1", "numpy": "2"}
    with pytest.raises(
        CrossferError, match="node n7 .* has crossfer 9, and this machine 1: instal"
    ):
        _check_versions({"crossfer": "9", "numpy": "2"}, ours, "n7")
    with pytest.raises(CrossferError, match="has no numpy"):
        _check_versions({"crossfer": "1", "numpy": None}, ours, "n7")

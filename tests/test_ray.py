"""Ray as an executor, on a cluster of this machine; `tests/cluster/ray.py` has one of three nodes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from crossfer.errors import CrossferError
from crossfer.executors import Task
from crossfer.executors.ray import Files, Ray, _check_version, run_on_ray
from tests.test_executors import DIAMOND, Log, opened

pytest.importorskip("ray", reason="the extra “ray”")


def test_a_graph_on_ray_whatever_happens_to_its_processes(tmp_path: Path) -> None:
    lost = [Task("killed-once"), Task("fails"), Task("x", ("fails",))]
    tasks = [*DIAMOND, *lost]
    files = Files(
        tmp_path,
        opened,
        always={},
        needs={task.key: {} for task in tasks},
        makes={task.key: (task.key, tmp_path / task.key) for task in tasks},
        last="",
    )
    log = Log()
    failures = run_on_ray(tasks, partial(opened, tmp_path), log, Ray(), files)
    assert failures.keys() == {"fails", "x"}
    assert failures["fails"].why == "ValueError: it was asked to"
    assert failures["x"].because_of == "fails"
    assert "again" in (tmp_path / "killed-once").read_text()
    for task in DIAMOND:
        assert (tmp_path / task.key).read_text() == "1"  # thread
        assert ("step", task.key, 3) in log.lines
        for before in task.after:
            began, ended = ("started", task.key), ("succeeded", before)
            assert log.lines.index(ended) < log.lines.index(began)


def test_a_cluster_that_is_not_there() -> None:
    with pytest.raises(CrossferError, match="--on 127.0.0.1:1: no Ray cluster answers there"):
        Ray("127.0.0.1:1").check()


def test_a_node_with_another_version_is_named() -> None:
    with pytest.raises(
        CrossferError, match="node n7 .* has crossfer 9, and this machine 1: install"
    ):
        _check_version("9", "1", "n7")
    with pytest.raises(CrossferError, match="has no crossfer"):
        _check_version(None, "1", "n7")

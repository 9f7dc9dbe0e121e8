"""Executors: every task once, after what it waits for, whatever happens to the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from crossfer.errors import CrossferError
from crossfer.executors import Events, Failure, Task, Work, run_here, run_in_processes
from crossfer.executors.graph import Emit


@pytest.fixture(scope="module", autouse=True)
def imported_once() -> None:
    """Let processes import anew, as users' do."""


DIAMOND = [Task("d", ("b", "c")), Task("b", ("a",)), Task("c", ("a",)), Task("a")]


class Log(Events):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []

    def started(self, key: str) -> None:
        self.lines.append(("started", key))

    def told(self, key: str, what: str, value: object) -> None:
        self.lines.append((what, key, value))

    def succeeded(self, key: str) -> None:
        self.lines.append(("succeeded", key))

    def failed(self, key: str, failure: Failure) -> None:
        self.lines.append(("failed", key, failure))


def opened(folder: Path) -> Work:
    """Make a worker: a task writes a file of its name, and does what its name says."""

    def work(key: str, tell: Emit) -> None:
        file = folder / key
        file.write_text(
            file.read_text() + "again" if file.exists() else os.environ["OMP_NUM_THREADS"]
        )
        tell("step", 3)
        if key == "fails":
            raise ValueError("it was asked to")
        if key == "full":
            raise OSError(28, "No space left on device", "x")
        if key == "killed" or (key == "killed-once" and "again" not in file.read_text()):
            os.kill(os.getpid(), signal.SIGKILL)

    return work


def opened_copy(copy: Path) -> Work:
    """Make a worker that has a copy of what it was sent: each task fills a folder."""

    def work(key: str, tell: Emit) -> None:
        assert (copy / "always.txt").read_text() == "sent"
        (copy / key).mkdir(exist_ok=True)
        opened(copy / key)(key, tell)

    return work


def opened_to_tell(folder: Path) -> Work:
    """Make a worker that writes down its threads, and whether it was forked where `wave` was imported."""
    there = "wave" in sys.modules

    def work(key: str, tell: Emit) -> None:
        (folder / key).write_text(f"{os.environ['OMP_NUM_THREADS']} {there}")

    return work


def cannot_open() -> Work:
    raise CrossferError("data: no such folder")


def processes(tasks: list[Task], folder: Path, log: Log | None = None) -> dict[str, Failure]:
    return run_in_processes(tasks, partial(opened, folder), log or Log(), workers=2, threads=1)


def test_every_task_is_done_once_after_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for run, threads in ((partial(run_in_processes, workers=2), "1"), (run_here, "7")):
        log, folder = Log(), tmp_path / threads
        folder.mkdir()
        assert run(DIAMOND, partial(opened, folder), log) == {}
        assert sorted(file.name for file in folder.iterdir()) == ["a", "b", "c", "d"]
        assert {file.read_text() for file in folder.iterdir()} == {threads}
        for task in DIAMOND:
            for before in task.after:
                began, ended = ("started", task.key), ("succeeded", before)
                assert log.lines.index(ended) < log.lines.index(began)
            assert ("step", task.key, 3) in log.lines
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_what_waits_for_a_failure_fails_and_the_others_go_on(tmp_path: Path) -> None:
    tasks = [Task("fails"), Task("x", ("fails",)), Task("y", ("x", "fails")), Task("z")]
    for run in (run_here, partial(run_in_processes, workers=2)):
        log = Log()
        failures = run(tasks, partial(opened, tmp_path), log)
        assert failures["fails"] == Failure("ValueError: it was asked to")
        assert failures["x"] == Failure("ValueError: it was asked to", because_of="fails")
        assert failures.keys() == {"fails", "x", "y"}
        assert ("succeeded", "z") in log.lines


def test_a_killed_process_costs_its_task_one_more_attempt(tmp_path: Path) -> None:
    log = Log()
    failures = processes([Task("killed-once"), Task("killed"), Task("z")], tmp_path, log)
    assert log.lines.count(("started", "killed-once")) == 2
    assert failures.keys() == {"killed"}
    assert "memory" in failures["killed"].why
    assert (tmp_path / "z").exists()


def test_a_full_disk_stops_them_all(tmp_path: Path) -> None:
    for run in (run_here, partial(run_in_processes, workers=2)):
        with pytest.raises(OSError, match="No space left"):
            run([Task("full"), Task("later", ("full",))], partial(opened, tmp_path), Log())
    assert not (tmp_path / "later").exists()


def test_a_worker_that_cannot_begin_is_one_line() -> None:
    with pytest.raises(CrossferError, match="no such folder"):
        run_in_processes([Task("a")], cannot_open, Log(), workers=1)


FORKED = """
import sys
from functools import partial
from pathlib import Path
from crossfer.executors import Events, Task, run_in_processes
from crossfer.executors.processes import import_once
from tests.test_executors import opened_to_tell

if __name__ == "__main__":
    import_once(["wave"], threads=1)
    for threads in 1, 2:
        tasks = [Task(f"{threads}{name}") for name in "ab"]
        assert not run_in_processes(tasks, partial(opened_to_tell, Path(sys.argv[1])), Events(), 2, threads)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_are_forked_from_a_process_with_as_many_threads(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "done"
    script.write_text(FORKED)
    folder.mkdir()
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, script, folder], check=True, env=here, timeout=120)
    said = {file.name: file.read_text() for file in folder.iterdir()}
    assert said == {"1a": "1 True", "1b": "1 True", "2a": "2 False", "2b": "2 False"}


UNGUARDED = """
from crossfer.executors import Events, Task, run_in_processes
from tests.test_executors import cannot_open

open(__file__ + ".ran", "x").close()  # fails in every process but the first
print(run_in_processes([Task("a")], cannot_open, Events(), 2)["a"].why)
"""


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, script], check=True, env=here, capture_output=True)
    assert b"a script that asks for workers needs `if __name__ == " in done.stdout


@pytest.mark.parametrize(
    "tasks", [[Task("a", ("a",))], [Task("a", ("b",))], [Task("a"), Task("a")]]
)
def test_a_graph_that_cannot_end_is_refused(tasks: list[Task]) -> None:
    with pytest.raises(CrossferError, match="can never start|same task twice"):
        run_here(tasks, cannot_open, Log())

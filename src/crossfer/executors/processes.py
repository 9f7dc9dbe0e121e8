"""Run tasks in parallel processes, with the threads divided among them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from crossfer.errors import CrossferError, one_line
from crossfer.executors.graph import Events, Failure, Frontier, Open, Task

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What tells PyTorch and its libraries how many threads to use; read when they are imported."""

ATTEMPTS = 2
"""A task whose process is killed is given to another one once: it goes on from its checkpoint."""

_threads_of_forked: int | None = None
"""Threads of each worker that `import_once` has prepared for; None before."""


def import_once(modules: Sequence[str], threads: int = 1) -> None:
    """Begin to import modules in a process from which workers will be forked.

    It imports beside this process, and for all workers, so that they begin seconds earlier.  Only on Linux,
    the first time it is called, and for workers of so many threads; others import everything anew (*spawn*).

    Parameters
    ----------
    modules
        What workers import.
    threads
        Of each worker: libraries read it when they are imported.
    """
    global _threads_of_forked
    if sys.platform != "linux" or _threads_of_forked is not None:
        return
    from multiprocessing import forkserver  # Windows has none

    multiprocessing.set_forkserver_preload(list(modules))
    ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: it is for this process alone
    try:
        with _threads_each(threads):
            forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    _threads_of_forked = threads


def run_in_processes(
    tasks: Sequence[Task], open_: Open, events: Events, workers: int, threads: int = 1
) -> dict[str, Failure]:
    """Carry out a graph of tasks, several at a time.

    Nothing is shared but files.  Processes end with this one, however it ends.

    Parameters
    ----------
    tasks, open_, events
        As for `crossfer.executors.here.run_here`; `open_` and what tasks tell must be picklable.
    workers
        Processes, at least 1; never more than there are tasks.
    threads
        Of each process.

    Returns
    -------
    dict
        Why tasks failed, by key.

    Raises
    ------
    CrossferError
        If a worker cannot be made ready.
    OSError
        If a task meets a full disk or the like: all others are stopped, since none would fare better.
    """
    frontier = Frontier(tasks, events)
    attempts = dict.fromkeys((task.key for task in tasks), 0)
    again: list[str] = []
    with _threads_each(threads), _crew(open_, threads) as crew:
        while not frontier.finished:
            ready = islice(chain(again, frontier.ready()), workers - crew.busy)
            for key in list(ready):
                if key in again:
                    again.remove(key)
                    events.started(key)
                else:
                    frontier.start(key)
                attempts[key] += 1
                crew.give(key)
            for key, what, value in crew.listen():
                if what == "succeeded":
                    frontier.succeed(key)
                elif what == "failed":
                    frontier.fail(key, str(value))
                elif what == "died" and attempts[key] < ATTEMPTS:
                    again.append(key)
                elif what == "died":
                    frontier.fail(key, f"its process was terminated {ATTEMPTS} times ({value})")
                else:
                    events.told(key, what, value)
    return frontier.failures


class _Worker:
    """A process and the two ends of what is said to it and by it."""

    def __init__(self, open_: Open, threads: int) -> None:
        context: Any = multiprocessing.get_context(
            "forkserver" if threads == _threads_of_forked else "spawn"
        )
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(open_, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.key: str | None = None

    def end(self) -> None:
        self.process.terminate()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()

    @property
    def last_words(self) -> str:
        """Say how the process ended."""
        self.process.join()
        code = self.process.exitcode or 0
        if code == -getattr(signal, "SIGKILL", 9):  # Windows has none
            return "killed, perhaps because of low memory; use fewer workers"
        if code < 0:
            return f"signal {-code}"
        said = f"exit status {code}"
        if code == 1:  # probably an error of the script, which every worker imports
            said += '; a script that asks for workers needs `if __name__ == "__main__":`'
        return said


class _Crew:
    """Processes that carry out tasks, started when they are needed."""

    def __init__(self, open_: Open, threads: int) -> None:
        self.open_, self.threads = open_, threads
        self.workers: list[_Worker] = []

    @property
    def busy(self) -> int:
        return sum(worker.key is not None for worker in self.workers)

    def give(self, key: str) -> None:
        """Give a task to a process that has none."""
        idle = next((worker for worker in self.workers if worker.key is None), None)
        if idle is None:
            with uninterrupted():
                idle = _Worker(self.open_, self.threads)
                self.workers.append(idle)
        idle.key = key
        with suppress(BrokenPipeError):  # it has died: `listen` will notice
            idle.connection.send(key)

    def listen(self) -> Iterator[tuple[str, str, object]]:
        """Wait for something to happen; yield the key, what happened, and more of it."""
        by_connection = {worker.connection: worker for worker in self.workers if worker.key}
        for connection in wait(list(by_connection)):
            connection = cast(Connection, connection)  # on Windows it is another class
            worker = by_connection[connection]
            key = worker.key or ""
            try:
                what, value = connection.recv()
            except (EOFError, ConnectionResetError):
                self.workers.remove(worker)
                yield key, "died", worker.last_words
                continue
            if isinstance(value, BaseException):
                raise value
            if what in ("succeeded", "failed"):
                worker.key = None
            yield key, what, value


@contextmanager
def _crew(open_: Open, threads: int) -> Iterator[_Crew]:
    crew = _Crew(open_, threads)
    try:
        yield crew
    finally:
        for worker in crew.workers:
            worker.end()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back for the while: a process interrupted while it starts would be nobody's to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _threads_each(threads: int) -> Iterator[None]:
    """Tell processes that start from now on how many threads to use."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(open_: Open, connection: Connection) -> None:
    """Carry out what the connection asks for, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    # As in a process that was spawned.  Where it may fork, Numba makes a semaphore that nobody removes.
    multiprocessing.set_start_method("spawn", force=True)

    def tell(what: str, value: object) -> None:
        connection.send((what, value))

    try:
        work = open_()
    except Exception as error:
        tell("raised", error if isinstance(error, OSError) else CrossferError(one_line(error)))
        return
    with suppress(EOFError, BrokenPipeError):  # the process that started this one is gone
        while True:
            key = connection.recv()
            try:
                work(key, tell)
            except OSError as error:
                tell("raised", error)
            except Exception as error:
                tell("failed", one_line(error))
            else:
                tell("succeeded", None)

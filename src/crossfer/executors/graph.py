"""A graph of tasks: their dependencies, and which can start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from crossfer.errors import CrossferError

Emit = Callable[[str, object], None]
"""Reports an event of a running task: its name, and a value that can be pickled."""

Work = Callable[[str, Emit], None]
"""Carries out the task with this key; an exception means that it failed."""

Open = Callable[[], Work]
"""Prepares a worker; called once in each process, so it must be picklable."""


@dataclass(frozen=True)
class Task:
    """One node of the graph.

    Parameters
    ----------
    key
        Identifies it.
    after
        Keys of the tasks that must succeed before it can start.
    """

    key: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a task failed or could not start.

    Parameters
    ----------
    why
        One line.
    because_of
        Key of the failed task that it depends on, if that is the reason.
    """

    why: str
    because_of: str | None = None


class Events:
    """Events of an executor; override the ones you need."""

    def started(self, key: str) -> None:
        """A task starts, or starts again because its process was lost."""

    def told(self, key: str, what: str, value: object) -> None:
        """A running task reports an event: see `Emit`."""

    def succeeded(self, key: str) -> None:
        """A task is finished."""

    def failed(self, key: str, failure: Failure) -> None:
        """A task failed, or cannot start."""


def levels(tasks: Sequence[Task]) -> list[list[str]]:
    """Return the keys of the tasks by level: a task depends on tasks of earlier levels only.

    Raises
    ------
    CrossferError
        If a key is listed twice, or a task depends on itself or on an unknown task.
    """
    waiting = {task.key: task for task in tasks}
    if len(waiting) < len(tasks):
        raise CrossferError("the graph contains the same task twice")
    found, cleared = list[list[str]](), set[str]()
    while ready := [key for key, task in waiting.items() if cleared.issuperset(task.after)]:
        found.append(ready)
        cleared.update(ready)
        for key in ready:
            del waiting[key]
    if waiting:
        task = next(iter(waiting.values()))
        raise CrossferError(
            f"task {task.key} can never start: it waits for {', '.join(task.after)}"
        )
    return found


def done_of(tasks: Sequence[Task], is_done: Callable[[str], bool]) -> set[str]:
    """Return the keys of the tasks that are done, as are all that they depend on.

    Parameters
    ----------
    tasks
        In any order.
    is_done
        Whether a task alone is done; only asked where those that it depends on are.
    """
    after, done = {task.key: task.after for task in tasks}, set[str]()
    for level in levels(tasks):
        done.update([key for key in level if done.issuperset(after[key]) and is_done(key)])
    return done


@dataclass
class Frontier:
    """The unfinished part of a graph.

    Raises
    ------
    CrossferError
        If a key is listed twice, or a task depends on itself or on an unknown task.
    """

    tasks: Sequence[Task]
    events: Events
    failures: dict[str, Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        levels(self.tasks)  # it can end
        self._waiting = {task.key: task for task in self.tasks}
        self.succeeded: set[str] = set()
        self._running: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether all tasks have ended."""
        return not self._waiting and not self._running

    def ready(self) -> Iterator[str]:
        """Yield the keys of the tasks that can start, in the order of the graph."""
        for key, task in self._waiting.items():
            if self.succeeded.issuperset(task.after):
                yield key

    def waits(self, key: str) -> bool:
        """Tell whether a task has not started."""
        return key in self._waiting

    def start(self, key: str) -> None:
        """Record that a task starts."""
        del self._waiting[key]
        self._running.add(key)
        self.events.started(key)

    def succeed(self, key: str) -> None:
        """Record that a task is finished."""
        self._running.discard(key)
        self.succeeded.add(key)
        self.events.succeeded(key)

    def fail(self, key: str, why: str, because_of: str | None = None) -> None:
        """Record that a task failed, and with it every task that depends on it."""
        self._waiting.pop(key, None)
        self._running.discard(key)
        self.failures[key] = Failure(why, because_of)
        self.events.failed(key, self.failures[key])
        for task in [task for task in self._waiting.values() if key in task.after]:
            if task.key in self._waiting:  # it may wait for two that failed
                self.fail(task.key, why, because_of=key)

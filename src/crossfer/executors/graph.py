"""A graph of tasks: which wait for which, and which can begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from crossfer.errors import CrossferError

Tell = Callable[[str, object], None]
"""Passes on what a task says while it is carried out: a word, and anything that can be pickled."""

Work = Callable[[str, Tell], None]
"""Carries out one task, by its key; an exception means that it failed."""

Open = Callable[[], Work]
"""Makes a worker ready; called once in each process, so it must be picklable."""


@dataclass(frozen=True)
class Task:
    """One node of the graph.

    Parameters
    ----------
    key
        Identifies it.
    after
        Keys of the tasks that must have succeeded before it can begin.
    """

    key: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a task was not carried out.

    Parameters
    ----------
    why
        One line.
    because_of
        The task that it had to wait for and that failed, if that is the reason.
    """

    why: str
    because_of: str | None = None


class Events:
    """What an executor tells whoever waits; override what you need."""

    def started(self, key: str) -> None:
        """A task begins; once more, where its process was lost."""

    def told(self, key: str, what: str, value: object) -> None:
        """A task says something of itself."""

    def succeeded(self, key: str) -> None:
        """A task is done."""

    def failed(self, key: str, failure: Failure) -> None:
        """A task failed, or cannot begin."""


def levels(tasks: Sequence[Task]) -> list[list[str]]:
    """Return the keys of a graph's tasks, level by level: each waits for tasks of levels before its own only.

    Raises
    ------
    CrossferError
        If a key stands twice, or a task waits for itself or for what is no task.
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


@dataclass
class Frontier:
    """What of a graph is still to do.

    Raises
    ------
    CrossferError
        If a key stands twice, or a task waits for itself or for what is no task.
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
        """Whether nothing is left to do."""
        return not self._waiting and not self._running

    def ready(self) -> Iterator[str]:
        """Yield the keys of the tasks that can begin, in the order of the graph."""
        for key, task in self._waiting.items():
            if self.succeeded.issuperset(task.after):
                yield key

    def waits(self, key: str) -> bool:
        """Tell whether a task has not begun."""
        return key in self._waiting

    def start(self, key: str) -> None:
        """Note that a task begins."""
        del self._waiting[key]
        self._running.add(key)
        self.events.started(key)

    def succeed(self, key: str) -> None:
        """Note that a task is done."""
        self._running.discard(key)
        self.succeeded.add(key)
        self.events.succeeded(key)

    def fail(self, key: str, why: str, because_of: str | None = None) -> None:
        """Note that a task failed, and with it all that wait for it."""
        self._waiting.pop(key, None)
        self._running.discard(key)
        self.failures[key] = Failure(why, because_of)
        self.events.failed(key, self.failures[key])
        for task in [task for task in self._waiting.values() if key in task.after]:
            if task.key in self._waiting:  # it may wait for two that failed
                self.fail(task.key, why, because_of=key)

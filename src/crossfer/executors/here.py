"""Run tasks one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from crossfer.errors import one_line
from crossfer.executors.graph import Events, Failure, Frontier, Open, Task


def run_here(tasks: Sequence[Task], open_: Open, events: Events) -> dict[str, Failure]:
    """Run a graph of tasks one after the other.

    Parameters
    ----------
    tasks
        In any order.
    open_
        Prepares the worker.
    events
        Receives events.

    Returns
    -------
    dict
        Why tasks failed, by key.

    Raises
    ------
    OSError
        If a task fails with an error of the system, such as a full disk: the others would fail, too.
    """
    frontier = Frontier(tasks, events)
    work = open_()
    while key := next(frontier.ready(), None):
        frontier.start(key)
        try:
            work(key, partial(events.told, key))
        except OSError:
            raise
        except Exception as error:
            frontier.fail(key, one_line(error))
        else:
            frontier.succeed(key)
    return frontier.failures

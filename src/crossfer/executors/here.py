"""Run tasks one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from crossfer.errors import one_line
from crossfer.executors.graph import Events, Failure, Frontier, Open, Task


def run_here(tasks: Sequence[Task], open_: Open, events: Events) -> dict[str, Failure]:
    """Carry out a graph of tasks one after the other.

    Parameters
    ----------
    tasks
        In any order.
    open_
        Makes the worker ready.
    events
        Told how it goes on.

    Returns
    -------
    dict
        Why tasks failed, by key.

    Raises
    ------
    OSError
        If a task meets a full disk or the like: no other would fare better.
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

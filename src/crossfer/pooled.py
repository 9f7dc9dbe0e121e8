"""Work in threads, a few portions ahead, whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from crossfer.processor import available_cores

AHEAD = 2
"""Number of results waiting per thread, which bounds memory."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Given], Made], given: Iterable[Given]
) -> Iterator[Made]:
    """Apply `work` in a pool and yield the results in order, with a bounded queue."""
    most = AHEAD * available_cores()
    waiting: deque[Future[Made]] = deque()
    for one in given:
        waiting.append(pool.submit(work, one))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def tapered(given: Sequence[Given], size: int) -> Iterator[list[Given]]:
    """Yield lists of at most `size` items, the last ones smaller, so that all threads end together."""
    start, threads = 0, available_cores()
    while start < len(given):
        fitting = -(-(len(given) - start) // (2 * threads))
        yield list(given[start : start + min(size, fitting)])
        start += min(size, fitting)


def portions(given: Iterable[Given], size: int) -> Iterator[list[Given]]:
    """Yield lists of at most `size` items."""
    rest = iter(given)
    while some := list(islice(rest, size)):
        yield some

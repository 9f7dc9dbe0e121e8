"""Progress bars on a terminal, lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_SECONDS = 20.0
"""Between two lines in a log."""
SECONDS_TO_JUDGE = 120.0
"""The last of the work that says how long the rest takes: longer ago the machine may have been busier."""


class Bars:
    """A bar for each kind of work on a terminal; elsewhere a line now and then.  A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=SECONDS_TO_JUDGE,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.spoke = time.monotonic()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.bars.disable:  # Rich 13 ends an empty line even then
            self.bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars; only the terminal wraps it."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def count(self, what: str, done: int, total: int) -> None:
        """Show how many of how many are done."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total)
        self.bars.update(self.tasks[what], completed=done)
        if self.console.is_terminal:
            return
        if done == total:
            self.say(f"{what}: {total:,} done")
        elif time.monotonic() - self.spoke >= LOG_SECONDS:
            self.spoke = time.monotonic()
            self.say(f"{what}: {done:,} of {total:,}")

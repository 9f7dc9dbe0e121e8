"""What travels to the nodes of a cluster with a task, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from crossfer.errors import CrossferError
from crossfer.executors.graph import Emit

Carry = Callable[[str, Any, Emit], tuple[str | None, Any]]
"""Carries out a task with what was sent to it; returns why it failed, or None, and its output."""


class Unseen(Exception):
    """A node does not see our files, and they were not sent."""


class CannotBegin(CrossferError):
    """A node cannot carry out any task."""


class Travel(Protocol):
    """What is sent to a cluster's nodes with a task, and what comes back."""

    @property
    def root(self) -> Path:
        """The folder for `LOG`."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that each node must have in our version, crossfer first."""

    @property
    def open_there(self) -> Callable[[], Carry]:
        """Prepares a process on a node; picklable, and small.

        The function that it returns raises `Unseen` if it needs files that were not sent, `CannotBegin` if no
        task can start.
        """

    def pack(self, key: str, whole: bool, again: bool) -> Any:
        """Return what is sent with a task.

        Parameters
        ----------
        key
            Of the task.
        whole
            Whether there are nodes that do not see our files.
        again
            Whether the task was submitted before and was lost.
        """

    def unpack(self, key: str, made: Any) -> None:
        """Write the output of a task."""

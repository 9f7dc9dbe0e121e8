"""Bring a graph of tasks to an end: here, or in several processes.

An executor is given keys and a function that carries one out.  It knows nothing of faces and writes nothing.
The folders and locks of the work say what is finished, so any executor goes on where another stopped.
"""

from crossfer.executors.graph import Events, Failure, Open, Task, Work
from crossfer.executors.here import run_here
from crossfer.executors.processes import run_in_processes

__all__ = [
    "Events",
    "Failure",
    "Open",
    "Task",
    "Work",
    "run_here",
    "run_in_processes",
]

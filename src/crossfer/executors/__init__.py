"""Bring a graph of tasks to an end: here, in several processes, or on a cluster.

An executor is given keys and a function that carries one out.  It knows nothing of faces and writes nothing.
The folders and locks of the work say what is finished, so any executor goes on where another stopped.
"""

from crossfer.executors.graph import Events, Failure, Open, Task, Work
from crossfer.executors.here import run_here
from crossfer.executors.processes import run_in_processes
from crossfer.executors.slurm import Slurm, run_on_slurm

__all__ = [
    "Events",
    "Failure",
    "Open",
    "Slurm",
    "Task",
    "Work",
    "run_here",
    "run_in_processes",
    "run_on_slurm",
]

"""Run a graph of tasks: in this process, in several processes, or on a cluster.

An executor receives the tasks' keys and a function that carries out one of them.  It knows nothing of faces
and writes no results.  Folders and locks on disk record what is finished, so any executor can resume the work
of another.
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

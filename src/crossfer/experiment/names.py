"""File names of runs and locks."""

RUN = "run.json"
"""Written last: a folder that has it is finished."""
ERROR = "error.txt"
"""Why a run failed; it lies there only until the run succeeds."""
LOCKS = ".locks"
"""The folder of the runs' locks, in that of the runs."""

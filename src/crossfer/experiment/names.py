"""File names of runs and locks."""

RUN = "run.json"
"""Written last: a folder that contains it is finished."""
ERROR = "error.txt"
"""Why a run failed; removed when the run succeeds."""
LOCKS = ".locks"
"""The folder of locks, in the folder of runs."""

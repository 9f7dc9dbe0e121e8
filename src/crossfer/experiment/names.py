"""Names of a run's files, and of the folder of the locks: it imports nothing, so that all may know them."""

RUN = "run.json"
"""Written last: a folder that has it is finished."""
ERROR = "error.txt"
"""Why a run failed; it lies there only until the run succeeds."""
LOCKS = ".locks"
"""The folder of the runs' locks, in that of the runs."""

"""Run a graph of tasks on a SLURM cluster: one job array per level, submitted by ``sbatch``.

SLURM decides where and when a task runs, and requeues it if its node is lost or preempted.  This process only
submits and watches: it may be stopped at any time, and the same call later resumes watching.  Finished tasks
are recognised by their files, so all nodes must see the same files under the same paths.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfer.errors import CrossferError
from crossfer.executors.graph import Events, Failure, Frontier, Task, done_of, levels
from crossfer.executors.processes import THREADS
from crossfer.files import parsed, write_json

SUBMITTED = "submitted"
"""The event of a task that was submitted; its value is the job number."""

JOBS = "jobs.json"
"""The file that maps job arrays to task keys; the logs are in the same folder."""

LONGEST_ARRAY = 1000
"""Tasks of one array; SLURM's own limit (``MaxArraySize``) is 1,001 by default."""

LEAD, TO_SAVE = 60, 45
"""Seconds before the time limit at which a task is asked to stop, and the seconds that it then has."""

SECONDS_BETWEEN_LOOKS = 10.0
UNTIL_FILES_ARE_SEEN = 60.0
"""Seconds to wait for the files of an ended job to become visible (NFS caches attributes)."""
PATIENCE = 300.0
"""Seconds for which SLURM may be unreachable, e.g. while its daemon restarts."""


@dataclass(frozen=True)
class Slurm:
    """Resources of each task; None: the default of the cluster.

    Parameters
    ----------
    partition, time, account, mem, gres
        Options of ``sbatch``.
    threads
        Processors and threads of each task.
    at_a_time
        Maximum number of tasks of an array that run at the same time.
    options
        Further options of ``sbatch``; they override the others.
    """

    partition: str | None = None
    time: str | None = None
    account: str | None = None
    mem: str | None = None
    gres: str | None = None
    threads: int = 1
    at_a_time: int | None = None
    options: tuple[str, ...] = ()

    @property
    def gpu(self) -> bool:
        """Whether a GPU is asked for."""
        asked = [f"--gres={self.gres}", *self.options]
        return any(option.startswith(("--gres=gpu", "--gpus", "-G")) for option in asked)

    def as_options(self) -> list[str]:
        """Return the options of ``sbatch``."""
        named = {
            "partition": self.partition,
            "time": self.time,
            "account": self.account,
            "mem": self.mem,
            "gres": self.gres,
            "cpus-per-task": self.threads,
        }
        given = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*given, *self.options]

    def check(self) -> None:
        """Ask SLURM whether it accepts these options; nothing is submitted.

        Raises
        ------
        CrossferError
            If SLURM is not installed, does not answer or refuses the options.
        """
        _ask("sbatch", "--test-only", *self.as_options(), "--wrap", "true")


def run_on_slurm(
    tasks: Sequence[Task],
    command: Sequence[str],
    is_done: Callable[[str], bool],
    events: Events,
    slurm: Slurm,
    folder: Path,
    look_every: float = SECONDS_BETWEEN_LOOKS,
    until_seen: float = UNTIL_FILES_ARE_SEEN,
) -> dict[str, Failure]:
    """Run a graph of tasks on SLURM and wait for it.

    Tasks that an earlier call queued are not submitted again.  A level starts when all jobs of the level
    before have ended, whether they succeeded or not: a failed task fails only the tasks that depend on it.

    Parameters
    ----------
    tasks
        In any order.
    command
        Command that runs the task whose key is appended to it.  After SIGTERM it should write a checkpoint
        and end with a status above 128.
    is_done
        Returns whether a task is finished, from the files on disk.  It counts only after those that the task
        depends on.
    events
        Receives events.
    slurm
        Resources of each task.
    folder
        Folder for logs and `JOBS`, visible to all nodes.
    look_every
        Seconds between queries of the queue.
    until_seen
        Seconds after which a task has failed if its job has ended and the task is not finished.

    Returns
    -------
    dict
        Why tasks failed, by key.

    Raises
    ------
    CrossferError
        If SLURM refuses a job, or does not answer for five minutes.
    """
    frontier = Frontier(tasks, events)
    after = {task.key: task.after for task in tasks}
    open_ = after.keys() - done_of(tasks, is_done)
    jobs = _submit(levels(tasks), open_, command, events, slurm, folder)
    started, gone = set[str](), dict[str, float]()
    keys = [key for level in levels(tasks) for key in level]
    while not frontier.finished:
        # The queue before the disk: a job that has ended wrote it all.
        queue = _patiently(lambda: _queue(folder))
        for key in keys:
            if key in frontier.failures or key in frontier.succeeded:
                continue
            job = queue.get(key)
            ready = frontier.succeeded.issuperset(after[key]) and (job is None or job.runs)
            done = ready and is_done(key)
            if key not in started and (done or (job and job.runs)):
                started.add(key)
                frontier.start(key)
            if done:
                frontier.succeed(key)
            elif job:
                gone.pop(key, None)
            elif time.monotonic() - gone.setdefault(key, time.monotonic()) >= until_seen:
                frontier.fail(key, _last_words(jobs.get(key), folder))
        if not frontier.finished:
            time.sleep(look_every)
    return frontier.failures


@dataclass(frozen=True)
class Job:
    """A task in SLURM's queue.

    Parameters
    ----------
    name
        ``"12_3"``: the fourth of array 12.
    state
        State in SLURM's terms: ``"PENDING"``, ``"RUNNING"``, …
    where
        The node, or the reason for waiting.
    """

    name: str
    state: str
    where: str

    @property
    def runs(self) -> bool:
        """Whether it has a node."""
        return self.state != "PENDING"

    def __str__(self) -> str:
        return f"SLURM job {self.name}, {self.state.lower()}: {self.where}"


def queued(folder: Path) -> dict[str, Job]:
    """Return the queued and running jobs of an earlier call, by key; empty if SLURM does not answer.

    Parameters
    ----------
    folder
        As for `run_on_slurm`.
    """
    try:
        return _queue(folder) if (folder / JOBS).is_file() else {}
    except CrossferError:
        return {}


def cancel(folder: Path) -> int:
    """Cancel the jobs of an earlier call; running tasks write a checkpoint.

    Parameters
    ----------
    folder
        As for `run_on_slurm`.

    Returns
    -------
    int
        Number of tasks that were queued or running.

    Raises
    ------
    CrossferError
        If nothing was submitted, or SLURM does not answer.
    """
    if not (folder / JOBS).is_file():
        raise CrossferError(f"{folder.parent}: no run of it was submitted to SLURM")
    found = _queue(folder)
    if found:
        _ask("scancel", *sorted({job.name.partition("_")[0] for job in found.values()}))
    return len(found)


def _submit(
    by_level: Sequence[Sequence[str]],
    open_: set[str],
    command: Sequence[str],
    events: Events,
    slurm: Slurm,
    folder: Path,
) -> dict[str, str]:
    """Submit tasks that are neither finished nor queued; return the job of each task."""
    folder.mkdir(parents=True, exist_ok=True)
    queue = _queue(folder) if (folder / JOBS).is_file() else {}
    arrays = {name: keys for name, keys in _arrays(folder).items() if set(keys) & queue.keys()}
    before: list[str] = []
    for level in by_level:
        wanted = [key for key in level if key in open_]
        new = [key for key in wanted if key not in queue]
        for first in range(0, len(new), LONGEST_ARRAY):
            keys = new[first : first + LONGEST_ARRAY]
            array = _sbatch(keys, command, before, slurm, folder)
            arrays[array] = keys
            write_json(folder / JOBS, arrays)
            for key in keys:
                events.told(key, SUBMITTED, array)
        if wanted:
            before = [array for array, keys in arrays.items() if set(keys) & set(wanted)]
    return {key: f"{array}_{i}" for array, keys in arrays.items() for i, key in enumerate(keys)}


def _sbatch(
    keys: Sequence[str], command: Sequence[str], after: Sequence[str], slurm: Slurm, folder: Path
) -> str:
    """Submit tasks as one array that starts after other arrays; return its number."""
    limit = f"%{slurm.at_a_time}" if slurm.at_a_time else ""
    options = [
        "--parsable",
        f"--job-name={_name(folder)}",
        f"--array=0-{len(keys) - 1}{limit}",
        f"--output={folder / '%A_%a.log'}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{LEAD}",
        *([f"--dependency=afterany:{':'.join(after)}"] if after else []),
        *slurm.as_options(),
    ]
    answer = _ask("sbatch", *options, given=_script(keys, command, slurm.threads))
    return answer.strip().partition(";")[0]  # NUMBER;CLUSTER


def _script(keys: Sequence[str], command: Sequence[str], threads: int) -> str:
    """Return the batch script of an array.

    Shortly before the time limit, SLURM sends SIGUSR1.  The script then asks the task to stop and requeues
    the job, so that the task resumes from its checkpoint.
    """
    exports = "\n".join(f"export {name}={threads}" for name in THREADS)
    return f"""#!/bin/bash
{exports}
keys=({" ".join(keys)})
again=
stop() {{
    if [ $SECONDS -lt 30 ]; then
        echo "error: the time limit leaves no time to train: ask for 5 minutes or more"
        return
    fi
    again=yes
    kill -TERM $task
    (sleep {TO_SAVE}; exec scontrol requeue $SLURM_JOB_ID) > /dev/null 2>&1 &
    timer=$!
}}
{shlex.join(command)} "${{keys[$SLURM_ARRAY_TASK_ID]}}" &
task=$!
trap stop USR1
trap 'kill -TERM $task 2> /dev/null' TERM
wait $task
status=$?
while kill -0 $task 2> /dev/null; do  # a signal has ended the wait, not the task
    wait $task
    status=$?
done
if [ -n "$again" ]; then
    kill $timer
    if [ $status -gt 128 ]; then
        echo "the time limit is near: queued again"
        scontrol requeue $SLURM_JOB_ID
        sleep {TO_SAVE}
    fi
fi
exit $status
"""


def _name(folder: Path) -> str:
    """Return the common name of a folder's jobs."""
    return f"crossfer-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def _arrays(folder: Path) -> dict[str, list[str]]:
    """Return the task keys of every submitted array."""
    try:
        content = parsed((folder / JOBS).read_text(encoding="utf-8"))
        return {str(array): [str(key) for key in keys] for array, keys in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CrossferError(f"{folder / JOBS}: damaged ({error!r}); delete it") from None


def _queue(folder: Path) -> dict[str, Job]:
    """Return the queued and running jobs of a folder, by task key."""
    arrays, found = _arrays(folder), dict[str, Job]()
    lines = _ask(
        "squeue", "--array", "--noheader", f"--name={_name(folder)}", "--format=%F|%K|%T|%R"
    )
    for line in lines.splitlines():
        array, index, state, where = line.strip().split("|", 3)
        keys = arrays.get(array, [])
        if index.isdigit() and int(index) < len(keys) and state != "COMPLETED":
            found[keys[int(index)]] = Job(f"{array}_{index}", state, where.strip("()"))
    return found


def _patiently(ask: Callable[[], dict[str, Job]]) -> dict[str, Job]:
    began = time.monotonic()
    while True:
        try:
            return ask()
        except CrossferError as error:
            if time.monotonic() - began >= PATIENCE:
                raise CrossferError(
                    f"{error}; the jobs continue, and the same command watches them again"
                ) from None
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _last_words(job: str | None, folder: Path) -> str:
    """Return why a task is not finished although its job has ended."""
    if job is None:
        return "SLURM lost its job; the same command submits it again"
    log = folder / f"{job}.log"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return (
            f"SLURM job {job} left no log: do the cluster's nodes see {folder}? "
            "Choose a folder that all of them share"
        )
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    return f"SLURM job {job}: {last.removeprefix('error: ')} ({log})"


def _ask(program: str, *arguments: str, given: str = "") -> str:
    """Run one of SLURM's programs and return its output."""
    try:
        answer = subprocess.run(
            [program, *arguments], input=given, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise CrossferError(
            f"{program} is not installed here; start the command on a machine that submits to the "
            "cluster, such as its login node"
        ) from None
    if answer.returncode:
        said = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
        words = "; ".join(dict.fromkeys(said)) or f"exit status {answer.returncode}"
        raise CrossferError(f"SLURM refused: {words}")
    return answer.stdout

"""A graph of tasks on a Ray cluster: one that is there, or one of this machine's cores.

Ray decides where a task runs.  A node that sees the work's folder works in it.  To any other the files that a
task needs are sent, each once and known by its SHA-256, and what the task makes is sent back.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from getpass import getuser
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfer.errors import CrossferError, one_line
from crossfer.executors.graph import Events, Failure, Frontier, Open, Task, Work
from crossfer.executors.processes import THREADS, uninterrupted
from crossfer.files import digest, write_bytes

if TYPE_CHECKING:
    from ray import ObjectRef

ATTEMPTS = 3
"""A task whose process or node is lost is given to another; on the same node it finds its checkpoint."""

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_ANSWER = 10.0
PATIENCE = 120.0
"""Seconds in which each node must say which version it has."""
LOST = "the Ray cluster is lost{}; finished runs are kept; run the same command again to resume"
LOG = "ray.log"
"""What Ray says of itself, in the work's folder."""


@dataclass(frozen=True)
class Ray:
    """Which cluster, and what each task is given.

    Parameters
    ----------
    address
        ``"host:port"`` of its head, from a machine that belongs to it; ``"ray://host:port"`` from any
        other; None starts one with the cores of this machine.
    threads
        Cores of each task, and its threads.
    gpu
        Whether each task needs a GPU.
    memory
        Bytes that a node must have left for a task; 0 is not looked at.
    at_a_time
        At most so many tasks run at the same time.
    """

    address: str | None = None
    threads: int = 1
    gpu: bool = False
    memory: int = 0
    at_a_time: int | None = None

    def check(self) -> None:
        """Make sure that Ray is installed, and that something answers at the address.

        Raises
        ------
        CrossferError
            If not.
        """
        try:
            import ray  # noqa: F401
        except ModuleNotFoundError:
            raise CrossferError("this needs Ray: pip install 'crossfer[ray]'") from None
        if self.address:
            host, _, port = self.address.removeprefix("ray://").partition(":")
            try:
                socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
            except (OSError, OverflowError) as error:
                raise CrossferError(
                    f"--on {self.address}: no Ray cluster answers there ({error})"
                ) from None


@dataclass(frozen=True)
class Files:
    """What a node that does not see the work's folder is sent, and what it sends back.

    Parameters
    ----------
    root
        The work's folder.
    open_copy
        Makes a worker ready in a folder of its own node that holds what was sent.
    always
        What every task needs: places in the copy, and the folders or files here.
    needs
        What each task needs besides, by key.
    makes
        The place in the copy that each task fills, and the folder here.
    last
        The file that is written last of what comes back: with it, it is whole.
    """

    root: Path
    open_copy: Callable[[Path], Work]
    always: Mapping[str, Path]
    needs: Mapping[str, Mapping[str, Path]]
    makes: Mapping[str, tuple[str, Path]]
    last: str


def run_on_ray(
    tasks: Sequence[Task], open_: Open, events: Events, cluster: Ray, files: Files
) -> dict[str, Failure]:
    """Carry out a graph of tasks on a Ray cluster.

    Ray ends the process that is connected to a cluster when this is lost, so that process is another one.

    Parameters
    ----------
    tasks, open_, events
        As for `crossfer.executors.processes.run_in_processes`.
    cluster
        Where, and what each task is given.
    files
        For nodes that do not see the work's folder.

    Returns
    -------
    dict
        Why tasks failed, by key.

    Raises
    ------
    CrossferError
        If the cluster is not there, is lost, has no node for such a task, or one without this version of
        crossfer; or a worker cannot be made ready.
    OSError
        If a task meets a full disk or the like.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_drive, args=(tasks, open_, cluster, files, theirs), daemon=True
    )
    with uninterrupted():
        process.start()
    theirs.close()
    try:
        while True:
            what, *more = ours.recv()
            if what == "raised":
                raise more[0]
            if what == "finished":
                failures: dict[str, Failure] = more[0]
                return failures
            getattr(events, what)(*more)
    except (EOFError, ConnectionResetError):
        raise CrossferError(LOST.format(f" ({files.root / LOG})")) from None
    finally:
        process.terminate()
        process.join()


class _Told(Events):
    """Passes events on to the process that waits for them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def started(self, key: str) -> None:
        self.connection.send(("started", key))

    def told(self, key: str, what: str, value: object) -> None:
        self.connection.send(("told", key, what, value))

    def succeeded(self, key: str) -> None:
        self.connection.send(("succeeded", key))

    def failed(self, key: str, failure: Failure) -> None:
        self.connection.send(("failed", key, failure))


def _drive(
    tasks: Sequence[Task], open_: Open, cluster: Ray, files: Files, connection: Connection
) -> None:
    """Be the process that is connected to the cluster."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    with (files.root / LOG).open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        failures = _walk(tasks, open_, _Told(connection), cluster, files)
    except (CrossferError, OSError) as error:
        connection.send(("raised", error))
    except Exception as error:
        traceback.print_exc()  # into the log
        connection.send(("raised", CrossferError(f"{one_line(error)} ({files.root / LOG})")))
    else:
        connection.send(("finished", failures))


def _walk(
    tasks: Sequence[Task], open_: Open, events: Events, cluster: Ray, files: Files
) -> dict[str, Failure]:
    frontier = Frontier(tasks, events)
    with _connected(cluster), _marked(files.root) as mark:
        crew = _Crew(open_, cluster, files, mark)
        crew.check_nodes()
        while not frontier.finished:
            waiting = [key for key in frontier.ready() if key not in crew.given]
            room = len(tasks) if cluster.at_a_time is None else cluster.at_a_time
            for key in waiting[: room - len(crew.running)]:
                crew.give(key)
            for key, what, value in crew.listen():
                if key in frontier.ready():
                    frontier.start(key)
                if what == "succeeded":
                    frontier.succeed(key)
                elif what == "failed":
                    frontier.fail(key, str(value))
                elif what != "started":
                    events.told(key, what, value)
    return frontier.failures


@contextmanager
def _connected(cluster: Ray) -> Iterator[None]:
    """Connect to the cluster; whatever Ray says of its loss becomes one line."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if (Path.home() / ".ray" / "auth_token").is_file():  # then `ray start` asks for it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    from ray.exceptions import RayError

    given: dict[str, Any] = {"address": cluster.address}
    if cluster.address is None:
        given = {"address": "local", "include_dashboard": False}
        given |= {"num_gpus": None if cluster.gpu else 0}
    where = cluster.address or "this machine"
    try:
        ray.init(**given, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # of a dozen kinds
        raise CrossferError(
            f"--on {where}: no Ray cluster answers there ({one_line(error)})"
        ) from None
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise CrossferError(LOST.format(f" ({one_line(error)})")) from None
    finally:
        with suppress(Exception):
            ray.shutdown()


@contextmanager
def _marked(root: Path) -> Iterator[str]:
    """Leave a mark in a folder, by which nodes find out whether they see it."""
    mark = uuid.uuid4().hex
    file = root / f".seen-{mark}"
    file.touch()
    try:
        yield file.name
    finally:
        file.unlink(missing_ok=True)


class _Mailbox:
    """An actor: what tasks say while they are carried out.  If it is lost, an empty one takes its place."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, str, object]] = []

    def put(self, key: str, what: str, value: object) -> None:
        self.letters.append((key, what, value))

    def take(self) -> list[tuple[str, str, object]]:
        letters, self.letters = self.letters, []
        return letters


Sent = Mapping[str, tuple[str, "ObjectRef[bytes]"]]
"""Files by their place in the copy: SHA-256 and content."""


@dataclass(frozen=True)
class _Job:
    """What every task needs to know."""

    open_: Open
    open_copy: Callable[[Path], Work]
    root: Path
    mark: str
    version: str
    mailbox: Any


@dataclass
class _Crew:
    """Tasks that were given to the cluster."""

    open_: Open
    cluster: Ray
    files: Files
    mark: str
    given: dict[str, int] = field(default_factory=dict)
    running: dict[ObjectRef[Any], str] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox)
        self.mailbox: Any = actor.options(scheduling_strategy=here).remote()
        self.sent: dict[tuple[Path, int], tuple[str, ObjectRef[bytes]]] = {}
        self.job = ray.put(
            _Job(
                self.open_,
                self.files.open_copy,
                self.files.root.absolute(),
                self.mark,
                version("crossfer"),
                self.mailbox,
            )
        )

    def check_nodes(self) -> None:
        """Refuse a cluster that cannot do the work, before anything runs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def theirs() -> str | None:  # travels as it is: nothing of ours need be there
            from importlib import metadata

            try:
                return metadata.version("crossfer")
            except metadata.PackageNotFoundError:
                return None

        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if not any(self._enough(node["Resources"]) for node in nodes):
            raise CrossferError(
                f"no node of the Ray cluster has {self.cluster.threads} cores"
                + (", a GPU" if self.cluster.gpu else "")
                + (f" and {self.cluster.memory / 2**30:.1f} GiB" if self.cluster.memory else "")
                + " for a run: request less"
            )
        ask = ray.remote(num_cpus=0)(theirs)
        answers = {
            node["NodeManagerAddress"]: ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for node in nodes
        }
        for address, answer in answers.items():
            _check_version(ray.get(answer, timeout=PATIENCE), version("crossfer"), address)

    def _enough(self, resources: Mapping[str, float]) -> bool:
        needs = {
            "CPU": self.cluster.threads,
            "GPU": self.cluster.gpu,
            "memory": self.cluster.memory,
        }
        return all(resources.get(name, 0) >= amount for name, amount in needs.items())

    def give(self, key: str) -> None:
        """Give a task to the cluster; if it was given before, to the same node if that is there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.given[key] = self.given.get(key, 0) + 1
        strategy: Any = "DEFAULT"
        if before := self.nodes.get(key):
            strategy = NodeAffinitySchedulingStrategy(before, soft=True)
        task = ray.remote(_carry_out).options(
            name=key,
            num_cpus=self.cluster.threads,
            num_gpus=int(self.cluster.gpu),
            memory=self.cluster.memory or None,
            max_retries=0,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": dict.fromkeys(THREADS, str(self.cluster.threads))},
        )
        folders = {**self.files.always, **self.files.needs[key]}
        if self.given[key] > 1:  # what the node has of it is newer
            folders.pop(self.files.makes[key][0], None)
        sent = {name: found for place, f in folders.items() for name, found in self._put(place, f)}
        self.running[task.remote(self.job, key, sent, self.files.makes[key][0])] = key

    def _put(self, place: str, folder: Path) -> Iterator[tuple[str, Any]]:
        """Make a file, or those of a folder, known to the cluster, each once; yield where they go."""
        import ray

        places = {place: folder}
        if folder.is_dir():
            places = {f"{place}/{file.name}": file for file in sorted(folder.iterdir())}
        for place, file in places.items():
            if file.is_file():
                state = (file, file.stat().st_mtime_ns)
                if state not in self.sent:
                    self.sent[state] = (digest(file), ray.put(file.read_bytes()))
                yield place, self.sent[state]

    def listen(self) -> Iterator[tuple[str, str, object]]:
        """Wait a little; yield what tasks said, and which of them ended."""
        import ray
        from ray.exceptions import (
            LocalRayletDiedError,
            NodeDiedError,
            ObjectLostError,
            OutOfMemoryError,
            RayTaskError,
            WorkerCrashedError,
        )

        losses = (
            LocalRayletDiedError,
            NodeDiedError,
            ObjectLostError,
            OutOfMemoryError,
            WorkerCrashedError,
        )
        ended, _ = ray.wait(
            list(self.running), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS, fetch_local=False
        )
        for key, what, value in ray.get(self.mailbox.take.remote()):
            if what == "started":
                self.nodes[key] = str(value)
            yield key, what, value
        dead = self._dead_nodes()  # Ray itself waits for minutes for what ran there
        lost = [one for one, key in self.running.items() if self.nodes.get(key) in dead]
        for reference in [one for one in lost if one not in ended]:
            yield from self._again(self.running.pop(reference), "its node is lost")
        for reference in ended:
            key = self.running.pop(reference)
            try:
                what, value, made = ray.get(reference)
            except RayTaskError as error:  # it could not even begin
                raise CrossferError(f"a worker cannot start: {one_line(error.cause)}") from None
            except losses as error:
                yield from self._again(key, one_line(error))
                continue
            if isinstance(value, BaseException):
                raise value
            self._keep(self.files.makes[key][1], made)
            yield key, what, value

    def _again(self, key: str, why: str) -> Iterator[tuple[str, str, object]]:
        """Give a lost task to the cluster again, unless that was done often enough."""
        if self.nodes.get(key) in self._dead_nodes():
            del self.nodes[key]
        if self.given[key] < ATTEMPTS:
            self.give(key)
        else:
            yield key, "failed", f"its process was lost {ATTEMPTS} times ({why})"

    def _dead_nodes(self) -> set[str]:
        import ray

        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        return {node["NodeID"] for node in nodes if not node["Alive"]}

    def _keep(self, folder: Path, made: Mapping[str, bytes]) -> None:
        """Write what came back, with what makes it whole at the end."""
        for name in sorted(made, key=lambda name: name == self.files.last):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, made[name])


def _check_version(theirs: str | None, ours: str, where: str) -> None:
    if theirs != ours:
        has = f"crossfer {theirs}" if theirs else "no crossfer"
        raise CrossferError(
            f"node {where} of the Ray cluster has {has}, but this machine has {ours}; install the "
            "same version"
        )


def _carry_out(job: _Job, key: str, sent: Sent, makes: str) -> tuple[str, object, dict[str, bytes]]:
    """Carry out one task, on whatever node; return how it ended, and what it made where that is not seen."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    tell = partial(job.mailbox.put.remote, key)
    where = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    _check_version(version("crossfer"), job.version, where)
    tell("started", node)
    copy = None if (job.root / job.mark).exists() else _copy_of(job.root)
    try:
        if copy:
            _fetch(copy, sent)
        work = _opened(job.mark, job.open_ if copy is None else partial(job.open_copy, copy))
    except Exception as error:
        raised = error if isinstance(error, OSError) else CrossferError(one_line(error))
        return "raised", raised, {}
    what, value = "succeeded", None
    try:
        work(key, tell)
    except OSError as error:
        return "raised", error, {}
    except Exception as error:
        what, value = "failed", one_line(error)
    ray.get(job.mailbox.put.remote(key, "started", node))  # all that was told has arrived
    made = copy / makes if copy else None
    if made is None or not made.is_dir():
        return what, value, {}
    return what, value, {f.name: f.read_bytes() for f in made.iterdir() if f.is_file()}


COPIES = "crossfer-ray"
"""The folder, among this machine's temporary ones, of what was sent to it."""


def _copy_of(root: Path) -> Path:
    """Return where a node that does not see a folder has its copy: the same for each process."""
    name = f"{getuser()}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"
    return Path(tempfile.gettempdir()) / COPIES / name


def _fetch(copy: Path, sent: Sent) -> None:
    """Bring what is not there yet; content is kept under its SHA-256, and linked where it belongs."""
    import ray

    for place, (sha, content) in sent.items():
        kept, file = copy / "content" / sha, copy / place
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, ray.get(content))
        if not file.exists() or not file.samefile(kept):
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f"{file.name}.{os.getpid()}")
            os.link(kept, beside)
            beside.replace(file)


_OPENED: dict[str, Work] = {}


def _opened(mark: str, open_: Open) -> Work:
    """Make this process ready, once for each graph."""
    if mark not in _OPENED:
        _OPENED.clear()
        _OPENED[mark] = open_()
    return _OPENED[mark]

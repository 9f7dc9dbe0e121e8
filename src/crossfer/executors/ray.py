"""Run a graph of tasks on a Ray cluster: an existing one, or one of this machine's cores.

Ray decides where a task runs.  A `Travel` defines which files are sent to a node that does not see ours, and
which come back.  Nothing is sent unless there is such a node.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfer.errors import CrossferError, one_line
from crossfer.executors.graph import Events, Failure, Frontier, Task
from crossfer.executors.processes import THREADS, uninterrupted
from crossfer.executors.travel import CannotBegin, Carry, Travel, Unseen

if TYPE_CHECKING:
    from ray import ObjectRef

ATTEMPTS = 3
"""Attempts for a task whose process or node is lost; on the same node it resumes from its checkpoint."""

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_ANSWER = 10.0
PATIENCE = 120.0
"""Seconds within which each node must report its versions."""
LOST = "the Ray cluster is lost{}; what is finished is kept; run the same command again to resume"
LOG = "ray.log"
"""Ray's log, in the folder of the work."""
AHEAD = 1.25
"""Tasks submitted per task that the cores can run at a time, so that the next ones are already there."""
UNSEEN, LOST_THERE = "unseen", "lost"
"""Further results of a task: it needs files that were not sent, or what was sent is lost."""
STARTED, SAID = "started", "said"
"""Further events of a task: it starts, with its node; and all of its events have been sent."""


@dataclass(frozen=True)
class Ray:
    """The cluster, and the resources of each task.

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
        Free bytes that a task needs on a node; 0: not checked.
    at_a_time
        Maximum number of tasks that run at the same time.
    """

    address: str | None = None
    threads: int = 1
    gpu: bool = False
    memory: int = 0
    at_a_time: int | None = None

    def check(self) -> None:
        """Check that Ray is installed and that the address answers.

        Raises
        ------
        CrossferError
            If not.
        """
        try:
            import ray  # noqa: F401
        except ModuleNotFoundError:
            raise CrossferError("this needs Ray: pip install 'crossfer[ray]'") from None
        if self.address and ":" in self.address:
            host, _, port = self.address.removeprefix("ray://").rpartition(":")
            try:
                where = host.strip("[]"), int(port)
                socket.create_connection(where, timeout=SECONDS_TO_ANSWER).close()
            except (OSError, OverflowError, ValueError) as error:
                raise CrossferError(
                    f"{self.asked}: no Ray cluster answers there ({error})"
                ) from None

    @property
    def asked(self) -> str:
        """How the user named it."""
        if self.address and self.address == os.environ.get("RAY_ADDRESS"):
            return f"RAY_ADDRESS={self.address}"
        return f"--on {self.address or 'this machine'}"


def run_on_ray(
    tasks: Sequence[Task], events: Events, cluster: Ray, travel: Travel
) -> dict[str, Failure]:
    """Run a graph of tasks on a Ray cluster.

    Ray ends the connected process when the cluster is lost, so a separate process is connected.

    Parameters
    ----------
    tasks, events
        As for `crossfer.executors.processes.run_in_processes`.
    cluster
        The cluster, and the resources of each task.
    travel
        What is sent with each task; picklable.

    Returns
    -------
    dict
        Why tasks failed, by key.

    Raises
    ------
    CrossferError
        If the cluster does not answer, is lost, has no node with the resources, or has a node with another
        version of crossfer; or if a worker cannot start.
    OSError
        If a task fails with an error of the system, such as a full disk.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_drive, args=(tasks, cluster, travel, theirs), daemon=True)
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
        raise CrossferError(LOST.format(f" ({travel.root / LOG})")) from None
    finally:
        process.terminate()
        process.join()


class _Told(Events):
    """Sends events to the process that waits for them."""

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


def _drive(tasks: Sequence[Task], cluster: Ray, travel: Travel, connection: Connection) -> None:
    """Run the graph in the process that is connected to the cluster."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    with (travel.root / LOG).open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        failures = _walk(tasks, _Told(connection), cluster, travel)
    except (CrossferError, OSError) as error:
        connection.send(("raised", error))
    except Exception as error:
        traceback.print_exc()  # into the log
        connection.send(("raised", CrossferError(f"{one_line(error)} ({travel.root / LOG})")))
    else:
        connection.send(("finished", failures))


def _walk(
    tasks: Sequence[Task], events: Events, cluster: Ray, travel: Travel
) -> dict[str, Failure]:
    frontier = Frontier(tasks, events)
    with _connected(cluster):
        crew = _Crew(cluster, travel)
        crew.check_nodes()
        while not frontier.finished:
            waiting = (key for key in frontier.ready() if key not in crew.given)
            for key in [*islice(waiting, max(0, crew.room - len(crew.running)))]:
                crew.give(key)
            for key, what, value in crew.listen():
                if frontier.waits(key):
                    frontier.start(key)
                elif what == STARTED:
                    events.started(key)  # once more
                if what == "succeeded":
                    frontier.succeed(key)
                elif what == "failed":
                    frontier.fail(key, str(value))
                elif what not in (STARTED, SAID):
                    events.told(key, what, value)
    return frontier.failures


@contextmanager
def _connected(cluster: Ray) -> Iterator[None]:
    """Connect to the cluster; its loss becomes a one-line error."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if (Path.home() / ".ray" / "auth_token").is_file():  # then `ray start` asks for it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    from ray.exceptions import RayError

    given: dict[str, Any] = {"address": cluster.address}
    if cluster.address is None:
        given = {"address": "local", "include_dashboard": False}
        given |= {"num_gpus": None if cluster.gpu else 0}
    try:
        ray.init(**given, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # of a dozen kinds
        raise CrossferError(
            f"{cluster.asked}: no Ray cluster answers there ({one_line(error)})"
        ) from None
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise CrossferError(LOST.format(f" ({one_line(error)})")) from None
    finally:
        with suppress(Exception):
            ray.shutdown()


class _Mailbox:
    """An actor that holds the events of running tasks.  If it is lost, an empty one replaces it."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, str, object]] = []

    def put(self, key: str, what: str, value: object) -> None:
        self.letters.append((key, what, value))

    def take(self) -> list[tuple[str, str, object]]:
        letters, self.letters = self.letters, []
        return letters


@dataclass(frozen=True)
class _Job:
    """What every task needs, sent once."""

    name: str
    open_there: Callable[[], Carry]
    versions: Mapping[str, str | None]
    mailbox: Any


@dataclass
class _Crew:
    """The submitted tasks."""

    cluster: Ray
    travel: Travel
    given: dict[str, int] = field(default_factory=dict)
    running: dict[ObjectRef[Any], str] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    whole: bool = False

    def __post_init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox)
        self.mailbox: Any = actor.options(scheduling_strategy=here).remote()
        self.versions = _versions_there(self.travel.packages)
        self.job = ray.put(
            _Job(uuid.uuid4().hex, self.travel.open_there, self.versions, self.mailbox)
        )

    def check_nodes(self) -> None:
        """Refuse a cluster that cannot run the tasks, before anything runs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = _nodes(alive=True)
        if not any(self._enough(node["Resources"]) for node in nodes):
            raise CrossferError(
                f"no node of the Ray cluster has {self.cluster.threads} cores"
                + (", a GPU" if self.cluster.gpu else "")
                + (f" and {self.cluster.memory / 2**30:.1f} GiB" if self.cluster.memory else "")
                + " for a task: ask for less"
            )
        ask = ray.remote(num_cpus=0)(_versions_there)
        answers = {
            node["NodeManagerAddress"]: ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(self.travel.packages)
            for node in nodes
        }
        for address, answer in answers.items():
            theirs: dict[str, str | None] = ray.get(answer, timeout=PATIENCE)
            _check_versions(theirs, self.versions, address)

    def _enough(self, resources: Mapping[str, float]) -> bool:
        needs = {
            "CPU": self.cluster.threads,
            "GPU": self.cluster.gpu,
            "memory": self.cluster.memory,
        }
        return all(resources.get(name, 0) >= amount for name, amount in needs.items())

    @property
    def room(self) -> int:
        """Maximum number of submitted tasks: what the cores can run, and a few more."""
        if self.cluster.at_a_time is not None:
            return self.cluster.at_a_time
        cores = sum(node["Resources"].get("CPU", 0) for node in _nodes(alive=True))
        return int(AHEAD * cores / self.cluster.threads) + 1

    def give(self, key: str) -> None:
        """Submit a task; a task that was submitted before goes to the same node, if it is alive."""
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
        packed = self.travel.pack(key, self.whole, self.given[key] > 1)
        self.running[task.remote(self.job, key, packed)] = key

    def listen(self) -> Iterator[tuple[str, str, object]]:
        """Wait a little; yield the events of tasks, and their ends."""
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
            if what == STARTED:
                self.nodes[key] = str(value)
            yield key, what, value
        dead = {node["NodeID"] for node in _nodes(alive=False)}
        lost = [one for one, key in self.running.items() if self.nodes.get(key) in dead]
        # Ray itself would wait for these for minutes.
        for reference in (one for one in lost if one not in ended):
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
            if what == UNSEEN:
                self.whole = True
                self.given[key] -= 1
                self.give(key)
            elif what == LOST_THERE:
                yield from self._again(key, str(value))
            else:
                if made is not None:
                    self.travel.unpack(key, made)
                yield key, what, value

    def _again(self, key: str, why: str) -> Iterator[tuple[str, str, object]]:
        """Submit a lost task again, unless it has used its attempts."""
        if self.nodes.get(key) in {node["NodeID"] for node in _nodes(alive=False)}:
            del self.nodes[key]
        if self.given[key] < ATTEMPTS:
            self.give(key)
        else:
            yield key, "failed", f"its process was lost {ATTEMPTS} times ({why})"


def _nodes(alive: bool) -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"] == alive]


def _versions_there(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the versions on a node.  Sent by value: crossfer need not be installed there."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _check_versions(
    theirs: Mapping[str, str | None], ours: Mapping[str, str | None], where: str
) -> None:
    for name, version in ours.items():
        if theirs[name] != version:
            has = f"{name} {theirs[name]}" if theirs[name] else f"no {name}"
            raise CrossferError(
                f"node {where} of the Ray cluster has {has}, and this machine {version}: install the same one"
            )


def _carry_out(job: _Job, key: str, packed: Any) -> tuple[str, object, Any]:
    """Carry out one task on a node; return how it ended, a value, and its output."""
    import ray
    from ray.exceptions import RayError

    node = ray.get_runtime_context().get_node_id()
    tell = partial(job.mailbox.put.remote, key)
    where = ray.util.get_node_ip_address()
    _check_versions(_versions_there(tuple(job.versions)), job.versions, where)
    tell(STARTED, node)
    try:
        carry = _opened(job)
    except Exception as error:
        return "raised", error if isinstance(error, OSError) else CannotBegin(one_line(error)), None
    made = None
    try:
        why, made = carry(key, packed, tell)
    except Unseen:
        return UNSEEN, None, None
    except RayError as error:
        return LOST_THERE, one_line(error), None
    except (OSError, CannotBegin) as error:
        return "raised", error, None
    except Exception as error:
        why = one_line(error)
    ray.get(job.mailbox.put.remote(key, SAID, None))  # all that was told has arrived
    return "succeeded" if why is None else "failed", why, made


_OPENED: dict[str, Carry] = {}


def _opened(job: _Job) -> Carry:
    """Prepare this process, once for each graph."""
    if job.name not in _OPENED:
        _OPENED.clear()
        _OPENED[job.name] = job.open_there()
    return _OPENED[job.name]

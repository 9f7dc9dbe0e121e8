"""What a Ray cluster of three nodes makes has the bits of one process, though one node is cut off.

    pip install 'crossfer[ray]'
    python -m tests.cluster.ray        # as root, some ten minutes

The nodes are network namespaces of this machine on one bridge.  The work's folder is hidden from two of
them, and their temporary folders are their own, so that they share no files with the first.

A dataset is prepared while a node is cut off; another while the head is killed, and the same command goes on
without a cluster.  Then an experiment: the head is killed under the command, which goes on with another
cluster; there a process that trains is killed, and then the network of its node is cut.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crossfer import standins
from tests.cluster.common import (
    ONE_THREAD,
    command,
    compare,
    crossfer,
    states,
    wait_for,
    write_experiment,
)

NODES = (1, 2, 3)
PHOTOGRAPHS, BLOCK = 213, 12
PREPARE = f"""
from crossfer.cli import main
from crossfer.datasets import extract
extract.BLOCK = {BLOCK}
main()
"""
"""Crossfer with smaller blocks, so that a minute's work has many."""
PORT = 6379
HEAD = f"10.77.0.1:{PORT}"
RAY = str(Path(sys.executable).with_name("ray"))


def sh(text: str) -> None:
    """Carry out a line of shell."""
    subprocess.run(text, shell=True, check=True)


@contextmanager
def network() -> Iterator[None]:
    """Three namespaces on one bridge."""
    sh("ip link add cfbr type bridge && ip link set cfbr up")
    try:
        for n in NODES:
            sh(f"ip netns add cf{n} && ip link add cfv{n} type veth peer name eth0 netns cf{n}")
            sh(f"ip link set cfv{n} master cfbr up && ip -n cf{n} addr add 10.77.0.{n}/24 dev eth0")
            sh(f"ip -n cf{n} link set eth0 up && ip -n cf{n} link set lo up")
        yield
    finally:
        for n in NODES:
            subprocess.run(["ip", "link", "del", f"cfv{n}"], stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "netns", "del", f"cf{n}"], stderr=subprocess.DEVNULL)
        sh("ip link del cfbr")


def inside(number: int, folder: Path, arguments: list[str]) -> list[str]:
    """Return the command line of a program in a node: all but the first see another, empty work folder.

    Its temporary folder is its own, and what is there when a process starts is there for the next.
    """
    own = folder.parent / f"{folder.name}-node{number}"
    (own / "tmp").mkdir(parents=True, exist_ok=True)
    (own / "hidden").mkdir(exist_ok=True)
    hide = "" if number == 1 else f"mount --bind {own}/hidden {folder} && "
    setup = f"{hide}export TMPDIR={own}/tmp && exec "
    line = shlex.join(arguments)
    return ["ip", "netns", "exec", f"cf{number}", "sh", "-c", setup + line]


def start(number: int, folder: Path, cores: int = 1) -> None:
    """Start Ray in a node."""
    arguments = [
        RAY,
        "start",
        "--block",
        f"--node-ip-address=10.77.0.{number}",
        f"--num-cpus={cores}",
    ]
    arguments += ["--object-store-memory=200000000", "--disable-usage-stats"]
    arguments += [f"--temp-dir={folder}-node{number}/ray"]
    if number == 1:
        arguments += ["--head", f"--port={PORT}", "--include-dashboard=false"]
    else:
        arguments += [f"--address={HEAD}"]
    subprocess.Popen(
        inside(number, folder, arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def cluster(folder: Path, head_cores: int) -> None:
    """Start Ray in all nodes, the head first."""

    def answers() -> bool:
        knock = f"exec 3<>/dev/tcp/10.77.0.1/{PORT}"
        asked = ["ip", "netns", "exec", "cf1", "bash", "-c", knock]
        return not subprocess.run(asked, stderr=subprocess.DEVNULL).returncode

    start(1, folder, head_cores)
    wait_for("the head answers", answers)
    time.sleep(10)
    for number in NODES[1:]:
        start(number, folder)
    time.sleep(20)


def processes_in(number: int) -> list[int]:
    """Return the processes of a node."""
    listed = subprocess.run(["ip", "netns", "pids", f"cf{number}"], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def kill(number: int) -> None:
    """End all processes of a node."""
    for pid in processes_in(number):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def training(folder: Path) -> list[tuple[int, Path]]:
    """Return the nodes other than the head that hold a checkpoint, and where."""
    return [
        (number, file)
        for number in NODES[1:]
        for file in (folder.parent / f"{folder.name}-node{number}").glob(
            "tmp/crossfer-ray-*/*/runs/long-*/checkpoint.safetensors"
        )
    ]


def working(number: int) -> list[str]:
    """Return what the worker processes of a node carry out."""
    titles = []
    for pid in processes_in(number):
        with suppress(OSError):
            titles.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
    return [title for title in titles if title.startswith("ray::faces-")]


def kill_trainer(number: int) -> None:
    """Kill the worker process of a node."""
    for pid in processes_in(number):
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        if title.startswith("ray::"):
            name = title.strip("\0")
            if "Agent" not in name and "IDLE" not in name:
                os.kill(pid, signal.SIGKILL)
                print(f"killed {name} on node {number}", flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=400, help="so that “long” takes a minute")
    parser.add_argument("--only", choices=("prepare", "run"), help="half of it")
    parser.add_argument(
        "--folder", type=Path, help="with an earlier call's reference to compare with"
    )
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="cf-", dir="/tmp"))
    folder.mkdir(exist_ok=True)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # whatever token lies in this home
    for place in folder.parent.glob(f"{folder.name}-node*"):
        shutil.rmtree(place, ignore_errors=True)
    for name, part in (("prepare", a_dataset), ("run", an_experiment)):
        if arguments.only in (None, name):
            part(folder, arguments.epochs)
    for place in folder.parent.glob(f"{folder.name}-node*"):
        shutil.rmtree(place, ignore_errors=True)
    if arguments.folder is None:
        shutil.rmtree(folder)


def a_dataset(folder: Path, epochs: int) -> None:
    """Prepare a dataset on the cluster, with what happens to it, and compare with one prepared here."""
    raw, here = folder / "photographs", folder / "here"
    if not raw.exists():
        standins.write("jaffe", raw, images=PHOTOGRAPHS)

    def prepare(out: Path, *more: str) -> list[str]:
        return [sys.executable, "-c", PREPARE, "prepare", str(raw), "--out", str(out), *more]

    def blocks(out: Path) -> int:
        return len(list((folder / f".{out.name}.partial" / "blocks").glob("*.npz")))

    for out in (here, folder / "cut", folder / "lost"):
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(folder / f".{out.name}.partial", ignore_errors=True)
    subprocess.run(prepare(here), check=True)
    with network():
        try:
            cluster(folder, head_cores=0)
            out = folder / "cut"
            with subprocess.Popen(inside(1, folder, prepare(out, "--on", HEAD))) as going:
                wait_for(
                    "node 2 looks for faces", lambda: blocks(out) > 1 and bool(working(2)), by=going
                )
                print("node 2 is cut off", flush=True)
                sh("ip link set cfv2 down")
                going.wait()
            assert going.returncode == 0
            same_dataset(here, out)
            out = folder / "lost"
            asked = inside(1, folder, prepare(out, "--on", HEAD))
            with subprocess.Popen(asked, stderr=subprocess.PIPE, text=True) as lost:
                wait_for("a node has found faces", lambda: blocks(out) > 1, by=lost)
                kill_head_daemons()
                said = lost.communicate()[1]
            print(said.strip())
            assert lost.returncode == 2 and "the Ray cluster is lost" in said
            kept = blocks(out)
            assert 1 < kept < PHOTOGRAPHS // BLOCK
        finally:
            for number in NODES:
                kill(number)
    subprocess.run(prepare(out), check=True)
    same_dataset(here, out)
    print(f"two datasets, the bytes of the one prepared here; {kept} blocks were there already")


def same_dataset(one: Path, other: Path) -> None:
    """End with an error unless two prepared datasets hold the same bytes."""
    for name in ("images.npy", "samples.parquet", "skipped.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def an_experiment(folder: Path, epochs: int) -> None:
    """Run an experiment on the cluster, with what happens to it, and compare with one process."""
    out, reference = folder / "out", folder / "one"
    shutil.rmtree(out, ignore_errors=True)
    experiment = write_experiment(folder, epochs)
    print("one process", flush=True)
    crossfer("run", experiment, "--out", reference, "--workers", "1", **ONE_THREAD)
    nowhere = subprocess.run(
        command("run", experiment, "--out", out, "--on", "127.0.0.1:1"),
        text=True,
        capture_output=True,
    )
    print(nowhere.stderr.strip())
    assert nowhere.returncode == 2 and "no Ray cluster answers there" in nowhere.stderr
    assert not out.exists()
    with network():
        try:
            on_three_nodes(folder, experiment, out)
        finally:
            for number in NODES:
                kill(number)
    count = compare(out, reference)
    print(f"{count} runs, every weight and every result the same as from one process")


def on_three_nodes(folder: Path, experiment: Path, out: Path) -> None:
    """Run the experiment, with what happens to it."""
    cluster(folder, head_cores=1)
    asked = inside(1, folder, command("run", experiment, "--out", out, "--on", HEAD))
    print("the head is lost", flush=True)
    with subprocess.Popen(asked, stderr=subprocess.PIPE, text=True) as lost:
        wait_for("something trains", lambda: any((out / "runs").glob("BL-*/run.json")), by=lost)
        kill_head_daemons()
        said = lost.communicate()[1]
    print(said.strip())
    assert lost.returncode == 2 and "the Ray cluster is lost" in said
    for number in NODES:
        kill(number)
    time.sleep(2)
    cluster(folder, head_cores=0)  # so that “long” trains on a node that can be cut off
    print("the same command, on a new cluster", flush=True)
    with subprocess.Popen(asked, text=True) as going:
        wait_for(
            "a node other than the head has a checkpoint", lambda: bool(training(folder)), by=going
        )
        (number, _), *_ = training(folder)
        kill_trainer(number)
        time.sleep(10)
        print(f"node {number} is cut off", flush=True)
        sh(f"ip link set cfv{number} down")
        going.wait()
    assert going.returncode == 0
    assert {state for state, _ in states(out).values()} == {"finished"}


def kill_head_daemons() -> None:
    """Kill the daemons of the head, and leave the command that is connected to it."""
    for pid in processes_in(1):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name in ("gcs_server", "raylet"):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if os.getuid() or not Path(RAY).exists():
        sys.exit("this needs root, and: pip install 'crossfer[ray]'")
    main()

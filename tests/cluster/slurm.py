"""An experiment on a real slurmctld and slurmd of this machine gives the bits of one process.

    apt-get install slurm-wlm munge
    python -m tests.cluster.slurm        # as root, some six minutes

It starts munged, slurmctld and one slurmd, on the loopback address and in a folder of their own, and
stops them at the end.  One job is queued again in the middle, as preemption does, one is ended by its time
limit, and the command that watches is killed and started again.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.common import (
    ONE_THREAD,
    command,
    compare,
    crossfer,
    states,
    wait_for,
    write_experiment,
)

CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
SchedulerParameters=sched_interval=5,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Run SLURM's daemons on this machine."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=platform.node(), folder=folder, cores=os.cpu_count()))
    os.environ["SLURM_CONF"] = str(conf)
    place = folder / "munge"
    daemons = [
        subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for arguments in (
            ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={place}/socket"]
            + [f"--{what}-file={place}/{what}" for what in ("pid", "log", "seed")],
            ["slurmctld", "-D", "-c", "-f", str(conf)],
            ["slurmd", "-D", "-f", str(conf)],
        )
    ]
    try:
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def idle() -> bool:
    """Tell whether the node takes jobs."""
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    return asked.stdout.strip() == "idle"


def job_of(out: Path, label: str) -> str:
    """Return the job that a run is in, from what `crossfer status` says of it; empty if in none that runs."""
    state, detail = next(value for key, value in states(out).items() if key.startswith(label))
    return detail.partition("SLURM job ")[2].partition(",")[0] if state == "running" else ""


def requeued(job: str) -> bool:
    """Queue a running job again; false if there is none, as between two attempts."""
    asked = ["scontrol", "requeue", job]
    return bool(job) and not subprocess.run(asked, stderr=subprocess.DEVNULL).returncode


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=600, help="so that “long” takes minutes")
    parser.add_argument("--minutes", type=int, default=3, help="time limit of each job")
    parser.add_argument(
        "--folder", type=Path, help="with an earlier call's reference to compare with"
    )
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="crossfer-slurm-"))
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "slurm", ignore_errors=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "slurm").mkdir()
    experiment, out, reference = (
        write_experiment(folder, arguments.epochs),
        folder / "out",
        folder / "one",
    )
    print("one process", flush=True)
    crossfer("run", experiment, "--out", reference, "--workers", "1", **ONE_THREAD)
    # SLURM may warn a minute earlier than asked: here within a minute before half the time is over.
    asked = ["run", experiment, "--out", out, "--on", "slurm", "--partition", "main"]
    minutes = arguments.minutes
    asked += ["--time", str(minutes), "--sbatch", f"--signal=B:USR1@{30 * minutes}"]
    with slurm(folder / "slurm"):
        wait_for("the node is idle", idle, 60)
        nowhere = subprocess.run(
            command(*asked, "--partition", "none"), text=True, capture_output=True
        )
        print(nowhere.stderr.strip())
        assert nowhere.returncode == 2 and "invalid partition" in nowhere.stderr.lower()
        assert not out.exists()
        watching = subprocess.Popen(command(*asked))
        wait_for(
            "a long run trains", lambda: (out / "plan.json").exists() and bool(job_of(out, "long"))
        )
        watching.send_signal(signal.SIGKILL)
        watching.wait()
        wait_for(
            "it has a checkpoint",
            lambda: any(out.glob("runs/long-*/checkpoint.safetensors")),
        )
        wait_for("it is queued again, as if preempted", lambda: requeued(job_of(out, "long")))
        print("\n".join(crossfer("status", out)))
        print("\n".join(crossfer(*asked)))
        logs = {file.name: file.read_text() for file in (out / "slurm").glob("*.log")}
        ended = [name for name, text in logs.items() if "the time limit is near" in text]
        print(f"queued again before their time limit: {', '.join(ended)}")
        assert ended, "no job met its time limit: ask for more --epochs"
        assert {state for state, _ in states(out).values()} == {"finished"}
        cancelled(asked, folder)
    count = compare(out, reference)
    print(f"{count} runs, every weight and every result the same as from one process")
    if arguments.folder is None:
        shutil.rmtree(folder)


def cancelled(asked: list[str | Path], folder: Path) -> None:
    """Begin another experiment, and take it back."""
    out = folder / "cancelled"
    shutil.rmtree(out, ignore_errors=True)
    again = [out if one == folder / "out" else one for one in asked]
    watching = subprocess.Popen(command(*again), stdout=subprocess.DEVNULL)
    wait_for(
        "another experiment is queued",
        lambda: (out / "slurm" / "jobs.json").exists() and "queued" in str(states(out)),
    )
    watching.kill()
    watching.wait()
    print("\n".join(crossfer("cancel", out)))
    wait_for("its jobs are gone", lambda: "SLURM" not in str(states(out)), 90)


if __name__ == "__main__":
    if os.getuid() or not shutil.which("slurmctld"):
        sys.exit("this needs root, and: apt-get install slurm-wlm munge")
    main()

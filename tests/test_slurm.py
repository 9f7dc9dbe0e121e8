"""SLURM as an executor, on a cluster of shell scripts; `tests/cluster/slurm.py` asks a real one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crossfer.cli import app
from crossfer.datasets import Dataset
from crossfer.errors import CrossferError
from crossfer.executors import Failure, Slurm, Task, run_on_slurm
from crossfer.executors.slurm import JOBS, cancel, queued
from crossfer.experiment import check_experiment, run_experiment, verify
from tests.test_executors import DIAMOND, Log
from tests.test_survival import EXECUTE, configuration, otherwise, weights_of

# A cluster of one patient machine: sbatch carries out the whole array at once and answers like the real one.
SBATCH = r"""
echo "sbatch $*" >> $CLUSTER/asked
case "$*" in
    *--partition=nowhere*)
        echo "sbatch: error: invalid partition specified: nowhere" >&2
        echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
        exit 1;;
    *--test-only*) exit 0;;
esac
number=$(($(cat $CLUSTER/number) + 1))
echo $number > $CLUSTER/number
cat > $CLUSTER/script
for option in "$@"; do
    case "$option" in
        --array=*) last=${option##*-}; last=${last%\%*};;
        --output=*) log=${option#--output=};;
        --job-name=*) name=${option#--job-name=};;
    esac
done
for index in $(seq 0 $last); do
    if [ -e $CLUSTER/busy ]; then
        echo "$number|$index|PENDING|(Resources)" >> $CLUSTER/queue
    else
        file=${log/\%A/$number}
        SLURM_JOB_ID=$number SLURM_ARRAY_TASK_ID=$index bash $CLUSTER/script > ${file/\%a/$index} 2>&1
    fi
done
echo "$number;here"
"""
AT_ONCE = r"bash $CLUSTER/script > ${file/\%a/$index} 2>&1"
IN_BACKGROUND = r"""bash $CLUSTER/later $CLUSTER/script-$number ${file/\%a/$index} $* > /dev/null 2>&1 &
        cp $CLUSTER/script $CLUSTER/script-$number
        echo "$number|$index|PENDING|(Dependency)" >> $CLUSTER/queue"""
LATER = r"""
job="^$SLURM_JOB_ID|$SLURM_ARRAY_TASK_ID|"
until grep -q "$job" $CLUSTER/queue; do sleep 0.1; done
for number in $(echo "$*" | sed -n 's/.*afterany:\([0-9]*\).*/\1/p'); do
    while grep -q "^$number|" $CLUSTER/queue; do sleep 0.1; done
done
sed -i "/$job/s/PENDING/RUNNING/" $CLUSTER/queue
bash $1 > $2 2>&1
sed -i "/$job/d" $CLUSTER/queue
"""
SQUEUE = 'test ! -e $CLUSTER/down || { echo "Unable to contact slurm controller" >&2; exit 1; }\n'
SQUEUE += "cat $CLUSTER/queue\n"
SCANCEL = 'echo "scancel $*" >> $CLUSTER/asked; : > $CLUSTER/queue\n'
SCONTROL = 'echo "scontrol $*" >> $CLUSTER/asked; kill -KILL $PPID\n'

WORK = """
import pathlib, sys
folder, key = pathlib.Path(sys.argv[1]), sys.argv[2]
print("error: it was asked to" if "fails" in key else "done")
sys.exit(2) if "fails" in key else (folder / key).touch()
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a cluster whose programs stand on the path."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("squeue", SQUEUE),
        ("scancel", SCANCEL),
        ("scontrol", SCONTROL),
    ):
        program = folder / name
        program.write_text(f"#!/bin/bash\n{text}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "number").write_text("10\n")
    (folder / "queue").touch()
    (folder / "asked").touch()
    monkeypatch.setenv("CLUSTER", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield folder


def submit(
    tasks: list[Task], folder: Path, log: Log | None = None, **given: Any
) -> dict[str, Failure]:
    slurm = Slurm(**given)
    command = [sys.executable, "-c", WORK, str(folder)]
    return run_on_slurm(
        tasks,
        command,
        lambda key: (folder / key).exists(),
        log or Log(),
        slurm,
        folder / "slurm",
        look_every=0.01,
        until_seen=0.0,
    )


def asked(cluster: Path, program: str) -> list[str]:
    lines = (cluster / "asked").read_text().splitlines()
    return [line for line in lines if line.startswith(program)]


def test_an_array_for_each_level_that_waits_for_the_one_before(
    cluster: Path, tmp_path: Path
) -> None:
    log = Log()
    given = {"partition": "gpu", "time": "1:00:00", "gres": "gpu:1", "at_a_time": 4}
    assert submit(DIAMOND, tmp_path, log, **given, options=("--qos=long",)) == {}
    first, second, third = asked(cluster, "sbatch")
    assert "--array=0-0%4" in first and "--dependency" not in first
    assert "--array=0-1%4" in second and "--dependency=afterany:11 " in second
    assert "--dependency=afterany:12 " in third
    for line in (first, second, third):
        assert "--partition=gpu --time=1:00:00 --gres=gpu:1 --cpus-per-task=1 --qos=long" in line
        assert "--requeue" in line and "--signal=B:USR1@60" in line
    jobs = {"11": ["a"], "12": ["b", "c"], "13": ["d"]}
    assert json.loads((tmp_path / "slurm" / JOBS).read_text()) == jobs
    for task in DIAMOND:
        assert ("succeeded", task.key) in log.lines
        for before in task.after:
            ended = log.lines.index(("succeeded", before))
            assert ended < log.lines.index(("succeeded", task.key))


def test_a_failure_fails_what_waits_for_it_and_says_why(cluster: Path, tmp_path: Path) -> None:
    tasks = [Task("fails"), Task("fails-too", ("fails",)), Task("z")]
    failures = submit(tasks, tmp_path)
    assert failures.keys() == {"fails", "fails-too"} and failures["fails-too"].because_of == "fails"
    log = tmp_path / "slurm" / "11_0.log"
    assert failures["fails"].why == f"SLURM job 11_0: it was asked to ({log})"


def test_nodes_that_do_not_see_the_folder(cluster: Path, tmp_path: Path) -> None:
    (cluster / "sbatch").write_text(
        "#!/bin/bash\ncat > /dev/null\necho 7\n"
    )  # its job writes nothing
    failures = submit([Task("a")], tmp_path)
    assert "left no log: do the cluster's nodes see" in failures["a"].why


def test_what_is_queued_is_not_submitted_again_and_can_be_taken_back(
    cluster: Path, tmp_path: Path
) -> None:
    (cluster / "busy").touch()
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(
            target=watch, args=(tmp_path, dict(os.environ))
        )
        process.start()
        try:
            while len(queued(tmp_path / "slurm")) < 4:
                assert process.is_alive()
                time.sleep(0.05)
        finally:
            process.kill()
            process.join()
    submitted = asked(cluster, "sbatch")
    assert len(submitted) == 3
    assert "--dependency=afterany:11" in submitted[1] and "afterany:12" in submitted[2]
    jobs = queued(tmp_path / "slurm")
    assert str(jobs["c"]) == "SLURM job 12_1, pending: Resources"
    assert cancel(tmp_path / "slurm") == 4
    assert asked(cluster, "scancel") == ["scancel 11 12 13"]
    assert cancel(tmp_path / "slurm") == 0
    (cluster / "down").touch()
    assert queued(tmp_path / "slurm") == {}
    with pytest.raises(CrossferError, match="refused: Unable to contact slurm controller"):
        cancel(tmp_path / "slurm")


def test_what_starts_from_a_lost_run_is_submitted_too_and_trained_again(
    cluster: Path, prepared: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not where that run is only measured again."""
    assert AT_ONCE in SBATCH
    (cluster / "sbatch").write_text("#!/bin/bash\n" + SBATCH.replace(AT_ONCE, IN_BACKGROUND))
    (cluster / "later").write_text(LATER)
    often = partial(run_on_slurm, look_every=0.2, until_seen=5.0)
    monkeypatch.setattr("crossfer.experiment.clusters.run_on_slurm", often)
    root = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{root / 'src'}{os.pathsep}{root}")
    experiment, out = check_experiment(configuration(prepared, strategies=["FC"])), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(f"{EXECUTE}.adapt", otherwise)
        run_experiment(experiment, out)
    before = weights_of(out)
    (baseline,) = out.glob("runs/BL-*")
    (baseline / "run.json").unlink()
    assert not run_experiment(experiment, out, on=Slurm()).failed
    now = weights_of(out)
    assert all(now[name] != before[name] for name in before)
    assert not any(verdict.problems for verdict in verify(out))
    submitted = [line for line in asked(cluster, "sbatch") if "--array" in line]
    assert len(submitted) == 2 and "--dependency=afterany:11" in submitted[1]
    (baseline / "predictions.parquet").unlink()
    assert not run_experiment(experiment, out, on=Slurm()).failed
    assert weights_of(out) == now
    assert len([line for line in asked(cluster, "sbatch") if "--array" in line]) == 3


def test_what_is_done_counts_after_what_it_depends_on(cluster: Path, tmp_path: Path) -> None:
    for key in "bd":
        (tmp_path / key).touch()
    log = Log()
    assert submit(DIAMOND, tmp_path, log) == {}
    assert list(json.loads((tmp_path / "slurm" / JOBS).read_text()).values()) == [
        ["a"],
        ["b", "c"],
        ["d"],
    ]
    assert [line[1] for line in log.lines if line[0] == "succeeded"] == list("abcd")


def watch(folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    submit(DIAMOND, folder)


def test_before_its_time_limit_a_task_is_stopped_and_queued_again(
    cluster: Path, tmp_path: Path
) -> None:
    sleeps = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(130))\n"
    sleeps += "print('ready', flush=True)\ntime.sleep(60)"
    from crossfer.executors.slurm import _script

    script = _script(["a"], [sys.executable, "-c", sleeps], threads=1)
    environment = os.environ | {"SLURM_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "0"}
    script = script.replace("$SECONDS -lt 30", "$SECONDS -lt 0")
    with subprocess.Popen(
        ["bash", "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout
        assert job.stdout.readline() == "ready\n"
        job.send_signal(signal.SIGUSR1)
        assert job.stdout.read() == "the time limit is near: queued again\n"
    assert asked(cluster, "scontrol") == ["scontrol requeue 11"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--on", "slurm", "--partition", "nowhere"], "invalid partition specified: nowhere"),
        (["--on", "moon"], "--on moon: write"),
        (["--partition", "gpu"], "--partition: only for SLURM; add --on slurm"),
        (["--sbatch", "--qos=long"], "--sbatch: only for SLURM"),
    ],
)
def test_what_the_cluster_refuses_is_one_line_before_anything_is_written(
    options: list[str], why: str, cluster: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "experiment.yaml", tmp_path / "out"
    file.write_text(f"source: {cluster}\ntargets: [{cluster}]\n")
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(out), *options])
    assert isinstance(done.exception, CrossferError) and why in str(done.exception)
    assert not out.exists()


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CrossferError, match="sbatch is not installed here.* login node"):
        Slurm().check()
    with pytest.raises(CrossferError, match="no run of it was submitted to SLURM"):
        cancel(tmp_path / "slurm")

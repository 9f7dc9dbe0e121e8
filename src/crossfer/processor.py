"""The processor: its name, and how many of its cores this process may use."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from pathlib import Path

BRIEFLY = {"GOMP_SPINCOUNT": "10000"}
"""What tells GNU's OpenMP to spin for some microseconds only: see `spin_briefly`."""


def available_cores(system: Path = Path("/")) -> int:
    """Return how many cores this process may use: by its affinity, and by its container's CPU quota.

    Parameters
    ----------
    system
        Where ``proc`` and ``sys`` are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, math.ceil(min(_quotas(system), default=cores))))


def spin_briefly() -> None:
    """Have PyTorch's threads sleep some microseconds after their work, instead of spinning for milliseconds.

    A spinning thread takes a core from the loops between two convolutions: with two threads, training is 7 to
    20 % faster without (docs/benchmarks.md).  GNU's OpenMP, which PyTorch uses on Linux, reads this when
    PyTorch is imported.  What the user has set is kept.
    """
    if not {*BRIEFLY, "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ.update(BRIEFLY)


def processor() -> str:
    """Return the name of this machine's processor."""
    names = cpuinfo("model name")
    return names[0] if names else platform.processor() or platform.machine()


def cpuinfo(key: str) -> list[str]:
    """Return what Linux says of every core; nothing elsewhere."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
    return []


def _quotas(system: Path) -> list[float]:
    """Return the quotas, in cores, of the control groups that this process is in (cgroup v2 and v1)."""
    groups: list[Path] = []
    found: list[float] = []
    with suppress(OSError, ValueError):
        for line in (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                root = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
                own = Path(path.strip("/"))  # in a container it is the root
                groups += [root / group for group in (own, *own.parents)]
    for group in groups:
        with suppress(OSError, ValueError):
            if (group / "cpu.max").exists():
                limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
            else:
                limit = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
                period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
            if float(limit) > 0:  # "max", or -1: none
                found.append(float(limit) / float(period))
    return found

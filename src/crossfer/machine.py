"""Where networks calculate and how precisely."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from crossfer.errors import CrossferError
from crossfer.processor import available_cores, cpuinfo, processor

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class Machine:
    """A device and its arithmetic.

    Parameters
    ----------
    device
        Where networks calculate.
    precision
        ``"32-true"``, or ``"bf16-mixed"``: products in bfloat16, sums and weights in 32 bits.
    deterministic
        Whether kernels add in a fixed order, as on a CPU always.
    number, count
        Where several devices train one network, a process each: which of how many this is, from 0.
    """

    device: torch.device
    precision: Precision
    deterministic: bool = True
    number: int = 0
    count: int = 1

    @classmethod
    def of(
        cls,
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        deterministic: bool = True,
    ) -> Machine:
        """Choose device and precision.

        Parameters
        ----------
        device
            ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision
            ``"bf16-mixed"``, ``"32-true"`` (a GPU may use TF32 for convolutions, PyTorch's default), or
            ``"auto"``: bfloat16 where it is supported and, on a CPU, was measured to be faster.
        deterministic
            On a GPU, use deterministic kernels, so that the same call gives the same bits; otherwise the
            fastest. A CPU is always deterministic. PyTorch warns about layers without a deterministic
            kernel. Applies to the whole process.

        Returns
        -------
        Machine
            Used by `crossfer.training.train` and `crossfer.training.predict`.

        Raises
        ------
        CrossferError
            If the device is not available.
        """
        found = _devices()
        if device != "auto" and device not in found:
            raise CrossferError(
                f"device {device}: not available on this machine, which has {' and '.join(found)}"
            )
        known = ("auto", *get_args(Precision))
        if precision not in known:
            raise CrossferError(f"precision {precision}: choose among {', '.join(known)}")
        kind = found[0] if device == "auto" else device
        where = torch.device(kind) if kind == "cpu" else torch.device(kind, 0)
        if precision == "auto":
            precision = "bf16-mixed" if _bfloat16_is_faster(where) else "32-true"
        fixed = kind == "cpu" or (kind == "cuda" and deterministic)
        return cls(where, precision, fixed).settled()

    def settled(self) -> Machine:
        """Set what holds for the whole process: threads, kernels, the allocator; return the machine."""
        if self.device.type == "cpu":
            keep_freed_memory()
            if "OMP_NUM_THREADS" not in os.environ:
                most = max(1, available_cores() // self.count)
                torch.set_num_threads(min(torch.get_num_threads(), most))
        if self.device.type == "cuda":
            if self.number:  # the first is the default
                torch.cuda.set_device(self.device)
            _order_of_sums(self.deterministic)
        return self

    def autocast(self) -> torch.autocast:
        """Return the context in which a network calculates in this precision."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)


def _devices() -> list[str]:
    """Return the kinds of device that this machine has, the fastest first."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(kind for kind, there in gpus.items() if there), "cpu"]


def describe(machine: Machine) -> dict[str, str | int]:
    """Say what a result was measured on: processor, device, threads, precision and versions."""
    device = machine.device
    return {
        "platform": platform.platform(),
        "processor": f"{processor()} ({os.cpu_count()} cores)",
        "instructions": os.environ.get("ONEDNN_MAX_CPU_ISA")
        or torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": machine.precision,
        "deterministic": machine.deterministic,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the highest memory use."""
    if device.type == "cuda":
        torch.cuda.init()  # where nothing has touched the GPU so far
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
            ctypes.CDLL(None).malloc_trim(0)  # what earlier runs freed is none of this one's memory
        with (
            contextlib.suppress(OSError),
            open("/proc/self/clear_refs", "w", encoding="ascii") as file,
        ):
            file.write("5")


def peak_memory(device: torch.device) -> int:
    """Return the highest memory use, in bytes, since `reset_peak_memory`.

    On a GPU the memory of PyTorch's tensors there; elsewhere the resident memory of the process (since
    its start where the system cannot reset the mark).  0 on Windows, which does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as file:
        marks = [line.split()[1] for line in file if line.startswith("VmHWM")]
        if marks:
            return int(marks[0]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _order_of_sums(fixed: bool) -> None:
    """Let a GPU's libraries choose kernels that add in a fixed order, or the fastest."""
    torch.backends.cudnn.benchmark = not fixed
    torch.use_deterministic_algorithms(fixed, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyrefly: ignore[missing-attribute]
    if fixed:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS asks for it


def _bfloat16_is_faster(device: torch.device) -> bool:
    """Tell whether a device multiplies faster in bfloat16; a processor that has it is measured."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        flags = " ".join(cpuinfo("flags")[:1]).split()
        return ("avx512_bf16" in flags or "amx_bf16" in flags) and measured_faster()
    return False


@functools.cache
def measured_faster() -> bool:
    """Tell whether this process multiplies matrices faster in bfloat16 than in single precision.

    Some processors with ``avx512_bf16`` do not. The ratios that were measured (0.6 to 6, docs/benchmarks.md)
    are far from 1, so the answer is the same in each process. It takes about a tenth of a second.

    Returns
    -------
    bool
        By the fastest of five products of two 768 × 768 matrices in each precision.
    """
    fastest = dict.fromkeys((torch.bfloat16, torch.float32), math.inf)
    pairs = {kind: torch.ones(2, 768, 768, dtype=kind) for kind in fastest}
    for _ in range(5):
        for kind, (a, b) in pairs.items():
            began = time.perf_counter()
            torch.mm(a, b)
            fastest[kind] = min(fastest[kind], time.perf_counter() - began)
    return fastest[torch.bfloat16] < fastest[torch.float32]


def keep_freed_memory() -> None:
    """Let glibc keep large blocks for the next step instead of handing them back.

    A step allocates hundreds of megabytes of activations; mapping and clearing them anew every time
    takes over a third of a step (``docs/benchmarks.md``).
    """
    mmap_max, trim_threshold, top_pad = -4, -1, -2
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 * 2**20)


@contextlib.contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Use this number of threads in PyTorch, which affects rounding; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Where a training runs and how precisely it calculates, through Lightning Fabric."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import sys
import warnings
from typing import Literal, cast

import torch
from lightning_fabric import Fabric

from crossfer.errors import CrossferError
from crossfer.processor import available_cores, cpuinfo, processor

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

Precision = Literal["auto", "32-true", "bf16-mixed"]


def machine(
    device: str = "auto", precision: Precision = "auto", deterministic: bool = True
) -> Fabric:
    """Choose device and precision.

    Parameters
    ----------
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"mps"``.
    precision
        ``"bf16-mixed"``, ``"32-true"`` (a GPU may use TF32 for convolutions, PyTorch's default), or
        ``"auto"``: bfloat16 if the hardware supports it.
    deterministic
        On a GPU, use deterministic kernels, so that the same call gives the same bits; otherwise the
        fastest. A CPU is always deterministic. PyTorch warns about layers without a deterministic kernel.
        Applies to the whole process.

    Returns
    -------
    Fabric
        Used by `crossfer.training.train` and `crossfer.training.predict`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fabric = Fabric(accelerator=device, devices=1, precision="32-true")
        except (RuntimeError, ValueError) as error:
            raise CrossferError(
                f"device {device}: not available on this machine ({error})"
            ) from None
        if precision == "auto":
            precision = "bf16-mixed" if _multiplies_bfloat16(fabric.device) else "32-true"
        if precision != "32-true":
            fabric = Fabric(accelerator=device, devices=1, precision=precision)
    if fabric.device.type == "cpu":
        keep_freed_memory()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if fabric.device.type == "cuda":
        _order_of_sums(deterministic)
    return fabric


def describe(fabric: Fabric) -> dict[str, str | int]:
    """Say what a result was measured on: processor, device, threads, precision and versions."""
    device = fabric.device
    return {
        "platform": platform.platform(),
        "processor": f"{processor()} ({os.cpu_count()} cores)",
        "instructions": os.environ.get("ONEDNN_MAX_CPU_ISA")
        or torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": precision_of(fabric),
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def precision_of(fabric: Fabric) -> Precision:
    """Return the arithmetic that was chosen: ``"bf16-mixed"`` or ``"32-true"``."""
    return cast(Precision, fabric._precision.precision)


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


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        flags = " ".join(cpuinfo("flags")[:1]).split()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


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

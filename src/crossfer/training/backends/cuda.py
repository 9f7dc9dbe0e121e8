"""A training step that a GPU replays by itself, of kernels that do several things at once.

A step of the study's network is some two hundred kernels of a few microseconds each: started one by one from
Python they take longer to start than to run.  Recorded once as a CUDA graph, they are started by one call.
A third of their time normalisations and ReLUs wait for memory; ``torch.compile`` fuses them.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfer.training.backends.plain import Plain, Step

WORTH_COMPILING = 2_000_000
"""Images: they save 14 s.  Compiling takes 25 s for the first training and 7 s for each later one."""

WARM_UP = 3
"""Steps before the recording: libraries choose their kernels, the optimiser makes its buffers."""


def is_recordable(network: nn.Module, penalty: object | None) -> bool:
    """Tell whether the steps of a network are always the same kernels.

    They are where nothing but PyTorch's own layers and our penalties is called.  What somebody's own
    ``forward``, hook or penalty does may depend on numbers, which a recording would not notice.
    """
    called: list[Any] = [] if penalty is None else [penalty]
    for module in network.modules():
        called += type(module), *module._forward_pre_hooks.values(), *module._forward_hooks.values()
        if getattr(module, "momentum", 0.0) is None:  # a plain mean counts its batches on the host
            return False
    return all(
        getattr(part, "__module__", "").startswith(("torch.nn.", "crossfer.")) for part in called
    )


@cache
def _stream() -> torch.cuda.Stream:
    """Return the stream that steps are recorded on: each new one would have a workspace of its own."""
    return torch.cuda.Stream()


class Recorded:
    """A step as a CUDA graph: the first few run as they are, the next is recorded and replayed from then on.

    Parameters
    ----------
    step
        Learns from rows, int64 (batch,), always as many.  It reads and writes the same tensors every time,
        draws from PyTorch's generator of the device and from `generator`, and brings no number to the host.
    generator
        On the GPU.
    """

    def __init__(self, step: Callable[[Tensor], None], generator: torch.Generator) -> None:
        self.step, self.generator, self.steps = step, generator, 0
        self.rows = torch.empty(0)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, rows: Tensor) -> None:
        """Take a step; returns before the GPU has done it."""
        self.steps += 1
        if self.steps <= WARM_UP:
            self._aside(rows)
            return
        if self.graph is None:
            self.rows = rows.clone()
            self.graph = self._recording()
        self.rows.copy_(rows)
        self.graph.replay()

    def _aside(self, rows: Tensor) -> None:
        """Take a step on the stream that is recorded later."""
        here, aside = torch.cuda.current_stream(), _stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self.step(rows)
        here.wait_stream(aside)

    def _recording(self) -> torch.cuda.CUDAGraph:
        """Record a step, without taking it."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=_stream()):
            self.step(self.rows)
        return graph


def _can_compile() -> bool:
    """Tell whether ``torch.compile`` can write kernels here, whose sums always have the same order."""
    from torch._inductor import list_options
    from torch.utils._triton import has_triton

    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_path("include"), "Python.h")
    there = bool(compiler) and header.is_file() and has_triton()
    return there and "deterministic" in list_options()


class Cuda(Plain):
    """What a GPU is fastest with."""

    def compiled(self, network: nn.Module, images: int) -> Callable[[Tensor], Tensor]:
        """Fuse what lies between convolutions, in a training long enough to win the time back."""
        if images < WORTH_COMPILING or not is_recordable(network, None) or not _can_compile():
            return network
        torch.compiler.reset()  # it holds few networks, and those of earlier trainings are recorded
        # Kernels chosen by measuring would differ from process to process.
        options: dict[str, Any] = {"deterministic": True}
        return torch.compile(network, dynamic=False, options=options)

    def wrap(
        self, step: Step, network: nn.Module, penalty: object | None, generator: torch.Generator
    ) -> Step:
        """Replay the step as a CUDA graph, if it always is the same."""
        return Recorded(step, generator) if is_recordable(network, penalty) else step

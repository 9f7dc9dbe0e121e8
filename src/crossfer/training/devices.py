"""One training on several devices: a process each, of which each learns from its share of every batch.

What is random is drawn for whole batches on every device, which then takes its share; moments of batch
normalisation, gradients and the loss are sums over all.  So a training comes out as on one device, but for
rounding (until that turns a ReLU or a maximum, as the number of threads may), and a checkpoint goes on with
another number of them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)
from torch.nn.modules.batchnorm import _BatchNorm

from crossfer.errors import CrossferError, one_line
from crossfer.machine import Machine
from crossfer.training.backends import backend_of

Given = TypeVar("Given")
OnStep = Callable[[int], None]
Stopping = Callable[[], bool]
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_END = 1.0
"""What the other processes get where one has failed, before they are killed."""

SCHEDULERS_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
]
RESULT, STOP = "result", "stop"
"""Files: of what the first device returns, and whose presence asks the devices to stop."""


class Devices:
    """The devices that train one network, as one of them sees them.

    Parameters
    ----------
    machine
        With as many processes as there are devices.
    """

    def __init__(self, machine: Machine) -> None:
        self.number, self.count, self.device = machine.number, machine.count, machine.device
        self.images = 0
        """Of the batch that is shown now, on all devices."""

    def __deepcopy__(self, memo: dict[int, object]) -> Devices:
        return self

    def share(self, batch: Tensor) -> Tensor:
        """Return what of a batch, (images, …), is this device's."""
        return batch[self.number :: self.count] if self.count > 1 else batch

    def sum(self, numbers: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all devices, the same bits on each.

        They travel as one vector, which is the same at every step: the order of the sums never changes.
        """
        if self.count == 1:
            return
        every = torch.cat([tensor.detach().reshape(-1).float() for tensor in numbers])
        torch.distributed.all_reduce(every)
        parts = torch.split(every, [tensor.numel() for tensor in numbers])
        for tensor, part in zip(numbers, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def part(self, images: int) -> float:
        """Return which part of all devices' images some of this device's are: 0–1."""
        every = torch.tensor([float(images)], device=self.device)
        self.sum([every])
        return images / max(every.item(), 1.0)

    def gather(self, own: Tensor, of: int) -> Tensor:
        """Put what each device found of its share, (images, …), in its place: (of, …), on each."""
        if self.count == 1:
            return own
        every = own.new_zeros(of, *own.shape[1:], device=self.device)
        self.share(every).copy_(own)
        torch.distributed.all_reduce(every)
        return every.to(own.device)

    def prepare(self, network: nn.Module) -> None:
        """Let layers that look beyond one image know of the other devices' images; in place.

        A dropout of the network's own making, within some ``forward``, draws the same chances on each.
        """
        if self.count == 1:
            return
        for module in list(network.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, _BatchNorm):
                    setattr(module, name, SharedNorm(layer))
                elif type(layer) is nn.Dropout:
                    setattr(module, name, SharedDropout(layer, self))


class SharedNorm(_BatchNorm):
    """A batch normalisation by the moments of all devices' images.

    Parameters
    ----------
    norm
        The normalisation that it stands for; parameters and buffers are shared.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.affine, self.track_running_stats = norm.affine, norm.track_running_stats
        self.training = norm.training

    def _check_input_dim(self, input: Tensor) -> None:
        """Take what the normalisation that it stands for takes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, …)."""
        if not self.training:
            return super().forward(x)
        numbers, across = x.float(), [0, *range(2, x.ndim)]
        count = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float32)
        mean = numbers.mean(across)
        squares = numbers.var(across, correction=0) * count  # around its own mean, on each device
        counts = _Sum.apply(count)
        of_all = _Sum.apply(mean * count) / counts
        between = (mean - of_all).square() * count
        variance = _Sum.apply(squares + between) / counts
        self._remember(of_all.detach(), variance.detach() * counts / (counts - 1))
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -of_all * scale if self.bias is None else self.bias - of_all * scale
        shape = (1, -1, *[1] * (x.ndim - 2))
        y: Tensor = numbers * scale.view(shape) + shift.view(shape)
        return y.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics on."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class SharedDropout(nn.Dropout):
    """A dropout of which each device takes its share of the chances that are drawn for the batch.

    Parameters
    ----------
    layer
        The dropout that it stands for.
    devices
        They know how many images the batch has.
    """

    def __init__(self, layer: nn.Dropout, devices: Devices) -> None:
        super().__init__(layer.p)
        self.devices, self.training = devices, layer.training
        alone = nn.Sequential(nn.Dropout(layer.p))
        backend_of(devices.device).prepare(alone)
        self.alone = alone[0]  # as one device would draw

    def forward(self, x: Tensor) -> Tensor:
        """Set numbers of (N, …) to zero, and scale the others, in training."""
        if not self.training or not self.p:
            return x
        whole = x.new_ones(self.devices.images, *x.shape[1:])
        return x * self.devices.share(self.alone(whole))


class _Sum(torch.autograd.Function):
    """The sum over all devices of a tensor; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]  # of one result
        total = slope.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def on_devices(
    count: int,
    machine: Machine,
    work: Callable[[Machine, OnStep, Stopping], Given],
    on_step: OnStep,
    stopping: Stopping = lambda: False,
) -> Given:
    """Let several devices of this machine do the same work, a process each; return what the first returns.

    Parameters
    ----------
    count
        How many; with one, it is done in this process.
    machine
        What kind of device, and which arithmetic.
    work
        Given the machine as one of the devices, a function to tell of steps, which is heard of the first
        alone, and one that tells whether to stop, which it does by raising `KeyboardInterrupt`. All devices
        get the same answers and must ask equally often. It must be picklable, and so must what it returns.
    on_step
        Told.
    stopping
        Whether to stop. A scheduler's signal that this process handles is for it alone: the devices' own
        processes ignore it.

    Raises
    ------
    CrossferError
        If the work fails on any device: the message of the first that failed.
    OSError
        If that was one.
    KeyboardInterrupt
        If the work was stopped.
    """
    if count == 1:
        return work(machine, on_step, stopping)
    kind = machine.device.type
    there = {"cuda": torch.cuda.device_count(), "cpu": count}.get(kind, 1)
    if count > there:
        raise CrossferError(f"devices: {count}: this machine has only {there} ({kind})")
    try:
        return _together(replace(machine, count=count), work, on_step, stopping)
    except ProcessExitedException as error:
        if stopping():  # its process had just started, and did not ignore the signal yet
            raise KeyboardInterrupt from None
        raise CrossferError(f"one of {count} devices: {error}") from None
    except CrossferError:  # a ValueError, too
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        raise CrossferError(f"devices: {count}: {error}") from None


def _together(
    machine: Machine,
    work: Callable[[Machine, OnStep, Stopping], Given],
    on_step: OnStep,
    stopping: Stopping,
) -> Given:
    """Do the work in as many processes as the machine has devices, and listen to them."""
    here, there = Pipe(duplex=False)
    heard = [number for number in SCHEDULERS_SIGNALS if callable(signal.getsignal(number))]
    with here, there, TemporaryDirectory(prefix="crossfer-devices-") as name:
        folder = Path(name)
        try:
            with _started(machine.count, (machine, work, there.send, folder, heard)) as processes:
                while not processes.join(SECONDS_BETWEEN_LOOKS, SECONDS_TO_END):
                    _pass_on(here, on_step)
                    if stopping():
                        (folder / STOP).touch()
        except ProcessRaisedException as error:
            raise torch.load(folder / f"error{error.error_index}", weights_only=False) from None
        _pass_on(here, on_step)
        if not (folder / RESULT).exists():  # as `torch.multiprocessing` ends what is interrupted
            raise KeyboardInterrupt
        return torch.load(folder / RESULT, weights_only=False)


@contextmanager
def _started(count: int, given: tuple[Any, ...]) -> Iterator[ProcessContext]:
    """Start processes, which end with the block, however that ends."""
    processes = start_processes(_work, given, count, join=False, start_method="spawn")
    assert processes
    try:
        yield processes
    finally:
        for process in processes.processes:
            process.kill()
            process.join()


def _pass_on(heard: Connection, on_step: OnStep) -> None:
    """Pass on here what the first device has told of its steps."""
    while heard.poll():
        on_step(heard.recv())


def _work(
    number: int,
    machine: Machine,
    work: Callable[[Machine, OnStep, Stopping], Any],
    tell: OnStep,
    folder: Path,
    heard: Sequence[int],
) -> None:
    """Do the work in one of the processes; the first leaves its result in a file, each its exception."""
    for one in heard:
        signal.signal(one, signal.SIG_IGN)
    try:
        given = _done(number, machine, work, tell, folder)
    except Exception as error:
        known = isinstance(error, (CrossferError, OSError))  # others may not be picklable
        told = error if known else CrossferError(f"devices: {machine.count}: {one_line(error)}")
        torch.save(told, folder / f"error{number}")
        raise
    if not number:
        torch.save(given, folder / RESULT)


def _done(
    number: int,
    machine: Machine,
    work: Callable[[Machine, OnStep, Stopping], Any],
    tell: OnStep,
    folder: Path,
) -> Any:
    """Do the work as one of a group of processes."""
    kind = machine.device.type
    device = torch.device(kind, number) if kind == "cuda" else machine.device
    mine = replace(machine, device=device, number=number).settled()
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
        store=torch.distributed.FileStore(str(folder / "meeting"), machine.count),
        rank=number,
        world_size=machine.count,
    )
    given = work(mine, _silent if number else tell, partial(_asked, number, folder / STOP))
    torch.distributed.destroy_process_group()
    return given


def _silent(images: int) -> None:
    """Say nothing."""


def _asked(number: int, file: Path) -> bool:
    """Tell whether to stop: what the first device finds, so that all stop after the same step."""
    found = torch.tensor([number == 0 and file.exists()], dtype=torch.uint8)  # no GPU has to wait
    torch.distributed.broadcast(found, 0)
    return bool(found)

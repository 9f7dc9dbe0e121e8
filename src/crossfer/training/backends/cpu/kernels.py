"""Batch normalisation, ReLU and max-pooling in as few passes over memory as can be: loops for CPUs.

Between two convolutions a processor does little but carry numbers from memory and back, and PyTorch's layers,
one after the other, carry them several times as often as need be.  Numba compiles these loops at their first
use and keeps them beside this file.  Every image is a task of its own and writes where no other does; sums
over images are left to the caller, so the number of threads changes no bit.  Neither does the compiler, as it
is given no freedom with floating point (``fastmath``): with it, what was compiled to run at once and what was
kept for the next process were seen to round differently.

The pixels of an image are walked in strips, one of each strip in turn (`place`): what is not in the cache
then comes from several places at once, where from a single one the processor would wait for every page.

Throughout, ``x`` is what a convolution gave, (N, H, W, C), as float32 or as the bits of bfloat16 in uint16,
and so are ``y``, ``dy`` and ``dx``.  Of each channel, float32 (C,), ``scale`` and ``shift`` make the
normalised number ``scale x + shift``, and ``mean`` is that of x.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from crossfer.processor import available_cores

ZERO = np.float32(0)
STRIPS = 4
"""How many strips an image is cut into, from top to bottom."""


def compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """Have Numba compile a loop over images when it is first used; PyTorch's number of threads share them.

    What is compiled is kept where there is a place for it.  Of several processes that start at once, one
    compiles and the others wait for what is kept.
    """
    try:
        kept = njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # neither beside this file nor in a home
        return _shared(njit(nogil=True)(loop))
    folder = Path(kept.stats.cache_path)
    compile_ = kept.compile

    def once(signature: Any) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{loop.__name__}.lock"):
            return compile_(signature)

    kept.compile = once
    return _shared(kept)


def _shared(loop: Callable[..., None]) -> Callable[..., None]:
    """Have threads share the images: the first axis of whatever has several.

    Numba's own threads (``parallel=True``) took more than twice as long to compile.
    """

    def share(*given: Any) -> None:
        images = len(given[0])
        threads = max(1, min(torch.get_num_threads(), images))
        edges = [images * thread // threads for thread in range(threads + 1)]
        parts = ([x[a:b] if np.ndim(x) > 1 else x for x in given] for a, b in pairwise(edges))
        ours, *others = parts
        waiting = [_pool(os.getpid()).submit(loop, *part) for part in others]
        loop(*ours)
        for one in waiting:
            one.result()

    return share


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; one that was forked needs its own."""
    return ThreadPoolExecutor(available_cores(), "kernels")


@intrinsic
def wide(context: Any, number: Any) -> Any:
    """Return a number as float32: bfloat16 is its upper half."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        if number == types.float32:
            return value
        word = ir.IntType(32)
        bits = builder.shl(builder.zext(value, word), ir.Constant(word, 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(number), generate


@intrinsic
def narrow(context: Any, number: Any, array: Any) -> Any:
    """Return a float32 as an array holds it: rounded to the nearest bfloat16, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, _ = arguments
        if array.dtype == types.float32:
            return value
        word = ir.IntType(32)
        bits = builder.bitcast(value, word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, ir.Constant(word, 16)), ir.IntType(16))

    return array.dtype(types.float32, array), generate


@njit(inline="always")
def place(row: int, step: int, rows: int) -> tuple[int, int]:
    """Return the pixel (h, w) of a step along a row of every strip: strip after strip, then to the right."""
    return row + step % STRIPS * rows, step // STRIPS


@compiled
def moments(x: Any, pivot: Any, sums: Any) -> None:
    """Sum ``x - pivot`` and its square over every image: float32 (N, 2, C)."""
    images, height, width, channels = x.shape
    rows = -(-height // STRIPS)
    for n in range(images):
        for c in range(channels):
            sums[n, 0, c] = sums[n, 1, c] = ZERO
        for row in range(rows):
            for step in range(STRIPS * width):
                h, w = place(row, step, rows)
                if h < height:
                    for c in range(channels):
                        value = wide(x[n, h, w, c]) - pivot[c]
                        sums[n, 0, c] += value
                        sums[n, 1, c] += value * value


@njit(inline="always")
def largest(x: Any, n: int, h: int, w: int, c: int, scale: Any, shift: Any, side: int) -> Any:
    """Return the largest normalised number of a window, what it was, and where: 0 … side² - 1."""
    number, where = wide(x[n, h * side, w * side, c]), 0
    best = scale[c] * number + shift[c]
    for k in range(1, side * side):
        other = wide(x[n, h * side + k // side, w * side + k % side, c])
        value = scale[c] * other + shift[c]
        if value > best:
            best, number, where = value, other, k
    return best, number, where


@compiled
def descend(
    weight: Any, momentum: Any, half: Any, gradient: Any, rate: Any, friction: Any, decay: Any
) -> None:
    """Take a step of Nesterov's gradient descent on (R, C) weights, and round them to bfloat16 on the way.

    ``weight`` and ``momentum`` are float32, ``half`` and ``gradient`` the bits of bfloat16.
    """
    rows, columns = weight.shape
    for r in range(rows):
        for c in range(columns):
            g = wide(gradient[r, c]) + decay * weight[r, c]
            momentum[r, c] = friction * momentum[r, c] + g
            weight[r, c] -= rate * (g + friction * momentum[r, c])
            half[r, c] = narrow(weight[r, c], half)


class Kernels(NamedTuple):
    """The loops for one size of pooling windows; 1 is no pooling."""

    forward: Any
    slopes: Any
    backward: Any


@cache
def kernels(side: int) -> Kernels:
    """Return the loops for windows of side × side, one beside the other; what is left over is not pooled."""

    @compiled
    def forward(x: Any, scale: Any, shift: Any, y: Any) -> None:
        """Write the largest number of each window, or 0 if it is below: (N, H // side, W // side, C)."""
        images, height, width, channels = y.shape
        rows = -(-height // STRIPS)
        for n in range(images):
            for row in range(rows):
                for step in range(STRIPS * width):
                    h, w = place(row, step, rows)
                    if h < height:
                        for c in range(channels):
                            best, _, _ = largest(x, n, h, w, c, scale, shift, side)
                            y[n, h, w, c] = narrow(ZERO if best < ZERO else best, y)

    @compiled
    def slopes(x: Any, dy: Any, scale: Any, shift: Any, mean: Any, sums: Any) -> None:
        """Sum g, the gradient that passes the ReLU, and ``g (x - mean)`` over every image: (N, 2, C)."""
        images, height, width, channels = dy.shape
        rows = -(-height // STRIPS)
        for n in range(images):
            for c in range(channels):
                sums[n, 0, c] = sums[n, 1, c] = ZERO
            for row in range(rows):
                for step in range(STRIPS * width):
                    h, w = place(row, step, rows)
                    if h < height:
                        for c in range(channels):
                            best, number, _ = largest(x, n, h, w, c, scale, shift, side)
                            # Read in any case: a loop without jumps is vectorised.
                            given = wide(dy[n, h, w, c])
                            g = ZERO if best <= ZERO else given
                            sums[n, 0, c] += g
                            sums[n, 1, c] += g * (number - mean[c])

    @compiled
    def backward(x: Any, dy: Any, scale: Any, shift: Any, slope: Any, offset: Any, dx: Any) -> None:
        """Write ``scale g + slope x + offset``; g is 0 where a number was not the largest of its window."""
        images, height, width, channels = dy.shape
        rows = -(-height // STRIPS)
        for n in range(images):
            for row in range(rows):
                for step in range(STRIPS * width):
                    h, w = place(row, step, rows)
                    if h < height:
                        for c in range(channels):
                            best, _, where = largest(x, n, h, w, c, scale, shift, side)
                            given = scale[c] * wide(dy[n, h, w, c])
                            g = ZERO if best <= ZERO else given
                            for k in range(side * side):
                                at_h, at_w = h * side + k // side, w * side + k % side
                                plain = slope[c] * wide(x[n, at_h, at_w, c]) + offset[c]
                                dx[n, at_h, at_w, c] = narrow(
                                    plain + g if k == where else plain, dx
                                )
            for h in range(x.shape[1]):
                for w in range(width * side if h < height * side else 0, x.shape[2]):
                    for c in range(channels):
                        dx[n, h, w, c] = narrow(slope[c] * wide(x[n, h, w, c]) + offset[c], dx)

    return Kernels(forward, slopes, backward)

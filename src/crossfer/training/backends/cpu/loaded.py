"""Load at once what this backend loads when it is first used: see `crossfer.training.backends.loaded`."""

from __future__ import annotations

from numba.core.registry import cpu_target

from crossfer.training.backends.cpu import layers

__all__ = ["layers"]

# Numba's tables of what it can compile, which it reads before the first loop: half a second.
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()

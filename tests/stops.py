"""A training's states at some of its steps, as an interruption there would leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from crossfer.training import State
from crossfer.training.checkpoint import Checkpoints

Stop = tuple[int, int]
"""Finished epochs, and steps of the next."""


class Stops:
    """Keeps checkpoints of a training at given stops: `keep` is its `on_state`."""

    def __init__(self, folder: Path, *stops: Stop) -> None:
        self.files = {stop: Checkpoints(folder / f"{stop}.safetensors") for stop in stops}

    def keep(self, standing: Callable[[], State]) -> None:
        """Save the state, if it is that of a stop."""
        state = standing()
        if file := self.files.get((len(state.history), state.step)):
            file.save(state)

    def __iter__(self) -> Iterator[tuple[Stop, State]]:
        """Yield each stop with its state, read back."""
        for stop, file in self.files.items():
            state = file.load()
            assert state is not None
            yield stop, state

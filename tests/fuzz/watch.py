"""Damaged inputs in numbers, read by a process of its own that is watched: too slow, and it is ended."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.fuzz.attempt import attempt
from tests.fuzz.readers import READERS

START = 120.0
"""Seconds that the reading process may take to start on a busy machine."""


def fuzz(name: str, numbers: range, seed: int, limit: float) -> Counter[str]:
    """Read mutated inputs; count the outcomes, and print each new problem."""
    outcomes: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    at = numbers.start
    while at < numbers.stop:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_read, args=(name, range(at, numbers.stop), seed, sender))
        process.start()
        sender.close()
        patience = START
        while at < numbers.stop:
            if not receiver.poll(patience):
                outcome = f"takes longer than {patience:g} s"
            else:
                try:
                    outcome = receiver.recv()
                except EOFError:
                    process.join()
                    outcome = f"the process ended with status {process.exitcode}"
            if outcome == "ready":
                patience = limit
                continue
            if outcome not in outcomes and outcome not in ("read", "refused"):
                print(f"{name} {at}: {outcome}", flush=True)
            outcomes[outcome] += 1
            at += 1
            if not process.is_alive() or outcome.startswith("takes longer"):
                break
        process.kill()
        process.join()
    return outcomes


def _read(name: str, numbers: range, seed: int, sender: Connection) -> None:
    """Read inputs one after another, and send what became of each."""
    os.nice(10)
    valid = READERS[name].valid()
    sender.send("ready")
    with tempfile.TemporaryDirectory() as place:
        for number in numbers:
            sender.send(
                attempt(READERS[name], valid, Random(f"{name} {seed} {number}"), Path(place))
            )

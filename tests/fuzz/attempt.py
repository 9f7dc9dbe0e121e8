"""One damaged input, read: the promise that every reader keeps."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from crossfer.errors import CrossferError
from tests.fuzz.mutations import Files, mutated
from tests.fuzz.readers import Reader

FROM_PYTHON = re.compile(r"Traceback|Warning: |Error: ")
"""Decoders in C (libtiff, OpenCV's of AVI) say what is wrong with a picture, and nothing silences them."""


def attempt(reader: Reader, valid: Sequence[Files], random: Random, place: Path) -> str:
    """Damage a valid input and read it.

    Parameters
    ----------
    reader
        What reads it.
    valid
        Inputs to choose from.
    random
        Decides which, and the damage.
    place
        A folder to work in; left empty.

    Returns
    -------
    str
        ``read``; ``refused``, by one clear line that left nothing behind; or which promise was broken.
    """
    given, out = place / "in", place / "out"
    mutated(random.choice(valid), random, names=reader.names).write(given)
    out.mkdir()
    outcome = "read"
    with _unprinted() as printed:
        try:
            reader.read(given, out)
        except CrossferError as error:
            outcome = "refused"
            if "\n" in str(error) or not str(error).strip():
                outcome = f"not one line: {error!r}"
            elif left := sorted(file.name for file in out.iterdir()):
                outcome = f"refused, but left {left[0]}"
        except Exception as error:
            outcome = f"{type(error).__name__} in {_where(error)}"
    if outcome in ("read", "refused") and printed:
        outcome = f"printed {printed[0][:150]!r}"
    for folder in (given, out):
        shutil.rmtree(folder)
    return outcome


def _where(error: Exception) -> str:
    """Return the last line of ours that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = [frame for frame in frames if "crossfer" in Path(frame.filename).parts][-1]
    return f"{Path(frame.filename).name} line {frame.lineno}, {frame.name}"


@contextmanager
def _unprinted() -> Iterator[list[str]]:
    """Catch what is written to the terminal, by libraries in C as well; it is there afterwards."""
    printed: list[str] = []
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            lines = caught.read().decode("utf-8", "replace").splitlines()
            printed += [line for line in lines if FROM_PYTHON.search(line)]

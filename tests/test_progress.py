"""What a log says of long work."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from crossfer import progress
from crossfer.experiment.plan import Run


def test_a_log_says_how_long_it_takes_once_that_is_more_than_a_guess(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0
    monkeypatch.setattr("crossfer.progress.time.monotonic", lambda: clock)
    text = io.StringIO()
    strategy: Any = SimpleNamespace(layers="all")
    run = cast(Run, SimpleNamespace(key="k", label="BL · seed 0", work=10_000.0, strategy=strategy))
    with progress.Shown(Console(file=text, width=120)) as shown:
        shown.planned([run], [])
        shown.started(run)
        clock += 25.0
        shown.step(2000)  # what the training had done before it was interrupted
        for images in (32, 968, 4000):
            clock += 25.0
            shown.step(images)
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert lines == [
        "1 run",
        "20%: BL · seed 0",
        "20%: BL · seed 0",
        "30%, 5:50 left: BL · seed 0",
        "70%, 0:45 left: BL · seed 0",
    ]

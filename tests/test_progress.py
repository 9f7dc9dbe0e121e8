"""What a log says of long work."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from crossfer.cli import progress
from crossfer.cli.bars import Bars
from crossfer.cli.output import say
from crossfer.experiment.plan import Run
from crossfer.strategies import BASELINE


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose only number is the time, in seconds."""
    now = [0.0]
    monkeypatch.setattr("crossfer.cli.progress.time.monotonic", lambda: now[0])
    return now


def lines_of(clock: list[float], steps: list[tuple[float, int]]) -> list[str]:
    """Return what a log says of a run of 10,000 images; each step is the seconds it took and its images."""
    text = io.StringIO()
    run = cast(Run, SimpleNamespace(key="k", label="BL · seed 0", work=10_000.0, strategy=BASELINE))
    with progress.Shown(Console(file=text, width=120)) as shown:
        shown.planned([run], [])
        shown.started(run)
        for seconds, images in steps:
            clock[0] += seconds
            shown.step(run, images)
        clock[0] += 25
        shown.ended(run, Path())
    return [line.strip() for line in text.getvalue().splitlines()]


def test_a_log_says_how_long_it_takes_once_that_is_more_than_a_guess(clock: list[float]) -> None:
    done_before_it_was_interrupted = (25.0, 2000)
    steps = [done_before_it_was_interrupted, (25.0, 32), (25.0, 968), (25.0, 4000)]
    assert lines_of(clock, steps) == [
        "1 run",
        "20%: BL · seed 0",
        "20%: BL · seed 0",
        "30%, 5:50 left: BL · seed 0",
        "70%, 0:45 left: BL · seed 0",
        "100%, 0:00 left: BL · seed 0",
    ]


def test_what_the_machine_was_busy_with_is_soon_forgotten(clock: list[float]) -> None:
    slowly, as_usual = [(30.0, 100)] * 20, [(30.0, 1000)] * 5
    lines = lines_of(clock, slowly + as_usual)
    assert lines[20] == "20%, 40:00 left: BL · seed 0"
    assert lines[24] == "60%, 2:00 left: BL · seed 0"


def test_a_run_without_a_step_has_no_time_to_tell(clock: list[float]) -> None:
    assert lines_of(clock, []) == ["1 run", "100%: BL · seed 0"]


def test_what_looks_like_markup_is_shown_and_what_is_no_text_is_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=120)) as bars:
        bars.say("faces [left] of mine [/x]")
    assert "faces [left] of mine [/x]" in text.getvalue()
    say("caf\udce9.jpg: no face found")  # a file name that is not UTF-8
    assert capsys.readouterr().out == "caf\\udce9.jpg: no face found\n"

"""Damaged input is read or refused in one line, whatever the damage: a taste of ``python -m tests.fuzz``."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.attempt import attempt
from tests.fuzz.readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_damage_is_read_or_refused_in_one_line_and_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    valid = READERS[name].valid()
    outcomes = [
        attempt(READERS[name], valid, Random(f"{name} 0 {number}"), tmp_path)
        for number in range(12)
    ]
    assert {outcome for outcome in outcomes if outcome not in ("read", "refused")} == set()


@pytest.mark.parametrize("name", [name for name in READERS if name != "archives"])
def test_what_is_damaged_was_readable(name: str, tmp_path: Path) -> None:
    for number, files in enumerate(READERS[name].valid()):
        given, out = tmp_path / f"in{number}", tmp_path / f"out{number}"
        out.mkdir()
        for file, content in files.items():
            (given / file).parent.mkdir(parents=True, exist_ok=True)
            (given / file).write_bytes(content)
        READERS[name].read(given, out)

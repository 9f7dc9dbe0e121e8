"""What is cited: an entry for everything that comes from somebody, and only for what was used."""

from __future__ import annotations

import re

import pytest

from crossfer.datasets import READERS
from crossfer.errors import CrossferError
from crossfer.references import DATASET, bibtex, entries
from crossfer.report.citing import cited
from crossfer.strategies import STRATEGIES
from crossfer.terms import BL
from tests.test_report import made_results


def test_everything_that_names_a_source_has_an_entry() -> None:
    known = frozenset().union(*entries().values())
    assert {name for name, strategy in STRATEGIES.items() if strategy.paper} - known == set()
    assert {DATASET + name for name, reader in READERS.items() if reader.citation} - known == set()


def test_no_entry_is_for_what_does_not_exist() -> None:
    known = {
        *STRATEGIES,
        *(DATASET + name for name in READERS),
        "crossfer",
        "statistics",
        "detector",
    }
    assert frozenset().union(*entries().values()) - known == set()


def test_the_entries_are_bibtex() -> None:
    names = [re.match(r"@\w+\{(\w+),\n", entry) for entry in entries()]
    assert all(names) and len({name[1] for name in names if name}) == len(names)
    assert all(entry.count("{") == entry.count("}") for entry in entries())
    assert "keywords" not in bibtex(frozenset().union(*entries().values()))


def test_only_what_was_used_is_cited() -> None:
    results = made_results({"jaffe": {BL: (60.0, 40.0), "FC": (50.0, 60.0), "RE": (40.0, 70.0)}})
    text = cited(results)
    assert "1905.12082" in text and "Learning without Forgetting" not in text
    with pytest.raises(CrossferError, match="LwF: not a strategy .* choose among BL, FC, RE"):
        cited(results, "LwF")

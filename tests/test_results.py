"""``results.json`` is what the rows are, is described by its schema, and is never read amiss.

After a change of the rows, ``python -m tests.test_results`` writes the schema anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossfer.errors import CrossferError
from crossfer.experiment import load_results
from crossfer.experiment.results import schema
from crossfer.files import write_json
from tests.test_report import STUDY, made_results

SCHEMA = Path(__file__).parents[1] / "docs" / "results.schema.json"


def test_the_schema_is_that_of_the_code() -> None:
    """In all but descriptions: which docstrings become some is a matter of Pydantic's version."""
    documented = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert without_descriptions(documented) == without_descriptions(schema())


def without_descriptions(content: Any) -> Any:
    if isinstance(content, list):
        return [without_descriptions(each) for each in content]
    if not isinstance(content, dict):
        return content
    return {
        key: without_descriptions(value)
        for key, value in content.items()
        if not (key == "description" and isinstance(value, str))
    }


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    results = made_results({"jaffe": STUDY}, seeds=(0, 1), missing={"jaffe": ("neutral",)})
    write_json(tmp_path / "results.json", results.as_json())
    assert load_results(tmp_path) == results


@pytest.fixture(scope="module")
def written() -> str:
    """Return the content of a ``results.json``."""
    return json.dumps(made_results({"jaffe": STUDY}).as_json())


def older(content: dict[str, Any]) -> object:
    return content | {"format": 3}


def without(*path: Any) -> Callable[[dict[str, Any]], object]:
    def spoilt(content: Any) -> object:
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return content

    return spoilt


@pytest.mark.parametrize(
    "spoil",
    [
        older,
        without("recommendations"),
        without("results", 1, "on_source", "test", "recall"),
        without("datasets", 0, "classes"),
        lambda content: content | {"unheard of": 1},
        lambda content: [content],
        lambda content: {},
    ],
)
def test_other_versions_end_in_a_line(
    spoil: Callable[[Any], object], written: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "results.json", spoil(json.loads(written)))
    with pytest.raises(CrossferError, match=r"results.json: written by another version") as error:
        load_results(tmp_path)
    assert "\n" not in str(error.value)
    assert "run the experiment again" in str(error.value)


if __name__ == "__main__":
    write_json(SCHEMA, schema())

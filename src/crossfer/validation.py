"""Check what is read against its type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Checked = TypeVar("Checked")


@cache
def adapter(kind: type[Checked]) -> TypeAdapter[Checked]:
    """Return pydantic's validator for a type; it is made once, which takes a tenth of a second."""
    return TypeAdapter(kind)


def first_error(error: ValidationError, prefix: str = "", known: Sequence[str] = ()) -> str:
    """Say in one line which key is wrong, what it is and what it must be.

    Parameters
    ----------
    error
        What pydantic found.
    prefix
        Where the checked content lies, e.g. ``recipes.FC.``.
    known
        The keys that there are, for one that is unknown.
    """
    first, *others = _of_their_kind(error.errors())
    key = (prefix + ".".join(str(part) for part in first["loc"])).rstrip(".")
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}: {_message(first, known)}{more}" if key else f"{_message(first, known)}{more}"


def first_place(error: ValidationError) -> str:
    """Return which key of a file that we wrote is wrong; for files that people write, see `first_error`."""
    return ".".join(map(str, error.errors()[0]["loc"]))


def _message(found: Any, known: Sequence[str]) -> str:
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key; known are {', '.join(known)}" if known else "unknown key"
    if kind.startswith("missing"):
        return "is missing"
    if kind in ("list_type", "tuple_type"):
        return "must be a list: [a, b]"
    if kind in ("dict_type", "dataclass_type"):
        return "must be a mapping: {a: b}"
    if not message.startswith("Input should be "):
        return message
    told = f"{found['input']!r}: " if isinstance(found["input"], str | int | float) else ""
    wanted = re.sub(", (unable to parse|got) .*", "", message.removeprefix("Input should be "))
    return f"{told}must be {wanted}"


def _of_their_kind(errors: list[Any]) -> list[Any]:
    """Leave out the errors of a union's alternatives that are of another `kind`."""
    others = [
        e["loc"][:-1] for e in errors if e["type"] == "literal_error" and e["loc"][-1] == "kind"
    ]
    own = [e for e in errors if not any(e["loc"][: len(place)] == place for place in others)]
    return own or errors

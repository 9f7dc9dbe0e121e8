"""Check what is read against its type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from crossfer.errors import unknown_key

Checked = TypeVar("Checked")


@cache
def adapter(kind: type[Checked]) -> TypeAdapter[Checked]:
    """Return pydantic's validator for a type; it is made once, which takes a tenth of a second."""
    return TypeAdapter(kind)


def first_error(error: ValidationError, checked: type, prefix: str = "") -> str:
    """Say in one line which key is wrong, what it is and what it must be.

    Parameters
    ----------
    error
        What pydantic found.
    checked
        The type that the content was checked against.
    prefix
        Where the checked content lies, e.g. ``recipes.FC.``.
    """
    first, *others = error.errors()
    key, found = _place(first["loc"], checked)
    key = (prefix + ".".join(key)).rstrip(".")
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}: {_message(first, found)}{more}" if key else f"{_message(first, found)}{more}"


def first_place(error: ValidationError) -> str:
    """Return which key of a file that we wrote is wrong; for files that people write, see `first_error`."""
    return ".".join(map(str, error.errors()[0]["loc"]))


def _message(found: Any, types: Sequence[Any]) -> str:
    """Say what is wrong; `types` are those that a value may have there, or for an unknown key around it."""
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(dict.fromkeys(key for each in types for key in _keys(each)))
        return unknown_key(str(found["loc"][-1]), known)
    if kind in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
        kinds = [each.kind for each in types if hasattr(each, "kind")]
        given = found.get("ctx", {}).get("tag", found["input"])
        told = f"{given!r}: " if isinstance(given, str) else ""
        return f"{told}write {{kind: …}} with one of the kinds {', '.join(kinds)}"
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


def _place(location: Sequence[str | int], checked: Any) -> tuple[list[str], list[Any]]:
    """Return the keys on the way to a place, and the types there, or the nearest ones that are known."""
    keys: list[str] = []
    types = _alternatives(checked)
    for part in location:
        if tagged := [each for each in types if getattr(each, "kind", None) == part]:
            types = tagged  # pydantic's own part: which of several dataclasses it is
            continue
        keys.append(str(part))
        types = [inner for each in types for inner in _inside(each, part)] or types
    return keys, types


def _inside(kind: Any, part: str | int) -> list[Any]:
    """Return the types that a key or item of a type may have."""
    if isinstance(part, str) and part in (keys := _keys(kind)):
        return _alternatives(keys[part])
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (list, tuple):
        return _alternatives(inner[0])
    return _alternatives(inner[1]) if origin in (dict, Mapping) else []


def _keys(kind: Any) -> dict[str, Any]:
    """Return the keys of a dataclass or model, and their types."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind)}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    return {}


def _alternatives(kind: Any) -> list[Any]:
    """Return the types of a union, or the only one."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [each for part in get_args(kind) for each in _alternatives(part)]
    return [kind]

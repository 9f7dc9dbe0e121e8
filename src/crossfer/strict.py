"""The base of all dataclasses that are read from a configuration."""

from __future__ import annotations

from typing import ClassVar


class Strict:
    """Tells Pydantic, which reads them, to refuse an unknown key."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

"""Modules import only from layers below theirs, as docs/design.md says: there are no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import crossfer

TOP = Path(crossfer.__file__).parent


def imported(code: str) -> Iterator[str]:
    """Yield the packages of crossfer, and its modules in none, that code imports when it runs."""
    nodes: list[ast.AST] = [ast.parse(code)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            first, *inner = node.module.split(".")
            if first == "crossfer":
                yield from inner[:1] or (alias.name for alias in node.names)
        nodes += (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def test_packages_have_an_order() -> None:
    needs: dict[str, set[str]] = {}
    for file in TOP.rglob("*.py"):
        own = file.relative_to(TOP).with_suffix("").parts[0]
        needs.setdefault(own, set()).update({*imported(file.read_text("utf-8"))} - {own})
    del needs["__init__"]  # the public API, imported by name on first use
    order = list(TopologicalSorter(needs).static_order())  # raises CycleError on a circle
    assert order.index("datasets") < order.index("deploy") < order.index("app") < order.index("cli")
    assert "experiment" not in needs["deploy"] | needs["report"]

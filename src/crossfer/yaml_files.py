"""Read YAML that people write: a repeated key is an error, and so is everything that is no YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from crossfer.errors import CrossferError

MOST_NODES = 100_000
"""Values and keys in a file, with aliases."""
MERGE = "tag:yaml.org,2002:merge"
"""The key ``<<``, which merges another mapping; keys beside it take precedence."""


def read_yaml(file: Path) -> Any:
    """Return the content of a YAML file.

    Raises
    ------
    CrossferError
        If it cannot be read, is not YAML, or repeats a key in a mapping.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise CrossferError(f"{file}: cannot be read ({error})") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise CrossferError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None


class LimitedLoader(yaml.SafeLoader):
    """Refuses aliases that repeat so much that a few lines become more than any memory holds."""

    def get_single_node(self) -> Any:
        """Return the document's root."""
        node = super().get_single_node()
        sizes: dict[int, int] = {}
        size = _expanded(node, sizes) if node else 0
        if size > MOST_NODES and size > len(sizes):
            raise yaml.YAMLError("its aliases repeat without end, or nearly; write them out")
        return node


def _expanded(node: Any, sizes: dict[int, int]) -> int:
    """Return the number of nodes below a node, with those of aliases as often as they are repeated."""
    if id(node) not in sizes:
        sizes[id(node)] = MOST_NODES + 1  # of an alias for what contains it
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            below = [one for pair in node.value for one in pair]
        sizes[id(node)] = 1 + sum(_expanded(one, sizes) for one in below)
    return sizes[id(node)]


class _UniqueKeys(LimitedLoader):
    """Refuses a repeated key in a mapping, which PyYAML accepts."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)  # before merging
        seen = set()
        for key in [key for key, _ in node.value if key.tag != MERGE]:
            told = (key.tag, str(key.value))
            if told in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(
                    f"the key {key.value!r} is repeated in line {line}; remove one"
                )
            seen.add(told)
        return node

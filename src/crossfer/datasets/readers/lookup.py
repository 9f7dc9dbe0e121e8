"""Find the pictures that a table names."""

from __future__ import annotations

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from crossfer.datasets.readers.files import image_files
from crossfer.datasets.record import spelled

DEEPEST = 3
"""So many names at the end of a path are compared."""


class Lookup:
    """Finds the file that a table's row means.

    A name is looked for from the user's own root, or else from the table's folder and the folders above it
    up to the dataset's; then by the end of its path without suffix, where only one picture has it: people
    convert pictures, and move tables.

    Parameters
    ----------
    top
        The dataset's folder.
    table
        The table.
    root
        The user's own root, if there is one.
    """

    def __init__(self, top: Path, table: Path, root: Path | None) -> None:
        self.top = root or top
        places = [table.parent, *(p for p in table.parent.parents if p.is_relative_to(top))]
        self.places = [root] if root else list(dict.fromkeys([*places, top]))

    def find(self, name: str) -> Path:
        """Return the file of a name, or where it should be."""
        clean = _clean(name)
        for place in self.places:
            if os.path.isfile(file := place / clean):
                return Path(os.path.normpath(file))
        path = PurePosixPath(clean)
        # Where a folder is named, it must fit: 5.png of another class is another picture.
        for length in range(min(len(path.parts), DEEPEST), min(len(path.parts), 2) - 1, -1):
            end = PurePosixPath(*path.parts[-length:])
            found = self._by_end.get(_as_compared(end.with_suffix("").as_posix()), [])
            if len(found) == 1:
                return found[0]
            same = [file for file in found if file.suffix.lower() == path.suffix.lower()]
            if len(same) == 1:
                return same[0]
        return Path(os.path.normpath(self.places[0] / clean))

    def several(self, name: str) -> list[Path]:
        """Return the pictures of a name without a folder, where several have it."""
        path = PurePosixPath(_clean(name))
        found = self._by_end.get(_as_compared(path.stem), []) if len(path.parts) == 1 else []
        return found if len(found) > 1 else []

    @cached_property
    def _by_end(self) -> dict[str, list[Path]]:
        """All pictures by the ends of their paths without suffix."""
        found: dict[str, list[Path]] = defaultdict(list)
        for file in image_files(self.top) if self.top.is_dir() else ():
            parts = file.relative_to(self.top).with_suffix("").parts
            for length in range(1, min(len(parts), DEEPEST) + 1):
                found[_as_compared("/".join(parts[-length:]))].append(file)
        return found


def _as_compared(name: str) -> str:
    """Return a path in lower case with composed accents, which some systems take apart."""
    return spelled(name).lower()


def _clean(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")

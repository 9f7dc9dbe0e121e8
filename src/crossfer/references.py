"""What to cite: the entries of ``references.bib`` and their keywords."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files

DATASET = "dataset "
"""Prefix of the keyword of a dataset's reader."""


@cache
def entries() -> dict[str, frozenset[str]]:
    """Return every BibTeX entry with its keywords."""
    text = files("crossfer").joinpath("references.bib").read_text(encoding="utf-8")
    found = re.findall(r"^@.*?^\}", text, flags=re.DOTALL | re.MULTILINE)
    return {entry: _keywords(entry) for entry in found}


def bibtex(used: Collection[str]) -> str:
    """Return the BibTeX entries for some keywords.

    Parameters
    ----------
    used
        Keywords: names of strategies, ``dataset NAME``, ``statistics``, ``detector``.

    Returns
    -------
    str
        BibTeX without the keywords; crossfer and the study come first.
    """
    wanted = {"crossfer", *used}
    chosen = [entry for entry, keywords in entries().items() if keywords & wanted]
    return "\n\n".join(re.sub(r"^  keywords .*\n", "", e, flags=re.MULTILINE) for e in chosen)


def _keywords(entry: str) -> frozenset[str]:
    listed = re.search(r"^  keywords\s*= \{(.*)\},$", entry, flags=re.MULTILINE)
    return frozenset(listed[1].split(", ")) if listed else frozenset()

"""BibTeX for the datasets, strategies and methods of an experiment."""

from __future__ import annotations

from crossfer.datasets import READERS
from crossfer.errors import CrossferError
from crossfer.evaluation.rows import DatasetFacts, Results
from crossfer.references import DATASET, bibtex
from crossfer.terms import BL

RENEWED, FOUND = "statistics", "detector"
"""What is cited where batch statistics were renewed after training, and where faces were found."""


def cited(results: Results, strategy: str | None = None) -> str:
    """Return BibTeX for all that an experiment, or one strategy of it, was made with.

    Parameters
    ----------
    results
        Of the experiment.
    strategy
        Only what this strategy needs, and those that it starts from; all strategies where it is None.

    Raises
    ------
    CrossferError
        If the experiment has no such strategy.
    """
    starts = {each.name: each.start for each in results.strategies}
    if strategy is not None and strategy not in starts:
        raise CrossferError(
            f"{strategy}: not a strategy of this experiment; choose among {', '.join(starts)}"
        )
    wanted = {BL, *(starts if strategy is None else _chain(strategy, starts))}
    keywords = wanted.union(*map(_of_dataset, results.datasets), {RENEWED})
    return bibtex(keywords)


def _chain(strategy: str, starts: dict[str, str]) -> list[str]:
    """Name a strategy and those that it starts from."""
    rest = _chain(starts[strategy], starts) if starts[strategy] in starts else []
    return [strategy, *rest]


def _of_dataset(facts: DatasetFacts) -> set[str]:
    found = {FOUND} if facts.faces.get("mode") not in (None, "cropped") else set()
    if facts.stand_in:
        return found
    return found | {
        DATASET + name
        for name, reader in READERS.items()
        if reader.citation and reader.citation in facts.citation
    }

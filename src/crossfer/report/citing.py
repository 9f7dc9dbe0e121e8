"""BibTeX for the datasets, strategies and methods of an experiment."""

from __future__ import annotations

from crossfer.datasets.citing import keywords_of
from crossfer.errors import CrossferError
from crossfer.evaluation.rows import Results
from crossfer.references import bibtex
from crossfer.terms import BL

RENEWED = "statistics"
"""What is cited where batch statistics were renewed after training."""


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
    datasets = (keywords_of(d.citation, d.stand_in, d.faces) for d in results.datasets)
    return bibtex(methods(results, strategy).union(*datasets))


def methods(results: Results, strategy: str | None = None) -> set[str]:
    """Return the keywords of `crossfer.references` for strategies and training; see `cited`."""
    starts = {each.name: each.start for each in results.strategies}
    if strategy is not None and strategy not in starts:
        raise CrossferError(
            f"{strategy}: not a strategy of this experiment; choose among {', '.join(starts)}"
        )
    return {BL, RENEWED, *(starts if strategy is None else _chain(strategy, starts))}


def _chain(strategy: str, starts: dict[str, str]) -> list[str]:
    """Name a strategy and those that it starts from."""
    rest = _chain(starts[strategy], starts) if starts[strategy] in starts else []
    return [strategy, *rest]

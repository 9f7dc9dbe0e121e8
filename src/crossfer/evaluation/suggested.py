"""Measure the influence of a model's suggestions on labels: pure functions.

A suggestion that was accepted with one key may be a mistake of the model, and the model's accuracy on such
labels is too high.  The labels alone do not show how often that happened; a sign of it is that suggestions
are accepted far more often than labels given without seeing them agree with the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.rows import Suggestions

FEWEST_LABELS = 20
"""Minimum number of labels for a conclusion."""
MUCH = 90.0
"""Accepted suggestions, in per cent, that are suspicious with fewer than `FEWEST_LABELS` blind labels."""


def suggestions(given: Iterable[tuple[bool, bool]]) -> Suggestions | None:
    """Count labels of faces for which a model suggested one.

    Parameters
    ----------
    given
        For each label: whether the suggestion was shown, and whether the label differs from it.

    Returns
    -------
    Suggestions or None
        ``None`` if there was no suggestion.
    """
    counts = Counter(given)
    if not counts:
        return None
    return Suggestions(
        shown=counts[True, False] + counts[True, True],
        accepted=counts[True, False],
        blind=counts[False, False] + counts[False, True],
        same=counts[False, False],
    )


def led(found: Suggestions) -> bool:
    """Tell whether labels follow the model suspiciously often.

    With at least `FEWEST_LABELS` blind labels: the fraction of accepted suggestions exceeds the agreement of
    blind labels, and their 95 % Wilson intervals do not overlap.  Otherwise: at least `MUCH` per cent of at
    least `FEWEST_LABELS` suggestions were accepted.
    """
    if found.shown < FEWEST_LABELS:
        return False
    if found.blind < FEWEST_LABELS:
        return 100 * found.accepted >= MUCH * found.shown
    low, _ = wilson_interval(found.accepted, found.shown)
    _, high = wilson_interval(found.same, found.blind)
    return low > high


def in_words(found: Suggestions) -> str:
    """Describe how often labels follow the model, and the consequence if that is suspicious."""
    said = f"{_share(found.accepted, found.shown)} suggestions of a model were accepted"
    if found.blind:
        said += f"; of labels given blind, {_share(found.same, found.blind)} agree with the model"
    if not led(found):
        return said
    advice = (
        "" if found.blind >= FEWEST_LABELS else "; have some of these faces labelled with --blind"
    )
    return f"{said}: its accuracy here may be too high, and an update's gain too small{advice}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({100 * part / whole:.0f} %)" if whole else "")

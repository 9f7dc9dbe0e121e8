"""Do labels follow what a model suggested to whoever gave them?  Pure functions.

A label that was accepted with one key may be the model's mistake, and the model's accuracy on such labels is
too good.  Nobody can tell from the labels alone how often that happened; a share of accepted suggestions far
above what people say who do not see them is a sign of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crossfer.evaluation.intervals import wilson_interval
from crossfer.evaluation.rows import Suggestions

FEW = 20
"""Labels fewer than these say nothing."""
MUCH = 90.0
"""Per cent of suggestions accepted that call for a second look, where nobody labelled blind."""


def suggestions(given: Iterable[tuple[bool, bool]]) -> Suggestions | None:
    """Count labels of faces for which a model suggested one.

    Parameters
    ----------
    given
        For each label: whether the suggestion was shown, and whether the label is another.

    Returns
    -------
    Suggestions or None
        ``None`` where there was none.
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
    """Tell whether labels follow the model suspiciously.

    Where at least `FEW` labels were given blind: the share accepted is above the share that is the same
    blind, and their 95 % intervals (Wilson's) do not overlap.  Else: at least `MUCH` per cent of at least
    `FEW` suggestions were accepted.
    """
    if found.shown < FEW:
        return False
    if found.blind < FEW:
        return 100 * found.accepted >= MUCH * found.shown
    low, _ = wilson_interval(found.accepted, found.shown)
    _, high = wilson_interval(found.same, found.blind)
    return low > high


def in_words(found: Suggestions) -> str:
    """Say how far labels follow the model, and what that means where it is suspicious."""
    said = f"{_share(found.accepted, found.shown)} suggestions of a model were accepted"
    if found.blind:
        said += f"; of labels given blind, {_share(found.same, found.blind)} agree with the model"
    if not led(found):
        return said
    advice = "" if found.blind >= FEW else "; have some of these faces labelled with --blind"
    return f"{said}: its accuracy here may be too high, and an update's gain too small{advice}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({100 * part / whole:.0f} %)" if whole else "")

"""An assessment in sentences."""

from __future__ import annotations

from crossfer.evaluation.assessing import MARGIN, Assessed, Truth
from crossfer.report.view import signed

ANSWERS = {
    "worse": "Yes: by all estimates, it is less accurate here than on the source.",
    "as good": "No sign that you do: its estimated accuracy is as high as on the source.",
    "unclear": "It cannot be told without labels.",
}


def answer(found: Assessed) -> list[str]:
    """Say whether the network needs an update: sentences, the conclusion first."""
    low, high = found.between
    said = [
        f"Do I need an update? {ANSWERS[found.verdict]}",
        f"Estimated accuracy on these faces: {low:.0f} to {high:.0f} %; measured on "
        f"{found.source}: {found.known.accuracy:.1f} %.",
    ]
    if found.doubts:
        said.append(
            f"These faces differ from the source's in {', '.join(found.doubts)}, so the estimates "
            "may be wrong."
        )
    if found.verdict != "worse" and not found.curve:
        said.append(
            "Only labels can tell whether an update would help: label some faces and add --labels."
        )
    return said


def curve(found: Assessed) -> str:
    """Say what labels would help, from the curve; empty where there is none."""
    if not found.curve:
        return ""
    before, *points = found.curve
    helped = [point for point in points if point.lowest > before.accuracy + MARGIN]
    if not helped:
        return (
            f"No number of labels up to {points[-1].images:.0f} gained more than {MARGIN:g} points in "
            "every draw. Only the last layer was trained."
        )
    first, last = helped[0], points[-1]
    more = last.accuracy - first.accuracy
    return (
        f"{first.images:.0f} labels would help: {signed(first.accuracy - before.accuracy)} points "
        f"here, {signed(first.source_change)} on {found.source}; all {last.images:.0f} give "
        f"{signed(more)} more. Only the last layer was trained. A strategy can do better and "
        "forget less (`crossfer run`)."
    )


def measured(truth: Truth) -> str:
    """Write an accuracy with its interval, and of how many."""
    low, high = truth.interval
    people = f" of {truth.people:,} people" if truth.people else ""
    return f"{truth.accuracy:.1f} % ({low:.1f}–{high:.1f}; {truth.images:,} faces{people})"

"""An assessment in sentences."""

from __future__ import annotations

from crossfer.evaluation.assessing import MARGIN, Assessed, Truth
from crossfer.report.view import listed, signed

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
    if found.left_out:
        count = sum(found.left_out.values())
        said.append(
            f"{100 * count / (found.images + count):.0f} % of these faces are labelled "
            f"{listed([*found.left_out])}, none of the network's classes: no number here counts them."
        )
    if found.doubts:
        said.append(
            f"These faces differ from the source's in {', '.join(found.doubts)}, so the estimates "
            "may be wrong."
        )
    if found.verdict != "worse" and not found.curve:
        labels = "add --labels" if found.truth else "label some faces and add --labels"
        said.append(f"Only labels can tell whether an update would help: {labels}.")
    return said


def curve(found: Assessed) -> str:
    """Say what labels would help, from the curve; empty where there is none."""
    if not found.curve:
        return ""
    before, *points = found.curve
    among = ""
    if found.lacks:
        among = (
            f" Faces are decided among all classes of the network, {listed(found.lacks)} too; `crossfer "
            "run` and `compare` leave out classes that the faces lack."
        )
    helped = [point for point in points if point.lowest > before.accuracy + MARGIN]
    if not helped:
        return (
            f"No number of labels up to {points[-1].images:.0f} gained more than {MARGIN:g} points in "
            f"every draw. Only the last layer was trained.{among}"
        )
    first, last = helped[0], points[-1]
    gain, more = first.accuracy - before.accuracy, last.accuracy - first.accuracy
    images = f"{signed(gain * found.tested / 100, 0)} of {found.tested:,} test images"
    return (
        f"{first.images:.0f} labels would help: {signed(gain)} points here ({images}), "
        f"{signed(first.source_change)} on {found.source}; all {last.images:.0f} give "
        f"{signed(more)} more. Only the last layer was trained. A strategy can do better and "
        f"forget less (`crossfer run`).{among}"
    )


def measured(truth: Truth) -> str:
    """Write an accuracy with its interval, and of how many."""
    low, high = truth.interval
    people = f" of {truth.people:,} people" if truth.people else ""
    return f"{truth.accuracy:.1f} % ({low:.1f}–{high:.1f}; {truth.images:,} faces{people})"

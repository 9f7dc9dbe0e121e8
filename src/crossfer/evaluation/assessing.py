"""Results of an assessment on unlabelled faces, and its verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from crossfer.evaluation.drift import ClassShare, FeatureDrift, InputDrift
from crossfer.evaluation.estimate import Estimate
from crossfer.evaluation.rows import Interval, Row

MARGIN = 2.0
"""Points: who is right about so much less is worse off."""
FAR, MUCH = 0.2, 0.8
"""Drift that makes an estimate doubtful: standard deviations of the features, and of a measure of pixels."""

Verdict = Literal["worse", "as good", "unclear"]


@dataclass(frozen=True)
class Truth(Row):
    """An accuracy that was measured by labels, in per cent."""

    images: int
    people: int | None
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class CurvePoint(Row):
    """What so many labels would give: the last layer, trained on them."""

    images: float
    """Mean over the draws; whole people are drawn."""
    people: float | None
    draws: int
    accuracy: float
    """On the new faces' test set, in per cent: mean over the draws."""
    lowest: float
    highest: float
    source_change: float
    """Of the accuracy on the source's validation set, in points: mean over the draws."""


@dataclass(frozen=True)
class Assessed(Row):
    """Everything that an assessment found: its JSON."""

    kind: Literal["assessment"]
    format: Literal[1]
    crossfer: str
    model: str
    dataset: str
    images: int
    people: int | None
    left_out: dict[str, int]
    """Images whose label is none of the network's classes, by label."""
    lacks: tuple[str, ...]
    """The network's classes without a labelled image; empty where no image is labelled."""
    tested: int
    """Labelled images of the test set, on which the curve is measured."""
    source: str
    source_left_out: dict[str, int]
    """Images of the source whose label is none of the network's classes, by label."""
    source_lacks: tuple[str, ...]
    """The network's classes without an image of the source."""
    warning: str | None
    """How the network seems to be read wrongly, by its answers on the source."""
    known: Truth
    """On the source's validation set: what the estimates are calibrated by."""
    estimates: tuple[Estimate, ...]
    inputs: tuple[InputDrift, ...]
    """Empty where the source's faces are not at hand."""
    features: FeatureDrift | None
    classes: tuple[ClassShare, ...]
    truth: Truth | None
    """On the new faces, where all of them are labelled; no estimate looks at it."""
    curve: tuple[CurvePoint, ...]

    @property
    def between(self) -> Interval:
        """From the lowest end of the estimates' intervals to the highest."""
        ends = [end for estimate in self.estimates for end in estimate.interval]
        return min(ends), max(ends)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Name what the new faces differ in so much that an estimate of their accuracy may well be wrong."""
        found = [
            f"{one.measure} ({one.deviations:+.1f} standard deviations)".replace("-", "−")
            for one in self.inputs
            if abs(one.deviations) >= MUCH
        ]
        if self.features and self.features.interval[0] > FAR:
            found.append(f"features ({self.features.deviations:.1f} standard deviations)")
        return tuple(found)

    @property
    def verdict(self) -> Verdict:
        """Say how the network does on the new faces, compared with the source's."""
        low, high = self.between
        if high < self.known.accuracy - MARGIN:
            return "worse"
        return "as good" if low >= self.known.accuracy - MARGIN and not self.doubts else "unclear"

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self) | {"verdict": self.verdict, "doubts": list(self.doubts)}

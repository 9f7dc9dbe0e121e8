"""Measure a network on a test set, and the change by an update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossfer.evaluation import metrics
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.rows import Change, ClassChange, FlippedImage, Flips, Metrics

EXAMPLES = 5
"""Number of flipped images named in a row, for each direction."""

Positions = NDArray[np.int64]


def measure(answers: Answers) -> Metrics:
    """Measure a network on one set, as the study does (section III)."""
    matrix = metrics.confusion(answers.labels, answers.decisions, answers.classes)
    return Metrics(
        images=len(answers.labels),
        accuracy=metrics.accuracy(answers.labels, answers.decisions),
        balanced_accuracy=metrics.balanced_accuracy(matrix),
        macro_f1=metrics.macro_f1(matrix),
        calibration_error=metrics.calibration_error(answers.right, answers.confidences),
        recall=tuple(metrics.recalls(matrix)),
        confusion=tuple(map(tuple, matrix.tolist())),
    )


def find_flips(before: Answers, after: Answers) -> tuple[Positions, Positions]:
    """Find positive flips (wrong before, right now) and negative flips (right before, wrong now).

    Two networks of the same accuracy may be wrong on different images; users notice negative flips (Yan and
    others, "Positive-congruent training", 2021).

    Returns
    -------
    tuple of int64 arrays
        Their positions, ascending.
    """
    was, is_ = before.right, after.right
    return np.flatnonzero(~was & is_), np.flatnonzero(was & ~is_)


def change(
    before: Answers, after: Answers, classes: Sequence[str], origins: Sequence[str]
) -> Change:
    """Return the change of the predictions on the same images by an update.

    Parameters
    ----------
    before, after
        Answers of the baseline and of the updated network.
    classes
        C names.
    origins
        Origin of each of the N images.
    """
    labels = after.labels
    images = np.bincount(labels, minlength=len(classes))
    positive, negative = find_flips(before, after)
    won, lost = (np.bincount(labels[at], minlength=len(classes)) for at in (positive, negative))
    moved = np.abs(after.probabilities - before.probabilities)[np.arange(len(labels)), labels]

    def examples(positions: Positions) -> tuple[FlippedImage, ...]:
        most = positions[np.argsort(-moved[positions], kind="stable")][:EXAMPLES]
        return tuple(flipped_image(before, after, int(i), classes, origins) for i in most)

    return Change(
        points=100 * (len(positive) - len(negative)) / len(labels),
        classes=tuple(
            ClassChange(int(n), 100 * float(up - down) / int(n)) if n else None
            for n, up, down in zip(images, won, lost, strict=True)
        ),
        flips=Flips(
            tuple(won.tolist()), tuple(lost.tolist()), examples(positive), examples(negative)
        ),
    )


def flipped_image(
    before: Answers, after: Answers, i: int, classes: Sequence[str], origins: Sequence[str]
) -> FlippedImage:
    """Describe the image at position i: row, origin, class, both decisions."""
    said = (classes[x[i]] for x in (after.labels, before.decisions, after.decisions))
    return FlippedImage(int(after.rows[i]), origins[i], *said)

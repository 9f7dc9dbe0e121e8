"""The study's published figures (arXiv:1905.12082), for comparison.

Accuracies in per cent, changes in points.
"""

from __future__ import annotations

TABLE_I = {
    "fer2013": {"total": 35_888, "training": 28_709, "validation": 3_589, "test": 3_589},
    "jaffe": {"total": 213, "training": 131, "validation": 15, "test": 67},
    "tfeid": {"total": 510, "training": 405, "validation": 47, "test": 58},
    "mug": {"total": 7_352, "training": 5_877, "validation": 741, "test": 734},
}
"""Table I as printed.  FER2013 has 35,887 images: the printed total is off by one."""

FINE_TUNINGS = ("FC", "FC+CL", "RE")
"""The three strategies that section III averages together."""

FINE_TUNING_GAIN = (20.57, 37.41)
"""Section III.2: mean gain on the targets, the smallest and the largest of the three fine-tunings."""

FINE_TUNING_SOURCE_CHANGE = (-28.67, -20.94)
"""Section III.1: mean change on FER, the worst and the best of the three fine-tunings."""

FUSION_GAIN = 40.26
"""Section III.2: mean gain of FU on the targets."""

FUSION_SOURCE_CHANGE = 0.27
"""Section III.1: mean change of FU on FER."""

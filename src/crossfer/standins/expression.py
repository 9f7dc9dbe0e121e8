"""Expressions as vectors of facial actions.

The vocabulary is that of the Facial Action Coding System: P. Ekman and W. V. Friesen, *Facial
Action Coding System: A Technique for the Measurement of Facial Movement*, Consulting Psychologists
Press, 1978. Each action is named after its action unit (AU) and runs from 0 (at rest) to about 1
(as strong as people do it). An emotion is a combination of actions, after a
prototype of the same authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from crossfer.classes import FER7


@dataclass(frozen=True)
class Expression:
    """How strongly each facial action is done, 0 to about 1."""

    inner_brow_raise: float = 0.0  # AU 1
    outer_brow_raise: float = 0.0  # AU 2
    brow_lower: float = 0.0  # AU 4
    upper_lid_raise: float = 0.0  # AU 5
    cheek_raise: float = 0.0  # AU 6
    lid_tighten: float = 0.0  # AU 7
    nose_wrinkle: float = 0.0  # AU 9
    upper_lip_raise: float = 0.0  # AU 10
    corner_pull: float = 0.0  # AU 12
    corner_depress: float = 0.0  # AU 15
    chin_raise: float = 0.0  # AU 17
    lip_stretch: float = 0.0  # AU 20
    lip_press: float = 0.0  # AU 24
    lips_part: float = 0.0  # AU 25
    jaw_drop: float = 0.0  # AU 26 and 27
    lid_droop: float = 0.0  # AU 43, partly
    asymmetry: float = 0.0  # how much stronger the viewer's right side acts, -1 to 1

    def on_side(self, side: int) -> Expression:
        """Give the actions as one side of the face does them: -1 the viewer's left, 1 right."""
        return Expression(**_named(_vector(self) * (1 + side * self.asymmetry)))


ACTIONS = tuple(field.name for field in fields(Expression) if field.name != "asymmetry")

APEX: dict[str, dict[str, float]] = {
    "angry": dict(brow_lower=1.0, upper_lid_raise=0.35, lid_tighten=0.7, lip_press=0.9,
                  chin_raise=0.3),
    "disgust": dict(nose_wrinkle=1.0, upper_lip_raise=1.0, brow_lower=0.45, cheek_raise=0.5,
                    lid_tighten=0.45, corner_depress=0.35, lips_part=0.6),
    "fear": dict(inner_brow_raise=1.0, outer_brow_raise=0.45, brow_lower=0.45, upper_lid_raise=1.0,
                 lip_stretch=1.0, lips_part=0.9, jaw_drop=0.15),
    "happy": dict(cheek_raise=0.8, corner_pull=1.0, lips_part=0.9, jaw_drop=0.12),
    "sad": dict(inner_brow_raise=1.0, brow_lower=0.4, corner_depress=1.0, chin_raise=0.6,
                lid_droop=0.6),
    "surprise": dict(inner_brow_raise=1.0, outer_brow_raise=1.0, upper_lid_raise=0.9,
                     lips_part=1.0, jaw_drop=1.0),
    "neutral": {},
}  # fmt: skip
"""The actions that show each emotion, at their strongest: one way each, so that a thousand faces teach it."""

VARIATION = 0.15  # relative spread of an action at its apex
RESTLESSNESS = 0.06  # spread of every action in a face at rest
ASYMMETRY = 0.15  # at most


def _vector(expression: Expression) -> np.ndarray:
    return np.array([getattr(expression, action) for action in ACTIONS])


def _named(actions: np.ndarray) -> dict[str, float]:
    return dict(zip(ACTIONS, actions.tolist(), strict=True))


def between(start: Expression, end: Expression, share: float) -> Expression:
    """Interpolate two expressions: a share of 0 gives `start`, 1 gives `end`, whose asymmetry it has."""
    here = _vector(start) + share * (_vector(end) - _vector(start))
    return Expression(**_named(here), asymmetry=end.asymmetry)


def expression(
    label: int,
    intensity: float,
    rng: np.random.Generator,
    accent: Mapping[str, float] | None = None,
    habit: Mapping[str, float] | None = None,
) -> Expression:
    """Show an emotion, as people vary in showing it.

    Parameters
    ----------
    label
        Index into `crossfer.classes.FER7`, 0 to 6.
    intensity
        0 is a face at rest, 1 is the emotion at its strongest.
    rng
        The random generator.
    accent
        Factors of some actions, 1 by default: what people here do more or less than others.
    habit
        Strengths of some actions that people here always do, whatever they show.

    Returns
    -------
    Expression
        Every action in 0 to 1.3.
    """
    shown = APEX[FER7[label]]
    apex = np.array([shown.get(action, 0.0) for action in ACTIONS])
    apex *= np.maximum(0, 1 + VARIATION * rng.normal(size=len(ACTIONS)))
    apex *= [(accent or {}).get(action, 1.0) for action in ACTIONS]
    rest = RESTLESSNESS * np.abs(rng.normal(size=len(ACTIONS)))
    rest += [(habit or {}).get(action, 0.0) for action in ACTIONS]
    actions = np.clip(rest + intensity * apex, 0, 1.3)
    return Expression(**_named(actions), asymmetry=float(ASYMMETRY * np.tanh(rng.normal())))

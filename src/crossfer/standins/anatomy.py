"""Landmarks of a face, in face units, from a person and an expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .expression import Expression
from .person import Person

Points = np.ndarray  # (n, 2) float: x, y in face units

# How far each action moves the brow, inner end to outer end (positive is down).
_BROW_X = np.array([-0.25, -0.12, 0.03, 0.17, 0.29])
_BROW_ARCH = np.array([0.02, -0.02, -0.055, -0.05, 0.03])
_INNER_RAISE = np.array([-0.19, -0.12, -0.05, 0.0, 0.02])
_OUTER_RAISE = np.array([-0.02, -0.08, -0.14, -0.17, -0.12])
_LOWER = np.array([0.16, 0.13, 0.07, 0.01, -0.02])
_TOGETHER = np.array([-0.08, -0.05, -0.02, 0.0, 0.0])

# The mouth from corner to corner, the eye from inner to outer corner.
_MOUTH_U = np.linspace(-1, 1, 9)
_ARCH = 1 - np.abs(_MOUTH_U) ** 2.2
_CUPID = np.array([0, 0.4, 0.72, 1.0, 0.8, 1.0, 0.72, 0.4, 0])
_EYE_U = np.linspace(-1, 1, 7)


@dataclass(frozen=True)
class Half:
    """The features of one side of the face, drawn from the middle outwards."""

    side: int  # -1 the viewer's left, 1 the viewer's right
    actions: Expression
    brow: Points
    upper_lid: Points
    lower_lid: Points
    iris: Points  # (1, 2)
    iris_radius: float
    wing: Points  # (1, 2), of the nose
    corner: Points  # (1, 2), of the mouth


@dataclass(frozen=True)
class Anatomy:
    """All landmarks of a face."""

    outline: Points
    halves: tuple[Half, Half]
    nose_tip: float  # y
    lip_top: Points
    lip_bottom: Points
    mouth_top: Points  # the inner edges of the lips
    mouth_bottom: Points
    chin: float  # y


def _outline(person: Person, chin: float, drop: float) -> Points:
    right = np.array([
        (0.40, -1.22), (0.74, -1.02), (0.94, -0.65), (1.0, -0.2), (0.98, 0.2),
        (0.93, 0.55 + 0.3 * drop), (person.jaw, 0.98 + 0.7 * drop),
        (0.46 * person.jaw + 0.06, chin - 0.12), (0.17, chin - 0.015),
    ])  # fmt: skip
    right[:, 0] *= person.face_width
    return np.concatenate([[(0, -1.27)], right, [(0, chin)], (right * (-1, 1))[::-1]])


def _half(
    person: Person, actions: Expression, side: int, mouth: tuple[float, float], gaze: Points
) -> Half:
    a = actions
    brow_x = person.eye_gap + _BROW_X + _TOGETHER * a.brow_lower
    brow_y = (
        -person.brow_height + _BROW_ARCH * person.brow_arch - person.brow_tilt * _EYE_U[1:6]
        + _INNER_RAISE * a.inner_brow_raise + _OUTER_RAISE * a.outer_brow_raise
        + _LOWER * (a.brow_lower + 0.4 * a.nose_wrinkle) + 0.02 * a.cheek_raise
    )  # fmt: skip
    closing = 0.4 * a.lid_tighten + 0.3 * a.cheek_raise + 0.3 * a.nose_wrinkle + 0.6 * a.lid_droop
    above = person.eye_height * max(0.15, 1 + 0.75 * a.upper_lid_raise - closing)
    rise = 0.6 * a.lid_tighten + 0.6 * a.cheek_raise + 0.3 * a.nose_wrinkle
    below = person.eye_height * max(0.12, 0.75 + 0.2 * a.upper_lid_raise - rise)
    slope = 0.03 * a.lid_droop - person.eye_tilt
    lid_x = person.eye_gap + person.eye_width * _EYE_U
    arch = 1 - np.abs(_EYE_U) ** 2.3
    slant = 1 - (0.35 * a.lid_droop + 0.1) * _EYE_U  # a sad lid is highest near the nose
    flip = np.array([side, 1.0])

    def mirrored(x: np.ndarray | float, y: np.ndarray | float) -> Points:
        points: np.ndarray = np.stack(np.broadcast_arrays(x, y), -1).reshape(-1, 2) * flip
        return points

    return Half(
        side=side,
        actions=a,
        brow=mirrored(brow_x, brow_y),
        upper_lid=mirrored(lid_x, slope * _EYE_U - above * arch * slant),
        lower_lid=mirrored(lid_x, slope * _EYE_U + below * arch),
        iris=mirrored(person.eye_gap, 0.15 * (below - above)) + gaze * person.eye_width,
        iris_radius=0.52 * person.eye_width,
        wing=mirrored(
            person.nose_width * (1 + 0.15 * a.nose_wrinkle + 0.08 * a.corner_pull),
            person.nose_length - 0.05 - 0.08 * a.nose_wrinkle,
        ),
        corner=mirrored(*mouth),
    )


def anatomy(person: Person, expression: Expression, gaze: tuple[float, float]) -> Anatomy:
    """Place every feature of a face, in face units, seen from the front.

    `gaze` is where the eyes look: right and down, in half eye widths, about -0.4 to 0.4.
    """
    e = expression
    halves, corners = [], []
    for side in (-1, 1):
        a = e.on_side(side)
        half_width = person.mouth_width * (
            1 + 0.34 * a.corner_pull + 0.28 * a.lip_stretch - 0.12 * a.lip_press
            - 0.22 * a.jaw_drop * (1 - min(1, a.corner_pull + a.lip_stretch)) - 0.08 * a.chin_raise
        )  # fmt: skip
        height = (
            person.mouth_y - person.mouth_curve - 0.15 * a.corner_pull + 0.13 * a.corner_depress
            + 0.03 * a.lip_stretch + 0.13 * a.jaw_drop
        )  # fmt: skip
        corners.append((half_width, height))
        halves.append(_half(person, a, side, corners[-1], np.array([gaze])))

    # The mouth line hangs between its corners; the lips open above and below it.
    (left_width, left_y), (right_width, right_y) = corners
    x = np.where(_MOUTH_U < 0, left_width, right_width) * _MOUTH_U
    middle = person.mouth_y + 0.035 * e.corner_pull - 0.03 * e.corner_depress - 0.045 * e.chin_raise
    ends = np.where(_MOUTH_U < 0, left_y, right_y)
    line = middle + (ends - middle) * np.abs(_MOUTH_U) ** 1.5
    gap = 0.07 * e.lips_part + 0.36 * e.jaw_drop * min(1.0, 0.3 + e.lips_part)
    square = _ARCH ** (0.5 if e.lip_stretch + e.upper_lip_raise > 0.4 else 0.8)
    raised = 0.02 * e.corner_pull * e.lips_part + 0.02 * e.lip_stretch * e.lips_part
    lift = 0.075 * e.upper_lip_raise + 0.03 * e.nose_wrinkle + raised
    opened = min(1.0, e.lips_part + e.jaw_drop)
    top = line - lift * square
    bottom = line - lift * square * (1 - opened) + (gap - 0.25 * raised) * square
    thin = 1 - 0.75 * min(1.0, e.lip_press) - 0.2 * e.corner_pull - 0.15 * e.lip_stretch
    upper = person.upper_lip * max(0.15, thin)
    lower = person.lower_lip * max(0.15, thin + 0.25 * e.chin_raise)
    chin = person.chin + 0.24 * e.jaw_drop - 0.03 * e.chin_raise
    return Anatomy(
        outline=_outline(person, chin, 0.24 * e.jaw_drop),
        halves=(halves[0], halves[1]),
        nose_tip=person.nose_length - 0.03 * e.nose_wrinkle,
        lip_top=np.stack([x, top - upper * _CUPID], -1),
        lip_bottom=np.stack([x, bottom + lower * _ARCH**0.9], -1),
        mouth_top=np.stack([x, top], -1),
        mouth_bottom=np.stack([x, bottom], -1),
        chin=chin,
    )

"""Paint a person: features are drawn as outlines, their form is lit as a relief."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .anatomy import Anatomy, Half, anatomy
from .canvas import Canvas, Pose, ribbon, smooth
from .expression import Expression
from .person import Colour, Person

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (12, 8, 8)
SCLERA: Colour = (240, 236, 232)
TEETH: Colour = (238, 232, 220)
MOUTH: Colour = (64, 18, 22)
TONGUE: Colour = (176, 80, 84)

_WARMTH = np.array([0.88, 1.0, 1.06], np.float32)  # shadow takes more of blue than of red
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1)

_CELLS = 28  # cells of the relief to a face unit
_LEFT, _TOP, _COLUMNS, _ROWS = -1.5, -1.6, 84, 96  # the relief's corner (face units) and size


@dataclass(frozen=True)
class Light:
    """One lamp and the light of the room.

    Attributes
    ----------
    across, above
        Where the lamp stands: -1 left to 1 right, -1 below to 1 above the camera.
    strength
        Share of the light that comes from the lamp, 0 (flat) to 1 (hard).
    level
        Brightness of everything, about 0.5 to 1.5.
    """

    across: float = 0.3
    above: float = 0.4
    strength: float = 0.5
    level: float = 1.0


def _tone(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return red, green, blue


def _deep(skin: Colour, factor: float) -> Colour:
    """Darken skin as shadow does: the red stays longest."""
    red, green, blue = skin
    return red * factor**0.75, green * factor, blue * factor


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return _CIRCLE * (half_width, half_height) + (x, y)


# ---------------------------------------------------------------- form and light


def _bumps(person: Person, face: Anatomy, e: Expression) -> list[tuple[float, ...]]:
    """List what stands out of the head: x, y, spread across, spread down, height."""
    tip = face.nose_tip
    mouth = float(face.mouth_top[4, 1])
    low = float(face.mouth_bottom[4, 1])
    cheek, width = 0.9 * max(e.cheek_raise, 0.8 * e.corner_pull), person.face_width
    bumps: list[tuple[float, ...]] = [
        (0, 0.35 * tip, 0.085, 0.28, 0.17),
        (0, tip - 0.07, 0.12, 0.10, 0.20),
        (0, 0.5 * (tip + mouth), 0.05, 0.08, -0.03),
        (0, mouth - 0.03, 0.24, 0.07, 0.07),
        (0, low + 0.16, 0.20, 0.05, -0.06),
        (0, face.chin - 0.17, 0.20, 0.12, 0.12 + 0.05 * e.chin_raise),
        (0, -0.75, 0.45, 0.25, 0.05),
    ]
    for half in face.halves:
        s, brow = half.side, float(half.brow[1, 1])
        bumps += [
            (s * person.eye_gap, -0.01, 0.24, 0.15, -0.16),
            (s * person.eye_gap, 0.01, 0.15, 0.10, 0.07),
            (s * 0.36, brow - 0.03, 0.26, 0.07, 0.07 + 0.03 * e.brow_lower),
            (s * 0.10, brow + 0.02, 0.08, 0.07, 0.05 * e.brow_lower),
            (s * 0.56 * width, 0.42 - 0.07 * cheek, 0.23, 0.18, 0.11 + 0.10 * cheek),
            (s * 0.66 * width, 0.85, 0.16, 0.2, -0.05 - 0.04 * e.jaw_drop),
            (s * 0.16, float(half.wing[0, 1]), 0.07, 0.06, 0.08),
        ]
    return bumps


def _relief(person: Person, face: Anatomy, e: Expression, pose: Pose) -> np.ndarray:
    """Build the height of the turned face, (rows, columns) in face units."""
    x = (_LEFT + np.arange(_COLUMNS) / _CELLS).astype(np.float32)
    y = (_TOP + np.arange(_ROWS) / _CELLS).astype(np.float32)
    inside = 1 - (x / 1.14)[None] ** 2 - ((y - 0.05) / (face.chin + 0.22))[:, None] ** 2
    height = 0.85 * np.sqrt(np.maximum(inside, 0.02))
    bumps = np.array(_bumps(person, face, e), np.float32)
    centres = pose.turn(bumps[:, :2])
    across = np.exp(-0.5 * ((x - centres[:, :1]) / bumps[:, 2:3]) ** 2)
    down = np.exp(-0.5 * ((y - centres[:, 1:]) / bumps[:, 3:4]) ** 2)
    # einsum adds in one order on every machine, which a threaded matrix product need not
    relief: np.ndarray = height + np.einsum("kr,kc->rc", bumps[:, 4:] * down, across)
    return relief.astype(np.float32)


def _light_map(relief: np.ndarray, light: Light, roll: float) -> np.ndarray:
    """Light a relief: (rows, columns, 3) factors, warmer where it is dark."""
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=_CELLS / 8)
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=_CELLS / 8)
    c, s = np.cos(roll), np.sin(roll)
    lamp = np.array([
        light.across * c - light.above * s, -light.above * c - light.across * s, 0.9
    ])  # fmt: skip
    lamp /= np.linalg.norm(lamp)
    normal = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = normal * (lamp[2] - slope_x * lamp[0] - slope_y * lamp[1])
    lit = np.maximum(facing, 0) / lamp[2]
    room = 0.72 + 0.28 * normal
    brightness = (1 - light.strength) * room + light.strength * lit
    brightness += 0.10 * np.clip(facing, 0, 1) ** 24  # skin shines a little
    brightness = cv2.GaussianBlur(brightness.astype(np.float32), (0, 0), 0.8)
    factors: np.ndarray = np.maximum(brightness, 0.12)[..., None] ** _WARMTH
    return factors


# ---------------------------------------------------------------- the parts


def _hair_behind(canvas: Canvas, person: Person) -> None:
    w = person.face_width
    dark = _tone(person.hair, 0.8)
    crown = [(-1.06 * w, -0.1), (-1.1 * w, -0.8), (-0.72 * w, -1.42), (0, -1.62)]
    crown += [(-x, y) for x, y in crown[-2::-1]]
    ends = {"long": (1.22, 2.1), "bob": (1.2, 1.15), "fringe": (1.08, 0.7), "tied": (0.98, 0.2)}
    out, down = ends.get(person.hair_style, (1.0, 0.1))
    if person.hair_style == "receding":
        crown = [(x, 0.86 * y - 0.02) for x, y in crown]
    sides = [(out * w, 0.5 * down), (0.95 * out * w, down), (0.45 * w, down)]
    shape = crown + sides + [(-x, y) for x, y in sides[::-1]]
    canvas.fill(smooth(np.array(shape), closed=True), dark, soft=0.015, lift=-0.5)
    if person.hair_style == "tied":
        canvas.fill(_ellipse(0, -1.62, 0.36, 0.28), dark, soft=0.02, lift=-0.5)


def _body(canvas: Canvas, person: Person) -> None:
    neck = np.array([(-0.55, 0.9), (-0.56, 1.6), (-0.95, 1.95), (-0.5, 2.4),
                     (0.5, 2.4), (0.95, 1.95), (0.56, 1.6), (0.55, 0.9)])  # fmt: skip
    shoulders = [(-0.62, 1.72), (-1.3, 1.98), (-1.95, 2.3), (-2.2, 3.6), (2.2, 3.6), (1.95, 2.3),
                 (1.3, 1.98), (0.62, 1.72), (0.3, 2.05), (-0.3, 2.05)]  # fmt: skip
    canvas.fill(neck, _deep(person.skin, 0.72), soft=0.01, lift=-0.3)
    under_chin = _ellipse(0, 1.4, 0.75, 0.3)
    canvas.fill(under_chin, _deep(person.skin, 0.42), 0.6, 0.12, -0.3, within=neck)
    canvas.fill(smooth(np.array(shoulders), closed=True), person.clothes, soft=0.015, lift=-0.3)
    collar = [np.array([(side * 0.62, 1.74), (side * 0.4, 1.98), (0, 2.08)]) for side in (-1, 1)]
    canvas.stroke(collar, _tone(person.clothes, 0.6), 0.06, 0.8, 0.01, -0.3)


def _skin(canvas: Canvas, person: Person, outline: np.ndarray) -> None:
    ears = [_ellipse(side * 1.02 * person.face_width, 0.2, 0.11, 0.26) for side in (-1, 1)]
    canvas.fill(ears, _deep(person.skin, 0.82), soft=0.01, lift=-0.45)
    canvas.fill(outline, person.skin, soft=0.008, lift=-0.15)


def _beard(canvas: Canvas, person: Person, face: Anatomy) -> None:
    left, right = face.halves
    sides = [(x * 0.97, y) for x, y in face.outline[5:16]]
    inner = [left.corner[0] * (1.3, 1) - (0, 0.14), (0, face.nose_tip + 0.16),
             right.corner[0] * (1.3, 1) - (0, 0.14)]  # fmt: skip
    shape = np.array([*sides, *inner])
    canvas.fill(smooth(shape, closed=True), _tone(person.hair, 1.1), 0.75 * person.beard, 0.05)


def _cheeks(canvas: Canvas, person: Person, half: Half) -> None:
    """Blush, and the folds that raised cheeks and a wrinkled nose leave."""
    a, s, age = half.actions, half.side, person.age
    fold, blush = _deep(person.skin, 0.45), _deep(person.skin, 0.8)
    rosy = (1.08 * blush[0], blush[1], blush[2])
    canvas.fill(_ellipse(s * 0.58, 0.42, 0.24, 0.2), rosy, 0.35, 0.1)
    (wing_x, wing_y), (corner_x, corner_y) = half.wing[0], half.corner[0]
    sneer = 0.45 * a.upper_lip_raise + 0.3 * a.nose_wrinkle
    depth = min(0.7, 0.10 + 0.15 * age + 0.4 * a.corner_pull + sneer)
    out = s * (0.07 + 0.07 * a.corner_pull + 0.03 * a.upper_lip_raise)
    nasolabial = np.array([
        (wing_x + s * 0.02, wing_y - 0.06), (wing_x + s * 0.08 + 0.4 * out, wing_y + 0.05),
        (corner_x + out, corner_y - 0.12), (corner_x + 0.9 * out, corner_y + 0.02),
    ])  # fmt: skip
    canvas.stroke(nasolabial, fold, 0.055, depth, 0.02)
    below = half.lower_lid[1:, :] + (0, 0.055)
    bag = 0.10 + 0.2 * age + 0.4 * max(a.cheek_raise, a.lid_tighten)
    canvas.stroke(below, fold, 0.03, min(0.6, bag), 0.01)
    crow = 0.25 * age * a.cheek_raise + 0.35 * a.cheek_raise
    x, y = half.lower_lid[-1]
    feet = [np.array([(x + s * 0.04, y + 0.4 * rise), (x + s * 0.15, y + 1.2 * rise)])
            for rise in (-0.09, 0.0, 0.08)]  # fmt: skip
    canvas.stroke(feet, fold, 0.02, crow, 0.005)
    bunny = [np.array([(s * 0.01, y - 0.02), (s * 0.07, y), (s * 0.12, y + 0.05)])
             for y in (0.06, 0.14)]  # fmt: skip
    canvas.stroke(bunny, fold, 0.03, 0.6 * a.nose_wrinkle, 0.01, 0.1)
    pit = (corner_x + s * 0.05, corner_y + 0.09 * a.corner_depress)
    canvas.fill(_ellipse(*pit, 0.05, 0.04 + 0.05 * a.corner_depress), fold,
                0.25 + 0.4 * max(a.corner_pull, a.corner_depress, a.lip_stretch), 0.03)  # fmt: skip


def _forehead(canvas: Canvas, person: Person, face: Anatomy, e: Expression) -> None:
    fold = _deep(person.skin, 0.5)
    inner = 0.5 * float(face.halves[0].brow[0, 1] + face.halves[1].brow[0, 1])
    width = 0.25 + 0.3 * min(1.0, e.outer_brow_raise)
    raised = max(0.0, e.inner_brow_raise - 0.5 * e.brow_lower)
    wave = np.array([(-1, 0.02), (-0.5, -0.02), (0, 0.01), (0.5, -0.02), (1, 0.02)]) * (width, 1)
    lines = [wave + (0, y) for y in (-0.62, -0.75, -0.88)]
    canvas.stroke(lines, fold, 0.03, 0.1 * person.age + 0.5 * raised, 0.008)
    ends = [half.brow[0, 0] - half.side * 0.06 for half in face.halves]
    frown = [np.array([(x, inner + 0.03), (0.85 * x, inner - 0.07), (x, inner - 0.17)])
             for x in ends]  # fmt: skip
    canvas.stroke(frown, fold, 0.035, 0.7 * e.brow_lower, 0.008)


def _eye(canvas: Canvas, person: Person, half: Half) -> None:
    s, a = half.side, half.actions
    upper, lower = smooth(half.upper_lid), smooth(half.lower_lid)
    opening = np.concatenate([upper, lower[::-1]])
    centre = (s * person.eye_gap, float(half.iris[0, 1]))
    canvas.fill(_ellipse(centre[0], -0.09, 0.25, 0.12), _deep(person.skin, 0.55), 0.4, 0.07)
    canvas.fill(opening, SCLERA)
    x, y = half.iris[0]
    r = half.iris_radius
    canvas.fill(_ellipse(x, y, r, r), _tone(person.iris, 0.55), within=opening)
    canvas.fill(_ellipse(x, y + 0.1 * r, 0.8 * r, 0.78 * r), person.iris, 0.9, 0.01, within=opening)
    canvas.fill(_ellipse(x, y, 0.42 * r, 0.42 * r), BLACK, within=opening)
    shadow = np.concatenate([upper - (0, 0.01), (upper + (0, 0.05))[::-1]])
    canvas.fill(shadow, (60, 40, 40), 0.45, 0.012, within=opening)
    canvas.fill(_ellipse(x - 0.3 * r, y - 0.35 * r, 0.2 * r, 0.2 * r), WHITE, 0.9, within=opening)
    lash = 0.035 + 0.012 * (person.beard == 0)
    canvas.stroke(half.upper_lid - (0, 0.008), BLACK, lash, 0.9, taper=0.35)
    canvas.stroke(half.lower_lid + (0, 0.005), _deep(person.skin, 0.4), 0.018, 0.6)
    crease = half.upper_lid[1:] * (1, 0.8) - (0, 0.055 - 0.02 * a.brow_lower)
    canvas.stroke(crease, _deep(person.skin, 0.42), 0.022, 0.6, 0.005)


def _brow(canvas: Canvas, person: Person, half: Half) -> None:
    colour = _tone(person.hair, 0.75)
    canvas.stroke(half.brow, colour, 1.6 * person.brow_thickness, 0.45, 0.02, 0.05, 0.4)
    canvas.stroke(half.brow, colour, 1.1 * person.brow_thickness, 0.85, 0.006, 0.05, 0.55)


def _nose(canvas: Canvas, person: Person, face: Anatomy) -> None:
    tip, shadow = face.nose_tip, _deep(person.skin, 0.4)
    canvas.fill(_ellipse(0, tip + 0.06, 0.8 * person.nose_width, 0.05), shadow, 0.4, 0.04, 0.1)
    nostrils, wings, bridge = [], [], []
    for half in face.halves:
        s, (x, y) = half.side, half.wing[0]
        nostrils.append(_ellipse(s * 0.42 * person.nose_width, tip - 0.005, 0.05, 0.026))
        wings.append(np.array([(x - s * 0.05, y - 0.10), (x, y - 0.03), (x - s * 0.02, y + 0.05),
                               (x - s * 0.07, y + 0.06)]))  # fmt: skip
        bridge.append(np.array([(s * 0.13, -0.12), (s * 0.085, 0.05), (s * 0.10, 0.3)]))
    canvas.fill(nostrils, _deep(person.skin, 0.16), 0.85, 0.01, 0.12)
    canvas.stroke(wings, shadow, 0.03, 0.55, 0.01, 0.1)
    canvas.stroke(bridge, shadow, 0.07, 0.22, 0.03, 0.1)


def _mouth(canvas: Canvas, person: Person, face: Anatomy, e: Expression) -> None:
    top, bottom = smooth(face.mouth_top), smooth(face.mouth_bottom)
    lip_top, lip_bottom = smooth(face.lip_top), smooth(face.lip_bottom)
    opening = np.concatenate([top, bottom[::-1]])
    under = lip_bottom[12:-12]
    canvas.fill(under + (0, 0.06), _deep(person.skin, 0.5), 0.45, 0.03)
    canvas.fill(np.concatenate([lip_top, top[::-1]]), _tone(person.lips, 0.86), 0.95, 0.006)
    canvas.fill(np.concatenate([bottom, lip_bottom[::-1]]), person.lips, 0.95, 0.006)
    shine = 0.5 * (bottom + lip_bottom)[16:-16]
    canvas.stroke(shine, WHITE, 0.035, 0.16, 0.015)
    gap = float(face.mouth_bottom[4, 1] - face.mouth_top[4, 1])
    if gap > 0.02:
        canvas.fill(opening, MOUTH)
        if e.jaw_drop > 0.3:
            canvas.fill(_ellipse(0, float(bottom[:, 1].max()) - 0.04, 0.2, 0.28 * gap), TONGUE, 0.8,
                        0.03, within=opening)  # fmt: skip
        bared = 0.055 + 0.05 * max(e.corner_pull, e.upper_lip_raise, 0.8 * e.lip_stretch)
        teeth = np.concatenate([top[6:-6] - (0, 0.02), (top[6:-6] + (0, bared))[::-1]])
        canvas.fill(teeth, TEETH, 0.92, 0.008, within=opening)
        lower = 0.05 * max(e.lip_stretch, 0.8 * e.upper_lip_raise) * (e.corner_pull < 0.3)
        if lower > 0.01:
            row = np.concatenate([bottom[9:-9] - (0, lower), (bottom[9:-9] + (0, 0.02))[::-1]])
            canvas.fill(row, _tone(TEETH, 0.85), 0.9, 0.008, within=opening)
    else:
        canvas.stroke(face.mouth_top, _deep(person.lips, 0.25), 0.035, 0.9, 0.004, taper=0.3)
    dimples = [_ellipse(0.09 * k, face.chin - 0.2 + 0.03 * abs(k), 0.05, 0.03) for k in (-1, 0, 1)]
    canvas.fill(dimples, _deep(person.skin, 0.5), 0.35 * e.chin_raise, 0.015)


def _hair_in_front(canvas: Canvas, person: Person) -> None:
    w, style = person.face_width, person.hair_style
    part = person.parting
    hairline = {
        "long": [(0.97, 0.25), (0.86, -0.45), (0.55, -0.88)],
        "bob": [(0.96, 0.55), (0.84, -0.35), (0.58, -0.8)],
        "tied": [(0.98, -0.25), (0.88, -0.68), (0.55, -1.0)],
        "fringe": [(0.97, 0.1), (0.85, -0.42), (0.5, -0.55)],
        "short": [(0.99, -0.15), (0.87, -0.62), (0.5, -0.92)],
        "side": [(0.99, -0.05), (0.88, -0.55), (0.55, -0.85)],
        "receding": [(1.0, -0.2), (0.93, -0.62), (0.74, -1.0)],
    }[style]
    middle = {"fringe": -0.52, "receding": -1.2, "short": -0.95}.get(style, -1.05)
    top = -1.42 if style == "receding" else -1.6
    right = [(x * w, y) for x, y in hairline]
    left = [(-x, y) for x, y in right]
    if style == "side":  # swept from the parting over the forehead
        left[2] = (left[2][0], left[2][1] + 0.18)
    inner = [*left, (part * 0.5, middle), *right[::-1]]
    outer = [(1.07 * w, right[0][1]), (1.1 * w, -0.75), (0.74 * w, -1.34), (0, top),
             (-0.74 * w, -1.34), (-1.1 * w, -0.75), (-1.07 * w, left[0][1])]  # fmt: skip
    edge = smooth(np.array(inner))
    canvas.fill(edge + (0, 0.05), _deep(person.skin, 0.4), 0.35, 0.05)
    shape = np.concatenate([edge, smooth(np.array(outer))])
    canvas.fill(shape, person.hair, soft=0.012, lift=-0.1)
    start = np.array([part * 0.6, top + 0.12])
    feet = edge[np.linspace(0.06 * len(edge), 0.94 * len(edge), 11).astype(int)]
    strands = [np.array([start, 0.5 * (start + foot) * (1.25, 1.12), foot])
               for foot in feet * (1.05, 1) - (0, 0.03)]  # fmt: skip
    bodies = [ribbon(smooth(strand), 0.05) for strand in strands]
    for some, tone in ((bodies[::2], 0.6), (bodies[1::2], 1.45)):
        canvas.fill(some, _tone(person.hair, tone), 0.3, 0.012, -0.1, within=shape)


def _glasses(canvas: Canvas, person: Person, tinted: bool) -> None:
    frame = (38, 34, 36)
    rims = [_ellipse(side * person.eye_gap, 0.03, 0.30, 0.22) for side in (-1, 1)]
    temples = [np.array([(side * 0.72, -0.02), (side * 1.0, -0.06)]) for side in (-1, 1)]
    if tinted:
        canvas.fill(rims, (20, 18, 22), 0.93, 0.005, 0.15)
    closed = [np.concatenate([rim, rim[:1]]) for rim in rims]
    canvas.stroke(closed, frame, 0.04, 0.85, lift=0.15, taper=0.05)
    canvas.stroke(temples, frame, 0.04, 0.85, lift=-0.1)
    canvas.stroke(np.array([(-0.15, 0.0), (0, -0.04), (0.15, 0.0)]), frame, 0.04, 0.85, lift=0.2)


def draw(
    person: Person,
    expression: Expression,
    pose: Pose,
    light: Light,
    backdrop: np.ndarray,
    sunglasses: bool = False,
) -> Canvas:
    """Draw a person in front of a backdrop, (height, width, 3) RGB, 0 to 255.

    Returns
    -------
    Canvas
        Its `picture` is (height, width, 3) float32 RGB, about 0 to 255. It is a canvas so that
        something can still be painted in front of the face.
    """
    face = anatomy(person, expression, pose.gaze)
    outline = smooth(face.outline, closed=True)
    canvas = Canvas(backdrop, pose)
    _hair_behind(canvas, person)
    _body(canvas, person)
    _skin(canvas, person, outline)
    _forehead(canvas, person, face, expression)
    for half in face.halves:
        _cheeks(canvas, person, half)
        _eye(canvas, person, half)
    _nose(canvas, person, face)
    if person.beard:
        _beard(canvas, person, face)
    _mouth(canvas, person, face, expression)
    for half in face.halves:
        _brow(canvas, person, half)
    relief = _relief(person, face, expression, pose)
    grid = np.array([[1 / _CELLS, 0, _LEFT], [0, 1 / _CELLS, _TOP]])
    canvas.shade(outline, _light_map(relief, light, pose.roll), grid, -0.15)
    _hair_in_front(canvas, person)
    if person.glasses or sunglasses:
        _glasses(canvas, person, sunglasses)
    canvas.picture *= light.level
    return canvas

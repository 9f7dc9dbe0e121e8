"""Domains that pictures come from: the wild, and three laboratories unlike it and each other.

A world is a set of distributions. What differs between worlds is what differs between real
datasets: who stands in front of the camera, how strongly they act, light, framing and camera. The
laboratories are named after the datasets whose layout and manner they borrow; they show no image
and no person of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .canvas import Canvas, Pose
from .draw import Light, draw
from .expression import Expression
from .person import Colour, Person, Population

Range = tuple[float, float]

OCCLUSIONS = ("hand", "scarf", "strands", "sunglasses")


@dataclass(frozen=True)
class World:
    """The distributions that make a dataset's pictures alike.

    Ranges are lowest and highest, spreads are standard deviations; angles are in radians, lengths
    are shares of the picture's shorter side unless said otherwise.
    """

    title: str
    heights: tuple[int, int]  # pixels
    widths: tuple[int, int]
    oversample: float  # pixels drawn to a pixel delivered
    gray: bool
    population: Population
    intensity: Range  # how strongly people act
    accent: dict[str, float]  # what they do more, or less, than others
    # what they do all the time: a model that learns to overlook it forgets it
    habit: dict[str, float]
    scale: float  # of a face unit
    centre: tuple[float, float]  # of the eyes, shares of width and height
    framing: float  # spread of scale (relative) and centre
    turn: tuple[float, float, float]  # spread of yaw, pitch, roll
    lamp: tuple[float, float]  # where the lamp stands: across, above
    lamp_spread: float
    strength: Range  # of the lamp
    level: Range  # of brightness
    backdrop: Colour | None  # None: somewhere
    contrast: Range
    gamma: Range
    blur: Range  # pixels delivered
    noise: Range  # gray levels
    occluded: float  # share of pictures with something in front of the face


WILD = World(
    title="FER2013 stand-in (in the wild)",
    heights=(48, 48), widths=(48, 48), oversample=2, gray=True,
    population=Population(),
    intensity=(1.0, 1.3), accent={}, habit={},
    scale=0.45, centre=(0.5, 0.37), framing=0.04, turn=(0.08, 0.05, 0.05),
    lamp=(0.0, 0.4), lamp_spread=0.3, strength=(0.2, 0.6), level=(0.7, 1.25), backdrop=None,
    contrast=(0.7, 1.3), gamma=(0.75, 1.35), blur=(0.0, 0.9), noise=(0.0, 5.0), occluded=0.05,
)  # fmt: skip
"""The source: photographs from anywhere, cropped to the face, small and gray; people act strongly and look
into the camera, so that a small network learns it in seconds."""

LAB_JAFFE = World(
    title="JAFFE stand-in (laboratory)",
    heights=(256, 256), widths=(256, 256), oversample=1, gray=True,
    population=Population(women=1, skins=(0, 2), hairs=(0, 1), glasses=0, ages=(0, 0.3)),
    intensity=(0.45, 0.8),
    accent=dict(brow_lower=0.8, upper_lid_raise=0.7, lips_part=0.6, jaw_drop=0.7),
    habit=dict(corner_depress=0.6, inner_brow_raise=0.5),
    scale=0.27, centre=(0.5, 0.49), framing=0.01, turn=(0.03, 0.03, 0.02),
    lamp=(0.7, 0.9), lamp_spread=0.05, strength=(0.5, 0.6), level=(0.75, 0.85),
    backdrop=(112, 112, 112),
    contrast=(0.75, 0.85), gamma=(0.75, 0.85), blur=(0.5, 0.9), noise=(2.0, 4.0), occluded=0,
)  # fmt: skip
"""Ten women, gray and soft, who act subtly, with the mouth nearly closed."""

LAB_TFEID = World(
    title="TFEID stand-in (laboratory)",
    heights=(600, 606), widths=(480, 595), oversample=0.5, gray=False,
    population=Population(skins=(0, 2), hairs=(0, 1), glasses=0, beards=0, ages=(0, 0.3)),
    intensity=(0.4, 0.75),
    accent=dict(inner_brow_raise=0.6, outer_brow_raise=0.6, lip_stretch=0.6, corner_depress=0.7),
    habit=dict(brow_lower=0.7, lid_tighten=0.5, lip_press=0.4),
    scale=0.325, centre=(0.5, 0.42), framing=0.015, turn=(0.02, 0.02, 0.015),
    lamp=(0.0, 0.1), lamp_spread=0.03, strength=(0.15, 0.25), level=(1.1, 1.2),
    backdrop=(232, 234, 238),
    contrast=(1.1, 1.2), gamma=(0.8, 0.9), blur=(0.0, 0.5), noise=(0.5, 1.5), occluded=0,
)  # fmt: skip
"""Forty people in strong even light before a bright wall, frontal, who act moderately."""

LAB_MUG = World(
    title="MUG stand-in (laboratory)",
    heights=(224, 224), widths=(224, 224), oversample=1, gray=False,
    population=Population(skins=(0, 3), hairs=(0, 4), glasses=0, beards=0.3, ages=(0.1, 0.5)),
    intensity=(0.65, 1.0),
    accent=dict(brow_lower=0.5, lid_tighten=0.5, cheek_raise=0.6, jaw_drop=1.2, lips_part=1.3),
    habit=dict(corner_pull=0.4, lips_part=0.6, jaw_drop=0.2),
    scale=0.205, centre=(0.5, 0.40), framing=0.015, turn=(0.05, 0.04, 0.03),
    lamp=(-1.0, 0.1), lamp_spread=0.08, strength=(0.6, 0.7), level=(1.0, 1.1),
    backdrop=(38, 72, 158),
    contrast=(1.3, 1.45), gamma=(1.1, 1.25), blur=(0.2, 0.6), noise=(1.0, 2.5), occluded=0,
)  # fmt: skip
"""Colour video before a blue wall, lit hard from one side, of people whose mouths act strongly."""

WORLDS = (WILD, LAB_JAFFE, LAB_TFEID, LAB_MUG)


@dataclass(frozen=True)
class Setting:
    """One sitting: everything about a picture except the person and the expression."""

    pose: Pose
    light: Light
    backdrop: np.ndarray  # (height, width, 3) float32, as large as what is drawn
    size: tuple[int, int]  # height and width of what is delivered
    contrast: float
    gamma: float
    blur: float
    noise: float
    occlusion: str | None


def _somewhere(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Make up an unfocused place: a few patches of colour, blurred."""
    patches = rng.uniform(20, 235, (4, 4, 1)) + rng.normal(0, 25, (4, 4, 3))
    return cv2.resize(patches.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def _wall(height: int, width: int, colour: Colour) -> np.ndarray:
    """Light a plain wall from above: a little darker at the foot."""
    fall = np.linspace(1.05, 0.85, height, dtype=np.float32)[:, None, None]
    return np.tile(fall * np.array(colour, np.float32), (1, width, 1))


def setting(world: World, rng: np.random.Generator) -> Setting:
    """Draw pose, light, backdrop and camera from a world's distributions."""

    def spread(deviation: float) -> float:
        return float(deviation * np.clip(rng.normal(), -2.2, 2.2))

    def within(ends: Range) -> float:
        return float(rng.uniform(*ends))

    height = int(rng.integers(world.heights[0], world.heights[1] + 1))
    width = int(rng.integers(world.widths[0], world.widths[1] + 1))
    rows, columns = round(height * world.oversample), round(width * world.oversample)
    yaw, pitch, roll = (spread(angle) for angle in world.turn)
    pose = Pose(
        yaw, pitch, roll,
        scale=world.scale * (1 + spread(world.framing)),
        # a turned head is still framed in the middle
        centre=(world.centre[0] + spread(world.framing) - 0.5 * yaw * world.scale,
                world.centre[1] + spread(world.framing) - 0.5 * pitch * world.scale),
        gaze=(spread(0.5 * world.turn[0]), spread(0.5 * world.turn[1])),
    )  # fmt: skip
    light = Light(
        world.lamp[0] + spread(world.lamp_spread),
        world.lamp[1] + spread(world.lamp_spread),
        within(world.strength),
        within(world.level),
    )
    wall = world.backdrop
    occluded = rng.random() < world.occluded
    return Setting(
        pose=pose,
        light=light,
        backdrop=_wall(rows, columns, wall) if wall else _somewhere(rows, columns, rng),
        size=(height, width),
        contrast=within(world.contrast),
        gamma=within(world.gamma),
        blur=within(world.blur),
        noise=within(world.noise),
        occlusion=str(rng.choice(OCCLUSIONS)) if occluded else None,
    )


def sway(scene: Setting, rng: np.random.Generator) -> Setting:
    """Let a head that tries to keep still sway a little, as from frame to frame of a video."""
    yaw, pitch, roll, x, y = 0.004 * rng.normal(size=5)
    pose = scene.pose
    return replace(scene, pose=replace(
        pose, yaw=pose.yaw + yaw, pitch=pose.pitch + pitch, roll=pose.roll + roll,
        centre=(pose.centre[0] + 0.3 * x, pose.centre[1] + 0.3 * y),
    ))  # fmt: skip


def _occlude(canvas: Canvas, who: Person, what: str, rng: np.random.Generator) -> None:
    """Put something in front of the face."""
    side = float(rng.choice((-1, 1)))
    if what == "scarf":
        top = rng.uniform(0.98, 1.15)
        band = [(-1.5, top - 0.25), (0, top + 0.08), (1.5, top - 0.25), (1.8, 2.2), (-1.8, 2.2)]
        canvas.fill(np.array(band), who.clothes, soft=0.02)
    elif what == "strands":
        feet = [(side * (0.15 + 0.13 * k), rng.uniform(-0.2, 0.4)) for k in range(5)]
        locks = [np.array([(0.5 * x, -1.3), (1.2 * x, -0.7), (x, y)]) for x, y in feet]
        canvas.stroke(locks, who.hair, 0.11, 0.85, 0.015)
    elif what == "hand":
        x, y = rng.uniform(0.6, 0.95) * side, rng.uniform(0.7, 1.1)
        for k in range(4):
            tip = (x - side * (0.25 + 0.06 * k), y - 0.75 + 0.22 * k)
            finger = np.array([(x + side * 0.3, y + 0.1 + 0.1 * k), (x, y - 0.4 + 0.2 * k), tip])
            canvas.stroke(finger, (80, 55, 45), 0.29, 0.6, 0.02, taper=0.2)
            canvas.stroke(finger, who.skin, 0.24, 1.0, 0.01, taper=0.2)


def _exposure(who: Person) -> float:
    """Give the camera's answer to dark and to light skin: it opens up, but not all the way."""
    return float((180 / np.mean(who.skin)) ** 0.6)


def photograph(
    world: World, who: Person, what: Expression, scene: Setting, rng: np.random.Generator
) -> np.ndarray:
    """Take a picture of a person and an expression, with a world's camera, in the scene of a `setting`.

    Returns
    -------
    numpy.ndarray
        uint8 (height, width) where the world is gray, else (height, width, 3) RGB.
    """
    shades = scene.occlusion == "sunglasses"
    canvas = draw(who, what, scene.pose, scene.light, scene.backdrop, sunglasses=shades)
    if scene.occlusion:
        _occlude(canvas, who, scene.occlusion, rng)
    picture: np.ndarray = canvas.picture * np.float32(_exposure(who) / 255)
    if world.gray:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    picture = np.clip(picture, 0.0, 1.0) ** np.float32(scene.gamma)
    picture = 127.5 + np.float32(255 * scene.contrast) * (picture - np.float32(0.5))
    height, width = scene.size
    how = cv2.INTER_AREA if world.oversample >= 1 else cv2.INTER_LINEAR
    picture = cv2.resize(picture, (width, height), interpolation=how)
    if scene.blur > 0.1:
        picture = cv2.GaussianBlur(picture, (0, 0), scene.blur)
    grain = np.float32(scene.noise) * rng.standard_normal((height, width), np.float32)
    grainy = picture + (grain if world.gray else grain[..., None])
    delivered: np.ndarray = np.clip(np.round(grainy), 0, 255).astype(np.uint8)
    return delivered

"""Identities: the proportions and colours by which faces differ.

Lengths are in *face units*: the origin lies between the eyes, x runs to the viewer's right, y runs
down, and half the width of an average face is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # red, green, blue, each 0 to 255

SKINS: tuple[Colour, ...] = (
    (245, 214, 190),
    (236, 196, 166),
    (222, 176, 140),
    (196, 146, 108),
    (152, 104, 74),
    (108, 72, 52),
)
"""Skin tones, light to dark."""

HAIRS: tuple[Colour, ...] = (
    (30, 26, 26),
    (54, 38, 30),
    (92, 62, 40),
    (150, 106, 62),
    (206, 170, 112),
    (168, 166, 164),
)
"""Hair colours: black, dark brown, brown, light brown, blond, gray."""

HAIR_STYLES = ("long", "bob", "tied", "fringe", "short", "side", "receding")
_WOMEN_STYLES, _MEN_STYLES = HAIR_STYLES[:4], HAIR_STYLES[3:]


@dataclass(frozen=True)
class Population:
    """The distribution of the people of a world.

    Attributes
    ----------
    women
        Share of women, 0 to 1.
    skins, hairs
        Range of indices into `SKINS` and `HAIRS`, first and last.
    glasses, beards
        Share of people (of men, for beards) who wear them.
    ages
        Range of ages, 0 (young, smooth) to 1 (old, lined).
    """

    women: float = 0.5
    skins: tuple[int, int] = (0, len(SKINS) - 1)
    hairs: tuple[int, int] = (0, len(HAIRS) - 1)
    glasses: float = 0.12
    beards: float = 0.4
    ages: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Person:
    """One identity: everything about a face that an expression does not change."""

    face_width: float
    jaw: float  # half-width at the corners of the jaw
    chin: float  # y of the chin
    eye_gap: float  # half the distance between the eyes
    eye_width: float  # half-width of an eye
    eye_height: float  # how far the upper lid rises above the corners
    eye_tilt: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth_width: float  # half-width
    mouth_curve: float  # of the resting mouth: positive smiles, negative frowns
    upper_lip: float
    lower_lip: float
    age: float
    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    hair_style: str
    parting: float  # where the hair parts, -1 (left) to 1
    beard: float  # 0 (shaven) to 1 (full)
    glasses: bool


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return red, green, blue


def _between(tones: tuple[Colour, ...], ends: tuple[int, int], rng: np.random.Generator) -> Colour:
    """Pick a tone anywhere between two entries of a scale."""
    place = rng.uniform(*ends)
    low = min(int(place), len(tones) - 2)
    return _mix(tones[low], tones[low + 1], place - low)


def person(rng: np.random.Generator, population: Population) -> Person:
    """Invent a person of a population; a generator in the same state gives the same person."""
    woman = rng.random() < population.women

    def near(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.normal(), -2, 2))

    skin = _between(SKINS, population.skins, rng)
    bearded = not woman and rng.random() < population.beards
    redness = rng.uniform(0.45, 0.85) if woman else rng.uniform(0.25, 0.5)
    return Person(
        face_width=near(0.96 if woman else 1.0, 0.04),
        jaw=near(0.70 if woman else 0.80, 0.05),
        chin=near(1.38 if woman else 1.45, 0.05),
        eye_gap=near(0.43, 0.02),
        eye_width=near(0.205, 0.015),
        eye_height=near(0.100 if woman else 0.086, 0.012),
        eye_tilt=near(0.015, 0.018),
        brow_height=near(0.30 if woman else 0.27, 0.025),
        brow_thickness=near(0.040 if woman else 0.060, 0.009),
        brow_arch=near(1.0 if woman else 0.7, 0.3),
        brow_tilt=near(0.0, 0.025),
        nose_length=near(0.60, 0.04),
        nose_width=near(0.20 if woman else 0.23, 0.02),
        mouth_y=near(0.93, 0.03),
        mouth_width=near(0.36, 0.03),
        mouth_curve=near(0.0, 0.022),
        upper_lip=near(0.075 if woman else 0.055, 0.014),
        lower_lip=near(0.100 if woman else 0.080, 0.016),
        age=float(rng.uniform(*population.ages)),
        skin=skin,
        hair=_between(HAIRS, population.hairs, rng),
        iris=_mix((60, 38, 24), (92, 128, 150), float(rng.random() ** 3)),
        lips=_mix(skin, (168, 50, 58), redness),
        clothes=tuple(rng.uniform(30, 220, 3).tolist()),
        hair_style=str(rng.choice(_WOMEN_STYLES if woman else _MEN_STYLES)),
        parting=float(rng.uniform(-0.6, 0.6)),
        beard=float(rng.uniform(0.25, 1)) if bearded else 0.0,
        glasses=bool(rng.random() < population.glasses),
    )

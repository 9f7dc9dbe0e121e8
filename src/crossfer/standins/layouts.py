"""Write stand-ins as the real datasets come: the same folders, file names and columns."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from crossfer.classes import FER7
from crossfer.processor import available_cores
from crossfer.progress import OnProgress

from .expression import between, expression
from .person import Person, person
from .worlds import LAB_JAFFE, LAB_MUG, LAB_TFEID, WILD, WORLDS, World, photograph, setting, sway

NOTICE = """These are drawn stand-ins, NOT the real {name} dataset.

Every face here was drawn by code (crossfer.standins). No real person and no real dataset is shown.
Only the layout of the files is that of {name}, so that crossfer can be tried without a download.
Numbers measured on stand-ins say nothing about {name}.
"""

FER_USAGES = ("Training", "PublicTest", "PrivateTest", *["Training"] * 6, "PrivateTest")
"""The part that each of ten successive images of a class goes to."""

FER_SHARES = dict(
    angry=0.14, disgust=0.05, fear=0.14, happy=0.23, sad=0.16, surprise=0.12, neutral=0.16
)
"""Class shares, about FER2013's (which has even fewer disgusted faces)."""

JAFFE_SUBJECTS = ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM")
JAFFE_CODES = dict(
    angry="AN", disgust="DI", fear="FE", happy="HA", neutral="NE", sad="SA", surprise="SU"
)
JAFFE_COUNTS = dict(AN=30, DI=29, FE=32, HA=31, NE=30, SA=31, SU=30)

TFEID_SUBJECTS = tuple(f"{sex}{number:02d}" for number in range(1, 21) for sex in "fm")
TFEID_CODES = dict(
    angry="ag", disgust="dg", fear="fg", happy="hg", sad="sg", surprise="pg", neutral="ng"
)

FOLDERS = dict(
    angry="anger", disgust="disgust", fear="fear", happy="happiness", sad="sadness",
    surprise="surprise", neutral="neutral",
)  # fmt: skip
"""The class folders of TFEID and MUG."""

MUG_SUBJECTS = 26
MUG_FRAMES = (11, 15)  # of a sequence, fewest and most
QUALITY = 92  # of JPEG
SEED = 0  # another would draw other people
FEW_JOBS = 100  # fewer jobs than these are done sooner here than by other processes
WINDOWS = 61  # more processes cannot be waited for there

Result = TypeVar("Result")


def _chance(world: World, *path: int) -> np.random.Generator:
    """Return a generator of its own for each person and picture, whatever the order of drawing."""
    return np.random.default_rng([SEED, WORLDS.index(world), *path])


def subject(world: World, number: int) -> Person:
    """Return the person of a number, from 0, in a world: always the same one."""
    population = world.population
    if world == LAB_TFEID:  # women and men in turn, as the names of the files say
        population = replace(population, women=float(number % 2 == 0))
    return person(_chance(world, 0, number), population)


def portrait(world: World, number: int, label: int, take: int = 0) -> np.ndarray:
    """Photograph a person of a world who shows an emotion.

    Parameters
    ----------
    world, number
        Who, as in `subject`.
    label
        Index into `crossfer.classes.FER7`.
    take
        Another picture for each number.

    Returns
    -------
    numpy.ndarray
        uint8 (height, width) where the world is gray, else (height, width, 3) RGB.
    """
    rng = _chance(world, 1, number, label, take)
    how = (float(rng.uniform(*world.intensity)), rng, world.accent, world.habit)
    what = expression(label, *how)
    return photograph(world, subject(world, number), what, setting(world, rng), rng)


def sequence(world: World, number: int, label: int, take: int = 0) -> list[np.ndarray]:
    """Film a person who goes from neutral to an emotion and back; the parameters are those of `portrait`.

    Returns
    -------
    list of numpy.ndarray
        11 to 15 frames, uint8 (height, width, 3) RGB; the first and the last are neutral.
    """
    rng = _chance(world, 1, number, label, take)
    who, scene = subject(world, number), setting(world, rng)
    rest = expression(FER7.index("neutral"), 0.0, rng, habit=world.habit)
    how = (float(rng.uniform(*world.intensity)), rng, world.accent, world.habit)
    apex = expression(label, *how)
    frames = []
    for moment in np.linspace(0, np.pi, rng.integers(MUG_FRAMES[0], MUG_FRAMES[1] + 1)):
        shown = between(rest, apex, min(1.0, 1.5 * float(np.sin(moment)) ** 1.5))
        frames.append(photograph(world, who, shown, sway(scene, rng), rng))
    return frames


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == ".jpg" else []
    stored = picture[..., ::-1] if picture.ndim == 3 else picture  # OpenCV writes BGR
    if not cv2.imwrite(str(path), stored, options):
        raise OSError(f"cannot write {path}")


def _at_once(
    work: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], progress: OnProgress
) -> Iterator[Result]:
    """Do jobs, in parallel where there are many; results come in the order of the jobs."""
    with ExitStack() as stack:
        if len(jobs) < FEW_JOBS:
            results: Iterator[Result] = starmap(work, jobs)
        else:
            pool = ProcessPoolExecutor(
                min(available_cores(), WINDOWS),
                get_context("spawn"),
                cv2.setNumThreads,
                initargs=(1,),
            )
            with _without_main():
                results = stack.enter_context(pool).map(work, *zip(*jobs, strict=True), chunksize=4)
        for done, result in enumerate(results, 1):
            yield result
            progress(done, len(jobs))


@contextmanager
def _without_main() -> Iterator[None]:
    """Have processes that start here not import the user's script, which would then need a main guard."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _shoot(path: Path, world: World, number: int, label: int, take: int) -> None:
    _save(path, portrait(world, number, label, take))


def _film(folder: Path, world: World, number: int, label: int, take: int) -> None:
    for frame, picture in enumerate(sequence(world, number, label, take)):
        _save(folder / f"img_{frame:04d}.jpg", picture)


def write_fer2013(folder: Path, progress: OnProgress, images: int = 2400) -> None:
    """Write `fer2013.csv` (emotion, pixels, Usage) into an existing folder; each row shows another person."""
    counts = [max(3, round(images * FER_SHARES[emotion])) for emotion in FER7]
    rows = [(label, FER_USAGES[i % 10]) for label in range(7) for i in range(counts[label])]
    order = _chance(WILD, 2).permutation(len(rows))
    jobs = [(WILD, number, rows[row][0]) for number, row in enumerate(order)]
    with open(folder / "fer2013.csv", "w", newline="", encoding="ascii") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("emotion", "pixels", "Usage"))
        for row, picture in zip(order, _at_once(portrait, jobs, progress), strict=True):
            label, usage = rows[row]
            table.writerow((label, " ".join(map(str, np.ravel(picture))), usage))


def write_jaffe(folder: Path, progress: OnProgress, images: int = 213) -> None:
    """Write a flat folder of `KA.AN1.39.tiff`: subject, emotion and repetition, serial number.

    There are at most 213 images; fewer leave out repetitions first, then people.
    """
    wanted = [
        (repetition, number, FER7.index(emotion), code)
        for repetition in range(4)
        for number in range(len(JAFFE_SUBJECTS))
        for emotion, code in JAFFE_CODES.items()
        if repetition * len(JAFFE_SUBJECTS) + number < JAFFE_COUNTS[code]
    ][:images]
    # serial numbers run through the people, then the emotions, then the repetitions
    ordered = sorted(wanted, key=lambda item: (item[1], item[3], item[0]))

    jobs = []
    for serial, (repetition, number, label, code) in enumerate(ordered, 1):
        name = f"{JAFFE_SUBJECTS[number]}.{code}{repetition + 1}.{serial}.tiff"
        jobs.append((folder / name, LAB_JAFFE, number, label, repetition))
    list(_at_once(_shoot, jobs, progress))


def write_tfeid(folder: Path, progress: OnProgress, images: int = 280) -> None:
    """Write `happiness/f01_1_hg.jpg`: subject, take, emotion.

    Each of the 40 people shows each emotion once, then again.
    """
    jobs = []
    for index in range(images):
        take, rest = divmod(index, len(TFEID_SUBJECTS) * len(FER7))
        number, label = divmod(rest, len(FER7))
        emotion = FER7[label]
        name = f"{TFEID_SUBJECTS[number]}_{take + 1}_{TFEID_CODES[emotion]}.jpg"
        jobs.append((folder / FOLDERS[emotion] / name, LAB_TFEID, number, label, take))
    list(_at_once(_shoot, jobs, progress))


def write_mug(folder: Path, progress: OnProgress, images: int = 6 * MUG_SUBJECTS) -> None:
    """Write `subjects3/001/anger/take000/img_0000.jpg`: sequences from neutral to apex and back.

    `images` counts sequences: each of the 26 people shows each of six emotions once, then again.
    """
    acted = [label for label, emotion in enumerate(FER7) if emotion != "neutral"]
    jobs = []
    for index in range(images):
        take, rest = divmod(index, MUG_SUBJECTS * len(acted))
        number, place = divmod(rest, len(acted))
        label = acted[place]
        here = folder / "subjects3" / f"{number + 1:03d}" / FOLDERS[FER7[label]]
        jobs.append((here / f"take{take:03d}", LAB_MUG, number, label, take))
    list(_at_once(_film, jobs, progress))

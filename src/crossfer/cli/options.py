"""Options that several commands have, and parsers of their values."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

import typer

from crossfer.errors import CrossferError
from crossfer.framing import SMALLEST
from crossfer.terms import PastData

if TYPE_CHECKING:
    from crossfer.datasets.record import Split
    from crossfer.executors import Slurm
    from crossfer.executors.ray import Ray

Numbers = TypeVar("Numbers", bound=tuple[float, ...])

AnyModel = Annotated[
    Path,
    typer.Argument(
        help=(
            "A run, a bundle, an exported classifier, an ONNX file, or a YAML file with the keys of "
            "model:."
        )
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(help="LABEL=CLASS: assign a dataset's label to a class. Repeatable."),
]
CroppedOption = Annotated[
    bool, typer.Option("--cropped", help="The pictures are cut-out faces: do not detect any.")
]
SMOOTH = 0.5
ADDRESS = r"(ray://)?(\[[^\s\]]+\]|[^\s:/]+):[0-9]+"
"""A Ray cluster's address: host and port."""
SmallestOption = Annotated[
    float,
    typer.Option(help="Side of the smallest face to detect, as a fraction of the picture's side."),
]
MirrorOption = Annotated[
    bool,
    typer.Option(
        "--mirror",
        help="Average the probabilities of each face and its mirror image: half as fast.",
    ),
]
VariantOption = Annotated[
    str, typer.Option(help="Variant of an exported classifier: fp32, fp16 or int8.")
]


def labels_of(pairs: list[str]) -> dict[str, str | None]:
    """Parse THEIRS=OURS, repeated; an empty OURS leaves a label out."""
    from crossfer.classes import comparable

    form = "THEIRS=OURS, or THEIRS= to leave a class out"
    labels = pairs_of("--label", pairs, form, comparable)
    return {theirs: ours or None for theirs, ours in labels.items()}


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path]) -> None:
    """Refuse files that cannot be written, or would replace one another or what is read, before the work.

    Parameters
    ----------
    outputs
        The file to write for each option.
    inputs
        The files and folders that the command reads.
    """
    places: dict[Path, str] = {}
    for option, file in outputs.items():
        if file is None:
            continue
        if file.is_dir():
            raise CrossferError(f"{option} {file}: a folder; name a file")
        if above := [folder for folder in file.parents if folder.exists() and not folder.is_dir()]:
            raise CrossferError(f"{option} {file}: {above[0]} is a file, not a folder")
        place = file.resolve()
        if (other := places.setdefault(place, option)) != option:
            raise CrossferError(f"{option} {file}: written by {other} too; name another file")
        for read in [read for read in inputs if file.exists()]:
            if read.resolve() in (place, *place.parents):
                raise CrossferError(
                    f"{option} {file}: belongs to {read}, which is read; name another file"
                )


def check_cropped(cropped: bool, smallest: float) -> None:
    """Refuse --smallest where no face is looked for."""
    if cropped and smallest != SMALLEST:
        raise CrossferError(
            "--smallest: no face is looked for in cut-out faces (--cropped); leave one out"
        )


def pairs_of(
    option: str,
    pairs: list[str],
    form: str = "NAME=VALUE",
    comparable: Callable[[str], str] = str,
) -> dict[str, str]:
    """Parse NAME=VALUE, repeated; two names are the same if what makes them comparable is."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise CrossferError(f"{option} {pair}: write {form}")
        if comparable(name) in map(comparable, found):
            raise CrossferError(f"{option} {name}: given twice; leave one out")
        found[name] = value
    return found


def splits_of(pairs: list[str]) -> dict[str, Split | None]:
    """Parse NAME=SPLIT, repeated; an empty SPLIT says that a name is none."""
    from crossfer.datasets.readers.splitnames import SPLIT_NAMES

    found: dict[str, Split | None] = {}
    for name, value in pairs_of("--split", pairs).items():
        if value and value.lower() not in SPLIT_NAMES:
            raise CrossferError(f"--split {name}={value}: choose training, validation or test")
        found[name] = SPLIT_NAMES[value.lower()] if value else None
    return found


def numbers_of(option: str, text: str | None, example: Numbers) -> Numbers | None:
    """Parse as many numbers, separated by commas, as the example has."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != len(example):
        shown = ",".join(f"{number:g}" for number in example)
        raise CrossferError(f"{option} {text}: write {len(example)} numbers, e.g. {shown}")
    return cast(Numbers, numbers)


def check_finite(options: Mapping[str, float | None]) -> None:
    """Refuse what is no number: a limit of nan would be kept by anything.

    Raises
    ------
    CrossferError
        If an option is nan or infinite.
    """
    for name, value in options.items():
        if value is not None and not math.isfinite(value):
            raise CrossferError(f"{name} {value:g}: must be a finite number")


def workers_of(text: str) -> int | Literal["auto"]:
    """Parse the number of processes that train at the same time."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and int(text)):
        raise CrossferError(f"--workers {text}: write auto, or a number of processes")
    return int(text)


def cluster_of(
    on: str,
    given: Mapping[str, str | None],
    sbatch: Sequence[str],
    workers: int | Literal["auto"],
    threads: int,
) -> Slurm | Ray | None:
    """Parse where networks are trained; None: in processes of this machine.

    Parameters
    ----------
    on
        ``here``, ``slurm``, ``ray``, or the address of a Ray cluster.
    given
        Options for a cluster, by name: those of SLURM, and ``mem``.
    sbatch
        More options of SLURM.
    workers, threads
        Networks that train at the same time, and the cores of each.
    """
    at_a_time = None if workers == "auto" else workers
    if on == "slurm":
        from crossfer.executors import Slurm

        return Slurm(
            **given,
            threads=threads,
            at_a_time=at_a_time,
            options=tuple(sbatch),
        )
    asked = {**given, "sbatch": " ".join(sbatch)}
    for name in [name for name, value in asked.items() if value and name != "mem"]:
        raise CrossferError(f"--{name}: only for SLURM; add --on slurm")
    if on == "here":
        if given["mem"]:
            raise CrossferError("--mem: only for clusters; add --on slurm or --on ray")
        return None
    memory = bytes_of("--mem", given["mem"])
    return replace(ray_of(on, "here, slurm, "), threads=threads, memory=memory, at_a_time=at_a_time)


def ray_of(on: str, besides: str = "here, ") -> Ray:
    """Parse the address of a Ray cluster; `besides` names other values for the error.

    As in Ray itself, ``RAY_ADDRESS`` is the address where none is given.
    """
    from crossfer.executors.ray import Ray

    address = (os.environ.get("RAY_ADDRESS") or "local") if on == "ray" else on
    if address == "local":
        return Ray()
    if address != "auto" and not re.fullmatch(ADDRESS, address):
        named = "RAY_ADDRESS=" if on == "ray" else "--on "
        other = "" if on == "ray" else f"{besides}ray, "
        raise CrossferError(f"{named}{address}: write {other}HOST:PORT or ray://HOST:PORT")
    return Ray(address)


def bytes_of(option: str, text: str | None) -> int:
    """Parse an amount of memory as SLURM writes it (8G, 500M): bytes; 0 if there is none."""
    if text is None:
        return 0
    found = re.fullmatch(r"([0-9]+)([KMGT])B?", text.upper())
    if not found:
        raise CrossferError(f"{option} {text}: write an amount, e.g. 8G or 500M")
    return int(found[1]) << (10 + 10 * "KMGT".index(found[2]))


def past_data_of(text: str) -> tuple[PastData, int | None]:
    """Parse which source data are left: their kind, and the number of images per class."""
    kinds: dict[str, PastData] = {"none": "none", "statistics": "statistics", "all": "all source"}
    if text in kinds:
        return kinds[text], None
    if text.isascii() and text.isdigit() and int(text):
        return "some per class", int(text)
    raise CrossferError(
        f"--past-data {text}: write none, statistics, all, or the number of images per class"
    )


def seconds_of(text: str | None) -> float | None:
    """Parse a duration (90s, 10min, 2h): seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(s|min|h)", text)
    if not found:
        raise CrossferError(f"--budget {text}: write a duration, e.g. 90s, 10min or 2h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]

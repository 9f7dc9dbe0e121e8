"""A comparison of two classifiers for people: sentences, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from crossfer.datasets.pictures import data_uri
from crossfer.evaluation.comparing import Compared, ComparedNetwork, OnDataset
from crossfer.evaluation.rows import FlippedImage, Interval
from crossfer.files import write_bytes
from crossfer.report import tables, words
from crossfer.report.page import template
from crossfer.report.verdict import falls_in
from crossfer.report.view import number, signed, span, surprise

MEASURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
}
"""What is measured, in order, and how it is written."""

Values = tuple[float, Interval]
Difference = tuple[float, Interval | None]


def measures(one: OnDataset) -> list[tuple[str, Values, Values, Difference]]:
    """Return a row for each measure: its name; of the old network, of the new one and of the change, each the
    value and its 95 % interval.

    Resampling finds no variation of a mean over classes where no answer differs: its change has no interval
    then.
    """
    found = []
    for key, name in MEASURES.items():
        old, new = getattr(one.old, key), getattr(one.new, key)
        if key == "accuracy":
            intervals = one.old.interval, one.new.interval, one.change.interval
            own, other, change = (interval or (0.0, 0.0) for interval in intervals)
        else:
            spread = one.spreads[key]
            own, other, change = spread.old, spread.new, spread.change
            change = None if change[0] == change[1] else change
        found.append((name, (old, own), (new, other), (new - old, change)))
    return found


def answer(one: OnDataset) -> str:
    """Say which network is better on a dataset, and whether it is real."""
    found, sure = one.difference.paired, words.sureness(one.difference)
    if found.difference == 0:
        return (
            f"On {one.name} both networks are equally accurate: {one.new.accuracy:.1f} % of "
            f"{one.new.images:,} images."
        )
    better = "higher" if found.difference > 0 else "lower"
    real = {
        "real": "The difference is significant.",
        "likely": "The difference is significant before the correction for several tests only.",
        words.HERE: (
            "The difference is significant on these images; for other people it is not known: "
            f"{_people(one)}."
        ),
    }.get(sure, "The difference may be chance.")
    return (
        f"On {one.name} the new network's accuracy is {abs(found.difference):.1f} points {better} (95 % "
        f"interval {span(found.interval)}; {one.new.images:,} images). {real}"
    )


def warnings(one: OnDataset, classes: tuple[str, ...]) -> list[str]:
    """Name every class that fell much, in the order of `falls_in`; then what else should be said."""
    fell = (
        f"{classes[label]} falls from {number(one.old.recall[label], 0)} to "
        f"{number(one.new.recall[label], 0)} % on {one.name} ({signed(change.points)} points, "
        f"{change.images:,} images; 95 % interval {span(change.interval)})."
        for _, label, change in falls_in(one.change, "target")
    )
    return [*fell, *(f"{one.name}: {note}." for note in one.notes)]


def left_out(one: OnDataset) -> str:
    """Say how many images of a dataset were not asked about, by label."""
    listed = ", ".join(f"{label} {count:,}" for label, count in one.left_out.items())
    return f"{one.name}: left out, label in none of the compared classes: {listed}."


def questions(one: OnDataset) -> list[str]:
    """Answer both questions that a paired test may ask: about these images, and about other people."""
    found = one.difference
    pair = found.paired
    counts = f"{number(pair.gained, 0)} won, {number(pair.lost, 0)} lost"
    who = "images" if pair.people is None else "people"
    test = "McNemar" if pair.test == "McNemar" else "bootstrap over people"
    proof = f"{test}, p {_equals(found.p_holm)} after Holm's correction ({_people(one)})"
    if pair.people == 1:
        proof = "not known: all images are of one person"
    return [
        f"These images: {counts}; McNemar's exact test, p {_equals(found.p_images_holm)} after Holm's "
        "correction.",
        f"Other {who}: {signed(pair.difference)} points, 95 % interval {span(pair.interval)}; {proof}.",
    ]


def size(network: ComparedNetwork) -> str:
    """Say how large a network is."""
    numbers = "" if network.parameters is None else f", {network.parameters:,} parameters"
    return f"{network.bytes / 1e6:.1f} MB{numbers}"


def write_page(
    compared: Compared, file: Path, pictures: Iterable[tuple[str, FlippedImage, Any]] = ()
) -> None:
    """Write a comparison as one HTML page.

    Parameters
    ----------
    compared
        The comparison.
    file
        The page.
    pictures
        Faces to show, by default none: ``won`` or ``lost``, the image and its pixels, uint8 (H, W) or (H, W,
        3).
    """
    page = template("compared.html.j2").render(
        c=compared,
        answer=answer,
        warnings=warnings,
        questions=questions,
        measures=measures,
        confusion=tables.matrix,
        sureness=words.sureness,
        levels=words.SURENESS,
        size=size,
        median=median,
        stand_in=words.STAND_IN,
        pictures=[(flip, image, data_uri(pixels)) for flip, image, pixels in pictures],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, page.encode("utf-8", "backslashreplace"))


def _people(one: OnDataset) -> str:
    people = one.difference.paired.people
    return "people not known" if people is None else f"people: {people:,}"


def _equals(p: float | None) -> str:
    if p is None:
        return "not known"
    text = surprise(p)
    return text if text.startswith("<") else f"= {text}"

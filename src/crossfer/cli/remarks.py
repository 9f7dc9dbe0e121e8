"""Warnings about how a dataset was prepared."""

from __future__ import annotations

from typing import Any

from crossfer.classes import is_known
from crossfer.datasets import READERS, SPLITS, Dataset
from crossfer.datasets.card import SKIPPED
from crossfer.datasets.splits import SUBJECT_DISJOINT
from crossfer.evaluation.rows import Suggestions
from crossfer.evaluation.suggested import in_words, led


def remarks(dataset: Dataset, kept: bool = True) -> list[str]:
    """Return what a person should know of a dataset's preparation, a line each.

    Without `kept` its folder is a temporary one, in which nothing can be looked up.
    """
    card, dataset = dataset.card, dataset.with_own_classes()
    lines = [*card.get("remarks", ())]
    if unknown := [name for name in card["classes"] if not is_known(name)]:
        lines.append(
            f"unknown labels, kept unchanged: {', '.join(unknown)}; map them with --label THEIRS=OURS"
        )
    lines += [_split_in_words(card["split"])]
    if earlier := card["split"].get("kept"):
        lines.append(_kept_in_words(earlier))
    if card["faces"]["mode"] == "find":
        lines.append(_faces_in_words(card["faces"]["found"]))
    if said := card.get("suggestions"):
        found = Suggestions(**said)
        lines.append(("warning: " if led(found) else "") + in_words(found))
    lines += [f"skipped {count:,}: {reason}" for reason, count in card["skipped"].items()]
    if card["skipped"] and kept:
        lines.append(f"every skipped file is listed in {dataset.folder / SKIPPED}")
    if shared := card["split"]["subjects_in_several_splits"]:
        official = card["split"]["how"].startswith("official")
        again = "--replace --new-split" + (" --ignore-splits" if official else "")
        lines.append(
            f"warning: {shared} subjects are in more than one split, so test accuracy will be too "
            f"high ({again} divides again)"
        )
    if copies := card["split"].get("copies"):
        lines.append(_copies_in_words(copies, card["reader"], card["split"]["how"]))
    return lines + _empty_in_words(dataset)


def _copies_in_words(copies: dict[str, Any], reader: str, how: str) -> str:
    counts = " and ".join(f"{found['images']:,} {split}" for split, found in copies.items())
    first, second = next(iter(copies.values()))["example"]
    helps = _takes(reader, "subject") and how != SUBJECT_DISJOINT
    remedy = "--subject keeps people in one split, " if helps else ""
    return (
        f"warning: {counts} faces are copies of faces in another split, or nearly, as frames of one sequence "
        f"are (e.g. {second} = {first}): accuracy will be too good; "
        f"{remedy}crossfer audit shows all"
    )


def _takes(reader: str, option: str) -> bool:
    """Tell whether what a dataset was read as goes by an option; a dataset in memory has none of a line."""
    return reader in READERS and option in READERS[reader].takes


def _empty_in_words(dataset: Dataset) -> list[str]:
    """Say of each empty set why it is empty, and which options fill it."""
    empty = [split for split in SPLITS if not len(dataset.rows(split))]
    if len(empty) == len(SPLITS):
        return ["warning: no picture has a label; `crossfer label` lets you label some"]
    split, sizes = dataset.card["split"], dataset.card["preparation"].get("sizes")
    meant = [name for name in empty if split["asked"] and sizes and not sizes[SPLITS.index(name)]]
    return [f"its {name} set is empty, as asked for" for name in meant] + [
        _why_empty(name, split["how"], dataset.card["reader"])
        for name in empty
        if name not in meant
    ]


def _why_empty(split: str, how: str, reader: str) -> str:
    if not how.startswith("official") or f"set aside as {split}" in how:
        return f"warning: its {split} set is empty: too few images or subjects to divide"
    remedies = ["--ignore-splits divides all again"]
    if _takes(reader, "splits"):
        remedies.insert(0, f"--split NAME={split} maps a folder or value to it")
    if split == "test":
        remedies.insert(0, "--test-share 0.2 takes one from training")
    return f"warning: its {split} set is empty: the files have none ({', '.join(remedies)})"


FOUND = {
    "eyes": "aligned on the eyes",
    "several": "with several faces, the largest central one aligned",
    "turned": "upside down, rotated and aligned",
    "box": "without a detected face in the dataset's box, the box used",
    "centre": "without a detected face, the centre used",
    "cropped": "used as they are",
}


def _faces_in_words(found: dict[str, int]) -> str:
    return "faces: " + ", ".join(f"{count:,} {FOUND[how]}" for how, count in found.items())


def _kept_in_words(kept: dict[str, Any]) -> str:
    new = ", ".join(f"{count:,} to {split}" for split, count in kept["new"].items() if count)
    words = f"{kept['faces']:,} known faces keep their split; new: {new or 'none'}"
    if kept["moved"]:
        words += f"; {kept['moved']:,} moved, because the files now have splits"
    return words


def _split_in_words(split: dict[str, Any]) -> str:
    if not split["asked"]:
        return f"split: {split['how']}"
    asked, reached = (
        "/".join(f"{split[key][part]:,}" for part in SPLITS) for key in ("asked", "reached")
    )
    words = f"split: {split['how']}, reached {reached}, requested {asked}"
    if asked != reached and split["how"] == SUBJECT_DISJOINT:
        words += (
            " (the closest with whole subjects; --exact comes closer, with subjects in two splits)"
        )
    return words

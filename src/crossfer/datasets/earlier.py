"""Keep the splits of a dataset that is prepared again.

A network that was trained on an earlier state of a dataset must not be measured on what it has seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from crossfer.datasets.dataset import DATASET_CARD, SAMPLES, is_prepared
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.record import SPLITS, Split, spelled, subject_of_text
from crossfer.errors import CrossferError
from crossfer.files import parsed

CONTENT = ("picture", "sha256")
"""Columns that tell a face by what it shows: the whole picture's pixels, or else the prepared face's."""


@dataclass(frozen=True)
class Earlier:
    """What is known of a dataset's earlier state.

    Parameters
    ----------
    draw
        How it was divided, see `Preparation.draw`.
    content
        The column of `CONTENT` by which its faces are known.
    places
        From a face's content and its origin to its split.
    contents
        From a face's content to its split.
    subjects
        From a subject to the split that most of its images are in.
    """

    draw: Mapping[str, Any]
    content: str
    places: Mapping[tuple[str, str], Split]
    contents: Mapping[str, Split]
    subjects: Mapping[str, Split]

    def splits(self, columns: Mapping[str, Sequence[Any]]) -> list[Split | None]:
        """Return the split in which each face stood, ``None`` for one that is new."""
        known = zip(columns[self.content], columns["origin"], strict=True)
        return [self.places.get(face) or self.contents.get(face[0]) for face in known]


def earlier_state(folder: Path) -> Earlier | None:
    """Read the splits of a prepared dataset, of any version; ``None`` where there is none.

    Raises
    ------
    CrossferError
        If it is damaged.
    """
    if not is_prepared(folder):
        return None
    try:
        draw = dict(parsed((folder / DATASET_CARD).read_text(encoding="utf-8"))["preparation"])
        names = pa.parquet.read_schema(folder / SAMPLES).names
        content = next(name for name in CONTENT if name in names)
        table = pa.parquet.read_table(
            folder / SAMPLES, columns=["subject", "split", "origin", content]
        ).to_pydict()
    except (OSError, ValueError, LookupError, TypeError, StopIteration, pa.ArrowException) as error:
        raise CrossferError(
            f"{folder}: damaged ({error}), so its splits cannot be kept; add --new-split to divide "
            "all faces again"
        ) from None
    rows = list(zip(table[content], table["origin"], table["split"], strict=True))
    people: dict[str, Counter[Split]] = defaultdict(Counter)
    for who, split in zip(table["subject"], table["split"], strict=True):
        for one in {spelled(who), subject_of_text(who)} - {None} if who is not None else ():
            people[str(one)][split] += 1
    return Earlier(
        draw,
        content,
        {(face, origin): split for face, origin, split in rows},
        # Of copies in several splits a new one joins the first.
        {face: split for face, _, split in sorted(rows, key=lambda row: -SPLITS.index(row[2]))},
        {who: counts.most_common(1)[0][0] for who, counts in people.items()},
    )


def check_draw(earlier: Earlier, how: Preparation, folder: Path) -> None:
    """Refuse to keep the splits of a dataset that was divided by other rules."""
    for key, value in how.draw.items():
        before = earlier.draw.get(key, Preparation().draw[key])
        if before != value:
            raise CrossferError(
                f"{folder}: its splits were made with {key} {before or 'by default'}, not "
                f"{value or 'by default'}; add --new-split to divide all faces again"
            )


def can_keep(folder: Path, how: Preparation) -> bool:
    """Tell whether a folder holds a dataset whose splits can be kept."""
    try:
        if earlier := earlier_state(folder):
            check_draw(earlier, how, folder)
    except CrossferError:
        return False
    return earlier is not None

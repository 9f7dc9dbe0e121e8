"""Several datasets as one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfer.classes import ClassSet, in_order
from crossfer.datasets.dataset import Dataset
from crossfer.datasets.record import SPLITS


@dataclass(frozen=True, eq=False)
class Union(Dataset):
    """Datasets one after the other, each divided as it was, each with the classes that it has.

    The images stay where they are: take them from the parts, by `divided`.

    Parameters
    ----------
    parts
        The datasets.
    """

    parts: tuple[Dataset, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields, so that each part is pickled as a dataset."""
        return Union, tuple(getattr(self, field.name) for field in fields(self))

    def with_classes(self, classes: ClassSet | str | Sequence[str]) -> Dataset:
        """Return the same datasets used with other classes."""
        return unite([part.with_classes(classes) for part in self.parts])

    def divided(self, rows: NDArray[np.int64]) -> list[tuple[Dataset, NDArray[np.int64]]]:
        """Return each part with those of its own rows that are among these; part after part."""
        starts = np.cumsum([0, *(len(part.samples) for part in self.parts)])
        return [
            (part, rows[(rows >= start) & (rows < end)] - start)
            for part, start, end in zip(self.parts, starts[:-1], starts[1:], strict=True)
        ]


def unite(parts: Sequence[Dataset]) -> Dataset:
    """Return several datasets, used with the same classes, as one; one alone as it is.

    Subjects of different datasets are different people.
    """
    if len(parts) == 1:
        return parts[0]
    samples = pa.concat_tables(
        [_samples(part) for part in parts],
        promote_options="default",  # a column that only some have is empty in the others
    )
    first = parts[0]
    return Union(
        first.folder, _card(parts), first.images[:0], samples, first.class_set, tuple(parts)
    )


def _samples(part: Dataset) -> pa.Table:
    """Return the sample table, its subjects and origins named after the dataset."""
    table = part.samples
    for column in ("subject", "origin"):
        named = [
            None if value is None else f"{part.name}/{value}"
            for value in table.column(column).to_pylist()
        ]
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, pa.array(named, pa.string()))
    return table


def _card(parts: Sequence[Dataset]) -> dict[str, Any]:
    def of_all(key: str) -> list[Any]:
        return [part.card[key] for part in parts]

    def total(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
        return dict(sum(map(Counter, counts), Counter[str]()))

    reached: list[dict[str, int]] = [
        {split: len(part.rows(split)) for split in SPLITS} for part in parts
    ]
    names = [part.name for part in parts]
    united = "".join(part.fingerprint for part in parts)
    return {
        "name": "+".join(names),
        "title": ", ".join(names[:-1]) + f" and {names[-1]} together",
        "stand_in": any(part.stand_in for part in parts),
        "licence": "; ".join(dict.fromkeys(of_all("licence"))),
        "citation": "; ".join(dict.fromkeys(filter(None, of_all("citation")))),
        "images": sum(len(part.samples) for part in parts),
        "subjects": sum(of_all("subjects")),
        "skipped": total(of_all("skipped")),
        "faces": {
            "mode": "cropped",
            "found": total([faces["found"] for faces in of_all("faces")]),
        },
        "split": {
            "how": "each as it is",
            "asked": None,
            "reached": total(reached),
            "subjects_in_several_splits": sum(
                split["subjects_in_several_splits"] for split in of_all("split")
            ),
        },
        "parts": names,
        "classes": in_order(chain.from_iterable(of_all("classes"))),
        "fingerprint": hashlib.sha256(united.encode()).hexdigest(),
    }

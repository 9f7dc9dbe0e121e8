"""Datasets that are in memory already: Hugging Face `datasets`, torchvision, arrays, lists of pairs.

None of those libraries is imported here: what counts is how their objects behave.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossfer.datasets.pictures import UnreadableImage, decoded
from crossfer.datasets.readers.columns import ALIASES, plain
from crossfer.datasets.readers.files import labelled
from crossfer.datasets.readers.labels import meet, number_in, told_beside, understood
from crossfer.datasets.readers.splitnames import splits_of
from crossfer.datasets.record import (
    LONGEST_GROUP,
    Box,
    Item,
    Reader,
    ReadOptions,
    Record,
    Remark,
    Skipped,
    Split,
    subject_of_text,
)
from crossfer.errors import CrossferError

EXPECTED = (
    "a Hugging Face dataset, a data frame, a torchvision dataset, (images, labels), or a list of "
    "(image, label)"
)
PIXEL_TEXT = re.compile(r"\s*(\d{1,3}\s+){15,}\d{1,3}\s*")
"""At least sixteen gray levels: no path looks like that."""
NUMBER = re.compile(r"-?\d+")
RENUMBERED: Sequence[str] = ()
"""Instead of the names of classes that are not those of the numbers."""
Read = Callable[[ReadOptions], Iterator[Item]]

READER = Reader(
    name="memory",
    title="a dataset in memory",
    layout=EXPECTED,
    cropped=None,
    takes=frozenset({"order"}),
    recognise=lambda path: None,
    read=lambda path, options: iter(()),
)
"""What `prepare` needs to know of a dataset in memory; no path is one, so `READERS` has it not."""


@dataclass(frozen=True)
class InMemorySource:
    """A dataset in memory, to prepare in place of a path.

    Parameters
    ----------
    name
        The dataset's name.
    read
        Yields their records; pictures are decoded when they are needed.
    reader
        What is known of it.
    """

    name: str
    read: Read
    reader: Reader = READER


@dataclass(frozen=True)
class _Rows:
    """One split of a dataset: everything but the pictures is known beforehand."""

    labels: Sequence[Any]
    picture: Callable[[int], Any]
    names: Sequence[str] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    first: Callable[[str], Any] = lambda column: None


def in_memory(
    data: Any,
    *,
    name: str,
    image: str = "image",
    label: str = "label",
    subject: str | Sequence[Any] | None = None,
    split: str | Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    order: str | None = None,
    box: str | Sequence[Any] | None = None,
) -> InMemorySource:
    """Use a dataset that another library has loaded.

    Parameters
    ----------
    data
        A Hugging Face ``Dataset``, a data frame, a torchvision dataset, a pair (images, labels)
        of arrays or lists, a list of pairs (image, label), or a mapping from the name of a split to one of
        these.
        A picture may be an array (H, W) or (H, W, C), a tensor (C, H, W), a Pillow image, or a path;
        with integers or fractions 0–1, not normalised in another way.
    name
        The dataset's name.
    image, label
        The columns of picture and label, if data has columns.
    subject, split, box
        A column, or a sequence with a value for each row: the subject, the official split, and the face as
        left, top, width and height.
    classes
        The names of the classes in the order of their numbers; by default the dataset's own.
    order
        Meaning of numeric labels without names, see `crossfer.datasets.readers.labels.understood`.

    Raises
    ------
    CrossferError
        If the data are none of these, or a column is missing.
    """
    columns = {"subject": subject, "split": split, "box": box}
    several = isinstance(data, Mapping) and image not in data
    parts = _parts(data, name, columns) if several else {"": data}
    reads, labels = [], set[str]()
    others, dropped = dict[str, None](), dict[str, None]()
    unnamed: list[tuple[list[str | None], Mapping[str, list[str | None]]]] = []
    renumbered: list[str] = []
    for part, rows_data in parts.items():
        where = f"{name} {part}".strip()
        rows = _rows(rows_data, where, image, label)
        extra = {
            key: _values(rows, column, where, key)
            for key, column in columns.items()
            if column is not None
        }
        if classes and (twice := [one for one in classes if list(classes).count(one) > 1]):
            raise CrossferError(
                f"{where}: classes= names {twice[0]} twice; name each number's class"
            )
        if classes and any(_is_name(raw) and raw not in classes for raw in rows.labels):
            raise CrossferError(
                f"{where}: its labels are names, so classes= has no effect; leave it out"
            )
        named = classes or rows.names or None
        if not classes and rows.names == RENUMBERED:
            renumbered.append(where)
        found = [_class(raw, named, f"{where} row {row}") for row, raw in enumerate(rows.labels)]
        labels |= {label for label in found if label is not None} | set(map(str, named or ()))
        used = {image, label, *(column for column in columns.values() if isinstance(column, str))}
        groups = _groups(rows, used)
        others |= dict.fromkeys(groups)
        if rows.labels:
            dropped |= dict.fromkeys(c for c in rows.columns if c not in used and c not in groups)
        if not named:
            unnamed.append((found, groups))
        splits = _splits(extra.get("split", parts), where)
        reads.append(partial(_read, rows, extra, groups, part, splits, named, name))
    for role in ("subject", "split"):
        likely = [column for column in others if plain(column) in ALIASES[role]]
        if likely and columns[role] is None and (role != "split" or len(parts) == 1):
            warnings.warn(
                f"{name}: the column {likely[0]} is not used as the {role}; to use it, set "
                f"{role}={likely[0]!r}",
                stacklevel=2,
            )

    def read_all(options: ReadOptions) -> Iterator[Item]:
        if order and options.order not in (None, order):
            raise CrossferError(
                f"{name}: order={order!r} here, and {options.order} in the preparation; leave one out"
            )
        meet(options, labels)
        known = replace(options, order=options.order or order)
        if renumbered and known.order is None and not any(map(number_in, known.labels)):
            raise CrossferError(
                f"{renumbered[0]}: its numbers are not those of its classes (a target_transform changes "
                "them, or a part has no names); name the class of each with classes=, or give order="
            )
        try:
            known, told = told_beside(_beside(unnamed), known)
            known, said = understood(labels, known)
        except CrossferError as error:
            raise CrossferError(f"{name}: {error}") from None
        if told:
            yield Remark(told)
        if said:
            yield Remark(said)
            if order is None and options.order is None:
                warnings.warn(f"{name}: {said}", stacklevel=2)
        if others:
            yield Remark(f"not used, kept as groups: {', '.join(others)}")
        if dropped:
            yield Remark(f"not used, neither texts nor numbers: {', '.join(dropped)}")
        for read in reads:
            yield from read(known)

    return InMemorySource(name, read_all)


def _beside(
    parts: Iterable[tuple[list[str | None], Mapping[str, list[str | None]]]],
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the labels of several parts, each with the texts of its other columns."""
    for labels, groups in parts:
        for row, label in enumerate(labels):
            if label is not None:
                yield label, {column: texts[row] for column, texts in groups.items()}


def _parts(
    data: Mapping[Any, Any], name: str, columns: Mapping[str, str | Sequence[Any] | None]
) -> dict[str, Any]:
    """Return the datasets of several splits; check that each is a split, and that columns are in all."""
    parts = {str(part): rows for part, rows in data.items()}
    _splits(parts, name)
    if not all(isinstance(columns[key], str | None) for key in ("subject", "box")):
        raise CrossferError(f"{name}: with several splits, subject and box must be column names")
    if columns["split"] is not None:
        raise CrossferError(f"{name}: already has splits; leave out split={columns['split']!r}")
    return parts


def _rows(data: Any, where: str, image: str, label: str) -> _Rows:
    """Tell what kind of dataset it is."""
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise CrossferError(
            f"{where}: {type(data).__name__} has no length or no rows (a stream must be loaded "
            f"first); expected {EXPECTED}"
        )
    if hasattr(data, "to_batches") and hasattr(data, "column_names"):  # an Arrow table
        data = {str(name): _Arrow(data[name]) for name in data.column_names}
    if hasattr(data, "columns") and not hasattr(data, "column_names"):  # a data frame
        data = {str(name): _list(data[name]) for name in data.columns}
    columns = list(data) if isinstance(data, Mapping) else getattr(data, "column_names", None)
    if columns is not None:
        return _columns(data, columns, where, image, label)
    if (image, label) != ("image", "label"):
        raise CrossferError(f"{where}: has no columns, so image= and label= have no effect")
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(p, tuple) for p in data):
        images, labels = data
        if len(images) != len(labels):
            raise CrossferError(f"{where}: {len(images):,} images, but {len(labels):,} labels")
        return _Rows(_list(labels), _by_position(images).__getitem__)
    labels, names = _targets(data, where)
    if len(labels) != len(data):  # its labels come with its pictures only
        labels = [_pair(data, row, where)[1] for row in range(len(data))]
    return _Rows(labels, lambda row: data[row][0], names)


def _columns(data: Any, columns: list[str], where: str, image: str, label: str) -> _Rows:
    """Take a dataset by its columns; labels are read without decoding a picture."""
    missing = {image, label} - set(columns)
    if missing:
        raise CrossferError(
            f"{where}: no column {min(missing)!r} among {', '.join(columns)}; "
            "name yours with image= and label="
        )
    by_column = isinstance(data, Mapping)
    names = None if by_column else getattr(data.features[label], "names", None)
    return _Rows(
        _list(data[label]),
        lambda row: _by_position(data[image])[row] if by_column else data[row][image],
        names,
        {name: data for name in columns},
        lambda column: _by_position(data[column])[0] if by_column else data[0][column],
    )


def _groups(rows: _Rows, used: set[str]) -> dict[str, list[str | None]]:
    """Return the values of the columns of texts and numbers that are not used otherwise, as texts."""
    names = [name for name in rows.columns if name not in used] if len(rows.labels) else []
    names = [name for name in names if isinstance(rows.first(name), str | int | float | None)]
    found = {name: _list(rows.columns[name][name]) for name in names}
    return {
        name: [None if _is_missing(value) else str(value)[: LONGEST_GROUP + 1] for value in values]
        for name, values in found.items()
    }


def _targets(data: Any, where: str) -> tuple[list[Any], Sequence[str] | None]:
    """Return the labels (none where only the pictures' rows have them) and the names of the classes."""
    if hasattr(data, "indices") and hasattr(data, "dataset"):  # torch.utils.data.Subset
        labels, names = _targets(data.dataset, where)
        return [labels[row] for row in data.indices] if labels else [], names
    if isinstance(getattr(data, "datasets", None), list):  # torch.utils.data.ConcatDataset
        return _joined([_targets(part, where) for part in data.datasets], where)
    labels, names = _list(getattr(data, "targets", ())), getattr(data, "classes", None)
    translate = getattr(data, "target_transform", None)
    if translate is not None and not _keeps(translate, labels, where):
        return [], names and RENUMBERED
    return labels if len(labels) == len(data) else [], names


def _keeps(translate: Callable[[Any], Any], labels: list[Any], where: str) -> bool:
    """Tell whether a transform, such as ``int``, leaves the number of each class what it is."""
    each = {repr(label): label for label in labels}.values()
    same = (_class(translate(one), None, where) == _class(one, None, where) for one in each)
    return bool(labels) and all(same)


def _joined(
    parts: Sequence[tuple[list[Any], Sequence[str] | None]], where: str
) -> tuple[list[Any], Sequence[str] | None]:
    """Return the labels of several datasets as one, with the names of the classes if all have the same."""
    known = {tuple(names) for _, names in parts if names}
    if len(known) > 1:
        one, other = (", ".join(names) for names in sorted(known)[:2])
        raise CrossferError(
            f"{where}: its datasets number their classes differently ({one}; {other}); prepare each "
            "by itself"
        )
    some = any(names is not None for _, names in parts)
    named = all(names for _, names in parts)
    complete = all(labels for labels, _ in parts)
    labels = [label for labels, _ in parts for label in labels] if complete else []
    return labels, known.pop() if named else RENUMBERED if some else None


def _pair(data: Any, row: int, where: str) -> Any:
    item = data[row]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise CrossferError(f"{where} row {row}: is not a pair (image, label); expected {EXPECTED}")
    return item


class _Arrow:
    """A column of an Arrow table, whose values are Python's own."""

    def __init__(self, column: Any) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: int) -> Any:
        return self.column[row].as_py()

    def tolist(self) -> Any:
        return self.column.to_pylist()


def _list(values: Any) -> list[Any]:
    """Return plain Python values of a column, an array or a tensor."""
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _by_position(values: Any) -> Any:
    """Return what gives the n-th of some values for n; pandas' gives the one whose index is called n."""
    return getattr(values, "iloc", values)


def _is_missing(value: Any) -> bool:
    """Tell whether a value stands for none: ``None``, NaN, or NA of pandas, which compares as neither."""
    if value is None:
        return True
    try:
        return bool(value != value) if not hasattr(value, "shape") else False
    except (TypeError, ValueError):
        return type(value).__name__ in ("NAType", "NaTType")


def _values(rows: _Rows, column: str | Sequence[Any], where: str, key: str) -> list[Any]:
    """Return a value a row; ``None`` where it is missing, which tables write as NaN."""
    if isinstance(column, str):
        if column not in rows.columns:
            raise CrossferError(
                f"{where}: no column {column!r} for {key}=; name a column, or give a value for "
                "each row"
            )
        column = rows.columns[column][column]
    values = _list(column)
    if len(values) != len(rows.labels):
        raise CrossferError(f"{where}: {len(rows.labels):,} rows, but {len(values):,} for {key}=")
    return [None if _is_missing(value) else value for value in values]


def _read(
    rows: _Rows,
    extra: Mapping[str, list[Any]],
    groups: Mapping[str, list[str | None]],
    part: str,
    splits: Mapping[str, Split],
    classes: Sequence[str] | None,
    name: str,
    options: ReadOptions,
) -> Iterator[Record | Skipped]:
    """Yield the records of one split."""
    for row, raw in enumerate(rows.labels):
        origin = f"{part} row {row}".strip()
        given = {key: values[row] for key, values in extra.items()}
        theirs = _class(raw, classes, f"{name} {origin}")
        if theirs is None:
            yield Skipped(origin, "no label")
            continue
        try:
            label, reason = labelled(theirs, options)
        except CrossferError as error:
            raise CrossferError(f"{name} {origin}: {error}") from None
        if label is None:
            yield Skipped(origin, reason)
            continue
        who = given.get("subject")
        yield Record(
            partial(_picture, rows.picture, row),
            label,
            origin,
            subject=None if who is None else subject_of_text(who),
            split=splits.get(str(given.get("split", part)).strip()),
            box=_box(given.get("box"), f"{name} {origin}"),
            groups={column: text for column, values in groups.items() if (text := values[row])},
        )


def _is_name(raw: Any) -> bool:
    """Tell whether a label is a name, and no number as text."""
    return isinstance(raw, str) and bool(raw.strip()) and not NUMBER.fullmatch(raw.strip())


def _class(raw: Any, classes: Sequence[str] | None, where: str) -> str | None:
    """Return a class's name; numbers below 0 stand for “no label”, as Hugging Face has it."""
    with suppress(ValueError, RuntimeError):  # several numbers; that is refused below
        raw = raw.item() if hasattr(raw, "item") else raw
    if isinstance(raw, str) and classes and raw not in classes and NUMBER.fullmatch(raw.strip()):
        raw = int(raw)
    if _is_missing(raw) or (isinstance(raw, int | float) and raw < 0):
        return None
    if not isinstance(raw, str | int | float):
        raise CrossferError(
            f"{where}: a label must be a number or a name, not {type(raw).__name__}"
        )
    if isinstance(raw, str) or classes is None:
        return str(raw)
    if raw >= len(classes) or raw != int(raw):
        raise CrossferError(
            f"{where}: class {raw}, but there are names only for 0–{len(classes) - 1}"
        )
    return str(classes[int(raw)])


def _splits(names: Iterable[Any], where: str) -> dict[str, Split]:
    """Return which split each name is, considering all together; nothing stands for none."""
    given = {str(name).strip() for name in names if name is not None} - {""}
    found = splits_of(given, ReadOptions())
    known = {name: split for name, split in found.items() if split}
    if unknown := sorted(found.keys() - known.keys()):
        raise CrossferError(
            f"{where}: unknown split {unknown[0]!r}; use training, validation or test"
        )
    return known


def _box(raw: Any, where: str) -> Box | None:
    if raw is None:
        return None
    try:
        left, top, width, height = map(float, raw)
    except (TypeError, ValueError):
        raise CrossferError(
            f"{where}: the face box needs four numbers: left, top, width, height"
        ) from None
    return left, top, width, height


def _picture(picture: Callable[[int], Any], row: int) -> Any:
    """Return a picture as `crossfer.datasets.pictures.open_picture` takes it."""
    value = picture(row)
    if isinstance(value, Mapping):  # a Hugging Face image that is not decoded
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray):
        return decoded(bytes(value))
    if isinstance(value, str) and PIXEL_TEXT.fullmatch(value):
        return _pixels_of_text(value)
    if isinstance(value, str | Path):
        return Path(value)
    if _is_missing(value):
        raise UnreadableImage("no picture")
    return value if isinstance(value, Image.Image) else _pixels(value)


def _pixels_of_text(text: str) -> NDArray[Any]:
    """Read a square of gray levels, as FER2013 writes pictures."""
    levels = np.array(text.split(), np.int64)
    side = math.isqrt(len(levels))
    if side * side != len(levels):
        raise UnreadableImage(f"{len(levels):,} pixel values are not a square picture")
    return levels.reshape(side, side)


def _pixels(value: Any) -> NDArray[Any]:
    """Turn what behaves like an array or a tensor into an array (H, W) or (H, W, C)."""
    tensor = hasattr(value, "detach")
    pixels = np.asarray(value.detach().cpu().numpy() if tensor else value)
    if tensor and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype.kind in "if" and pixels.size and pixels.min() < 0:
        raise UnreadableImage("has values below 0; remove the normalisation")
    return pixels

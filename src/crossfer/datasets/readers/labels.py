"""Map a dataset's labels (names or numbers) to class names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from crossfer.classes import (
    FER7,
    FER8,
    NO_EXPRESSION,
    RAFDB11,
    UNLABELLED,
    canonical,
    comparable,
    is_known,
)
from crossfer.datasets.record import ReadOptions, names_nobody
from crossfer.errors import CrossferError


def _numbered(names: Iterable[str], first: int = 0) -> dict[str, str]:
    return {str(code): name for code, name in enumerate(names, first)}


ORDERS: dict[str, dict[str, str]] = {
    "fer2013": _numbered(FER7),
    "rafdb": _numbered(
        ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), first=1
    ),
    "rafdb-compound": _numbered(RAFDB11, first=1),
    "affectnet": _numbered(
        (
            *("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
            *("none", "uncertain", "no-face"),
        )
    ),
    "ckplus": _numbered(
        ("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
    ),
    "alphabetical": _numbered(sorted(FER7)),
    "alphabetical-8": _numbered(sorted(FER8)),
}
"""What numbers stand for in well-known datasets, and where a tool sorted the names of the classes."""

MOST_UNKNOWN = 30
"""More labels with names that are not known look like people, or pictures, not like classes."""
NUMBER = re.compile(r"\d+(\.0)?", re.ASCII)


def number_in(name: object) -> str | None:
    """Return the number that a label is, as its digits: ``03`` and ``3.0`` are 3."""
    text = comparable(name)
    return str(int(text.removesuffix(".0"))) if NUMBER.fullmatch(text) else None


def check_label_map(label_map: Mapping[str, str | None]) -> None:
    """Refuse a translation into what is no name.

    Raises
    ------
    CrossferError
        If a class to translate into has no letter in its name.
    """
    for theirs, ours in label_map.items():
        if ours is not None and not any(letter.isalpha() for letter in ours):
            raise CrossferError(f"labels: {theirs}={ours}: {ours!r} is not a valid label")


def is_named(name: str, options: ReadOptions) -> bool:
    """Tell whether a name is that of a class: one that is known, or that the user translates."""
    if number_in(name) is not None:
        return False
    own = {spelling(theirs) for theirs in options.labels for spelling in (comparable, canonical)}
    return is_known(name) or not own.isdisjoint((comparable(name), canonical(name)))


def understood(names: Iterable[str], options: ReadOptions) -> tuple[ReadOptions, str]:
    """Resolve the meaning of labels that the layout does not define.

    Numbers mean what the user says, by an order or one by one. Otherwise they must be exactly 0–6, which are
    read in FER2013's order, and the user is told.

    Parameters
    ----------
    names
        All labels of the dataset, as it writes them.
    options
        With the user's own label map and order.

    Returns
    -------
    options : ReadOptions
        Their label map now also covers numbers and unknown names.
    said : str
        How the numbers are read, in one line; empty if there are none.

    Raises
    ------
    CrossferError
        If the meaning of a number is unknown, an order does not fit, or too many names are unknown.
    """
    names = sorted(set(names))
    numbers = {name: code for name in names if (code := number_in(name)) is not None}
    meaning, said = _meaning(set(numbers.values()), options)
    labels = dict(options.labels)
    labels |= {name: meaning[code] for name, code in numbers.items()}
    unknown = [
        name for name in names if not is_named(name, options) and re.search("[^\\W\\d_]", name)
    ]
    if unknown and len(names) < 2:
        return replace(options, labels=labels), said  # refused where it is met
    if len(unknown) > MOST_UNKNOWN:
        raise CrossferError(
            f"{len(unknown):,} unknown labels ({', '.join(unknown[:3])}, …) are too many for "
            "classes; map those that are with --label THEIRS=NAME"
        )
    labels |= {name: canonical(name) for name in unknown}
    return replace(options, labels=labels), said


def told_beside(
    rows: Iterable[tuple[str, Mapping[str, object]]], options: ReadOptions
) -> tuple[ReadOptions, str]:
    """Take the meaning of numbers from a column of class names beside them, where there is one.

    Parameters
    ----------
    rows
        The label of each, and the texts of its other columns.
    options
        With the user's own label map and order, which come first.

    Returns
    -------
    options : ReadOptions
        Their label map now also covers these numbers.
    said : str
        How the numbers are read, in one line; empty where no column says it.

    Raises
    ------
    CrossferError
        If a number goes with several names, or with none, in every such column, or two columns differ.
    """
    if options.order is not None or any(number_in(name) for name in options.labels):
        return options, ""
    codes, others = set[str](), set[str]()
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    strange: dict[str, set[str]] = defaultdict(set)
    class_of = cache(lambda text: canonical(text) if is_known(text) else None)
    is_missing = cache(names_nobody)
    for label, beside in rows:
        if (code := number_in(label)) is None:
            continue
        codes.add(code)
        for column, text in beside.items():
            if column in others or not isinstance(text, str) or is_missing(text):
                continue
            if class_of(text) is None:
                strange[column].add(canonical(text))
                if len(strange[column]) > MOST_UNKNOWN:
                    others.add(column)
            found[column][code].add(canonical(text))
    told: dict[str, dict[str, set[str]]] = {}
    for column, names in found.items():
        distinct = set().union(*names.values()) - {*NO_EXPRESSION, UNLABELLED}
        known = distinct - strange[column]
        # Names, if most of them are known; the others may be classes, too, or mistakes.
        if column not in others and len(known) > max(1, len(strange[column])):
            told[column] = names
    if not told:
        return options, ""
    complete = {
        column: {code: min(some) for code, some in names.items()}
        for column, names in told.items()
        if names.keys() == codes and all(len(some) == 1 for some in names.values())
    }
    if len({tuple(sorted(theirs.items())) for theirs in complete.values()}) > 1:
        one, other, *_ = complete
        raise CrossferError(
            f"the labels are numbers, and the columns {one} and {other} name other classes for them; choose "
            f"with --column label={one}, or --order for the numbers"
        )
    if complete:
        column, theirs = next(iter(complete.items()))
        meet(options, theirs.values())
        own = {code: name for code, name in theirs.items() if name in strange[column]}
        meaning = own | {c: label_of(n, options.labels) for c, n in theirs.items() if c not in own}
        words = _in_words(meaning, sorted(codes, key=int))
        return (
            replace(options, labels={**options.labels, **meaning}),
            f"the numbers mean what the column {column} says: {words}",
        )
    column, names = next(iter(told.items()))
    odd = min((code for code in codes if len(names.get(code, ())) != 1), key=int)
    which = " and ".join(sorted(names.get(odd, ()))[:2]) or "empty"
    raise CrossferError(
        f"the labels are numbers, and the column {column} names classes, but not one for each number "
        f"(for {odd} it is {which}); choose with --column label={column}, or --order for the numbers"
    )


def meet(options: ReadOptions, names: Iterable[str]) -> None:
    """Note labels that occur: a translation of any other is refused when all is read."""
    for name in names:
        options.met.update((comparable(name), canonical(name)))


def _meaning(codes: set[str], options: ReadOptions) -> tuple[dict[str, str | None], str]:
    """Return what each number means, and a line that says so."""
    own = {
        code: label
        for name, label in options.labels.items()
        if (code := number_in(name)) is not None
    }
    ordered, listed = sorted(codes, key=int), ", ".join(sorted(codes, key=int))
    if options.order is None:
        if not codes - own.keys():
            return own, ""
        if own:
            raise CrossferError(
                f"labels: --label names only {', '.join(own)} of the numbers {listed}; name each, "
                "or add --order"
            )
        if codes != ORDERS["fer2013"].keys():
            fitting = [name for name, order in ORDERS.items() if codes <= order.keys()]
            raise CrossferError(
                f"labels: the meaning of the numbers {listed} is unknown; add --order "
                f"{' or '.join(fitting or ORDERS)}, or name each with --label {ordered[0]}=NAME"
            )
        said = (
            "the numbers are read in FER2013's order: {}; if this is wrong, add --order or --label"
        )
        return dict(ORDERS["fer2013"]), said.format(_in_words(ORDERS["fer2013"], ordered))
    order: dict[str, str | None] = {**ORDERS[options.order], **own}
    if not codes:
        raise CrossferError(
            f"--order {options.order} has no effect, because the labels are names; leave it out"
        )
    if missing := [code for code in ordered if code not in order]:
        raise CrossferError(
            f"--order {options.order} has no number {', '.join(missing)}, but the labels are {listed}"
        )
    said = f"the numbers in the order {options.order}: {_in_words(order, ordered)}"
    if "0" in order and "0" not in codes:
        said += (
            f"; none is 0: if yours begin at 1, name each with --label {ordered[0]}=NAME instead"
        )
    return order, said


def _in_words(order: Mapping[str, str | None], codes: Iterable[str]) -> str:
    return ", ".join(f"{code} {order[code] or 'left out'}" for code in codes)


def label_of(name: str, label_map: Mapping[str, str | None]) -> str | None:
    """Translate a dataset's own class name.

    Parameters
    ----------
    name
        The class as the dataset writes it, see `comparable`.
    label_map
        The user's own translation, asked first: from the dataset's name to the name it gets, or to
        ``None`` for a class to leave out.

    Returns
    -------
    str or None
        The name as `canonical` spells it; ``None`` for a class to leave out.

    Raises
    ------
    CrossferError
        If the name is unknown.
    """
    key = comparable(name)
    own = {comparable(theirs): ours for theirs, ours in label_map.items()}
    by_name = {canonical(theirs): ours for theirs, ours in own.items()}
    if key in own or canonical(name) in by_name:
        translated = own[key] if key in own else by_name[canonical(name)]
        label = None if translated is None else canonical(translated)
    elif is_known(name):
        label = canonical(name)
    else:
        raise CrossferError(
            f"unknown class {str(name)!r}; known are {', '.join(FER8)}; map it with --label "
            "THEIRS=NAME (or leave it out with THEIRS=)"
        )
    return None if label in NO_EXPRESSION else label

"""Any folder of images per class, with or without splits above the classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from crossfer.classes import is_known
from crossfer.datasets.readers import levels, manifest, splitnames
from crossfer.datasets.readers.files import image_files, labelled
from crossfer.datasets.readers.inventory import found_in, way_on
from crossfer.datasets.readers.labels import understood
from crossfer.datasets.readers.levels import Folders
from crossfer.datasets.readers.tables import tables_near
from crossfer.datasets.record import (
    Item,
    Reader,
    ReadOptions,
    Record,
    Remark,
    Skipped,
    Split,
    spelled,
)
from crossfer.errors import CrossferError, some_of

CROWD = 8
"""So many folders without a number in their names may be people by their names."""
NOT_PEOPLE = frozenset(
    {"fold", "batch", "part", "session", "set", "take", "camera", "cam", "run", "group", "version"}
)


def recognise(path: Path) -> str | None:
    """Say why a path looks like a folder of images per class: it is a folder with images."""
    if not path.is_dir() or next(image_files(path), None) is None:
        return None
    return "it is a folder with images in folders"


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield one record an image.

    Its class is one of the folders above it, see `crossfer.datasets.readers.levels`, or the name of its file
    where each folder holds pictures named like classes; a folder above the class may be the split, and one
    above or below it the subject.
    """
    files = {file: _folders_above(file, path) for file in image_files(path)}
    if not any(files.values()):
        raise CrossferError(
            f"{path}: no picture in a class folder; found {found_in(path)}; {way_on(path)}; put "
            "pictures without labels into a folder called unlabelled"
        )
    kinds = sorted(set(files.values()) - {()})
    stems = levels.classes_by_file(files, options)
    options, places, said = _understood(path, kinds, stems, options)
    yield Remark(said)
    try:
        found = {} if stems else {f: _class(path, f, places[f], options) for f in kinds}
    except CrossferError as error:
        if any(is_known(name) for folders in kinds for name in folders):
            raise
        raise CrossferError(f"{error}; found {found_in(path)}; {way_on(path)}") from None
    splits, said = _splits(places, options)
    yield Remark(said)
    people: dict[tuple[str, ...], str] = {}
    if stems:
        yield Remark("classes: from file names, since no folder is named like a class")
    if options.people and not options.subject:
        if stems:
            people, said = _people_of_files(kinds, splits)
        else:
            labels = {folders: label for folders, (label, _) in found.items()}
            told = splitnames.mapped((name for names in kinds for name in names), options)
            people, said = _people(places, labels, splits, told, Counter(files.values()))
        yield Remark(said)
    shown = {file: found[folders][0] for file, folders in files.items() if folders in found}
    for table in tables_near(path, manifest.DEPTH):
        yield Remark(
            manifest.unused(table, path) + manifest.contradiction(table, path, shown, options)
        )
    for file, folders in files.items():
        origin = file.relative_to(path).as_posix()
        if not folders:
            yield Skipped(origin, "not in the folder of a class")
            continue
        label, reason = labelled(stems[file], options) if stems else found[folders]
        if label is None:
            yield Skipped(origin, reason)
            continue
        yield Record(
            file,
            label,
            origin,
            subject=people.get(folders) or options.subject_of(origin),
            split=splits[folders],
        )


def _folders_above(file: Path, path: Path) -> Folders:
    """Return the folders above a picture; of ``aia/aia_anger`` the second is a class, anger."""
    folders = list(map(spelled, file.relative_to(path).parts[:-1]))
    for index in range(1, len(folders)):
        above, name = folders[index - 1], folders[index]
        rest = name[len(above) :].lstrip("_- ")
        if name.startswith(above) and len(rest) < len(name) - len(above) and is_known(rest):
            folders[index] = rest
    return tuple(folders)


def _understood(
    path: Path, kinds: list[Folders], stems: Mapping[Path, str], options: ReadOptions
) -> tuple[ReadOptions, dict[Folders, int], str]:
    """Find out which folder is the class, and what those names mean that do not say it."""
    if stems:
        places, names = {folders: len(folders) for folders in kinds}, set(stems.values())
    else:
        places, names = levels.find_classes(kinds, options)
    try:
        options, said = understood(names, options)
    except CrossferError as error:
        raise CrossferError(f"{path}: {error}") from None
    return options, places, said


def _splits(
    places: Mapping[Folders, int], options: ReadOptions
) -> tuple[dict[Folders, Split | None], str]:
    """Tell which folders are which split, and say so in a line."""
    above = {name for folders, place in places.items() for name in folders[:place]}
    names = {name for folders in places for name in folders}
    whole = set(filter(splitnames.exact, names))
    splitnames.check_mapped(options, names)
    translation = splitnames.splits_of(above | whole, options)
    own = splitnames.mapped(above | whole, options)
    sure = own | whole
    _check_clear(above - own)
    everywhere = set.intersection(*map(set, places)) if places else set()
    parts = {n: split for n, split in translation.items() if split}
    said = ""
    if len(set(parts.values())) == 1:
        for name in everywhere & (parts.keys() - sure):
            said = (
                f"the folder {name} contains everything, so it is not read as the "
                f"{translation[name]} set"
            )
            translation[name] = None
    result: dict[Folders, Split | None] = {}
    for folders, place in places.items():
        said_by = [
            n for n in folders if translation.get(n) and (n in folders[:place] or n in whole)
        ]
        if len({translation[n] for n in said_by}) > 1:
            said_by = [n for n in said_by if n not in everywhere] or said_by
            said_by = [n for n in said_by if n in sure] or said_by
        result[folders] = splitnames.split_by(said_by, translation, "/".join(folders))
    used = {n: split for n, split in translation.items() if split and split in result.values()}
    told = splitnames.in_words(used)
    return result, f"splits by folder: {told}" if told else said


def _check_clear(names: set[str]) -> None:
    """Refuse folders above the classes whose names begin like those of splits, but say no more."""
    doubtful = sorted(filter(splitnames.unclear, names))
    if doubtful and len(names) > 1:
        raise CrossferError(
            f"{', '.join(doubtful[:4])}: may be a split; choose with --split "
            f"{doubtful[0]}=training (validation, test), or --split {doubtful[0]}= if it is none"
        )


def _people(
    places: Mapping[Folders, int],
    labels: Mapping[Folders, object],
    splits: Mapping[Folders, Split | None],
    told: Set[str],
    pictures: Mapping[Folders, int],
) -> tuple[dict[Folders, str], str]:
    """Look for a level of folders that are people: most of them hold several classes.

    Those that the user `told` to be splits are none. A level that all pictures have comes before one that
    nine of ten have: a few that lie beside the people's folders must not put everybody into several splits.

    Returns
    -------
    people : dict
        From the folders above an image to its subject.
    said : str
        What was taken for people, or could be; empty where nothing is like that.
    """
    found: dict[int, dict[Folders, str]] = defaultdict(dict)
    for folders, place in places.items():
        for index, name in enumerate(folders):
            if index != place and not (
                splits[folders] and (splitnames.affixed(name) or name in told)
            ):
                found[index - place][folders] = name
    most = 0.9 * sum(pictures[folders] for folders in places)
    whole = {level: named for level, named in found.items() if len(named) == len(places)}
    mostly = {
        level: named
        for level, named in found.items()
        if sum(pictures[folders] for folders in named) > most
    }
    people, said = _level_of_people(whole, places, labels)
    if people or len(mostly) == len(whole):
        return people, said
    more, told_of_more = _level_of_people(mostly, places, labels)
    return more, told_of_more if more else said or told_of_more


def _level_of_people(
    found: Mapping[int, Mapping[Folders, str]],
    places: Mapping[Folders, int],
    labels: Mapping[Folders, object],
) -> tuple[dict[Folders, str], str]:
    """Choose among levels of folders; see `_people`."""
    possible: dict[int, dict[str, set[object]]] = {}
    for level, named in found.items():
        held: dict[str, set[object]] = defaultdict(set)
        for folders, name in named.items():
            held[name].add(labels[folders])
        if len(held) > 1:
            possible[level] = held
    if not possible:
        return {}, ""
    likely = {
        level: names
        for level, names in possible.items()
        if 2 * sum(len(held) > 1 for held in names.values()) >= len(names)
    }
    level = max(likely or possible, key=lambda level: (len(possible[level]), level))
    names = sorted(possible[level])
    where = "above" if level < 0 else "in"
    some = some_of(names, 3)
    rival = any(len(other) == len(names) for key, other in likely.items() if key != level)
    numbered = all(any(map(str.isdigit, name)) for name in names)
    kinds = {word for name in names for word in _words(name)}
    if not likely or rival or kinds & NOT_PEOPLE or not (numbered or len(names) >= CROWD):
        before = places[next(iter(found[level]))] + level
        return {}, (
            f"folders {where} the classes ({some}) are not read as subjects; if they are, add "
            f"--subject '^{'[^/]+/' * before}([^/]+)/'"
        )
    return dict(found[level]), (
        f"subjects: the {len(names):,} folders {where} the classes ({some}), since each has "
        "several classes; --subject '' turns this off"
    )


def _class(
    path: Path, folders: Folders, place: int, options: ReadOptions
) -> tuple[str | None, str]:
    """Return the label of a folder, or the reason why its images are left out."""
    try:
        return labelled(folders[place], options)
    except CrossferError as error:
        raise CrossferError(f"{path.joinpath(*folders)}: {error}") from None


def _people_of_files(
    kinds: list[Folders], splits: Mapping[Folders, Split | None]
) -> tuple[dict[Folders, str], str]:
    """Take folders for people in which files are named like classes; see `_people`."""
    people = {f: f[-1] for f in kinds if not (splits[f] and splitnames.affixed(f[-1]))}
    names = sorted(set(people.values()))
    if len(names) < 2 or NOT_PEOPLE & {word for name in names for word in _words(name)}:
        return {}, ""
    some = some_of(names, 3)
    return people, f"subjects: the {len(names):,} folders ({some}); --subject '' turns this off"


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall("[A-Za-z]+", name)]


READER = Reader(
    name="folder",
    title="any folder of images per class",
    layout="CLASS/IMAGE or SPLIT/CLASS/IMAGE; class names by synonym or --label; subjects by --subject",
    cropped=None,
    takes=frozenset({"subject", "order", "splits"}),
    recognise=recognise,
    read=read,
)

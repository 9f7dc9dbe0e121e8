"""RAF-DB: faces from the web, the basic expressions or the compound ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from crossfer.datasets.readers.files import (
    Named,
    NamedFiles,
    find,
    image_files,
    labelled_or_unknown,
    plain_name,
)
from crossfer.datasets.readers.labels import ORDERS
from crossfer.datasets.readers.tables import encoding_of, lines_of
from crossfer.datasets.record import Item, Reader, ReadOptions, Record, Remark, Skipped, Split
from crossfer.errors import CrossferError

LISTS = ("list_patition_label.txt", "list_partition_label.txt")
"""As the authors spell it, and as most others do."""
LIST_PLACES = [f"{folder}{name}" for folder in ("EmoLabel/", "") for name in LISTS]
FILE_NAME = re.compile(r"((train|test)_\d+)(?!\d)", re.IGNORECASE)
SPLITS: dict[str, Split] = {"train": "training", "test": "test"}
CODES, COMPOUND = ORDERS["rafdb"], ORDERS["rafdb-compound"]


def recognise(path: Path) -> str | None:
    """Say why a path looks like RAF-DB."""
    file = _list(path)
    return f"it holds {file.name}" if file else FOLDERS.recognise(path)


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Read the authors' list of labels where there is one, else the folders of the popular copy."""
    file = _list(path)
    if file:
        return _read_list(file, path, options)
    folders = {image.parent.name for image in image_files(path) if FILE_NAME.match(image.name)}
    return replace(FOLDERS, codes=_codes(folders, options)).read(path, options)


def parse(file: Path) -> Named | None:
    """Read ``train/5/train_00001_aligned.jpg``: its folder is the class."""
    named, folder = FILE_NAME.match(plain_name(file).lower()), file.parent.name
    if not named or folder not in COMPOUND:
        return None
    return Named(folder, (named.group(1), folder), split=SPLITS[named.group(2)])


FOLDERS = NamedFiles(parse, like="train/5/train_00001_aligned.jpg", codes=CODES)


def _codes(written: Iterable[str], options: ReadOptions) -> Mapping[str, str]:
    """Tell by the numbers whether the labels are the seven basic ones or the eleven compound ones."""
    above = sorted({code for code in written if code.isdecimal()} - CODES.keys(), key=int)
    compound = len(above) > 1 and set(above) <= COMPOUND.keys()  # one is a slip
    if options.order:
        if options.order == "rafdb" and compound:
            raise CrossferError(
                f"--order rafdb has no number {', '.join(above)}: they are compound labels; use "
                "--order rafdb-compound"
            )
        if options.order not in ("rafdb", "rafdb-compound"):
            raise CrossferError(
                f"--order {options.order}: for RAF-DB use rafdb (1–7) or rafdb-compound (1–11)"
            )
        return ORDERS[options.order]
    if not above:
        return CODES
    if compound:
        return COMPOUND
    raise CrossferError(
        f"labels {', '.join(above)}: RAF-DB's basic labels are 1–7, its compound ones 1–11; choose "
        "with --order rafdb or --order rafdb-compound"
    )


def _list(path: Path) -> Path | None:
    return next(filter(None, (find(path, place) for place in LIST_PLACES)), None)


def _read_list(file: Path, path: Path, options: ReadOptions) -> Iterator[Item]:
    top = file.parent.parent if file.parent.name == "EmoLabel" else file.parent
    images = {image.stem.lower(): image for image in image_files(top)}
    twins = list[Path]()  # most pictures are there twice, aligned and not
    with file.open(encoding=encoding_of(file)) as text:
        lines = list(lines_of(file, text))
    rows = (line.strip().rpartition(" ") for line in lines)
    codes = _codes((code for name, _, code in rows if FILE_NAME.match(name)), options)
    if codes is COMPOUND:
        yield Remark(f"{file.name}: labels above 7, read as RAF-DB's eleven compound expressions")
    for number, line in enumerate(lines, 1):
        origin = f"{file.name} row {number}"
        name, _, code = line.strip().rpartition(" ")
        named = FILE_NAME.match(name)
        if not named:
            if line.strip():
                yield Skipped(origin, "not a row like: train_00001.jpg 5")
            continue
        stem = Path(name.strip()).stem.lower()
        both = [images[name] for name in (f"{stem}_aligned", stem) if name in images]
        image = both[0] if both else None
        twins += both[1:]
        label, reason = labelled_or_unknown(code, options, codes)
        if label is None:
            yield Skipped(origin, reason)
        elif image is None:
            yield Skipped(origin, "no such file")
        else:
            split = SPLITS[named.group(2).lower()]
            yield Record(image, label, image.relative_to(path).as_posix(), split=split)
    yield Remark("", tuple(twins))


READER = Reader(
    name="rafdb",
    title="RAF-DB, the Real-world Affective Faces Database",
    size="15,339 faces of basic emotions (12,271 training / 3,068 test), 3,954 of compound ones; aligned "
    "ones are 100×100",
    licence="non-commercial research; may not be passed on",
    access="on request: whdeng.cn/RAF/model1.html",
    layout="EmoLabel/list_patition_label.txt and Image/aligned/train_00001_aligned.jpg (or "
    "Image/original), or folders train/1 … train/7 and test/1 … test/7; compound labels up to 11",
    citation="Li, Deng, Du, Reliable Crowdsourcing and Deep Locality-Preserving Learning, CVPR 2017",
    cropped=None,
    takes=frozenset({"order"}),
    own_files=(*LISTS, "train_*.txt", "test_*.txt"),  # landmarks and boxes
    recognise=recognise,
    read=read,
)

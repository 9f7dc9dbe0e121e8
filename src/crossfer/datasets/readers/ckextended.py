"""CK+ in FER2013's columns, as one CSV circulates: ``ckextended.csv``, with contempt as 7."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfer.datasets.readers import fer2013
from crossfer.datasets.readers.labels import ORDERS
from crossfer.datasets.record import Item, Reader, ReadOptions, Remark
from crossfer.errors import CrossferError

CODES = {**ORDERS["fer2013"], "7": "contempt"}


def recognise(path: Path) -> str | None:
    """Say why a path looks like it: by the table's name, since its columns are FER2013's."""
    table = fer2013.find_table(path)
    if table and table.name.lower().startswith("ckextended"):
        return f"{table.name} has FER2013's columns"
    return None


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """Yield one record a row."""
    table = fer2013.find_table(path)
    if table is None:
        raise CrossferError(f"{path}: no table with the columns {', '.join(fer2013.COLUMNS)}")
    told = ", ".join(f"{code} {name}" for code, name in CODES.items())
    yield Remark(f"{table.name}: the numbers are {told}")
    yield from fer2013.read_table(table, options, CODES)


READER = Reader(
    name="ckextended",
    title="CK+ as one table of pixels",
    size="920 faces, 48×48 gray, 18 of contempt; subjects are not known",
    licence="research use, as CK+",
    access="CK+ on request from its authors; the table circulates on Kaggle",
    layout="ckextended.csv (emotion, pixels, Usage): 0–6 as FER2013, 7 contempt",
    citation="Lucey et al., The Extended Cohn-Kanade Dataset (CK+), CVPR Workshops 2010",
    cropped=True,
    recognise=recognise,
    read=read,
)

"""One small file per dataset: raw files in, records out."""

from __future__ import annotations

from pathlib import Path

from crossfer.datasets.readers import (
    affectnet,
    ck48,
    ckextended,
    ckplus,
    expw,
    fer2013,
    ferplus,
    folder,
    jaffe,
    kdef,
    manifest,
    mug,
    rafd,
    rafdb,
    tfeid,
    yolo,
)
from crossfer.datasets.readers.files import what_is
from crossfer.datasets.readers.inventory import found_in, way_on
from crossfer.datasets.readers.tables import columns_of
from crossfer.datasets.record import Reader
from crossfer.errors import CrossferError

READERS: dict[str, Reader] = {
    module.READER.name: module.READER
    for module in (
        ferplus,
        ckextended,
        fer2013,
        ckplus,
        ck48,
        jaffe,
        kdef,
        rafd,
        mug,
        tfeid,
        rafdb,
        affectnet,
        expw,
        yolo,
        manifest,
        folder,
    )
}
"""Every dataset that can be read, in the order in which layouts are tried."""
BY_NAMES = tuple(module.READER for module in (fer2013, ck48, jaffe, kdef, rafd, tfeid))
"""Those that are recognised by the names of their pictures, beside which other people's tables lie."""


def recognise(path: Path) -> tuple[Reader, str]:
    """Find the reader for a raw dataset by its layout.

    Returns
    -------
    reader : Reader
    why : str
        What gave it away, for the user.

    Raises
    ------
    CrossferError
        If the path does not exist or looks like nothing that is known, or like two things, whose labels may
        differ.
    """
    if not path.exists():
        raise CrossferError(f"{path}: no such file or folder")
    for reader in READERS.values():
        if why := reader.recognise(path):
            own_table = reader is fer2013.READER and fer2013.find_table(path)
            if reader in BY_NAMES and not own_table and (table := manifest.recognise(path)):
                raise CrossferError(
                    f"{path}: {why}, but {table}; choose with --as {reader.name} or --as manifest"
                )
            return reader, why
    if path.is_dir():
        raise CrossferError(
            f"{path}: no images and no known table; found {found_in(path)}; {way_on(path)}"
        )
    if columns := ", ".join(filter(None, columns_of(path)))[:200]:
        raise CrossferError(
            f"{path}: a table with the columns {columns}; name yours with --column path=NAME and "
            "--column label=NAME; `crossfer datasets` lists what others need"
        )
    raise CrossferError(
        f"{path}: unknown layout, {what_is(str(path))}; `crossfer datasets` lists those that can be read"
    )

"""CK+48: the last three frames of the labelled CK+ sequences, cropped to 48×48."""

from __future__ import annotations

import re
from pathlib import Path

from crossfer.datasets.readers.files import Named, NamedFiles, plain_name
from crossfer.datasets.record import Reader

FILE_NAME = re.compile(r"((S\d{3})_\d{3}_\d{8})(?!\d)", re.IGNORECASE)


def parse(file: Path) -> Named | None:
    """Read ``happy/S010_004_00000017.png``: subject S010; its folder is the class."""
    named = FILE_NAME.match(plain_name(file).upper())
    if not named or re.fullmatch(r"\d{3}", file.parent.name):  # CK+ itself: S005/001/S005_…
        return None
    image, subject = named.groups()
    return Named(file.parent.name, (file.parent.name.lower(), image), subject)


FILES = NamedFiles(parse, like="CLASS/S010_004_00000017.png")
READER = Reader(
    name="ck48",
    title="CK+48, faces of the extended Cohn-Kanade dataset",
    size="981 faces of 118 subjects, 48×48 gray; 54 show contempt; no neutral",
    licence="research use, as CK+",
    access="CK+ on request from its authors; the cropped copy circulates on Kaggle",
    layout="CK+48/CLASS/S010_004_00000017.png",
    citation="Lucey et al., The Extended Cohn-Kanade Dataset (CK+), CVPR Workshops 2010",
    cropped=True,
    takes=frozenset({"splits"}),
    recognise=FILES.recognise,
    read=FILES.read,
)

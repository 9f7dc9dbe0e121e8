"""TFEID: forty Taiwanese models; the file name holds the subject and the expression."""

from __future__ import annotations

import re
from pathlib import Path

from crossfer.datasets.readers.files import Named, NamedFiles, plain_name
from crossfer.datasets.record import Reader

FILE_NAME = re.compile(r"([^_]+)_(?:.*_)?([nadfhsp]g)[^a-z_]*", re.IGNORECASE)
CODES = {
    "ng": "neutral",
    "ag": "angry",
    "dg": "disgust",
    "fg": "fear",
    "hg": "happy",
    "sg": "sad",
    "pg": "surprise",
}


def parse(file: Path) -> Named | None:
    """Read ``f01_ag_…_ag1.jpg``: subject f01, angry.

    What stands between is not documented: two files are copies of one image only if their whole names
    are the same but for suffixes and copy marks.
    """
    name = plain_name(file).lower()
    named = FILE_NAME.fullmatch(name)
    return Named(named.group(2), name, named.group(1)) if named else None


FILES = NamedFiles(parse, like="f01_…_ag1.jpg: its last part starts with a class", codes=CODES)
READER = Reader(
    name="tfeid",
    title="TFEID, the Taiwanese Facial Expression Image Database",
    size="40 subjects, colour, 480–595 × 600–606; the study uses 510 photographs",
    licence="research use; may not be passed on",
    access="on request from the Brain Mapping Laboratory, National Yang-Ming University",
    layout="CLASS/f01_…_ag1.jpg: subject before the first _, the last part starts with "
    "ng ag dg fg hg sg or pg",
    citation="Chen and Yen, Taiwanese Facial Expression Image Database, 2007",
    takes=frozenset({"splits"}),
    recognise=FILES.recognise,
    read=FILES.read,
    crop=0.8,
    sizes=(405, 47, 58),
)

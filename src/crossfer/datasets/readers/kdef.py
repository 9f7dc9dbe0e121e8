"""KDEF: seventy amateur actors, twice each, from five sides."""

from __future__ import annotations

import re
from pathlib import Path

from crossfer.datasets.readers.files import Named, NamedFiles, plain_name
from crossfer.datasets.record import Reader

FILE_NAME = re.compile(
    r"([AB])([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)(FL|HL|S|HR|FR)(?![A-Z0-9])", re.IGNORECASE
)
CODES = {
    "AF": "fear",
    "AN": "angry",
    "DI": "disgust",
    "HA": "happy",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}


def parse(file: Path) -> Named | None:
    """Read ``AF01ANS.JPG``: series A, woman 1, angry, from the front.

    Both series show the same people, so that the subject is F01.
    """
    named = FILE_NAME.match(plain_name(file).upper())
    if not named:
        return None
    _, subject, code, angle = named.groups()
    turned = None if angle == "S" else "heads that are turned are left out"
    return Named(code, named.groups(), subject, aside=turned)


FILES = NamedFiles(parse, like="AF01ANS.JPG", codes=CODES)
READER = Reader(
    name="kdef",
    title="KDEF, the Karolinska Directed Emotional Faces",
    size="4,900 photographs of 70 subjects, 562×762 colour; 980 from the front, which are read",
    licence="non-commercial research; may not be passed on",
    access="on request: kdef.se",
    layout="AF01/AF01ANS.JPG: series, sex and number, AF AN DI HA NE SA or SU, angle (S: the front)",
    citation="Lundqvist, Flykt, Öhman, The Karolinska Directed Emotional Faces, 1998",
    takes=frozenset({"everything", "splits"}),
    recognise=FILES.recognise,
    read=FILES.read,
    crop=0.8,
)

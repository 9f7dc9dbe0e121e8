"""JAFFE: ten Japanese women, a flat folder whose file names say everything."""

from __future__ import annotations

import re
from pathlib import Path

from crossfer.datasets.readers.files import Named, NamedFiles
from crossfer.datasets.record import Reader

FILE_NAME = re.compile(r"([A-Z]{2})[.-](AN|DI|FE|HA|NE|SA|SU)(\d)[.-](\d+)", re.IGNORECASE)
CODES = {
    "AN": "angry",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happy",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}


def parse(file: Path) -> Named | None:
    """Read ``KA.AN1.39.tiff``: subject KA, angry, first repetition, serial number 39."""
    named = FILE_NAME.match(file.name)
    if not named:
        return None
    subject, code, repetition, serial = named.group(1, 2, 3, 4)
    who, what = subject.upper(), code.upper()
    return Named(what, (who, what, repetition, int(serial)), who)


FILES = NamedFiles(parse, like="KA.AN1.39.tiff", codes=CODES)
READER = Reader(
    name="jaffe",
    title="JAFFE, the Japanese Female Facial Expression database",
    size="213 photographs of 10 women, 256×256 gray, seven classes",
    licence="non-commercial research; may not be passed on",
    access="on request: zenodo.org/records/3451524",
    layout="KA.AN1.39.tiff in one folder (subject KA, expression AN, first repetition)",
    citation="Lyons, Kamachi, Gyoba, The Japanese Female Facial Expression Database, 1998",
    takes=frozenset({"splits"}),
    recognise=FILES.recognise,
    read=FILES.read,
    crop=0.72,
    sizes=(131, 15, 67),
)

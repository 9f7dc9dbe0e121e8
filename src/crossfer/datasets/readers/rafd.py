"""RaFD: 67 models, eight expressions, three gazes, five angles."""

from __future__ import annotations

import re
from pathlib import Path

from crossfer.datasets.readers.files import Named, NamedFiles, plain_name
from crossfer.datasets.record import Reader

CLASSES = "angry|contemptuous|disgusted|fearful|happy|neutral|sad|surprised"
FILE_NAME = re.compile(
    rf"Rafd(\d+)_(\d+)_.+?_(?:male|female)_({CLASSES})_(frontal|left|right)", re.IGNORECASE
)


def parse(file: Path) -> Named | None:
    """Read ``Rafd090_28_Caucasian_male_angry_frontal.jpg``: model 28, angry, seen from the front."""
    named = FILE_NAME.match(plain_name(file).lower())
    if not named:
        return None
    angle, subject, code, _ = named.groups()
    turned = None if int(angle) == 90 else "heads that are turned are left out"
    return Named(code, named.groups(), subject, aside=turned)


FILES = NamedFiles(parse, like="Rafd090_28_Caucasian_male_angry_frontal.jpg")
READER = Reader(
    name="rafd",
    title="RaFD, the Radboud Faces Database",
    size="8,040 photographs of 67 subjects, 681×1024 colour; those from the front are read",
    licence="non-commercial research; may not be passed on",
    access="on request: rafd.socsci.ru.nl",
    layout="Rafd090_28_Caucasian_male_angry_frontal.jpg: angle, model, group, sex, class, gaze",
    citation="Langner et al., Presentation and validation of the Radboud Faces Database, 2010",
    takes=frozenset({"everything", "splits"}),
    recognise=FILES.recognise,
    read=FILES.read,
    crop=0.7,
)

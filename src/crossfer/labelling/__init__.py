"""Label the faces of a folder of photos, with the old model's help: from photos to a table for `prepare`."""

from crossfer.labelling.gallery import Gallery, Unguided
from crossfer.labelling.people import describer
from crossfer.labelling.session import FACES, SETTLED, SUBJECTS, LabelOptions, Session, Turn

__all__ = [
    "FACES",
    "SETTLED",
    "SUBJECTS",
    "Gallery",
    "LabelOptions",
    "Session",
    "Turn",
    "Unguided",
    "describer",
]

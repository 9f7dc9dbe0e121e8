"""Recognise the columns of a table by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossfer.classes import FER8, canonical
from crossfer.datasets.record import Box, ReadOptions, spelled
from crossfer.errors import CrossferError, some_of

ALIASES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "image", "file", "filename", "filepath", "imagepath", "imagename", "imagefile"),
        *("img", "imgpath", "imgname", "imgfile", "pth", "picture", "photo", "images", "pic"),
        *("relativepath", "subdirectoryfilepath", "imageid", "faceimage", "name"),
    ),
    "label": (
        *("label", "emotion", "expression", "class", "classname", "labelname", "emotionlabel"),
        *("expressionlabel", "facialexpression", "emotionname", "labels", "category", "target"),
        *("expr", "emotions", "sentiment"),
    ),
    "subject": tuple(
        f"{who}{how}"
        for how in ("", "id", "name", "no", "nr", "number", "code")
        for who in (
            *("subject", "person", "identity", "actor", "participant", "individual", "patient"),
            "volunteer",
        )
    ),
    "split": (
        *("split", "usage", "set", "subset", "partition", "datasetsplit", "datasplit", "phase"),
        *("splitname",),
    ),
}
"""Names without case and separators, the plainest first: where several are there, ours goes before others."""

CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
    ("bboxx1", "bboxy1", "bboxx2", "bboxy2"),
    ("facex1", "facey1", "facex2", "facey2"),
)
SIDES = (
    ("left", "top", "width", "height"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("bboxx", "bboxy", "bboxw", "bboxh"),
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("facex", "facey", "facewidth", "faceheight"),
    ("facex", "facey", "facew", "faceh"),
    ("bboxleft", "bboxtop", "bboxwidth", "bboxheight"),
)
CENTRES = (
    ("xcenter", "ycenter", "width", "height"),
    ("xcentre", "ycentre", "width", "height"),
    ("cx", "cy", "w", "h"),
    ("xc", "yc", "w", "h"),
    ("centerx", "centery", "width", "height"),
    ("xcenter", "ycenter", "w", "h"),
)
BOXES = {"corners": CORNERS, "sides": SIDES, "centre": CENTRES}


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    Parameters
    ----------
    path, label, subject, split
        Their names in the table; ``None`` where it has none.
    marks
        Columns named like classes, of which the one marked 1 is the label, where there is no `label`.
    box
        The four columns of a face box; empty where there is none.
    form
        How they describe it.
    others
        Columns that are none of these.
    """

    path: str | None
    label: str | None
    subject: str | None
    split: str | None
    marks: tuple[str, ...]
    box: tuple[str, ...]
    form: str
    others: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether they say where a picture is and what it shows."""
        return self.path is not None and (self.label is not None or bool(self.marks))

    def in_words(self) -> str:
        """Say what was taken for what, and what is not used; empty where all is called as we call it."""
        roles = {role: getattr(self, role) for role in ALIASES}
        told = [f"{role} = {name}" for role, name in roles.items() if name and name != role]
        if self.marks:
            told.append(f"label = the column of {', '.join(self.marks)} that is 1")
        if self.box and self.box != SIDES[0]:
            told.append(f"face box ({self.form}) = {', '.join(self.box)}")
        if self.others:
            told.append(f"not used, kept as groups: {some_of(self.others, 8)}")
        return "; ".join(told)

    def box_of(self, row: Mapping[str, str]) -> Box | None | str:
        """Return a row's face as left, top, width and height, ``None`` without one, or what is wrong."""
        texts = [row.get(name, "") for name in self.box]
        if not any(texts):
            return None
        try:
            one, two, three, four = map(float, texts)
        except ValueError:
            return f"the face box needs four numbers: {', '.join(self.box)}"
        if self.form == "corners":
            three, four = three - one, four - two
        elif self.form == "centre":
            one, two = one - three / 2, two - four / 2
        if not (three > 0 and four > 0):
            return f"the face box needs four numbers: {', '.join(self.box)}, none of them empty"
        return one, two, three, four

    def marked(self, row: Mapping[str, str]) -> tuple[str, str]:
        """Return the class that a row marks, or else why there is none."""
        if any(_mark(row[name]) is None for name in self.marks):
            return "", "its classes are not marked by 0 and 1"
        marked = [name for name in self.marks if _mark(row[name])]
        if len(marked) > 1:
            return "", "several classes are marked"
        if not marked:
            more = [name for name in self.others if _mark(row.get(name, ""))]
            also = f", but {more[0]} is; if that is a class, add --label {more[0]}={more[0]}"
            return "", f"no class is marked{also if more else ''}"
        return marked[0], ""


def _mark(value: object) -> bool | None:
    """Tell whether a value is 1 or 0, which some tools write as True or 1.0; ``None`` for any other."""
    text = str(value).strip().lower()
    if text in ("1", "1.0", "true"):
        return True
    return False if text in ("0", "0.0", "false", "") else None


def plain(name: str) -> str:
    """Return a column's name as it is compared: without case, spaces and separators."""
    return re.sub(r"[^\w]|_", "", spelled(name)).lower()


def columns_in(names: Sequence[str], options: ReadOptions, where: str = "") -> Columns:
    """Tell what the columns of a table hold.

    Parameters
    ----------
    names
        Of the columns.
    options
        Holds the user's own choice.
    where
        The table, for errors.

    Raises
    ------
    CrossferError
        If the user names a column that is not there, or two could be the label.
    """
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain(name), name)
    roles: dict[str, str | None] = {}
    for role, aliases in ALIASES.items():
        if role in options.columns:
            wanted = options.columns[role]
            if wanted and plain(wanted) not in by_plain:
                raise CrossferError(
                    f"{where}: no column {wanted!r} for {role}; the columns are "
                    f"{', '.join(filter(None, names))}"
                )
            roles[role] = by_plain[plain(wanted)] if wanted else None
        else:
            there = [by_plain[alias] for alias in aliases if alias in by_plain]
            roles[role] = there[0] if there else None
            if role == "label" and len(there) > 1 and there[0] != "label":
                raise CrossferError(
                    f"{where}: {' and '.join(there[:2])} could both be the label; choose with "
                    f"--column label={there[0]}"
                )
    taken = set(filter(None, roles.values()))
    box, form = _box(by_plain, taken)
    left = [name for name in names if name and name not in taken and name not in box]
    marks = tuple(n for n in left if canonical(n) in FER8) if roles["label"] is None else ()
    if len(marks) < 2:
        marks = ()
    elif odd := [n for n in left if canonical(n) in options.labels or n in options.labels]:
        marks += tuple(name for name in odd if name not in marks)
    others = tuple(n for n in left if n not in marks and not re.match(r"unnamed:? ?\d*$", n))
    return Columns(
        roles["path"], roles["label"], roles["subject"], roles["split"], marks, box, form, others
    )


def are_shares(boxes: Iterable[Box]) -> bool:
    """Tell whether all boxes are in shares of the picture's size: none reaches beyond 1."""
    some = False
    for left, top, width, height in boxes:
        some = True
        if max(left + width, top + height, width, height) > 1.001:
            return False
    return some


def _box(by_plain: Mapping[str, str], taken: set[str]) -> tuple[tuple[str, ...], str]:
    for form, sets in BOXES.items():
        for names in sets:
            columns = tuple(by_plain[name] for name in names if name in by_plain)
            if len(columns) == 4 and not taken & set(columns):
                return columns, form
    return (), ""

"""`CrossferError`: an error for the user, in one line; and what such lines are made of."""

import re
from collections.abc import Sequence
from difflib import get_close_matches


class CrossferError(ValueError):
    """An error that the user can fix: one line that names the file, row or option and says what to do.

    The command line prints it without a traceback and exits with status 2.  Quoted text may come from any
    file: line breaks become spaces, and control characters are escaped.
    """

    def __str__(self) -> str:
        text = re.sub(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", super().__str__())
        return "".join(c if c.isprintable() or c.isspace() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def some_of(names: Sequence[str], most: int, counted: bool = False) -> str:
    """Name the first few of many: ``a, b, …``, and how many they are: ``a, b, … (7)``."""
    first = ", ".join(names[:most])
    if len(names) <= most:
        return first
    return f"{first}, … ({len(names)})" if counted else f"{first}, …"


def unknown_key(name: str, known: Sequence[str]) -> str:
    """Say which keys there are, and which of them a name is nearly."""
    near = get_close_matches(name, known, 1, 0.7)
    return f"unknown key{f', perhaps {near[0]}' if near else ''}; known are {', '.join(known)}"


def one_line(error: Exception) -> str:
    """Return an error as one line: the message of a `CrossferError`, type and message of any other."""
    text = " ".join(str(error).split())
    text = text if isinstance(error, CrossferError) else f"{type(error).__name__}: {text}"
    return text[:300]


def legible(text: str) -> str:
    """Write out what is no text in a name: a file system takes any bytes, a table does not."""
    return text.encode("utf-8", "backslashreplace").decode()

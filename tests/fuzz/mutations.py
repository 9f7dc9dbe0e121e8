"""Valid inputs, damaged: a tree of files in, a tree like it out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

Files = Mapping[str, bytes]

NUMBER = re.compile(rb"-?\d+(\.\d+)?")
NUMBERS = (
    *(b"0", b"-1", b"7", b"255", b"256", b"65536", b"2147483648", b"99999999999999999999"),
    *(b"1e309", b"nan", b"inf", b"0x10", b"1_0", "٣".encode(), b"", b"9" * 5000),
)
TOKENS = (
    *(b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\\", b"/", b":"),
    *(b"..", b"../../x", b"/etc/passwd", b"C:\\x", b"con", b"~", b"%s", b"{0}", b"{{7*7}}"),
    *(
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xed\xa0\x80",
        "\N{RIGHT-TO-LEFT OVERRIDE}".encode(),
    ),
    *(b"<script>alert(1)</script>", b"]]>", b"-->", b"null", b"true", b"{}", b"[]", b"[" * 500),
    *(b"*a", b"&a ", b"<<: *a", b"!!float ", b"!!timestamp x", b"!!python/name:os.system ", b"? "),
    *(b"%YAML 9.9\n", b"---\n", b"...", b"=", b"a" * 70_000),
)
NAMES = (
    *("x", "..x", "-", " ", "a b", "ü", "🙂", "a\nb", "<script>alert(1)</script>", "%s", "CON"),
    *("label.lst", "label.csv", "x.csv", "list_patition_label.txt", "dataset.json", "annotations"),
    *(
        "happy",
        "HAPPY",
        "0",
        "6",
        "7",
        "contempt",
        "train",
        "test",
        "val",
        "x.png",
        "x.avi",
        "x.txt",
    ),
    *(".hidden", "__MACOSX", "Thumbs.db", "x" * 200, "img_0000.png", "take000", "0_exp.npy"),
    os.fsdecode(b"caf\xe9"),
)


@dataclass
class Tree:
    """Files by name, and names that are something else: ``fifo``, ``folder`` or a link's end."""

    files: dict[str, bytes]
    odd: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write what can be written: one of two names that are in each other's way is left out."""
        folder.mkdir(parents=True)
        for name in (*self.files, *self.odd):
            place = folder / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if name in self.files:
                    place.write_bytes(self.files[name])
                elif self.odd[name] == "fifo":
                    os.mkfifo(place)
                elif self.odd[name] == "folder":
                    place.mkdir()
                else:
                    place.symlink_to(self.odd[name])
            except OSError:
                continue


def mutated(valid: Files, random: Random, *, names: bool = False) -> Tree:
    """Damage a tree of files in one to four places.

    Parameters
    ----------
    valid
        From a file's name to its content.
    random
        Decides where and how.
    names
        Whether files are renamed, dropped, doubled and put beside what is no file as well.
    """
    tree = Tree(dict(valid))
    for _ in range(random.randint(1, 4)):
        if names and random.random() < 0.5 and tree.files:
            _mutate_names(tree, random)
        elif tree.files:
            name = random.choice(sorted(tree.files))
            tree.files[name] = mutate(tree.files[name], random)
    return tree


def mutate(content: bytes, random: Random) -> bytes:
    """Damage a content in one place."""
    at = random.randint(0, len(content))
    to = min(len(content), at + random.choice((1, 2, 4, 16, 256, 4096)))
    match random.randrange(10):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + content[to:]
        case 2:
            return content[:to] + content[at:]
        case 3:
            return content[:at] + random.randbytes(to - at) + content[to:]
        case 4:
            return content[:at] + bytes(to - at) + content[to:]
        case 5:
            flipped = bytes([content[at] ^ 1 << random.randrange(8)]) if at < len(content) else b""
            return content[:at] + flipped + content[at + 1 :]
        case 6 | 7:
            numbers = list(NUMBER.finditer(content[:100_000]))
            if numbers:
                begin, end = random.choice(numbers).span()
                return content[:begin] + random.choice(NUMBERS) + content[end:]
            return content[:at] + random.choice((1, 255)).to_bytes(4, "little") + content[at + 4 :]
        case 8:
            begin = random.randint(0, len(content))
            return content[:at] + content[begin : begin + to - at] + content[at:]
        case _:
            return content[:at] + random.choice(TOKENS) + content[at:]


def _mutate_names(tree: Tree, random: Random) -> None:
    name = random.choice(sorted(tree.files))
    *folders, last = name.split("/")
    stem, dot, suffix = last.rpartition(".")
    other = random.choice(NAMES)
    match random.randrange(9):
        case 0:
            del tree.files[name]
        case 1:
            tree.files["/".join([*folders, other])] = tree.files.pop(name)
        case 2:
            tree.files["/".join([*folders, other + dot + suffix])] = tree.files[name]
        case 3 if folders:
            folders[random.randrange(len(folders))] = other
            tree.files["/".join([*folders, last])] = tree.files.pop(name)
        case 4:
            tree.files["/".join([other, *folders, last])] = tree.files.pop(name)
        case 5:
            at = random.randint(0, len(stem))
            stem = stem[:at] + random.choice("x0_.-() ü") + stem[at + random.randint(0, 1) :]
            tree.files["/".join([*folders, stem + dot + suffix])] = tree.files.pop(name)
        case 6:
            del tree.files[name]
            tree.odd[name] = random.choice(("fifo", "folder", "nowhere", "/dev/zero", "."))
        case 7:
            tree.odd["/".join([*folders, other])] = random.choice(("..", ".", "/dev/null", "fifo"))
        case _:
            tree.files[name] = b""

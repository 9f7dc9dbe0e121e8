"""The staging folder of `prepare`: hidden beside its output, resumable, renamed into place at the end."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from crossfer.datasets.card import SKIPPED
from crossfer.datasets.dataset import DATASET_CARD, IMAGES, SAMPLES, is_prepared
from crossfer.datasets.extract import Extraction
from crossfer.datasets.look import LOOK
from crossfer.datasets.raw import Raw
from crossfer.errors import CrossferError, legible
from crossfer.files import alone, sync

REPLACED = "replaced"
"""Where an older dataset waits, in the staging folder, until the new one is in its place."""


class FacesStay(CrossferError):
    """An error after which the faces that were found are of use to the next call."""


def check_free(out: Path, replace: bool) -> None:
    """Refuse a folder to make that is in use, or that holds a dataset which is not to be replaced."""
    if out.name in ("", "..") or str(out) != legible(str(out)):
        raise CrossferError(f"{out}: not a valid folder for a dataset; name a new folder")
    if out.is_file():
        raise CrossferError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        if not is_prepared(out):
            raise CrossferError(f"{out}: not empty and not a prepared dataset; name another folder")
        strangers = {file.name for file in out.iterdir()} - {
            DATASET_CARD,
            IMAGES,
            SAMPLES,
            SKIPPED,
            LOOK,
        }
        if strangers:
            raise CrossferError(f"{out}: also contains {min(strangers)}; name another folder")
        if not replace:
            raise CrossferError(
                f"{out}: already contains a prepared dataset; add --replace to replace it"
            )


def _place(out: Path) -> Path:
    return out.parent / f".{out.name}.partial"


@contextmanager
def staging_of(out: Path) -> Iterator[Path]:
    """Lock and give the staging folder of `out`; after an interruption the finished blocks stay in it."""

    def taken(owner: str) -> None:
        raise CrossferError(f"{out}: {owner} is preparing it; wait for it, or stop it")

    staging = _place(out)
    staging.mkdir(parents=True, exist_ok=True)
    with alone(staging / "lock", taken):
        if (staging / REPLACED).exists() and not out.exists():
            (staging / REPLACED).rename(out)  # killed between two renames
        keep = False
        try:
            yield staging
        except BaseException as error:
            hopeless = isinstance(error, CrossferError) and not isinstance(error, FacesStay)
            keep = not hopeless and any(staging.glob("blocks/*.npz"))
            raise
        finally:
            if not keep:
                shutil.rmtree(staging, ignore_errors=True)


def sweep(out: Path) -> None:
    """Remove what a process that was killed at the very end left beside a prepared dataset."""
    if _place(out).exists():
        with staging_of(out):
            pass


def resumable(staging: Path, raw: Raw, extraction: Extraction) -> Path:
    """Return the folder for blocks of faces: emptied, unless its blocks are of the same faces."""
    folder, note = staging / "blocks", staging / "blocks" / "key"
    origins = [(record.origin, record.frame, record.box, record.relative) for record in raw.records]
    key = hashlib.sha256(
        repr((raw.state, extraction, version("crossfer"), origins)).encode()
    ).hexdigest()
    known = raw.state and note.is_file() and note.read_text("utf-8") == key
    if not known:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        note.write_text(key, "utf-8")
    return folder


def put_in_place(partial: Path, out: Path) -> None:
    """Let the finished dataset take its place, and the older one's, by renaming alone."""
    os.chmod(partial, 0o755)
    for file in (*partial.iterdir(), partial):
        sync(file)
    replaced = partial.with_name(REPLACED)
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        out.rename(replaced)
    partial.rename(out)
    sync(out.parent)

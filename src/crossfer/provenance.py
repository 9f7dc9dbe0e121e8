"""Versions of packages, and the commit, that produced a result."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("crossfer", "torch", "numpy", "pyarrow", "safetensors")


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on, and crossfer's ``commit``, if any."""
    found = {package: version(package) for package in PACKAGES}
    commit = commit_of(Path(__file__))
    return found | ({"commit": commit} if commit else {})


def commit_of(file: Path) -> str | None:
    """Return the commit of a file's checkout, with ``-dirty`` appended if there are changes.

    None if the file is not tracked, as in an installed package, even inside another checkout.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
        env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},  # read only
    )
    return done.stdout.strip()

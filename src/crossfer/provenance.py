"""Versions of packages and the commit that made a result."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("crossfer", "torch", "numpy", "lightning-fabric", "pyarrow", "safetensors")


@cache
def versions() -> dict[str, str]:
    """Return the versions of what a result depends on, and crossfer's ``commit`` where there is one."""
    found = {package: version(package) for package in PACKAGES}
    commit = commit_of(Path(__file__))
    return found | ({"commit": commit} if commit else {})


def commit_of(file: Path) -> str | None:
    """Return the commit that a file is checked out from; ``-dirty`` at its end tells of changes since.

    None where the file is under no version control, as in an installed package, even one that lies in a
    folder inside somebody else's checkout.
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
        env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},  # only look
    )
    return done.stdout.strip()

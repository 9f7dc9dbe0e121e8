"""The programs of docs/deploy.md answer as crossfer does, each where its toolchain is at hand."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import crossfer
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_MUG
from tests import tiny_onnx

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def python(folder: Path) -> list[str | Path]:
    return [sys.executable, EXAMPLES / "predict.py"]


def javascript(folder: Path) -> list[str | Path]:
    """Run it in a folder where ``npm install onnxruntime-web`` was said: ``ONNXRUNTIME_WEB`` names it."""
    modules = Path(os.environ.get("ONNXRUNTIME_WEB", "none")) / "node_modules"
    if not shutil.which("node") or not modules.is_dir():
        pytest.skip("no Node.js, or ONNXRUNTIME_WEB names no folder with onnxruntime-web installed")
    (folder / "node_modules").symlink_to(modules.resolve())
    return ["node", shutil.copy(EXAMPLES / "predict.mjs", folder)]


def cpp(folder: Path) -> list[str | Path]:
    """Compile it with a release of ONNX Runtime: ``ONNXRUNTIME`` names its folder."""
    release = Path(os.environ.get("ONNXRUNTIME", "none")).resolve()
    if not shutil.which("g++") or not (release / "include" / "onnxruntime_c_api.h").is_file():
        pytest.skip("no g++, or ONNXRUNTIME names no folder with a release of ONNX Runtime")
    program = folder / "predict"
    command: list[str | Path] = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        EXAMPLES / "predict.cpp",
    ]
    found = [
        f"-I{release}/include",
        f"-L{release}/lib",
        "-lonnxruntime",
        f"-Wl,-rpath,{release}/lib",
    ]
    subprocess.run([*command, *found, "-o", program], check=True, timeout=120)
    return [program]


@pytest.mark.parametrize("toolchain", [python, javascript, cpp])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_example_answers_as_crossfer_does(
    toolchain: Callable[[Path], list[str | Path]], channels: int, tmp_path: Path
) -> None:
    framing = tiny_onnx.FRAMING | {"channels": channels}
    exported = tiny_onnx.write(
        tmp_path / "exported", tiny_onnx.network(channels=channels), framing=framing
    )
    photo = portrait(LAB_MUG, 1, 3)
    picture = tmp_path / "photo.ppm"
    cv2.imwrite(str(picture), photo[..., ::-1])
    model = crossfer.load(exported)
    (seen,) = model.look([photo])[0]
    assert seen.eyes
    eyes = [str(value) for eye in reversed(seen.eyes) for value in eye]
    command = [*toolchain(tmp_path), exported, picture, *eyes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = dict(line.split() for line in done.stdout.splitlines())
    assert tuple(said) == model.classes
    answers = np.array(list(map(float, said.values())))
    assert answers == pytest.approx(seen.probabilities, abs=5e-3)


def test_a_table_of_a_video_is_drawn_as_a_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["frame,seconds,face,p_happy,p_sad", "0,0.0,1,0.9,0.1", "1,0.1,1,0.4,0.6", "1,0.1,,,"]
    (tmp_path / "faces.csv").write_text("\n".join(rows))
    out = tmp_path / "timeline.png"
    monkeypatch.setattr(sys, "argv", ["timeline.py", str(tmp_path / "faces.csv"), str(out)])
    runpy.run_path(str(EXAMPLES / "timeline.py"), run_name="__main__")
    drawn = cv2.imread(str(out))
    assert drawn is not None and drawn.shape == (374, 1100, 3)

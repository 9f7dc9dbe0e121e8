"""What reads files, and a few small valid inputs for each."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from PIL import Image

from crossfer.classes import FER7
from crossfer.datasets import Preparation, open_dataset, prepare, write_look
from crossfer.datasets.extract import Extraction
from crossfer.datasets.record import Record
from crossfer.evaluation.rows import Cost, RunFacts
from crossfer.experiment import load_experiment
from crossfer.framing import Framing
from crossfer.networks import NetworkConfig, study_cnn
from crossfer.networks.weights import save_tensors
from crossfer.run_folder import load_run
from tests.fuzz.mutations import Files

WIDTH = 0.02
CONFIG = """
name: faces
source: {path: fer2013, labels: {joy: happy, odd: null}, crop: 0.9}
targets: [jaffe, {path: mine, name: mine, faces: cropped, sizes: [70, 10, 20]}]
strategies: [BL, FC, FU, {name: warm, start: baseline, layers: all, data: source+target, share: 0.5}]
fractions: [0.5, 1.0]
seeds: &seeds [0, 1, 2]
selection: both
model: {width: 0.5}
recipes:
  default: &default {batch_size: 64, augmentation: {flip: true}}
  FC: *default
"""


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Parameters
    ----------
    valid
        Makes inputs that it reads without complaint.
    read
        Reads one, given its folder and an empty one to write into.
    names
        Whether the names of the files mean something.
    """

    valid: Callable[[], Sequence[Files]]
    read: Callable[[Path, Path], object]
    names: bool = False


def _prepare(folder: Path, out: Path) -> object:
    """Prepare a folder, or the only table or archive in it."""
    files = sorted(folder.glob("only.*"))
    how = Preparation(faces="cropped")
    return write_look(prepare(files[0] if files else folder, out / "made", how))


def _image(folder: Path, out: Path) -> object:
    record = Record(folder / "x", "angry", "x", box=(3.0, 3.0, 30.0, 30.0))
    how = Extraction(Framing(), False, 0.9)
    return how.faces([record], None)


def _video(folder: Path, out: Path) -> object:
    records = [Record(folder / "x.avi", "angry", "x", frame=frame) for frame in (0, 2, 9)]
    return Extraction(Framing(), False, 0.9).faces(records, None)


def _config(folder: Path, out: Path) -> object:
    return load_experiment(folder / "x.yaml")


def _card(folder: Path, out: Path) -> object:
    """Open a prepared dataset; damage to what it holds must not go unnoticed."""
    dataset = open_dataset(folder)
    dataset.check()
    used = dataset.labels, dataset.subjects, dataset.classes, dataset.counts(), dataset.title
    write_look(dataset, out / "look.html")
    for name in ("images.npy", "samples.parquet"):
        assert (folder / name).read_bytes() == _prepared()[name], "damage was not noticed"
    return used


def _weights(folder: Path, out: Path) -> object:
    (file,) = folder.iterdir()
    return NetworkConfig(width=WIDTH, weights=file).deployed().eval()(torch.zeros(1, 1, 48, 48))


def _run(folder: Path, out: Path) -> object:
    return load_run(folder)


@cache
def _pixels(seed: int, side: int = 48) -> NDArray[np.uint8]:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return np.kron(blocks, np.ones((side // 6, side // 6), np.uint8)).astype(np.uint8)


@cache
def _picture(kind: str, seed: int = 0, mode: str = "L") -> bytes:
    content = io.BytesIO()
    Image.fromarray(_pixels(seed)).convert(mode).save(content, kind)
    return content.getvalue()


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    return "".join(",".join(map(str, row)) + "\r\n" for row in rows).encode()


def _fer2013() -> bytes:
    usages = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
    rows = [[n, " ".join(map(str, _pixels(n).ravel())), usage] for n, usage in enumerate(usages)]
    return _csv([["emotion", "pixels", "Usage"], *rows])


def _fer2013_inputs() -> list[Files]:
    names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"]
    names += ["contempt", "unknown", "NF"]
    usages = ["Training", "Training", "Training", "PublicTest", "PrivateTest"]
    votes = [[usage, "", *(9 * (n == row) for n in range(10))] for row, usage in enumerate(usages)]
    plus = _csv([["Usage", "Image name", *names], *votes])
    return [{"only.csv": _fer2013()}, {"fer2013.csv": _fer2013(), "fer2013new.csv": plus}]


def _manifests() -> list[Files]:
    header = ["path", "label", "subject", "left", "top", "width", "height"]
    names = [f"{name}{n}.png" for n, name in enumerate(FER7)]
    rows = [[name, n % 7, f"s{n}", 2, 2, 40, 40] for n, name in enumerate(names)]
    pictures = {name: _picture("PNG", n) for n, name in enumerate(names)}
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    parquet = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), parquet)
    return [
        {"only.csv": _csv([header, *rows]), **pictures},
        {"only.parquet": parquet.getvalue(), **pictures},
    ]


def _folders() -> list[Files]:
    png, jpeg = _picture("PNG"), _picture("JPEG", 1)
    exp = io.BytesIO()
    np.save(exp, np.array("3"))
    annotated = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"]
    annotated += ["facial_landmarks", "expression", "valence", "arousal"]
    rows: list[list[object]] = [[f"1/{n}.jpg", 1, 1, 40, 40, "1;2", n, 0.5, 0.5] for n in range(3)]
    ck = "S005/001/S005_001_0000000{}"
    return [
        {"happy/anna_1.png": png, "sad/bob_1.jpg": jpeg, "fear/anna_2.png": png},
        {f"{who}.{what}1.{n}.tiff": png for n, (who, what) in enumerate(_pairs("KA MK", "AN HA"))},
        {f"images/{ck.format(n)}.png": png for n in range(1, 5)}
        | {f"Emotion/{ck.format(4)}_emotion.txt": b"   3.0000000e+00\n"},
        {
            f"CK+48/{name}/S01{n}_00{n}_00000014.png": png
            for n, name in enumerate(("anger", "sadness"))
        },
        {
            f"subjects3/001/{name}/take000/img_000{n}.jpg": jpeg
            for n in range(9)
            for name in ("happiness",)
        },
        {"EmoLabel/list_patition_label.txt": b"train_00001.jpg 5\ntest_0001.jpg 4\n"}
        | {f"Image/aligned/{name}_aligned.jpg": jpeg for name in ("train_00001", "test_0001")},
        {"label.lst": b"a.jpg 0 2 2 40 40 52.1 3\nb b.jpg 0 1 1 40 40 9 6\n"}
        | {"image/a.jpg": jpeg, "image/b b.jpg": jpeg},
        {"training.csv": _csv([annotated, *rows])} | {f"1/{n}.jpg": jpeg for n in range(3)},
        {"train_set/annotations/0_exp.npy": exp.getvalue(), "train_set/images/0.jpg": jpeg},
        {"FER2013Train/label.csv": b'a.png,"(0, 0, 48, 48)",0,9,0,0,0,0,0,0,0,0\n'}
        | {"FER2013Train/a.png": png},
        {"train/angry/Training_1.jpg": jpeg, "test/happy/PublicTest_2.jpg": jpeg},
        {"AF01/AF01ANS.JPG": jpeg, "AF01/AF01HAS.JPG": jpeg},
        {"Rafd090_01_Caucasian_female_angry_frontal.jpg": jpeg},
        {"happy/f01_h_1.jpg": jpeg, "angry/m02_a_1.jpg": jpeg},
        {
            "data.yaml": b"names: [angry, happy]\n",
            "train/images/a.jpg": jpeg,
            "train/labels/a.txt": b"1 0.5 0.5 0.8 0.8\n0 0.4 0.4 0.5 0.5\n",
        },
        {"train/_classes.csv": b"filename, angry, happy\na.jpg, 1, 0\n", "train/a.jpg": jpeg},
        {"happy/a1": jpeg, "happy/2.png": png, "labels.csv": b"pth,label\nhappy/a1,sad\n"},
    ]


def _pairs(first: str, second: str) -> list[tuple[str, str]]:
    return [(a, b) for a in first.split() for b in second.split()]


def _images() -> list[Files]:
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "PCX", "SGI")
    plain = [_picture(kind, mode=mode) for kind in kinds for mode in ("L", "RGB")]
    packed = io.BytesIO()
    Image.fromarray(_pixels(2)).save(packed, "TIFF", compression="tiff_lzw")
    deep = io.BytesIO()
    Image.fromarray(_pixels(3).astype(np.uint16) * 200).save(deep, "PNG")
    clear = _picture("PNG", 4, "LA")
    return [{"x": content} for content in (*plain, packed.getvalue(), deep.getvalue(), clear)]


@cache
def _videos() -> list[Files]:
    inputs: list[Files] = []
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = (
        "-8"  # what crossfer sets too; it is read at the first use
    )
    with tempfile.TemporaryDirectory() as name:
        for code in ("MJPG", "mp4v"):
            file = Path(name, f"{code}.avi")
            video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*code), 10, (48, 48))
            for n in range(5):
                video.write(cv2.cvtColor(_pixels(n), cv2.COLOR_GRAY2BGR))
            video.release()
            inputs.append({"x.avi": file.read_bytes()})
    return inputs


@cache
def _prepared() -> Files:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            f"{name}/{who}.png": _picture("PNG") for name, who in _pairs("happy sad", "a b c d")
        }
        for file, content in files.items():
            (folder / "raw" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "raw" / file).write_bytes(content)
        prepare(folder / "raw", folder / "made")
        return {file.name: file.read_bytes() for file in (folder / "made").iterdir()}


@cache
def _networks() -> list[Files]:
    model = study_cnn(WIDTH)
    content, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": model.state_dict()}, content)
    torch.save(model.state_dict(), old, _use_new_zipfile_serialization=False)
    with tempfile.TemporaryDirectory() as name:
        save_tensors(model.state_dict(), Path(name, "x"))
        safe = Path(name, "x").read_bytes()
    return [
        {"model.safetensors": safe},
        {"model.pt": content.getvalue()},
        {"old.pth": old.getvalue()},
    ]


def _runs() -> list[Files]:
    costs = ("images_seen", "flop", "seconds", "evaluation_seconds", "peak_memory_bytes")
    run = RunFacts(
        key="0" * 16,
        label="FC · jaffe · 100% · seed 0",
        strategy="FC",
        about="",
        target="jaffe",
        fraction=1.0,
        seed=0,
        identity={},
        kept_epoch=1,
        merged={"alpha": None, "tried": []},
        chosen=None,
        training_images=2,
        parameters=2,
        trained_parameters=1,
        cost=Cost(**dict.fromkeys(costs, 1.0)),
        machine={},
        versions={},
    )
    return [{"run.json": json.dumps(asdict(run) | {"files": {}}, indent=1).encode()}]


def packed(kind: str, files: Files) -> bytes:
    """Return an archive of some files, whatever they are called."""
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data)
    else:
        with tarfile.open(fileobj=content, mode="w:" + kind[4:]) as tar:  # pyrefly: ignore[no-matching-overload]
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def _archives() -> list[Files]:
    files = _folders()[0]
    hostile = {
        **files,
        "happy/../../x.png": b"",
        "/tmp/x.png": b"",
        "happy": b"",
        "sad/" * 200: b"x",
    }
    return [
        {f"only.{kind}": packed(kind, content)}
        for content in (files, hostile)
        for kind in ("zip", "tar", "tar.gz", "tar.xz", "tar.bz2")
    ]


READERS = {
    "csv": Reader(_fer2013_inputs, _prepare),
    "folders": Reader(_folders, _prepare, names=True),
    "manifests": Reader(_manifests, _prepare, names=True),
    "images": Reader(_images, _image),
    "videos": Reader(_videos, _video),
    "yaml": Reader(lambda: [{"x.yaml": CONFIG.encode()}], _config),
    "cards": Reader(lambda: [_prepared()], _card),
    "runs": Reader(_runs, _run),
    "weights": Reader(_networks, _weights),
    "archives": Reader(_archives, _prepare),
}

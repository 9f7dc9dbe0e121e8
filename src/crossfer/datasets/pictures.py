"""Decode pictures and videos: upright, 8 bits a channel, gray or RGB; encode pictures for a browser.

A damaged file may make a decoder raise anything; here it all becomes an `UnreadableImage`, and nothing
is printed.
"""

from __future__ import annotations

import base64
import errno
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crossfer.datasets.record import Picture, Pixels
from crossfer.datasets.walk import HEIF_BRANDS

MOST_PIXELS = 100_000_000
"""No face needs more, and a small file can claim any number."""
FORMATS = {
    "AVIF": "PIL.Avif",
    "BMP": "PIL.Bmp",
    "GIF": "PIL.Gif",
    "HEIF": "pi_heif.Heif",
    "JPEG": "PIL.Jpeg",
    "JPEG2000": "PIL.Jpeg2K",
    "PCX": "PIL.Pcx",
    "PNG": "PIL.Png",
    "PPM": "PIL.Ppm",
    "SGI": "PIL.Sgi",
    "TGA": "PIL.Tga",
    "TIFF": "PIL.Tiff",
    "WEBP": "PIL.WebP",
}
"""The formats that are read, and their plugins of Pillow.  It has more, and some start programs (EPS)."""
MACHINE = (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
"""Errors that say nothing about a picture: its disk is gone, or too many files are open."""
RANGES = [2**bits - 1 for bits in (8, 10, 12, 14, 16)]
"""The largest values of pictures of so many bits."""
ROUNDING = 0.001
"""By how much fractions may exceed 1 after calculations."""
GRAY_MODES = ("1", "L", "LA", "La")

# Tags that make no sense or a palette's odd transparency do not matter to us, and whoever prepares a
# million faces wants to read none of it.  (Setting this around each call would not be safe in threads.)
warnings.filterwarnings("ignore", module=r"PIL\b")


class UnreadableImage(Exception):
    """A picture that cannot be used; the message says why in a few words."""


def open_picture(picture: Picture) -> Pixels:
    """Decode a picture.

    What is transparent shows white, as on paper.  Of an animated file the first picture is taken.
    Values of more than 8 bits are brought to 8 by the smallest of the ranges of 8, 10, 12, 14 and 16 bits
    that holds them (cameras write 10 or 12 bits into 16), anything else by the picture's own maximum.
    Fractions within 0–1 are multiplied by 255.

    Parameters
    ----------
    picture
        A file; or pixels, (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of any kind of number; or
        a function that returns such pixels or a Pillow image.

    Returns
    -------
    uint8 (H, W) where the picture is gray, otherwise (H, W, 3) RGB

    Raises
    ------
    UnreadableImage
        If it is missing, empty, truncated, too large, or no picture.
    """
    made: Any = _made(picture) if callable(picture) else picture
    if isinstance(made, np.ndarray):
        return _from_array(made)
    if isinstance(made, Image.Image):
        with _explained(None):
            return _from_pillow(made)
    if not isinstance(made, Path):
        raise UnreadableImage(f"not a picture but {type(made).__name__}")
    if not made.is_file():  # a pipe, say: reading it might take for ever
        there = made.exists()
        raise UnreadableImage(
            "not a file" if there else _why(made, FileNotFoundError(), "an image")
        )
    with _explained(made), Image.open(made, formats=_formats()) as opened:
        return _from_pillow(opened)


def decoded(content: bytes) -> Image.Image:
    """Open a picture that is in memory as an image file.

    Raises
    ------
    UnreadableImage
        If it is no picture.
    """
    with _explained(content):
        return Image.open(BytesIO(content), formats=_formats())


def encoded(pixels: Pixels, kind: Literal["png", "jpeg"] = "png") -> bytes:
    """Return pixels, uint8 (H, W) or (H, W, 3) RGB, as the content of an image file."""
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(f".{kind}", ordered)[1].tobytes()


def data_uri(pixels: Pixels, kind: Literal["png", "jpeg"] = "png") -> str:
    """Return pixels, as `encoded` takes them, as the address of an image in a page."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded(pixels, kind)).decode()}"


def video_frames(file: Path, indices: Iterable[int]) -> Iterator[tuple[int, Pixels]]:
    """Decode some frames of a video, in one go from its start to the last of them.

    Parameters
    ----------
    file
        What OpenCV can decode: .avi, .mp4 and many more.
    indices
        Which frames, from 0.

    Yields
    ------
    index : int
        In ascending order; those beyond the video's end are left out.
    image : uint8 (H, W, 3)
        RGB.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, or no video.
    """
    wanted = set(indices)
    with _video(file) as video:
        for index in range(max(wanted, default=-1) + 1):
            if not video.grab():
                return
            if index in wanted:
                decoded, image = video.retrieve()
                if decoded:
                    yield index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def timed_frames(
    file: Path, per_second: float | None = None
) -> Iterator[tuple[int, float, Pixels]]:
    """Decode a whole video, one frame after the other: memory for one frame is needed.

    Parameters
    ----------
    file
        As in `video_frames`.
    per_second
        At most so many frames of each second; by default all.

    Yields
    ------
    index : int
        From 0, of all the video's frames.
    seconds : float
        Since the first frame, as the file has it; by the frame rate where it has none.
    image : uint8 (H, W, 3)
        RGB.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, or no video; after the last frame, if the video is cut off: it ends
        before its header says by more than a fiftieth (headers are often off by a few frames).
    """
    with _video(file) as video:
        announced, rate = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
        index, start, seconds, due = 0, 0.0, -1.0, 0.0
        while video.grab():
            noted = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            start = noted if index == 0 else start
            by_rate = index / rate if rate > 0 else float(index)
            seconds = noted - start if index and noted - start > seconds else by_rate
            if seconds >= due - 1e-6:
                decoded, image = video.retrieve()
                if decoded:
                    yield (
                        index,
                        seconds,
                        cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False),
                    )
                if per_second:
                    due = (seconds * per_second // 1 + 1) / per_second
            index += 1
    if index < announced - 2 - announced / 50:
        raise UnreadableImage(f"truncated: it ends after {index:,} of {announced:,.0f} frames")


def frame_count(file: Path) -> int:
    """Count the frames of a video by decoding it, as headers are often wrong; errors as `video_frames`."""
    count = 0
    with _video(file) as video:
        while video.grab():
            count += 1
    return count


def _made(make: Any) -> Any:
    try:
        return make()
    except UnreadableImage:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".removesuffix(": ").splitlines()[0]
        raise UnreadableImage(f"its function failed ({what[:80]})") from None


@contextmanager
def _explained(of: Path | bytes | None) -> Iterator[None]:
    """Turn whatever Pillow raises into a reason."""
    try:
        yield
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage("too many pixels to be a photograph") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE:
            raise
        raise UnreadableImage(_why(of, error, "an image")) from None


def _why(of: Path | bytes | None, error: Exception | None, kind: str) -> str:
    reasons: dict[type[Any], str] = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "a folder",
        PermissionError: "no permission to read it",
        MemoryError: "does not fit in memory",
    }
    if type(error) in reasons:
        return reasons[type(error)]
    try:
        head = _head(of) if isinstance(of, Path) else of
    except (OSError, ValueError):
        return "no such file"
    if head == b"":
        return "the file is empty"
    if head and head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and "HEIF" not in _formats():
        return "a HEIC picture; to read it, pip install 'crossfer[heic]'"
    truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return "truncated" if truncated else f"not {kind} that can be read"


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(12)


@cache
def _formats() -> tuple[str, ...]:
    for plugin in FORMATS.values():  # Image.init() would import three times as many
        with suppress(ImportError):  # AVIF: from Pillow 11.3; HEIF: the extra “heic”
            import_module(f"{plugin}ImagePlugin")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _from_pillow(image: Image.Image) -> Pixels:
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableImage("too many pixels to be a photograph")
    image = _upright(image)
    if image.mode[0] in "IF":  # more than 8 bits: I, I;16, I;16B, F
        return _from_array(np.asarray(image))
    if image.has_transparency_data:
        gray = image.mode in GRAY_MODES
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA")).convert("L" if gray else "RGB")
    return np.array(image.convert("L" if image.mode in GRAY_MODES else "RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as the camera noted that it was held."""
    image.load()  # so that what is raised below is about the note alone
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an unreadable note
        return image


def _from_array(values: NDArray[Any]) -> Pixels:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] in (3, 4)):
        raise UnreadableImage(
            f"not a picture: pixels of shape {values.shape}; give (height, width) or (height, width, 3)"
        )
    if values.size == 0:
        raise UnreadableImage("has no pixels")
    if values.shape[0] * values.shape[1] > MOST_PIXELS:
        raise UnreadableImage("too many pixels to be a photograph")
    pixels = values if values.dtype == np.uint8 else _to_8_bits(values)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return _from_pillow(Image.fromarray(np.ascontiguousarray(pixels)))
    return np.ascontiguousarray(pixels)


def _to_8_bits(values: NDArray[Any]) -> Pixels:
    if values.dtype.kind not in "buif":
        raise UnreadableImage(f"not a picture: pixels of type {values.dtype}")
    if not np.isfinite(values).all():
        raise UnreadableImage("some pixels are not numbers")
    if values.min() < 0:
        raise UnreadableImage("some pixels are below 0: give 0–255, or fractions within 0–1")
    most = float(values.max())
    if values.dtype.kind == "f" and 1 + ROUNDING < most < 2:
        raise UnreadableImage(f"its largest pixel is {most:g}: give 0–255, or fractions within 0–1")
    if values.dtype.kind == "b" or (values.dtype.kind == "f" and most <= 1 + ROUNDING):
        factor = 255.0
    else:
        factor = 255 / next((range_ for range_ in RANGES if most <= range_), most)
    scaled = np.rint(values * np.float64(factor))
    return np.clip(scaled, 0, 255).astype(np.uint8)


@contextmanager
def _video(file: Path) -> Iterator[cv2.VideoCapture]:
    _silence_videos()
    try:
        str(file).encode()
    except UnicodeEncodeError:  # would end the process within OpenCV
        raise UnreadableImage("a video whose name is not valid text; rename it") from None
    video = cv2.VideoCapture(str(file)) if file.is_file() else None
    try:
        if video is None or not video.isOpened():
            raise UnreadableImage(_why(file, None, "a video") if file.exists() else "no such file")
        width, height = (
            video.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MOST_PIXELS:
            raise UnreadableImage("too many pixels to be a video of people")
        yield video
    finally:
        if video is not None:
            video.release()


@cache
def _silence_videos() -> None:
    """Keep FFmpeg and OpenCV from writing about damaged videos to the terminal; a user may undo it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    four = getattr(cv2, "setLogLevel", None)  # OpenCV 5 has it elsewhere
    (four or cv2.utils.logging.setLogLevel)(0)

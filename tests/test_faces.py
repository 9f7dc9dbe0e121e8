"""From a picture to a face: decoding whatever people have, finding, aligning."""

from __future__ import annotations

import inspect
import math
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossfer import standins
from crossfer.datasets.detector import NETWORKS, CascadeNetwork, Detection, Detector, lying, weights
from crossfer.datasets.faces import align, choose, cut, face_of, is_plausible
from crossfer.datasets.pictures import UnreadableImage, frame_count, open_picture, video_frames
from crossfer.errors import CrossferError
from crossfer.framing import Framing
from crossfer.standins.layouts import portrait
from crossfer.standins.worlds import LAB_JAFFE

GRAY = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def found_anew() -> Iterator[None]:
    """Have faces looked for whenever a detector is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "__call__", inspect.unwrap(Detector.__call__))
        yield


def face(left: float, top: float, side: float, score: float = 0.99) -> Detection:
    """Return a face with its eyes level, at 35 % of the box."""
    points = [(0.3, 0.35), (0.7, 0.35), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
    landmarks = np.array([(left + x * side, top + y * side) for x, y in points], np.float32)
    return Detection((left, top, side, side), score, landmarks)


@given(
    distance=st.floats(12, 150),
    roll=st.floats(-50, 50),
    x=st.floats(460, 540),
    y=st.floats(460, 540),
    eye_distance=st.floats(0.25, 0.6),
    eye_height=st.floats(0.25, 0.6),
    side=st.sampled_from([48, 64, 112]),
)
def test_the_eyes_come_to_lie_where_they_are_asked_for(
    distance: float,
    roll: float,
    x: float,
    y: float,
    eye_distance: float,
    eye_height: float,
    side: int,
) -> None:
    """Two blurred dots are found again within half a pixel, whatever the size and the tilt."""
    half = distance / 2 * np.array([math.cos(math.radians(roll)), math.sin(math.radians(roll))])
    left, right = np.array([x, y]) - half, np.array([x, y]) + half
    framing = Framing(side, 1, eye_distance, eye_height)
    columns, rows = np.meshgrid(np.arange(1000) + 0.5, np.arange(1000) + 0.5)
    width = 0.06 * distance / eye_distance  # of a dot
    for eye, asked in ((left, 0.5 - eye_distance / 2), (right, 0.5 + eye_distance / 2)):
        dot = np.exp(-((columns - eye[0]) ** 2 + (rows - eye[1]) ** 2) / (2 * width**2))
        image, box, turned = align((255 * dot).astype(np.uint8), left, right, framing)
        mass = image.astype(float)
        mass[mass < 40] = 0  # the rounding of the dot's far edge
        grid = np.arange(side) + 0.5
        found = np.array([(mass.sum(0) * grid).sum(), (mass.sum(1) * grid).sum()]) / mass.sum()
        assert found == pytest.approx((asked * side, eye_height * side), abs=0.5)
        assert turned == pytest.approx(roll, abs=1e-3)
        assert box[2] == pytest.approx(distance / eye_distance)


def test_a_face_of_the_right_size_comes_through_bit_for_bit() -> None:
    taken = face_of(GRAY, None, Framing(), None, 1.0)
    assert np.array_equal(taken.image, GRAY)
    assert (taken.found, taken.box, taken.roll) == ("cropped", (0, 0, 48, 48), 0)
    assert math.isnan(taken.score)


def test_the_largest_central_face_is_taken_and_the_others_are_told_of() -> None:
    small, central, corner = face(140, 140, 20), face(100, 100, 90), face(0, 0, 95)
    picture = np.zeros((300, 300), np.uint8)
    assert choose([corner, small, central], picture.shape, None) is central
    assert choose([corner, central], picture.shape, (5, 5, 80, 80)) is corner
    assert choose([central], picture.shape, (200, 200, 50, 50)) is None
    taken = face_of(picture, None, Framing(), lambda image: [corner, central], 1.0)
    assert taken.found == "several"
    assert face_of(picture, None, Framing(), lambda image: [central], 1.0).found == "eyes"


def test_without_a_face_the_centre_or_the_box_is_taken() -> None:
    picture = np.zeros((100, 200), np.uint8)
    taken = face_of(picture, None, Framing(), lambda image: [], 0.5)
    assert (taken.found, taken.box) == ("centre", (75, 25, 50, 50))
    boxed = face_of(picture, (10, 20, 40, 60), Framing(), lambda image: [], 0.5)
    assert (boxed.found, boxed.box) == ("box", (0, 20, 60, 60))
    with pytest.raises(UnreadableImage, match=r"outside the 200×100 picture"):
        face_of(picture, (150, 50, 100, 100), Framing(), None, 1.0)


def test_eyes_that_cannot_be_right_are_not_aligned_on() -> None:
    good = face(10, 10, 100)
    assert is_plausible(good)
    steep = good.landmarks.copy()
    steep[1] = steep[0] + (5, 40)
    swapped = good.landmarks[[1, 0, 2, 3, 4]]
    for wrong in (steep, swapped, np.repeat(good.landmarks[:1], 5, 0)):
        assert not is_plausible(Detection(good.box, 0.99, wrong))


def test_colour_and_size_are_as_asked_and_nonsense_is_refused() -> None:
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[..., 0] = 200
    image, _ = cut(colours, (0, 0, 60, 60), Framing(side=32, channels=3))
    assert image.shape == (32, 32, 3) and image[0, 0].tolist() == [200, 0, 0]
    assert cut(colours, (0, 0, 60, 60), Framing())[0].shape == (48, 48)
    for wrong, words in (
        ({"side": 8}, "side is 8"),
        ({"channels": 2}, "channels is 2"),
        ({"eye_distance": 0.9}, "eye_distance is 0.9"),
    ):
        with pytest.raises(CrossferError, match=words):
            Framing(**wrong)  # pyrefly: ignore[bad-argument-type]


def test_pictures_are_read_as_people_have_them(tmp_path: Path) -> None:
    rgb = np.stack([GRAY] * 3, -1)
    image = Image.fromarray(GRAY)
    clear = np.full_like(GRAY, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    odd = tmp_path / "ünï 表情"
    odd.mkdir()
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(odd / "deep.PNG")
    Image.fromarray(GRAY.astype(np.uint16)).save(odd / "8 bits in 16.png")
    Image.fromarray(rgb).save(odd / "colour.png")
    Image.fromarray(np.dstack([rgb, clear])).save(odd / "opaque.png")
    image.convert("P").save(odd / "palette.gif")
    Image.fromarray(rgb).convert("CMYK").save(odd / "print.TIF")
    image.transpose(Image.Transpose.ROTATE_90).save(odd / "turned.png", exif=exif)
    for file in sorted(odd.iterdir()):
        pixels = open_picture(file)
        gray = pixels if pixels.ndim == 2 else pixels.mean(-1)
        assert np.abs(gray.astype(int) - GRAY).max() <= 1, file.name
    hidden = np.dstack([rgb, np.zeros_like(GRAY)])
    Image.fromarray(hidden).save(tmp_path / "transparent.png")
    assert (open_picture(tmp_path / "transparent.png") == 255).all()
    assert np.array_equal(open_picture(lambda: image), GRAY)
    assert np.array_equal(open_picture(lambda: GRAY / 255), GRAY)


def test_what_is_no_picture_says_why_in_a_few_words(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for name, content, words in (
        ("cut.png", whole[: len(whole) // 2], "truncated"),
        ("empty.png", b"", "the file is empty"),
        ("text.jpg", b"hello", "not an image that can be read"),
        # A header that claims 100,000 × 100,000 pixels.
        ("bomb.ppm", b"P5 100000 100000 255 ", "too many pixels to be a photograph"),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(UnreadableImage, match=words):
            open_picture(file)
    (tmp_path / "film.avi").write_bytes(b"RIFF")
    with pytest.raises(UnreadableImage, match="not a video that can be read"):
        frame_count(tmp_path / "film.avi")
    with pytest.raises(UnreadableImage, match="no such file"):
        open_picture(tmp_path / "nowhere.png")

    def broken() -> None:
        raise RuntimeError("lost")

    for wrong in (np.zeros((4, 4, 7)), np.zeros((0, 4)), np.array([["a"]]), broken):
        with pytest.raises(UnreadableImage):
            open_picture(wrong)  # pyrefly: ignore[bad-argument-type]


def test_frames_of_a_video_come_in_order_and_decoded_once(tmp_path: Path) -> None:
    file = tmp_path / "film.avi"
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 25, (32, 24))
    for shade in range(12):
        video.write(np.full((24, 32, 3), 20 * shade, np.uint8))
    video.release()
    assert frame_count(file) == 12
    frames = list(video_frames(file, [7, 2, 2]))
    assert [index for index, _ in frames] == [2, 7]
    for index, frame in frames:
        assert frame.shape == (24, 32, 3)
        assert abs(frame.mean() - 20 * index) < 3


def test_the_detector_finds_drawn_faces_and_none_on_a_wall(tmp_path: Path) -> None:
    detector = Detector()
    standins.write("jaffe", tmp_path / "jaffe", images=14)
    for file in sorted((tmp_path / "jaffe").glob("*.tiff")):
        picture = open_picture(file)
        found = detector(picture)
        assert len(found) == 1, file.name
        left_eye, right_eye, nose, left_mouth, right_mouth = found[0].landmarks
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        assert is_plausible(found[0])
    for shape in ((1, 1), (0, 5), (48, 48), (30, 2000), (200, 200, 3)):
        assert detector(np.full(shape, 127, np.uint8)) == []


def test_a_long_strip_takes_no_more_memory_than_other_pictures() -> None:
    tracemalloc.start()
    assert Detector()(np.full((60, 15_000, 3), 127, np.uint8)) == []
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    strip = np.full((160, 2_400), 200, np.uint8)
    face = cv2.resize(portrait(LAB_JAFFE, 1, 3), (160, 160), interpolation=cv2.INTER_AREA)
    strip[:, 1_000:1_160] = face
    (found,) = Detector()(strip)
    assert 1_000 < found.box[0] < 1_160


def test_one_detector_serves_several_threads_and_reads_gray_as_equal_colours() -> None:
    pictures = [portrait(LAB_JAFFE, person, 3) for person in range(4)]
    pictures += [np.repeat(picture[:, :, None], 3, axis=2) for picture in pictures]
    detector = Detector()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector, pictures))
    for (gray,), (colours,) in zip(found[:4], found[4:], strict=True):
        assert np.allclose(gray.landmarks, colours.landmarks, atol=0.01)
        assert gray.box == pytest.approx(colours.box, abs=0.01)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_detectors_networks_pad_as_opencv_does(name: str) -> None:
    """Datasets were prepared with OpenCV's answers; a row elsewhere moves the eyes by up to a fiftieth."""
    side = {"pnet": 61, "rnet": 24, "onet": 48}[name]
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    net = cv2.dnn.readNetFromONNX(str(weights() / f"{name}.onnx"))
    net.setInput(lying(images))
    for ours, theirs in zip(CascadeNetwork(name)(images), net.forward(NETWORKS[name]), strict=True):
        assert np.allclose(ours, theirs, atol=1e-4)

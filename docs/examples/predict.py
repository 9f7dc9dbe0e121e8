"""An exported classifier without crossfer: pip install numpy onnxruntime pillow."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def cut_out(pixels, left_eye, right_eye, framing):
    """Turn, scale and shift a picture (H, W) or (H, W, 3) so that the eyes lie where the framing has them."""
    side, (lx, ly), (rx, ry) = framing["side"], left_eye, right_eye  # left is the picture's left
    across = np.array([rx - lx, ry - ly])
    down = np.array([-across[1], across[0]])
    times = max(1, math.ceil(math.hypot(*across) / framing["eye_distance"] / side))
    place = (np.arange(times * side) + 0.5) / (
        times * side
    )  # several places a pixel: all of it counts
    u = (place - 0.5) / framing["eye_distance"]
    v = (place - framing["eye_height"]) / framing["eye_distance"]
    middle = np.array([(lx + rx) / 2, (ly + ry) / 2])
    x, y = np.moveaxis(middle + u[None, :, None] * across + v[:, None, None] * down, -1, 0) - 0.5
    height, width = pixels.shape[:2]
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)  # beyond its edge, the last pixels go on
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    grid = (..., None) if pixels.ndim == 3 else (...,)
    a, b = (x - left)[grid], (y - top)[grid]
    values = (1 - b) * ((1 - a) * pixels[top, left] + a * pixels[top, left + 1])
    values += b * ((1 - a) * pixels[top + 1, left] + a * pixels[top + 1, left + 1])
    values = values.reshape(side, times, side, times, *pixels.shape[2:])
    return values.mean((1, 3)).round()


folder, picture, *eyes = sys.argv[1:]
card = json.loads((Path(folder) / "model.json").read_text())
image = Image.open(picture).convert("L" if card["framing"]["channels"] == 1 else "RGB")
lx, ly, rx, ry = map(float, eyes)
face = cut_out(np.asarray(image, np.float32), (lx, ly), (rx, ry), card["framing"])
session = onnxruntime.InferenceSession(Path(folder) / "model.onnx")
(probabilities,) = session.run(None, {"faces": face[None].astype(np.uint8)})
for name, probability in zip(card["classes"], probabilities[0], strict=True):
    print(f"{name} {probability:.4f}")

// An exported classifier in JavaScript: npm install onnxruntime-web (it runs in browsers and in Node.js).
// In a browser, fetch() the two files, and take the pixels from a canvas: context.getImageData(…).data.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

// Turn, scale and shift a picture (pixels: height × width × channels) so that the eyes lie where the framing has them.
function cutOut({ pixels, width, height, channels }, [lx, ly], [rx, ry], framing) {
  const { side, eye_distance: distance, eye_height: eyeHeight } = framing; // left is the picture's left
  const [ax, ay] = [rx - lx, ry - ly];
  const times = Math.max(1, Math.ceil(Math.hypot(ax, ay) / distance / side));
  const face = new Uint8Array(side * side * framing.channels);
  const at = (x, y, c) => {
    const p = (y * width + x) * channels;
    if (framing.channels === 3) return pixels[p + (channels === 1 ? 0 : c)];
    return channels === 1 ? pixels[p] : 0.299 * pixels[p] + 0.587 * pixels[p + 1] + 0.114 * pixels[p + 2];
  };
  for (let row = 0; row < side; row++)
    for (let column = 0; column < side; column++)
      for (let c = 0; c < framing.channels; c++) {
        let sum = 0; // of several places in the pixel, so that all of it counts
        for (let i = 0; i < times; i++)
          for (let j = 0; j < times; j++) {
            const u = ((column + (j + 0.5) / times) / side - 0.5) / distance;
            const v = ((row + (i + 0.5) / times) / side - eyeHeight) / distance;
            const x = Math.min(Math.max((lx + rx) / 2 + u * ax - v * ay - 0.5, 0), width - 1);
            const y = Math.min(Math.max((ly + ry) / 2 + u * ay + v * ax - 0.5, 0), height - 1);
            const [left, top] = [Math.min(Math.floor(x), width - 2), Math.min(Math.floor(y), height - 2)];
            const [a, b] = [x - left, y - top];
            sum += (1 - b) * ((1 - a) * at(left, top, c) + a * at(left + 1, top, c));
            sum += b * ((1 - a) * at(left, top + 1, c) + a * at(left + 1, top + 1, c));
          }
        face[(row * side + column) * framing.channels + c] = Math.round(sum / times ** 2);
      }
  return face;
}

// A binary PGM or PPM file, so that this example needs no decoder.
function readPnm(file) {
  const data = readFileSync(file);
  const [head, kind, width, height] = data.toString("latin1").match(/^P([56])\s+(\d+)\s+(\d+)\s+255\s/);
  const channels = kind === "5" ? 1 : 3;
  return { pixels: data.subarray(head.length), width: +width, height: +height, channels };
}

const [folder, picture, ...eyes] = process.argv.slice(2);
const [lx, ly, rx, ry] = eyes.map(Number);
const card = JSON.parse(readFileSync(`${folder}/model.json`, "utf8"));
const face = cutOut(readPnm(picture), [lx, ly], [rx, ry], card.framing);
const { side, channels } = card.framing;
const session = await ort.InferenceSession.create(readFileSync(`${folder}/model.onnx`));
const shape = channels === 1 ? [1, side, side] : [1, side, side, 3];
const { probabilities } = await session.run({ faces: new ort.Tensor("uint8", face, shape) });
card.classes.forEach((name, i) => console.log(name, probabilities.data[i].toFixed(4)));

// The MTCNN cascade of crossfer.datasets.detector, number for number (Zhang et al., 2016): the same three
// networks, in ONNX Runtime Web.
import { resized, rint } from "./pixels.js";

const [PROPOSE, REFINE, POINT] = [12, 24, 48]; // pixels on a side of what each network looks at
const STRIDE = 2;
const LEAST = [0.6, 0.7, 0.7]; // probability below which each network drops a box
const SHRINK = 0.709;
const MIRRORED = [1, 0, 2, 4, 3]; // which landmark each one is in a mirror
const EDGE = 0.1; // black around the picture, as a share of its longer side
const LEAST_WORKING = 192;
const [STEEPEST, CLOSEST, NARROWEST] = [60, 4, 0.2]; // of crossfer.datasets.faces

export class Detector {
  /** networks: [pnet, rnet, onet], open; smallest: side of the smallest face, as a share of √(width · height). */
  constructor(ort, networks, smallest = 0.1) {
    Object.assign(this, { ort, networks, smallest });
  }

  /** Find the faces of an RGB picture, surest first: {box: [left, top, width, height], score, landmarks}. */
  async find(image) {
    const { width, height } = image;
    if (Math.min(width, height) < PROPOSE) return [];
    const working = this.#working(image);
    const smallest = Math.max(this.smallest, PROPOSE / Math.sqrt(width * height));
    const canvas = new Canvas(working);
    let corners = await this.#proposals(canvas, smallest * Math.sqrt(working.width * working.height));
    corners = await this.#refined(canvas, corners);
    return this.#faces(canvas, corners, [width / working.width, height / working.height]);
  }

  #working(image) {
    const side = Math.sqrt(image.width * image.height);
    const most = Math.max(POINT / this.smallest, LEAST_WORKING);
    const factor = Math.min(Math.max(side, LEAST_WORKING), most) / side;
    const size = [image.width, image.height].map((length) => Math.max(1, rint(factor * length)));
    return resized(image, ...size, factor <= 1 ? "area" : "cubic");
  }

  async #proposals(canvas, smallest) {
    const { image, origin } = canvas.picture();
    const found = [];
    for (const level of pyramid(image, smallest)) {
      const { conv2d_4: offsets, softmax: faces } = await this.#ask(0, [level]);
      const [, columns, rows] = faces.dims; // these networks look along x first
      const [wide, high] = [image.width / level.width, image.height / level.height];
      const boxes = [];
      for (let x = 0; x < columns; x++)
        for (let y = 0; y < rows; y++) {
          const at = x * rows + y;
          const score = faces.data[2 * at + 1];
          if (score < LEAST[0]) continue;
          const [left, top] = [STRIDE * x, STRIDE * y];
          const corners = [left * wide, top * high, (left + PROPOSE) * wide, (top + PROPOSE) * high].map(Math.fround);
          boxes.push({ corners, score, offsets: offsets.data.slice(4 * at, 4 * at + 4) });
        }
      found.push(...suppress(boxes, 0.5));
    }
    return suppress(found, 0.7).map((box) => squared(moved(box)).map((value) => value + origin));
  }

  async #refined(canvas, corners) {
    if (!corners.length) return [];
    const { dense_2: offsets, softmax_1: faces } = await this.#ask(1, canvas.views(corners, REFINE));
    const boxes = boxesOf(corners, offsets.data, faces.data).filter(({ score }) => score > LEAST[1]);
    return suppress(boxes, 0.7).map((box) => squared(moved(box)));
  }

  async #faces(canvas, corners, scale) {
    if (!corners.length) return [];
    const { dense_5: offsets, softmax_2: faces } = await this.#ask(2, canvas.views(corners, POINT));
    const passed = boxesOf(corners, offsets.data, faces.data)
      .filter(({ score }) => score > LEAST[2])
      .sort((a, b) => b.score - a.score);
    const boxes = distinct(passed.map((box) => ({ corners: moved(box), score: box.score })), 0.7);
    if (!boxes.length) return [];
    const landmarks = await this.#landmarks(canvas, boxes.map(({ corners }) => corners));
    return boxes.map(({ corners: [left, top, right, bottom], score }, i) => ({
      box: [left * scale[0], top * scale[1], (right - left) * scale[0], (bottom - top) * scale[1]],
      score,
      landmarks: landmarks[i].map(([x, y]) => [x * scale[0], y * scale[1]]),
    }));
  }

  async #landmarks(canvas, boxes) {
    const corners = boxes.map(squared);
    const views = canvas.views(corners, POINT);
    const { dense_6: points } = await this.#ask(2, [...views, ...views.map(mirror)]);
    const of = (n, k) => [points.data[10 * n + k], points.data[10 * n + 5 + k]]; // all x, then all y
    return corners.map(([left, top, right, bottom], n) =>
      MIRRORED.map((other, k) => {
        const [[x, y], [mx, my]] = [of(n, k), of(n + boxes.length, other)];
        return [left + ((x + 1 - mx) / 2) * (right - left), top + ((y + my) / 2) * (bottom - top)];
      }),
    );
  }

  async #ask(which, images) {
    const network = this.networks[which];
    const { width, height } = images[0];
    const values = new Float32Array(images.length * width * height * 3);
    let to = 0;
    for (const { data } of images) // trained on pictures that lay on their side, with values of about -1 to 1
      for (let x = 0; x < width; x++)
        for (let y = 0; y < height; y++)
          for (let c = 0; c < 3; c++) values[to++] = (data[(y * width + x) * 3 + c] - 127.5) / 128;
    const given = new this.ort.Tensor("float32", values, [images.length, width, height, 3]);
    return network.run({ [network.inputNames[0]]: given });
  }
}

/** Tell whether a face's eyes can be aligned on: neither too close together nor too steep. */
export function isPlausible({ box, landmarks: [[lx, ly], [rx, ry]] }) {
  const least = Math.max(CLOSEST, NARROWEST * box[2]);
  const steep = Math.abs((Math.atan2(ry - ly, rx - lx) * 180) / Math.PI);
  return Math.hypot(rx - lx, ry - ly) >= least && steep <= STEEPEST;
}

/** A picture with black around it, so that a box may reach beyond the edge. */
class Canvas {
  constructor(image) {
    this.image = image;
    this.margin = Math.floor(Math.max(image.width, image.height) / 2);
  }

  picture() {
    const edge = rint(2 * EDGE * this.margin);
    const { width, height } = this.image;
    return { image: this.#part(-edge, -edge, width + edge, height + edge), origin: -edge };
  }

  views(corners, side) {
    const { image, margin } = this;
    const within = (value, least, most) => Math.min(Math.max(value, least), most);
    return corners.map(([x, y, x2, y2]) => {
      const [left, top] = [
        within(rint(x + margin), 0, image.width + 2 * margin - 1),
        within(rint(y + margin), 0, image.height + 2 * margin - 1),
      ];
      const right = within(rint(x2 + margin), left + 1, image.width + 2 * margin);
      const bottom = within(rint(y2 + margin), top + 1, image.height + 2 * margin);
      return resized(this.#part(left - margin, top - margin, right - margin, bottom - margin), side, side);
    });
  }

  #part(left, top, right, bottom) {
    const { data: from, width: wide, height: high } = this.image;
    const [width, height] = [right - left, bottom - top];
    const data = new Uint8ClampedArray(width * height * 3);
    const [first, last] = [Math.max(left, 0), Math.min(right, wide)];
    if (first < last)
      for (let y = Math.max(top, 0); y < Math.min(bottom, high); y++)
        data.set(from.subarray((y * wide + first) * 3, (y * wide + last) * 3), ((y - top) * width + first - left) * 3);
    return { width, height, channels: 3, data };
  }
}

function* pyramid(image, smallest) {
  const { width, height } = image;
  for (let scale = PROPOSE / smallest; scale * Math.min(width, height) >= PROPOSE; scale *= SHRINK) {
    image = resized(image, Math.ceil(scale * width), Math.ceil(scale * height));
    yield image;
  }
}

function boxesOf(corners, offsets, faces) {
  return corners.map((own, i) => ({
    corners: own,
    score: faces[2 * i + 1],
    offsets: offsets.slice(4 * i, 4 * i + 4),
  }));
}

function moved({ corners, offsets }) {
  const size = [corners[2] - corners[0], corners[3] - corners[1]];
  return corners.map((value, i) => value + offsets[i] * size[i % 2]);
}

function squared([left, top, right, bottom]) {
  const half = Math.max(right - left, bottom - top) / 2;
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  return [x - half, y - half, x + half, y + half];
}

/** What two boxes share, and the area of each; sides of 32 bits, as many boxes share exactly half. */
function areas([left, top, right, bottom], [left2, top2, right2, bottom2]) {
  const [wide, high] = [Math.fround(right - left), Math.fround(bottom - top)];
  const [wide2, high2] = [Math.fround(right2 - left2), Math.fround(bottom2 - top2)];
  const across = Math.min(left + wide, left2 + wide2) - Math.max(left, left2);
  const down = Math.min(top + high, top2 + high2) - Math.max(top, top2);
  return [Math.max(0, across) * Math.max(0, down), wide * high, wide2 * high2];
}

/** Choose boxes, best first; two that are chosen share at most this part of their union. */
function suppress(boxes, most) {
  const shared = (common, one, two) => 1 - Math.fround(1 - common / (one + two - common));
  return chosen([...boxes].sort((a, b) => b.score - a.score), shared, most);
}

/** Choose boxes, best first as they come; two share at most this part of the smaller one. */
function distinct(boxes, most) {
  return chosen(boxes, (common, one, two) => common / Math.min(one, two), most);
}

function chosen(boxes, shared, most) {
  const found = [];
  for (const box of boxes)
    if (found.every((other) => Math.fround(shared(...areas(box.corners, other.corners))) <= Math.fround(most)))
      found.push(box);
  return found;
}

function mirror({ width, height, channels, data }) {
  const turned = new Uint8ClampedArray(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++)
        turned[(y * width + x) * channels + c] = data[(y * width + width - 1 - x) * channels + c];
  return { width, height, channels, data: turned };
}

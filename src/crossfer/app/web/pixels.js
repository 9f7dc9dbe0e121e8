// Pictures as crossfer.datasets.faces treats them: {width, height, channels, data: Uint8ClampedArray}.
// Coordinates count from the upper left corner: the middle of the first pixel is (0.5, 0.5).

const LARGEST_RENDERING = 2048;

/** Round to the nearest whole number, halves to the even one, as NumPy and OpenCV do. */
export function rint(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}

/** Decode a picture in the browser: upright, in RGB; what is transparent shows white. */
export async function decoded(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Error("The browser cannot read this picture.");
  }
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = rgba[from];
    data[to + 1] = rgba[from + 1];
    data[to + 2] = rgba[from + 2];
  }
  return { width, height, channels: 3, data };
}

/** Return a picture as a framing has it: gray or RGB. */
export function withChannels(image, channels) {
  if (image.channels === channels) return image;
  if (channels !== 1) throw new Error("only RGB becomes gray here");
  const data = new Uint8ClampedArray(image.width * image.height);
  for (let i = 0, p = 0; i < data.length; i++, p += 3)
    data[i] = Math.round(0.299 * image.data[p] + 0.587 * image.data[p + 1] + 0.114 * image.data[p + 2]);
  return { ...image, channels: 1, data };
}

/** Which pixels of a line, and how much of each, make one of a line of another length: OpenCV's ways. */
const WAYS = {
  /** Every pixel counts by how much of it is covered; for reducing. */
  area(from, to) {
    const scale = from / to;
    return Array.from({ length: to }, (_, i) => {
      const [start, end] = [i * scale, Math.min((i + 1) * scale, from)];
      const parts = [];
      for (let j = Math.floor(start); j < end; j++) {
        const covered = Math.min(j + 1, end) - Math.max(j, start);
        if (covered > 1e-3) parts.push([j, Math.fround(covered / (end - start))]); // OpenCV leaves slivers out
      }
      return parts;
    });
  },
  /** What OpenCV makes of "area" where it enlarges. */
  enlargedArea(from, to) {
    const scale = from / to;
    return Array.from({ length: to }, (_, i) => {
      const first = Math.floor(i * scale);
      const past = i + 1 - (first + 1) / scale;
      const share = past <= 0 || first >= from - 1 ? 0 : past - Math.floor(past);
      const left = Math.min(first, from - 1);
      return [[left, 1 - share], [Math.min(left + 1, from - 1), share]];
    });
  },
  /** Cubic convolution with a = -0.75; for enlarging. */
  cubic(from, to) {
    const near = (d) => (1.25 * d - 2.25) * d * d + 1;
    const far = (d) => ((-0.75 * d + 3.75) * d - 6) * d + 3;
    return Array.from({ length: to }, (_, i) => {
      const at = ((i + 0.5) * from) / to - 0.5;
      const [first, d] = [Math.floor(at), at - Math.floor(at)];
      const shares = [far(d + 1), near(d), near(1 - d), far(2 - d)];
      return shares.map((share, k) => [Math.min(Math.max(first - 1 + k, 0), from - 1), share]);
    });
  },
};

/** Bring a picture to another size: way is "area" or "cubic". */
export function resized(image, width, height, way = "area") {
  const { channels } = image;
  const enlarges = image.width < width || image.height < height;
  const make = WAYS[way === "area" && enlarges ? "enlargedArea" : way];
  const halved = way === "area" && image.width === 2 * width && image.height === 2 * height; // halves go up
  const columns = make(image.width, width);
  const rows = make(image.height, height);
  const wide = new Float32Array(image.height * width * channels);
  for (let y = 0, to = 0; y < image.height; y++) {
    const line = y * image.width * channels;
    for (const parts of columns)
      for (let c = 0; c < channels; c++, to++)
        for (const [x, share] of parts) wide[to] += Math.fround(share * image.data[line + x * channels + c]);
  }
  const data = new Uint8ClampedArray(width * height * channels);
  const sums = new Float32Array(width * channels);
  rows.forEach((parts, y) => {
    sums.fill(0);
    for (const [from, share] of parts)
      for (let i = 0, p = from * sums.length; i < sums.length; i++) sums[i] += Math.fround(share * wide[p + i]);
    if (halved) sums.forEach((sum, i) => (sums[i] = Math.floor(sum + 0.5)));
    data.set(sums, y * sums.length); // rounds halves to even, and keeps within 0–255
  });
  return { width, height, channels, data };
}

/** Turn, scale and shift a picture so that both eyes lie where the framing has them; left is the picture's. */
export function aligned(image, [lx, ly], [rx, ry], framing) {
  const { data, width, height, channels } = withChannels(image, framing.channels);
  const { side, eye_distance: distance, eye_height: eyeHeight } = framing;
  const [ax, ay] = [rx - lx, ry - ly];
  const wanted = Math.ceil(Math.hypot(ax, ay) / distance / side);
  const times = Math.max(1, Math.min(wanted, Math.floor(LARGEST_RENDERING / side)));
  const face = new Uint8ClampedArray(side * side * channels);
  for (let row = 0, to = 0; row < side; row++)
    for (let column = 0; column < side; column++)
      for (let c = 0; c < channels; c++, to++) {
        let sum = 0; // of several places in the pixel, so that all of it counts
        for (let i = 0; i < times; i++)
          for (let j = 0; j < times; j++) {
            const u = ((column + (j + 0.5) / times) / side - 0.5) / distance;
            const v = ((row + (i + 0.5) / times) / side - eyeHeight) / distance;
            const x = Math.min(Math.max((lx + rx) / 2 + u * ax - v * ay - 0.5, 0), width - 1);
            const y = Math.min(Math.max((ly + ry) / 2 + u * ay + v * ax - 0.5, 0), height - 1);
            const [left, top] = [Math.floor(x), Math.floor(y)];
            const [right, bottom] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
            const [a, b] = [x - left, y - top];
            const at = (column, row) => data[(row * width + column) * channels + c];
            const above = (1 - a) * at(left, top) + a * at(right, top);
            const below = (1 - a) * at(left, bottom) + a * at(right, bottom);
            sum += rint((1 - b) * above + b * below); // as it is drawn large, in whole levels, before it is reduced
          }
        face[to] = times === 2 ? Math.floor(sum / 4 + 0.5) : sum / times ** 2; // 2×2: halves go up, as in OpenCV
      }
  return { width: side, height: side, channels, data: face };
}

/** Take the whole picture as the face, whatever its proportions. */
export function whole(image, framing) {
  const own = withChannels(image, framing.channels);
  const { side } = framing;
  const reduced = resized(own, Math.min(own.width, side), Math.min(own.height, side));
  return resized(reduced, side, side, "cubic");
}

// Everything happens here, in the browser: no picture is sent anywhere.
import { answersFrom } from "./given.js";
import { Detector, isPlausible } from "./detector.js";
import { aligned, decoded, resized, whole } from "./pixels.js";
import { say } from "./app.js";
import * as ort from "./ort.wasm.min.mjs";

const MOST_FACES = 12;
const MOST_PIXELS = 100_000_000;
const LARGEST_SHOWN = 900;

ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that a plain web server does not send
ort.env.logLevel = "error";

async function bytes(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} is not there (${answer.status}).`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function load() {
  const card = JSON.parse(new TextDecoder().decode(await bytes("model.json")));
  const open = async (name) => ort.InferenceSession.create(await bytes(name));
  const classifier = await open(card.models[card.shown].file);
  const networks = [await open("pnet.onnx"), await open("rnet.onnx"), await open("onet.onnx")];
  return { card, classifier, detector: new Detector(ort, networks) };
}

/** Give pixels as an image file's address. */
function address({ width, height, channels, data }, kind) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = data[channels * i + (channels === 1 ? 0 : c)];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.toDataURL(kind);
}

/** Answer as the local page's server does. */
async function look({ card, classifier, detector }, blob, cropped) {
  const image = await decoded(blob);
  if (image.width * image.height > MOST_PIXELS) throw new Error("This picture has too many pixels.");
  const found = cropped ? [null] : (await detector.find(image)).filter(isPlausible);
  const { framing } = card;
  const { side, channels } = framing;
  const faces = [];
  for (const face of found.slice(0, MOST_FACES)) {
    const seen = face ? aligned(image, ...face.landmarks.slice(0, 2), framing) : whole(image, framing);
    const shape = channels === 1 ? [1, side, side] : [1, side, side, 3];
    const given = new ort.Tensor("uint8", new Uint8Array(seen.data), shape);
    const [said] = Object.values(await classifier.run({ [classifier.inputNames[0]]: given }));
    const [left, top, wide, high] = face?.box ?? [];
    faces.push({
      box: face && [left / image.width, top / image.height, wide / image.width, high / image.height],
      models: [{ seen: address(seen, "image/png"), side, colour: channels === 3, probabilities: [...said.data] }],
    });
  }
  const factor = Math.min(1, LARGEST_SHOWN / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((length) => Math.max(1, Math.round(factor * length)));
  const shown = factor === 1 ? image : resized(image, width, height);
  const models = [{ name: card.name, classes: card.classes }];
  return { picture: address(shown, "image/jpeg"), width, height, models, found: found.length, faces };
}

say("Loading the networks …");
const loaded = load();
let asked = false; // a picture that is given meanwhile waits
answersFrom(async (blob, cropped) => {
  asked = true;
  return look(await loaded, blob, cropped);
});
try {
  await loaded;
  if (!asked) say("Ready.");
} catch (error) {
  say(`This cannot run here: ${error.message}`);
}

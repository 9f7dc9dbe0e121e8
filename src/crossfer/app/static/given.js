// A picture, dropped, chosen, pasted or from the webcam, and the answers about its faces.
import { element, say } from "./app.js";
import { answersOf } from "./answers.js";

const [drop, file, cropped, camera, take, live, video, picture, faces] =
  ["drop", "file", "cropped", "camera", "take", "live", "video", "picture", "faces"].map((id) =>
    document.getElementById(id),
  );
let asked = null; // what looks at a picture
let last = null; // the picture that was looked at last, for when the box is ticked
let turn = 0; // what comes late is not shown

async function look(blob, aloud = true) {
  last = blob;
  const mine = ++turn;
  if (aloud) say("Looking …");
  try {
    const found = await asked(blob, cropped.checked);
    if (mine !== turn) return;
    show(found);
    if (aloud) say(inWords(found));
    else say(found.found ? "Classifying continuously." : "Classifying continuously: no face in view.");
  } catch (error) {
    if (mine !== turn) return;
    picture.hidden = true;
    faces.replaceChildren();
    say(error.message);
  }
}

function inWords({ found, faces }) {
  if (!found) return "No face was found in this picture. If it is a cut-out face, tick the box above.";
  const shown = faces.length < found ? `; the surest ${faces.length} are shown` : "";
  return found === 1 ? "One face." : `${found} faces${shown}.`;
}

function show(found) {
  const overlay = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  overlay.setAttribute("viewBox", `0 0 ${found.width} ${found.height}`);
  overlay.setAttribute("aria-hidden", "true");
  found.faces.forEach(({ box }, i) => {
    if (box) overlay.append(...frame(box, found, found.faces.length > 1 ? String(i + 1) : ""));
  });
  const image = element("img", { src: found.picture, alt: "The given picture" });
  picture.replaceChildren(image, overlay);
  picture.hidden = !video.hidden && live.getAttribute("aria-pressed") === "true";
  faces.replaceChildren(...found.faces.map((face, i) => answersOf(face, found.models, i, found.faces.length)));
}

function frame([left, top, wide, high], { width, height }, number) {
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const [x, y] = [left * width, top * height];
  const size = Math.max(width, height) / 28;
  const text = svg("text", { x: x + size / 4, y: y + size, "font-size": size });
  text.textContent = number;
  return [svg("rect", { x, y, width: wide * width, height: high * height }), text];
}

async function start() {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
    await video.play();
  } catch (error) {
    return say(`The webcam cannot be used (${error.name}). Check that it is connected, not in use, and allowed for this page.`);
  }
  for (const one of [video, take, live]) one.hidden = false;
  camera.textContent = "Stop the webcam";
  say("The webcam is on: take a picture, or classify continuously.");
}

function stop() {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  for (const one of [video, take, live]) one.hidden = true;
  live.setAttribute("aria-pressed", "false");
  camera.textContent = "Use the webcam";
  say("The webcam is off.");
}

function snapshot() {
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
}

/** Look at a picture that somebody gave: no longer at the webcam's. */
function given(blob) {
  live.setAttribute("aria-pressed", "false");
  look(blob);
}

/** Have pictures looked at: look(blob, cropped) gives what is shown, or throws an Error for people. */
export function answersFrom(looks) {
  asked = looks;
  document.getElementById("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    const [chosen] = file.files;
    file.value = ""; // so that the same file can be chosen again
    if (chosen) given(chosen);
  });
  cropped.addEventListener("change", () => last && look(last));
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (pasted) given(pasted);
  });
  for (const name of ["dragenter", "dragover"])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  for (const name of ["dragover", "drop"]) // beside it: do not leave the page for the picture
    document.addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    const [dropped] = event.dataTransfer.files;
    if (dropped) given(dropped);
    else say("This is not a file. Save the picture first and drop the file.");
  });

  camera.addEventListener("click", () => (video.srcObject ? stop() : start()));
  take.addEventListener("click", async () => given(await snapshot()));
  live.addEventListener("click", async () => {
    const on = live.getAttribute("aria-pressed") !== "true";
    live.setAttribute("aria-pressed", String(on));
    say(on ? "Classifying continuously." : "Paused.");
    while (live.getAttribute("aria-pressed") === "true" && video.srcObject) {
      await look(await snapshot(), false);
      await new Promise((done) => setTimeout(done, 50));
    }
  });
}

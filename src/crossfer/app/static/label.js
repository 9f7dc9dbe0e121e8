// One face at a time, one key an answer. No key counts while the next face is not there to be seen.
import { ask, count, say } from "/static/app.js";

const find = (id) => document.getElementById(id);
const [work, face, keys] = [find("work"), find("face"), find("keys")];
const classes = [...document.querySelectorAll("#classes button")];
let turn = null;
let busy = true;

const post = (what, given = {}) =>
  ask(`/label/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) });
const percent = (share) => `${Math.round(100 * share)} %`;

async function show(next, said) {
  const there = Boolean(next.face);
  turn = null;
  if (there) {
    face.src = `/label/face/${next.face.id}.png`;
    try {
      await face.decode();
    } catch {
      work.hidden = true;
      throw new Error(`${said} The next face cannot be shown; reload the page, or start crossfer label again.`.trim());
    }
    find("photo").textContent = next.face.photo;
  }
  turn = next;
  work.hidden = !there;
  find("done").hidden = there;
  find("bar").max = Math.max(1, turn.faces);
  find("bar").value = turn.done;
  find("count").textContent = `${turn.done} of ${turn.faces}` + (turn.skipped ? `, ${turn.skipped} skipped` : "");
  for (const button of classes) {
    const name = button.dataset.label;
    const share = turn.bars[name];
    button.querySelector(".share").textContent = share === undefined ? "" : percent(share);
    button.querySelector(".bar").style.width = share === undefined ? "0" : `${100 * share}%`;
    button.classList.toggle("suggested", name === turn.suggested);
    button.setAttribute("aria-pressed", String(name === turn.before));
  }
  const parts = [said];
  if (!there) parts.push(["No face was found in the photos.", "The face is labelled."][turn.faces] ?? `All ${turn.faces} faces are labelled.`);
  else {
    if (turn.before === "skip") parts.push("Skipped before.");
    else if (turn.before) parts.push(`Your label: ${turn.before}.`);
    if (turn.suggested) parts.push(`Suggestion: ${turn.suggested}, ${percent(turn.bars[turn.suggested])}.`);
    else parts.push("A new face.");
    work.focus({ preventScroll: true });
  }
  say(parts.filter(Boolean).join(" "));
}

async function answer(what, given, said) {
  if (busy) return;
  busy = true;
  work.setAttribute("aria-busy", "true");
  try {
    await show(await post(what, given), said);
  } catch (problem) {
    say(problem.message);
  }
  work.removeAttribute("aria-busy");
  busy = false;
}

// With the answer that is shown: if there is another one meanwhile, from another tab, this one is not saved.
const about = (given) => ({ face: turn.face.id, before: turn.before, ...given });
const label = (name) => turn?.face && answer("say", about({ did: "label", label: name }), `Saved: ${name}.`);
const other = (did) => turn?.face && answer("say", about({ did }), did === "skip" ? "Skipped." : "Saved: not a face.");
const accept = () => turn?.suggested && label(turn.suggested);
const undo = () => answer("undo", {}, "Taken back.");

for (const button of classes) button.addEventListener("click", () => label(button.dataset.label));
for (const button of document.querySelectorAll("[data-did]")) button.addEventListener("click", () => other(button.dataset.did));
find("accept")?.addEventListener("click", accept);
find("undo").addEventListener("click", undo);
find("finish").addEventListener("click", async () => {
  try {
    const made = await post("finish");
    const left = [
      made.disputed && count(made.disputed, "on which people disagree is left out", "on which people disagree are left out"),
      made.not_faces && count(made.not_faces, "is no face", "are no faces"),
      made.waiting && count(made.waiting, "has no answer yet", "have no answer yet"),
    ].filter(Boolean);
    find("finished").textContent = `${count(made.labels, "label")} in ${made.file}` + (left.length ? `; ${left.join(", ")}.` : ".");
  } catch (problem) {
    find("finished").textContent = problem.message;
  }
});

const others = { Enter: accept, " ": () => other("skip"), x: () => other("not a face"), Backspace: undo };
document.addEventListener("keydown", (event) => {
  if (!keys.checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  // A focused button, link or box keeps the keys that press it.
  const own = event.target.closest?.("button, a, input, select, textarea");
  if (own && (event.key === "Enter" || event.key === " ")) return;
  const pressed = classes.find((button) => button.dataset.key === event.key.toLowerCase());
  const act = pressed ? () => label(pressed.dataset.label) : others[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

try {
  await show(await post("turn"), "");
} catch (problem) {
  say(problem.message);
}
busy = false;

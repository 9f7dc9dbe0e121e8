// Groups of faces that may be of one person: the person at the keyboard confirms, splits and joins them.
import { ask, count, element, say } from "/static/app.js";

const people = document.getElementById("people");
const names = document.getElementById("names");
const post = (what, given = {}) =>
  ask(`/people/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) });

let busy = false;

/** What was typed or unticked and is not saved, by face: the list is made anew after every answer. */
function unsaved(saved) {
  const kept = { names: new Map(), unticked: new Set() };
  for (const group of people.querySelectorAll("fieldset")) {
    const boxes = [...group.querySelectorAll("[type=checkbox]")];
    if (boxes.some((box) => saved.has(box.value))) continue;
    const name = group.querySelector("[type=text]");
    for (const box of boxes) {
      if (!box.checked) kept.unticked.add(box.value);
      if (name.value !== name.defaultValue) kept.names.set(box.value, name.value);
    }
  }
  return kept;
}

function fieldset(group, free, kept) {
  const boxes = group.faces.map((face, index) => {
    const box = element("input", { type: "checkbox", value: face, checked: true, "aria-label": `face ${index + 1}` });
    box.checked = !kept.unticked.has(face);
    return [box, element("label", {}, element("img", { src: `/label/face/${face}.png`, alt: "", loading: "lazy" }), box)];
  });
  const name = element("input", { type: "text", value: group.name ?? free, list: "names", maxlength: 60, "aria-label": "Name of the person" });
  name.value = group.faces.map((face) => kept.names.get(face)).find(Boolean) ?? name.value;
  const confirm = element("button", { type: "button" }, group.name ? "Confirm or rename" : "Confirm as one person");
  const chosen = (on) => boxes.filter(([box]) => box.checked === on).map(([box]) => box.value);
  confirm.addEventListener("click", () =>
    act("name", { faces: chosen(true), apart: chosen(false), name: name.value }, `Saved: ${count(chosen(true).length, "face is", "faces are")} ${name.value}.`),
  );
  const controls = [name, confirm];
  if (group.name) {
    const clear = element("button", { type: "button" }, "Nobody knows");
    clear.addEventListener("click", () => act("unname", { faces: chosen(true) }, "Saved: unknown person."));
    controls.push(clear);
  }
  const faces = count(group.faces.length, "face");
  return element(
    "fieldset",
    { "data-open": !group.name },
    element("legend", {}, group.name ? `${group.name}: ${faces}` : `${faces}, perhaps one person`),
    element("div", { class: "thumbs" }, ...boxes.map(([, label]) => label)),
    element("div", { class: "controls" }, ...controls),
  );
}

function show({ groups, free }, said, saved = new Set()) {
  const kept = unsaved(saved);
  const known = groups.filter((group) => group.name).map((group) => group.name);
  names.replaceChildren(...known.map((name) => element("option", { value: name })));
  const several = groups.filter((group) => group.name || group.faces.length > 1);
  const single = groups.filter((group) => !group.name && group.faces.length === 1);
  people.replaceChildren(
    ...several.map((group) => fieldset(group, free, kept)),
    ...(single.length
      ? [
          element("details", {}, element("summary", {}, `${count(single.length, "face that resembles", "faces that resemble")} nobody: each counts as a person of its own`),
            element("div", { class: "people" }, ...single.map((group) => fieldset(group, free, kept)))),
        ]
      : []),
  );
  const open = several.filter((group) => !group.name).length;
  say(`${said} ${count(known.length, "person is", "people are")} named, ${count(open, "group waits", "groups wait")}.`.trim());
}

async function act(what, given, said) {
  if (busy) return;
  busy = true;
  say("Saving …");
  try {
    show(await post(what, given), said, new Set([...(given.faces ?? []), ...(given.apart ?? [])]));
    (people.querySelector("[data-open] button") ?? people.querySelector("fieldset button"))?.focus();
  } catch (problem) {
    say(problem.message);
  }
  busy = false;
}

document.getElementById("undo").addEventListener("click", () => act("undo", {}, "Taken back."));
try {
  for (;;) {
    const answer = await post("describe");
    if (!answer.left) {
      show(answer, "");
      break;
    }
    say(`Comparing faces: ${answer.left} left.`);
  }
} catch (problem) {
  say(problem.message);
}

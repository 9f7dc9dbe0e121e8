// Groups of faces that may be of one person: the person at the keyboard confirms, splits and joins them.
import { ask, element, say } from "/static/app.js";

const people = document.getElementById("people");
const names = document.getElementById("names");
const post = (what, given = {}) =>
  ask(`/people/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) });

function fieldset(group, free) {
  const boxes = group.faces.map((face, index) => {
    const box = element("input", { type: "checkbox", value: face, checked: true, "aria-label": `face ${index + 1}` });
    return [box, element("label", {}, element("img", { src: `/label/face/${face}.png`, alt: "", loading: "lazy" }), box)];
  });
  const name = element("input", { type: "text", value: group.name ?? free, list: "names", maxlength: 60, "aria-label": "Name of the person" });
  const confirm = element("button", { type: "button" }, group.name ? "Confirm or rename" : "Confirm as one person");
  const chosen = (on) => boxes.filter(([box]) => box.checked === on).map(([box]) => box.value);
  confirm.addEventListener("click", () =>
    act("name", { faces: chosen(true), apart: chosen(false), name: name.value }, `Saved: ${chosen(true).length} faces are ${name.value}.`),
  );
  const controls = [name, confirm];
  if (group.name) {
    const clear = element("button", { type: "button" }, "Nobody knows");
    clear.addEventListener("click", () => act("unname", { faces: chosen(true) }, "Saved: unknown person."));
    controls.push(clear);
  }
  const count = `${group.faces.length} face${group.faces.length === 1 ? "" : "s"}`;
  return element(
    "fieldset",
    {},
    element("legend", {}, group.name ? `${group.name}: ${count}` : `${count}, perhaps one person`),
    element("div", { class: "thumbs" }, ...boxes.map(([, label]) => label)),
    element("div", { class: "controls" }, ...controls),
  );
}

function show({ groups, free }, said) {
  const known = groups.filter((group) => group.name).map((group) => group.name);
  names.replaceChildren(...known.map((name) => element("option", { value: name })));
  const several = groups.filter((group) => group.name || group.faces.length > 1);
  const single = groups.filter((group) => !group.name && group.faces.length === 1);
  people.replaceChildren(
    ...several.map((group) => fieldset(group, free)),
    ...(single.length
      ? [
          element("details", {}, element("summary", {}, `${single.length} faces that resemble nobody: each counts as a person of its own`),
            element("div", { class: "people" }, ...single.map((group) => fieldset(group, free)))),
        ]
      : []),
  );
  const open = several.filter((group) => !group.name).length;
  say(`${said} ${known.length} people are named, ${open} groups wait.`.trim());
}

async function act(what, given, said) {
  try {
    show(await post(what, given), said);
    people.querySelector("fieldset button")?.focus();
  } catch (problem) {
    say(problem.message);
  }
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

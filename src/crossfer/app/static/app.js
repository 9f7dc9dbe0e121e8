// What the pages' scripts share. Text from data becomes text nodes, never markup.

/** Ask the server; give its JSON, or throw an Error with its words. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    const given = options.body instanceof Blob ? ", or the picture is too large" : "; nothing was saved";
    throw new Error(`No answer: crossfer has stopped${given}.`);
  }
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let problem = text;
  try {
    problem = JSON.parse(text).problem;
  } catch {} // plain text
  throw new Error(problem);
}

/** Write a number and what it counts: "1 face", "2 faces". */
export const count = (number, one, several = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : several}`;

/** Make an element; attributes that are null or false are left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  made.append(...children);
  return made;
}

/** Say something to everybody, screen readers included: #status is a live region. */
export function say(text) {
  document.getElementById("status").textContent = text;
}

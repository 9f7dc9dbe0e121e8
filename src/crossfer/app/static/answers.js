// What classifiers say of a face, side by side: the same rows for each, so that they can be read across.
import { element } from "./app.js";

const percent = (share) => `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)} %`;

/**
 * Show the answers about one face.
 * face: {models: [{seen, side, colour, probabilities}]}; models: [{name, classes}], the old one first of two.
 */
export function answersOf(face, models, index, count) {
  const classes = [...new Set(models.flatMap((model) => model.classes))];
  const said = face.models.map(({ probabilities }, i) => models[i].classes[best(probabilities)]);
  const id = `face-${index + 1}`;
  const heading = element("h2", { id }, count > 1 ? `Face ${index + 1}: ${sentence(said)}` : sentence(said));
  const cards = face.models.map((answer, i) => card(answer, models[i], role(models, i), said[i], classes));
  return element("section", { "aria-labelledby": id }, heading, element("div", { class: "cards" }, ...cards));
}

function sentence(said) {
  if (said.length === 1) return said[0];
  if (new Set(said).size === 1) return said.length === 2 ? `both say ${said[0]}` : `all say ${said[0]}`;
  return said.length === 2 ? `old says ${said[0]}, new says ${said[1]}` : `they disagree: ${said.join(", ")}`;
}

const role = (models, i) => (models.length === 2 ? ["Old", "New"][i] : "");
const best = (numbers) => numbers.indexOf(Math.max(...numbers));

function card({ seen, side, colour, probabilities }, { name, classes }, which, said, all) {
  const rows = all.map((label) => {
    const i = classes.indexOf(label);
    const row = element("tr", {}, element("th", { scope: "row" }, label));
    if (i < 0) {
      row.append(element("td", { colspan: "2", class: "small" }, "lacks this class"));
      return row;
    }
    const bar = element("div", { class: label === said ? "bar most" : "bar" });
    bar.style.width = `${100 * probabilities[i]}%`;
    row.append(
      element("td", { class: "track", "aria-hidden": "true" }, bar),
      element("td", { class: "n" }, percent(probabilities[i])),
    );
    return row;
  });
  const table = element(
    "table",
    { class: "bars" },
    element("caption", { class: "unseen" }, `Probabilities${which && `, ${which.toLowerCase()} classifier`}`),
    element("tbody", {}, ...rows),
  );
  const what = `${side}×${side}, ${colour ? "colour" : "gray"}`;
  const image = element("img", { src: seen, alt: `The face as the network sees it: ${what}`, class: "seen" });
  const figure = element("figure", {}, image, element("figcaption", {}, `as the network sees it: ${what}`));
  return element(
    "article",
    { class: "card" },
    element("h3", {}, which ? `${which}: ` : "", element("span", { class: "said" }, said), ` ${percent(probabilities[classes.indexOf(said)])}`),
    element("p", { class: "small" }, name),
    element("div", { class: "beside" }, figure, table),
  );
}

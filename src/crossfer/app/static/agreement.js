// What counts where two people disagree.
import { ask, say } from "/static/app.js";

const post = (what, given = {}) =>
  ask(`/agreement/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) });

for (const button of document.querySelectorAll("[data-face]"))
  button.addEventListener("click", async () => {
    try {
      await post("settle", { face: button.dataset.face, label: button.dataset.label });
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
      say(`Saved: ${button.dataset.label} is the final label.`);
    } catch (problem) {
      say(problem.message);
    }
  });

document.getElementById("undo")?.addEventListener("click", async () => {
  try {
    await post("undo");
    sessionStorage.setItem("said", "Taken back.");
    location.reload();
  } catch (problem) {
    say(problem.message);
  }
});

say(sessionStorage.getItem("said") ?? ""); // before the page was loaded again
sessionStorage.removeItem("said");

// What every page owes to everybody, asked of the page that is open: each function gives what is wrong with it.

/** Texts whose contrast is below AA (WCAG 2.2, success criterion 1.4.3). */
function lowContrast() {
  const parsed = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = parsed(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || !element.checkVisibility() || element.closest("svg") || element.matches(":disabled")) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const [a, b] = [luminance(over(parsed(style.color), back)), luminance(back)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < least) found.push(`${text.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return found;
}

/** What a screen reader could not name. */
function unnamed() {
  const name = (one) =>
    one.getAttribute("aria-label") ||
    document.getElementById(one.getAttribute("aria-labelledby"))?.textContent.trim() ||
    [...(one.labels ?? [])].map((label) => label.textContent.trim()).join("") ||
    (one.matches("a, button") && one.textContent.trim());
  return [...document.querySelectorAll("a, button, input, select, textarea, img, video, nav, svg")]
    .filter((one) => one.checkVisibility() && !one.closest("[aria-hidden=true]"))
    .filter((one) => !(name(one) || one.getAttribute("alt") !== null))
    .map((one) => one.outerHTML.slice(0, 90));
}

/** Pixels by which the page is wider than its window. */
function tooWide() {
  const { scrollWidth, clientWidth } = document.documentElement;
  return Math.max(0, scrollWidth - clientWidth);
}

/** What has the focus, and whether that shows: on it, on its label or on what stands for it. */
function focused() {
  const one = document.activeElement;
  const shown = [one, one.nextElementSibling, ...(one.labels ?? [])].filter(Boolean);
  const name = one === document.body ? "" : one.id || one.name || one.textContent.trim();
  return [name, shown.some((each) => getComputedStyle(each).outlineStyle !== "none")];
}

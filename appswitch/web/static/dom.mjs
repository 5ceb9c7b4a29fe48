// Making elements. Texts become text nodes, so nothing that anybody calls an app is ever markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: `html("td", {class: "name", onclick: f}, "text", element)`. Children that are null are left out. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets attributes; null or false takes one away, a function listens. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

/** Changes a text only if it is another: so a screen reader, or a selection, isn't disturbed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Puts other children into an element; who had the focus there (by `data-key`) has it again. */
export function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren(...children.filter((child) => child !== null));
  if (focused === undefined) return;
  for (const candidate of element.querySelectorAll("[data-key]")) {
    if (candidate.dataset.key === focused) candidate.focus({ preventScroll: true });
  }
}

/** A table of texts and elements. */
export function table(heads, rows, attributes = {}) {
  const head = heads.map((text) => html("th", { scope: "col" }, text));
  const cellOf = (cell) => html("td", {}, cell instanceof Node ? cell : html("bdi", {}, String(cell ?? "")));
  const body = rows.map((row) => html("tr", {}, ...row.map(cellOf)));
  return html("div", { class: "wide" }, html("table", attributes, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...body)));
}

function fill(element, attributes, children) {
  set(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

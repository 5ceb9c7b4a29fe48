// The picture: puts a graph and its layout into the SVG. Elements are kept by key and changed in place, so that nothing
// flickers, and that focus and hover stay where they are.

import { set, svg, write } from "./dom.mjs";
import { kindOf, MEDIA } from "./graph.mjs";
import { CARD } from "./layout.mjs";
import { fit, perSecond, plain, several, short } from "./text.mjs";

const INNER = 14; // from a card's left edge to its texts
const LEAST = 0.8; // how small the picture becomes before it scrolls

export class Picture {
  /** @param {SVGElement} root  @param {(kind: "card"|"edge", key: string) => void} choose  called on a click or Enter */
  constructor(root, choose) {
    this.root = root;
    this.choose = choose;
    this.layers = {};
    for (const name of ["columns", "hosts", "edges", "cards", "labels"]) this.layers[name] = svg("g", { class: name });
    root.append(arrowHeads(), ...Object.values(this.layers));
    this.elements = { columns: new Map(), hosts: new Map(), edges: new Map(), cards: new Map(), labels: new Map() };
    this.measure = measurer();
    const around = root.parentElement; // an <svg> that listens for the focus is a stop of the Tab key in Chromium
    around.addEventListener("keydown", (event) => this.onKey(event));
    around.addEventListener("focusin", (event) => this.onFocus(event));
  }

  /** @param graph  of bundle()  @param layout  of layout()  @param {?string} chosen  the key of a card drawn, or none */
  show(graph, layout, chosen) {
    this.graph = graph;
    this.layout = layout;
    set(this.root, { viewBox: `0 0 ${layout.width} ${layout.height}`, width: layout.width, height: layout.height });
    this.root.style.minWidth = `${Math.round(LEAST * layout.width)}px`;
    this.keep("columns", layout.columns, (column) => column.label, heading, moveHeading);
    const boxes = [...layout.hosts, { ...layout.outside, name: "", outside: true }];
    this.keep("hosts", boxes, (box) => box.name, hostBox, (element, box) => this.changeHost(element, box));
    const cards = [...layout.cards.keys()].map((key) => graph.cards.get(key));
    this.keep("cards", cards, (card) => card.key, (card) => this.newCard(card), (element, card) => this.changeCard(element, card));
    const edges = [...graph.edges.values()];
    this.keep("edges", edges, (edge) => edge.key, (edge) => this.newEdge(edge), (element, edge) => this.changeEdge(element, edge));
    const told = edges.filter((edge) => layout.edges.get(edge.key).label);
    this.keep("labels", told, (edge) => edge.key, (edge) => this.newLabel(edge), (element, edge) => this.changeLabel(element, edge));
    this.spotlight(chosen);
    this.rove();
  }

  keep(layer, items, keyOf, make, change) {
    const elements = this.elements[layer];
    const gone = new Set(elements.keys());
    for (const item of items) {
      const key = keyOf(item);
      gone.delete(key);
      if (!elements.has(key)) {
        elements.set(key, make(item));
        this.layers[layer].append(elements.get(key));
      }
      change(elements.get(key), item);
    }
    for (const key of gone) {
      elements.get(key).remove();
      elements.delete(key);
    }
  }

  // --- hosts ---

  changeHost(element, box) {
    const [rect, name, note] = element.children;
    set(element, { class: `host ${box.outside ? "away" : box.state}` });
    set(rect, { x: box.x, y: box.y, width: box.width, height: box.height, rx: 12 });
    const title = box.outside ? "Outside" : plain(box.name);
    write(name, fit(title, 220, this.measure("hostname")));
    set(name, { x: box.x + 16, y: box.y + 23 });
    const words = [box.gateway && "gateway", box.state === "suspect" && "does not answer", box.state === "left" && "has left"];
    if (box.outside && ![...this.graph.cards.values()].some((card) => card.kind === "outside")) words.push("nothing so far");
    write(note, words.filter(Boolean).join(" · "));
    set(note, { x: box.x + 26 + this.measure("hostname")(name.textContent), y: box.y + 23 });
  }

  // --- cards ---

  newCard({ key }) {
    const element = svg("g", { role: "button", tabindex: -1, "data-key": key, onclick: () => this.choose("card", key) });
    const texts = ["name", "count", "where", "tags"].map((name) => svg("text", { class: name }));
    const stack = svg("rect", { class: "stack", x: 5, y: 5, width: CARD.width, height: CARD.height, rx: 9 });
    const body = svg("rect", { class: "body", width: CARD.width, height: CARD.height, rx: 9 });
    const bar = svg("rect", { class: "bar", x: 0, y: 12, width: 4, height: CARD.height - 24, rx: 2 });
    element.append(svg("title"), stack, body, bar, svg("circle", { class: "state", cx: CARD.width - 14, cy: 16, r: 4 }), ...texts);
    for (const kind of ["enter", "leave"]) {
      element.addEventListener(`pointer${kind}`, () => this.spotlight(kind === "enter" ? key : this.chosen, true));
    }
    return element;
  }

  changeCard(element, card) {
    const at = this.layout.cards.get(card.key);
    const [title, , , , , name, count, where, tags] = element.children;
    const classes = ["card", card.kind, card.state, card.faint && "faint", card.count > 1 && "many"];
    set(element, { class: classes.filter(Boolean).join(" "), transform: `translate(${at.x} ${at.y})`, "aria-label": this.describe(card) });
    write(title, `${plain(card.title)}\n${plain(card.where)}\n${card.tags.map(plain).join(" ")}`.trim());
    const many = card.count > 1 ? `×${short(card.count)}` : "";
    const middle = card.tags.length ? 0 : 8; // two lines rather than three
    write(count, many);
    set(count, { x: CARD.width - 26, y: 20 });
    const room = CARD.width - INNER - 30 - (many ? this.measure("count")(many) + 6 : 0);
    write(name, fit(plain(card.title), room, this.measure("name")));
    set(name, { x: INNER, y: 21 + middle });
    write(where, fit(plain(card.where), CARD.width - 2 * INNER, this.measure("where")));
    set(where, { x: INNER, y: 38 + middle });
    write(tags, fit(card.tags.map(plain).join("  "), CARD.width - 2 * INNER, this.measure("tags")));
    set(tags, { x: INNER, y: 53 });
  }

  describe(card) {
    const edges = [...this.graph.edges.values()];
    const sum = (some) => some.reduce((total, edge) => total + edge.rate, 0);
    const [into, out] = [edges.filter((edge) => edge.to === card.key), edges.filter((edge) => edge.from === card.key)];
    const denied = [...into, ...out].some((edge) => edge.denied) ? ", with denied attempts" : "";
    const number = card.count > 1 ? `, ${several(card.count, card.kind === "service" ? "instance" : "app")}` : "";
    const place = card.host === null ? "" : ` on ${plain(card.host)}`;
    const state = card.state === "up" ? "" : `, ${card.state}`;
    const rates = `${perSecond(sum(into))} in, ${perSecond(sum(out))} out`;
    return `${plain(card.title)}, ${card.kind}${place}${number}${state}: ${rates}${denied}`;
  }

  // --- edges ---

  newEdge({ key }) {
    const element = svg("g", { "data-key": key, onclick: () => this.choose("edge", key) });
    element.append(svg("title"), svg("path", { class: "hit" }), svg("path", { class: "line" }), svg("path", { class: "pulse" }));
    return element;
  }

  changeEdge(element, edge) {
    const [title, ...paths] = element.children;
    const { path } = this.layout.edges.get(edge.key);
    const kind = kindOf(edge);
    const pace = edge.rate <= 0 ? "idle" : edge.rate < 1 ? "slow" : edge.rate < 50 ? "steady" : "fast";
    set(element, { class: `edge ${kind} ${pace}`, "data-from": edge.from, "data-to": edge.to });
    for (const line of paths) set(line, { d: path });
    const width = 1.4 + Math.min(4, 0.55 * Math.log2(1 + edge.rate));
    set(paths[1], { "stroke-width": width.toFixed(1), "marker-end": `url(#arrow-${kind})` });
    set(paths[2], { "stroke-width": (width + 0.6).toFixed(1) });
    write(title, describeEdge(edge, this.graph.cards));
  }

  newLabel({ key }) {
    const element = svg("g", { onclick: () => this.choose("edge", key) });
    element.append(svg("rect", { rx: 9, height: 18, y: -9 }), svg("text", { y: 4 }));
    return element;
  }

  changeLabel(element, edge) {
    const { label } = this.layout.edges.get(edge.key);
    const [rect, text] = element.children;
    const rate = edge.rate > 0 ? perSecond(edge.rate) : short(edge.total);
    const words = edge.denied ? `⊘ ${rate}` : rate;
    set(element, { class: `label ${kindOf(edge)}`, transform: `translate(${label.x} ${label.y})`, "data-from": edge.from, "data-to": edge.to });
    write(text, words);
    const width = this.measure("rate")(words) + 14;
    set(rect, { width, x: -width / 2 });
  }

  // --- pointing at things ---

  /** Shows one card with all it talks with, and the rest faintly; null shows all alike. */
  spotlight(key, passing = false) {
    if (!passing) this.chosen = key;
    const near = new Set();
    const { cards, edges, labels } = this.elements;
    for (const element of [...edges.values(), ...labels.values()]) {
      const { from, to } = element.dataset;
      const touches = from === key || to === key;
      element.classList.toggle("near", touches);
      if (touches) near.add(from).add(to);
    }
    this.root.classList.toggle("spot", Boolean(key) && cards.has(key));
    for (const [other, element] of cards) {
      element.classList.toggle("near", other === key || near.has(other));
      element.classList.toggle("chosen", other === this.chosen);
    }
  }

  /** One card is reached by Tab, the others from there by arrow keys. */
  rove() {
    const { cards } = this.elements;
    if (!cards.has(this.current)) this.current = this.layout.cards.keys().next().value;
    for (const [key, element] of cards) set(element, { tabindex: key === this.current ? 0 : -1 });
  }

  onFocus({ target }) {
    const { key } = target.dataset;
    if (!this.elements.cards.has(key)) return;
    this.current = key;
    this.rove();
  }

  onKey(event) {
    const { key } = event.target.dataset;
    const from = this.layout?.cards.get(key);
    if (!from) return;
    if (event.key === "Enter" || event.key === " ") this.choose("card", key);
    else if (STEPS[event.key]) this.elements.cards.get(nearest(this.layout.cards, key, STEPS[event.key]))?.focus();
    else return;
    event.preventDefault();
  }

  /** Scrolls a card into view, if it is drawn. */
  reveal(key) {
    this.elements.cards.get(key)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Gives a card the focus, if it is drawn. */
  focus(key) {
    this.elements.cards.get(key)?.focus();
  }
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The next card in a direction: what is off it counts thrice. */
function nearest(cards, key, [right, down]) {
  const from = cards.get(key);
  let [best, least] = [key, Infinity];
  for (const [other, at] of cards) {
    const [dx, dy] = [at.x - from.x, at.y - from.y];
    const ahead = dx * right + dy * down;
    const off = Math.abs(dx * down) + Math.abs(dy * right);
    if (ahead > 0 && ahead + 3 * off < least) [best, least] = [other, ahead + 3 * off];
  }
  return best;
}

/** Who to whom, and by what. */
export function wayOf(edge, cards) {
  const by = edge.denied || !edge.medium ? "" : ` by ${plain(edge.medium)}`;
  return `${plain(cards.get(edge.from)?.title)} to ${plain(cards.get(edge.to)?.title)}${by}`;
}

/** An edge in words. */
export function describeEdge(edge, cards) {
  const way = wayOf(edge, cards);
  if (edge.denied) return `${way}: denied ${edge.total} times, ${perSecond(edge.rate)}${edge.rule ? `, by ${plain(edge.rule)}` : ""}`;
  const refused = edge.refused ? `, ${edge.refused} refused` : "";
  return `${way}: ${several(edge.total, "connect")}, ${perSecond(edge.rate)}, ${edge.open} open${refused}`;
}

/** A short line as edges of a kind have it, for the legend. */
export function sample(kind) {
  const line = svg("path", { class: "line", d: "M1,5H31", "stroke-width": 2.5 });
  return svg("svg", { class: `edge ${kind}`, width: 32, height: 10, "aria-hidden": "true" }, line);
}

function heading(column) {
  return svg("text", { class: "column" }, column.label);
}

function moveHeading(element, column) {
  set(element, { x: column.x, y: 20 });
}

function hostBox() {
  return svg("g", {}, svg("rect"), svg("text", { class: "hostname" }), svg("text", { class: "note" }));
}

function arrowHeads() {
  const heads = [...MEDIA, "denied"].map((kind) =>
    svg(
      "marker",
      { id: `arrow-${kind}`, class: kind, viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" },
      svg("path", { d: "M0,1 L10,5 L0,9 z" }),
    ),
  );
  return svg("defs", {}, ...heads);
}

/** Widths of texts, by the class they'll have: without asking for a layout of the page each time. */
function measurer() {
  const context = document.createElement("canvas").getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const fonts = new Map();
  return (name) => {
    if (!fonts.has(name)) fonts.set(name, style.getPropertyValue(`--font-${name}`).trim());
    return (text) => {
      context.font = fonts.get(name);
      return context.measureText(text).width;
    };
  };
}

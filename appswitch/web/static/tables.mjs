// The map as tables, for who can't see it or would rather read; and the log of flows beneath.

import { html, refill, table } from "./dom.mjs";
import { describeEdge } from "./draw.mjs";
import { kindOf } from "./graph.mjs";
import { endpoint, perSecond, plain } from "./text.mjs";

const KEPT = 200; // lines of the log
const BEAT = 250; // ms between two times that the log is drawn
const FLOWS = { connect: "allowed", audit: "audited", deny: "denied", refuse: "refused", "bind-refused": "bind refused" };

/** Fills `root` with the apps and edges of a graph that is filtered, without bundles. */
export function showTables(root, graph, choose) {
  const edges = [...graph.edges.values()];
  const rate = (side) => {
    const sums = new Map();
    for (const edge of edges) if (!edge.denied) sums.set(edge[side], (sums.get(edge[side]) ?? 0) + edge.rate);
    return (key) => perSecond(sums.get(key) ?? 0);
  };
  const [into, out] = [rate("to"), rate("from")];
  const link = (kind, key, text) =>
    html("button", { type: "button", class: "link", "data-key": `${kind} ${key}`, onclick: () => choose(kind, key) }, html("bdi", {}, plain(text)));
  const cards = [...graph.cards.values()].sort((one, other) => (order(one) < order(other) ? -1 : 1));
  const apps = cards.map((card) => [
    link("card", card.key, card.title),
    card.kind,
    plain(card.host ?? ""),
    plain(card.where),
    card.tags.map(plain).join(" "),
    card.count,
    card.state,
    into(card.key),
    out(card.key),
  ]);
  const title = (key) => graph.cards.get(key)?.title ?? "";
  const sorted = edges.sort((one, other) => other.denied - one.denied || other.rate - one.rate || (one.key < other.key ? -1 : 1));
  const lines = sorted.map((edge) => [
    link("edge", edge.key, title(edge.from)),
    plain(title(edge.to)),
    html("span", { class: `kind ${kindOf(edge)}`, title: describeEdge(edge, graph.cards) }, kindOf(edge)),
    edge.total,
    perSecond(edge.rate),
    edge.open,
    plain(edge.rule),
  ]);
  refill(
    root,
    html("h2", {}, "Apps"),
    table(["Name", "Is", "Host", "Where", "Tags", "Instances", "State", "In", "Out"], apps, { id: "table-apps" }),
    html("h2", {}, "Edges"),
    table(["From", "To", "By", "Connects", "Rate", "Open", "Rule of the denial"], lines, { id: "table-edges" }),
  );
}

function order(card) {
  return `${card.kind} ${card.title.toLowerCase()} ${card.key}`;
}

/** The flows as they happen, the latest first; the same flow again is the same line with a count. */
export class Log {
  /** @param {HTMLElement} body  @param {HTMLElement} note */
  constructor(body, note) {
    this.body = body;
    this.note = note;
    this.lines = new Map(); // text -> line, the latest last
    this.lost = 0;
    this.paused = false;
    this.fits = () => true;
    this.timer = null;
  }

  /** @param {object} event  as `appswitch observe --json` prints it */
  add(event) {
    if (event.kind === "lost") this.lost += event.count;
    if (!FLOWS[event.kind]) return;
    const { key, ...line } = lineOf(event);
    const known = this.lines.get(key);
    this.lines.delete(key);
    this.lines.set(key, { ...line, event, key, times: (known?.times ?? 0) + 1 });
    if (this.lines.size > KEPT) this.lines.delete(this.lines.keys().next().value);
    this.timer ??= setTimeout(() => this.draw(), BEAT);
  }

  pause(paused) {
    this.paused = paused;
    this.draw();
  }

  /** @param {(event) => boolean} fits  which lines are shown */
  filter(fits) {
    this.fits = fits;
    this.draw();
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.paused) return;
    const shown = [...this.lines.values()].filter((line) => this.fits(line.event)).reverse();
    const rows = shown.map((line) =>
      html(
        "tr",
        { class: line.event.kind },
        html("td", {}, line.time),
        ...[line.from, line.to].map((text) => html("td", {}, html("bdi", {}, text))),
        html("td", {}, line.port),
        html("td", {}, html("span", { class: `kind ${line.medium}` }, line.medium)),
        html("td", {}, html("bdi", {}, line.outcome)),
        html("td", { class: "number" }, line.times),
      ),
    );
    this.body.replaceChildren(...rows);
    this.note.textContent = this.lost ? `${this.lost} too many to show` : rows.length ? "" : "none yet";
  }
}

function lineOf(event) {
  const at = (name, node) => plain(node ? `${name} @${node}` : name);
  const from = event.source ? plain(event.source) : at(event.name ?? event.ip ?? "unnamed", event.app_node ?? event.node);
  const known = event.server_name ?? event.server_ip;
  const to = known ? at(known, event.server_node) : plain(event.address);
  const port = event.port == null ? "" : `${event.port}${event.proto === "udp" ? "/udp" : ""}`;
  const medium = /^[a-z]+$/.test(event.medium ?? "") ? event.medium : "";
  const why = [event.rule && event.kind !== "connect" && `by ${event.rule}`, event.errno].filter(Boolean).join(", ");
  const outcome = plain(why ? `${FLOWS[event.kind]} (${why})` : FLOWS[event.kind]);
  const time = clock(event.time);
  return { key: [event.kind, from, to, port, medium, outcome].join("\n"), time, from, to, port, medium, outcome };
}

function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString("en-GB");
}

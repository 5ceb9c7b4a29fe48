// Where everything is drawn: a graph in, positions out. Pure, so the same graph gets the same picture.
//
// A host is a lane over the whole width; in it, from left to right, are a column of clients and columns of services, those
// that other services call further right. What is outside has a box of its own, rightmost. In a column a card has a slot:
// first in the order of names; from then on it keeps its slot while others come and go (`memory`): what leaves makes a gap, which the
// next to come fills. A lane doesn't shrink. Denied attempts and rates move nothing.

import { routeEdges } from "./routes.mjs";

export const CARD = { width: 196, height: 62 };

const GAP = { x: 116, y: 18 }; // between cards
const PADDING = { x: 18, top: 36, bottom: 16 }; // of a box
const MARGIN = 14;
const HEADING = 26;
const LANE_GAP = 18;
const TIERS = 3; // columns of services at most

/**
 * @param graph  of bundle()
 * @param memory  what the last call returned, null at first: plain data
 * @returns {{width, height: number, columns: {label: string, x: number}[], hosts: object[], outside: object,
 *   cards: Map<string, {x, y, width, height}>, edges: Map<string, {path: string, label: ?{x, y}}>, memory: object}}
 *   all in pixels; a host and the outside have x, y, width, height; a path is SVG's
 */
export function layout(graph, memory = null) {
  const tiers = tiersOf(graph);
  const count = Math.max(1, ...Array.from(tiers.values(), (tier) => tier + 1));
  const columnOf = (card) => (card.kind === "client" ? 0 : card.kind === "service" ? 1 + tiers.get(card.key) : "outside");
  const slots = assignSlots([...graph.cards.values()], columnOf, memory?.slots ?? {});

  const x = (column) => MARGIN + PADDING.x + column * (CARD.width + GAP.x);
  const lane = x(count) + CARD.width + PADDING.x - MARGIN;
  const hosts = [];
  const cards = new Map();
  const rows = {};
  let y = HEADING + MARGIN;
  for (const host of keepOrder(graph.hosts, memory?.hosts ?? [])) {
    const held = [...Array(count + 1).keys()].map((column) => slots[slotKey(host.name, column)] ?? []);
    rows[host.name] = Math.max(1, memory?.rows[host.name] ?? 0, ...held.map((column) => column.length));
    held.forEach((column, at) => place(cards, column, x(at), y + PADDING.top));
    const height = boxHeight(rows[host.name]);
    hosts.push({ ...host, x: MARGIN, y, width: lane, height });
    y += height + LANE_GAP;
  }
  const far = MARGIN + lane + GAP.x - PADDING.x;
  const top = HEADING + MARGIN;
  const away = slots[slotKey("", "outside")] ?? [];
  place(cards, away, far + PADDING.x, top + PADDING.top);
  const bottom = Math.max(y - LANE_GAP, top + boxHeight(Math.max(1, away.length)));
  const outside = { x: far, y: top, width: CARD.width + 2 * PADDING.x, height: bottom - top };

  const columns = [
    { label: "Clients", x: x(0) },
    { label: "Services", x: x(1) },
    { label: "Outside", x: far + PADDING.x },
  ];
  const edges = routeEdges([...graph.edges.values()], cards);
  const names = hosts.map((host) => host.name);
  const size = { width: outside.x + outside.width + MARGIN, height: bottom + MARGIN };
  return { ...size, columns, hosts, outside, cards, edges, memory: { hosts: names, slots, rows } };
}

function boxHeight(rows) {
  return PADDING.top + rows * (CARD.height + GAP.y) - GAP.y + PADDING.bottom;
}

function slotKey(host, column) {
  return `${host} ${column}`;
}

/** How far right a service is: the longest way of allowed connects to it through other services. Circles are cut. */
function tiersOf({ cards, edges }) {
  const services = [...cards.values()].filter((card) => card.kind === "service").map((card) => card.key).sort();
  const calls = new Map(services.map((key) => [key, []]));
  for (const { from, to, denied } of edges.values()) {
    if (!denied && from !== to && calls.has(from) && calls.has(to)) calls.get(from).push(to);
  }
  const finished = []; // callees before callers
  const state = new Map();
  const cut = new Set();
  const visit = (key) => {
    state.set(key, "open");
    for (const callee of calls.get(key).sort()) {
      if (state.get(callee) === "open") cut.add(`${key} ${callee}`);
      else if (!state.has(callee)) visit(callee);
    }
    state.set(key, "done");
    finished.push(key);
  };
  const called = new Set([...calls.values()].flat());
  for (const key of [...services.filter((service) => !called.has(service)), ...services]) if (!state.has(key)) visit(key);

  const tiers = new Map(services.map((key) => [key, 0]));
  for (const key of finished.reverse()) {
    for (const callee of calls.get(key)) {
      if (!cut.has(`${key} ${callee}`)) tiers.set(callee, Math.min(TIERS - 1, Math.max(tiers.get(callee), tiers.get(key) + 1)));
    }
  }
  return tiers;
}

/** "HOST COLUMN" -> keys of cards, null where a slot is free. */
function assignSlots(cards, columnOf, before) {
  const here = new Map(cards.map((card) => [card.key, slotKey(card.host ?? "", columnOf(card))]));
  const slots = {};
  const kept = new Set();
  for (const [column, keys] of Object.entries(before)) {
    slots[column] = keys.map((key) => (here.get(key) === column ? key : null));
    for (const key of slots[column]) kept.add(key);
  }
  const fresh = cards.filter((card) => !kept.has(card.key));
  for (const { key } of fresh.sort(inOrder)) {
    const column = (slots[here.get(key)] ??= []);
    const free = column.indexOf(null);
    if (free < 0) column.push(key);
    else column[free] = key;
  }
  for (const [column, keys] of Object.entries(slots)) {
    while (keys.length && keys.at(-1) === null) keys.pop();
    if (!keys.length) delete slots[column];
  }
  return slots;
}

function inOrder(one, other) {
  const text = (card) => `${card.members.length ? 1 : 0} ${card.title.toLowerCase()} ${card.key}`;
  const [a, b] = [text(one), text(other)];
  return a < b ? -1 : a > b ? 1 : 0;
}

function keepOrder(hosts, before) {
  const known = new Map(hosts.map((host) => [host.name, host]));
  const old = before.filter((name) => known.has(name));
  const fresh = [...known.keys()].filter((name) => !old.includes(name)).sort();
  return [...old, ...fresh].map((name) => known.get(name));
}

function place(cards, keys, x, top) {
  keys.forEach((key, row) => {
    if (key !== null) cards.set(key, { x, y: top + row * (CARD.height + GAP.y), ...CARD });
  });
}

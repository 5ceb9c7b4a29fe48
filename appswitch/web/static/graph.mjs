// What /api/state says -> cards and edges. Pure: a value in, a value out.
//
// A card stands for all apps of one host that are the same to look at: one name (or address, or command) and the same
// tags. An edge is all that goes from one card to another by one medium; denied attempts are an edge of their own.
// The identity of a card is its key, made of what it stands for and not of an app's number: so an app that is
// started again is the same card, in the same place.

import { endpoint } from "./text.mjs";

/** @typedef {{key: string, kind: "client"|"service"|"outside", host: ?string, title: string, ip: ?string,
 *   tags: string[], apps: object[], services: object[], backends: object[], members: Card[], count: number,
 *   state: string, faint: boolean}} Card  `host` is null outside; `members`: the cards that a bundle stands for */
/** @typedef {{key: string, from: string, to: string, medium: string, denied: boolean, rate: number, total: number,
 *   open: number, refused: number, last: number, rule: ?string, flows: object[]}} Edge  `rate` in connects (or denials) per second,
 *   `last` Unix time */

export const MEDIA = ["unix", "tcp", "gateway", "udp"];

/** How an edge is drawn, and by what it is hidden; what has no medium of these goes as TCP. */
export function kindOf(edge) {
  return edge.denied ? "denied" : MEDIA.includes(edge.medium) ? edge.medium : "tcp";
}

const LINK_LOCAL = /^(169\.254\.|fe80:)/i;

/**
 * @param {object} state  of /api/state; lists that aren't there are empty
 * @returns {{hosts: object[], cards: Map<string, Card>, edges: Map<string, Edge>, cardOf: Map<string, string>}}
 *   `cardOf`: "NODE/APP" -> a card's key
 */
export function buildGraph(state) {
  const cards = new Map();
  const cardOf = new Map();
  const externals = list(state.externals);

  for (const app of list(state.apps)) {
    const card = cardFor(cards, app.node, app);
    card.apps.push(app);
    cardOf.set(appKey(app.node, app.id), card.key);
  }
  for (const backend of externals) externalCard(cards, backend).backends.push(backend);
  for (const service of list(state.services)) {
    const card = cards.get(cardOf.get(appKey(service.node, service.app)));
    if (!card) continue;
    card.services.push(service);
    if (card.identified) card.kind = "service";
  }

  const ends = { cards, cardOf, services: list(state.services) };
  const edges = new Map();
  for (const flow of list(state.flows)) {
    const from = clientEnd(ends, flow.client ?? {});
    const to = serverEnd(ends, flow.server ?? {});
    if (flow.connects || flow.open || !flow.denied) join(edges, from, to, flow, false);
    if (flow.denied) join(edges, from, to, flow, true);
  }
  addConnections(edges, ends, list(state.connections));

  for (const card of cards.values()) finish(card);
  return { hosts: hostsOf(state, cards), cards, edges, cardOf };
}

/** The key by which `cardOf` finds an app's card. */
export function appKey(node, id) {
  return `${node}/${id}`;
}

function list(value) {
  return Array.isArray(value) ? value : [];
}

function keyOf(...parts) {
  return parts.map((part) => String(part ?? "").replace(/[%/\s]/g, encodeURIComponent)).join("/");
}

function newCard(key, kind, host, title, ip) {
  const nothing = { tags: [], apps: [], services: [], backends: [], members: [], count: 0, state: "up", faint: false };
  return { key, kind, host, title, ip, ...nothing };
}

/** The card of an app, or of one that has gone: then `app.tags` may be unknown. */
function cardFor(cards, host, app) {
  const address = app.ip && !LINK_LOCAL.test(app.ip) ? app.ip : null;
  const command = list(app.command)[0]?.split("/").at(-1);
  const title = app.name || address || command || "unnamed";
  const tags = [...list(app.tags)].sort();
  const key = keyOf(host, title, ...tags);
  if (!cards.has(key)) {
    const identified = Boolean(app.name || address);
    cards.set(key, { ...newCard(key, "client", host, title, app.ip ?? null), tags, identified });
  }
  return cards.get(key);
}

function externalCard(cards, { name, ip, tags }) {
  const key = keyOf("", "external", name ?? ip);
  if (!cards.has(key)) cards.set(key, { ...newCard(key, "outside", null, name ?? ip, ip), tags: list(tags) });
  return cards.get(key);
}

function outsideCard(cards, way, title, ip) {
  const key = keyOf("", way, title);
  if (!cards.has(key)) cards.set(key, { ...newCard(key, "outside", null, title, ip), way });
  return cards.get(key);
}

function clientEnd({ cards, cardOf }, { app, node, name, ip, tags }) {
  const known = cards.get(cardOf.get(appKey(node, app)));
  if (known) return known;
  if (app == null) return outsideCard(cards, "from", ip ?? name ?? "unknown", ip);
  return cardOfGone(cards, node, { name, ip, tags });
}

function serverEnd({ cards, cardOf, services }, { app, node, name, ip, port }) {
  const known = cards.get(cardOf.get(appKey(node, app)));
  if (known) return known;
  if (app != null) {
    const gone = cardOfGone(cards, node, { name, ip });
    gone.kind = "service";
    return gone;
  }
  const external = cards.get(keyOf("", "external", name ?? ip));
  if (external) return external;
  const at = services.filter((service) => service.ip === ip);
  const meant = at.find((service) => service.port === port) ?? at[0];
  const card = meant && cards.get(cardOf.get(appKey(meant.node, meant.app)));
  return card ?? outsideCard(cards, "to", name || ip || "unknown", ip);
}

function cardOfGone(cards, node, app) {
  if (!app.tags && app.name) {
    for (const card of cards.values()) if (card.host === node && card.title === app.name) return card;
  }
  return cardFor(cards, node, app);
}

function edgeBetween(edges, from, to, medium, denied) {
  const key = `${from.key} ${to.key} ${denied ? "denied" : medium}`;
  if (!edges.has(key)) {
    const sums = { rate: 0, total: 0, open: 0, refused: 0, last: 0, rule: null, flows: [] };
    edges.set(key, { key, from: from.key, to: to.key, medium, denied, ...sums });
  }
  return edges.get(key);
}

function join(edges, from, to, flow, denied) {
  const edge = edgeBetween(edges, from, to, flow.medium, denied);
  edge.rate += (denied ? flow.denied_rate : flow.rate) ?? 0;
  edge.total += (denied ? flow.denied : flow.connects) ?? 0;
  if (!denied) {
    edge.open += flow.open ?? 0;
    edge.refused += flow.refused ?? 0; // by nobody's rule: nothing listened there
  }
  if (denied) edge.rule = flow.rule ?? edge.rule;
  edge.last = Math.max(edge.last, flow.last ?? 0);
  edge.flows.push(flow);
}

/** Connections that no flow tells of, as those from before the server looked. A host may list what another does, too. */
function addConnections(edges, ends, connections) {
  const found = new Map();
  for (const row of connections) {
    const from = clientEnd(ends, { app: row.client_app, node: row.client_node, name: row.client_name, ip: row.client_ip });
    const server = { app: row.server_app, node: row.server_node, name: row.server_name };
    const to = serverEnd(ends, { ...server, ip: row.dest_ip, port: row.dest_port });
    const key = `${from.key} ${to.key} ${row.medium}`;
    if (edges.has(key) && !found.has(key)) continue;
    if (!found.has(key)) found.set(key, { edge: edgeBetween(edges, from, to, row.medium, false), byHost: new Map() });
    const { byHost } = found.get(key);
    byHost.set(row.node, (byHost.get(row.node) ?? 0) + 1);
  }
  for (const { edge, byHost } of found.values()) edge.open = Math.max(...byHost.values());
}

function finish(card) {
  card.count = Math.max(1, card.apps.length);
  const states = new Set(card.apps.map((app) => app.state));
  const backends = new Set(card.backends.map((backend) => backend.state));
  if (card.kind === "outside") card.state = backends.size && !backends.has("up") ? [...backends][0] : "up";
  else if (!card.apps.length) card.state = "gone";
  else card.state = ["up", "draining", "suspect"].find((state) => states.has(state)) ?? "up";
  card.where = card.kind === "service" ? whereServed(card) : card.way || card.backends.length ? outsideWords(card) : (card.ip ?? "");
}

function whereServed({ ip, services }) {
  const ports = [...new Set(services.map(({ port, proto }) => `${port}${proto === "udp" ? "/udp" : ""}`))];
  ports.sort((one, other) => Number.parseInt(one, 10) - Number.parseInt(other, 10));
  return ports.length === 1 && !ports[0].includes("/") ? endpoint(ip, ports[0]) : [ip, ...ports.map((port) => `:${port}`)].join(" ");
}

function outsideWords({ way, backends, title, ip }) {
  if (backends.length) return backends.map((backend) => backend.backend).join(" ");
  return way === "from" ? "comes by a gateway" : ip && ip !== title ? ip : "address outside";
}

function hostsOf(state, cards) {
  const hosts = new Map(list(state.nodes).map((node) => [node.name, node]));
  for (const { host } of cards.values()) {
    if (host != null && !hosts.has(host)) hosts.set(host, { name: host, state: "alive", gateway: false });
  }
  return [...hosts.values()];
}

// A hub doesn't swamp the picture: cards that are alike are drawn as one. Pure.
//
// Where a host's column (or the outside) has more than ROOM cards, those that talk with the same others in the same way
// become one card of their own, if they are at least ALIKE; and what is still too many shares a last one. So a column
// has at most ROOM + 1 cards, however many apps there are. Services aren't merged for being alike, as each is a place
// that others go to; they only have to fit.

const ALIKE = 3; // fewer than this are drawn one by one
const ROOM = { client: 7, service: 16, outside: 12 }; // cards of a column, with up to SMALL hosts
const SMALL = 8; // hosts; with more of them each has less room
const HOSTS = 60; // that are drawn
const EDGES = 400; // that are drawn

/**
 * @param graph  of buildGraph or applyFilter
 * @param {Set<string>} before  columns that had bundles the last time: they keep them until they are clearly smaller
 * @returns {{graph: object, bundled: Set<string>, left: {hosts: number, edges: number}}}  `left`: how many aren't drawn
 */
export function bundle(graph, before = new Set()) {
  const hosts = [...graph.hosts].sort(byName).slice(0, HOSTS);
  const drawn = new Set(hosts.map((host) => host.name)).add(null);
  const columns = new Map();
  for (const card of graph.cards.values()) {
    if (!drawn.has(card.host)) continue;
    put(columns, `${card.host ?? ""} ${card.kind}`, card);
  }

  const alike = likeness(graph);
  const crowd = Math.max(1, hosts.length / SMALL);
  const bundled = new Set();
  const cards = new Map();
  for (const [column, members] of columns) {
    const room = Math.max(2, Math.floor(ROOM[members[0].kind] / crowd));
    const crowded = members.length > (before.has(column) ? room - 2 : room);
    if (crowded) bundled.add(column);
    for (const card of crowded ? merge(members, column, room, alike) : members) cards.set(card.key, card);
  }

  const { edges, left } = reroute(graph.edges, cards);
  return { graph: { ...graph, hosts, cards, edges }, bundled, left: { hosts: graph.hosts.length - hosts.length, edges: left } };
}

function byName(one, other) {
  return order(one.name, other.name);
}

function order(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** Card's key -> a text that is the same for cards which talk with the same others in the same way. */
function likeness({ cards, edges }) {
  const peers = new Map([...cards.keys()].map((key) => [key, []]));
  for (const edge of edges.values()) {
    const way = edge.denied ? "denied" : edge.medium;
    peers.get(edge.from)?.push(`to ${edge.to} ${way}`);
    peers.get(edge.to)?.push(`from ${edge.from} ${way}`);
  }
  return (card) => `${card.faint} ${peers.get(card.key).sort().join("|")}`;
}

function merge(members, column, room, alike) {
  const groups = members[0].kind === "service" ? members.map((card) => [card]) : groupBy(members, alike);
  const merged = groups.flatMap((group) =>
    group.length >= ALIKE ? [bundleOf(group, `${column} ${alike(group[0])}`, "alike")] : group,
  );
  if (merged.length <= room) return merged;
  merged.sort((one, other) => other.count - one.count || order(one.title, other.title) || order(one.key, other.key));
  const rest = merged.slice(room).flatMap((card) => (card.members.length ? card.members : [card]));
  return [...merged.slice(0, room), bundleOf(rest, `${column} rest`, "more")];
}

function groupBy(items, name) {
  const groups = new Map();
  for (const item of items) put(groups, name(item), item);
  return [...groups.values()];
}

function put(groups, name, item) {
  if (groups.has(name)) groups.get(name).push(item);
  else groups.set(name, [item]);
}

function bundleOf(members, key, why) {
  const sorted = [...members].sort((one, other) => order(one.title, other.title) || order(one.key, other.key));
  const [first] = sorted;
  const common = commonStart(sorted.map((card) => card.title));
  const what = { client: "clients", service: "services", outside: first.way === "from" ? "clients outside" : "addresses outside" };
  const count = sorted.reduce((sum, card) => sum + card.count, 0);
  return {
    ...first,
    key,
    title: common ? `${common}*` : why === "more" ? `more ${what[first.kind]}` : what[first.kind],
    ip: null,
    where: why === "more" ? "not drawn one by one" : `${what[first.kind]} alike`,
    tags: first.tags.filter((tag) => sorted.every((card) => card.tags.includes(tag))),
    state: sorted.every((card) => card.state === first.state) ? first.state : "up",
    faint: sorted.every((card) => card.faint),
    apps: sorted.flatMap((card) => card.apps),
    services: sorted.flatMap((card) => card.services),
    backends: [],
    members: sorted,
    count,
  };
}

/** What all titles start with, up to a letter or digit, if that is enough to tell them by: "worker-", of worker-1 and worker-2. */
function commonStart(titles) {
  let start = titles[0];
  for (const title of titles) while (!title.startsWith(start)) start = start.slice(0, -1);
  return /^.{2,}[-_.:]/u.exec(start)?.[0] ?? (start.length > 3 ? start : "");
}

function reroute(edges, cards) {
  const place = new Map();
  for (const card of cards.values()) for (const { key } of [card, ...card.members]) place.set(key, card.key);
  const merged = new Map();
  for (const edge of edges.values()) {
    const [from, to] = [place.get(edge.from), place.get(edge.to)];
    if (from === undefined || to === undefined) continue;
    const key = `${from} ${to} ${edge.denied ? "denied" : edge.medium}`;
    const other = merged.get(key);
    if (!other) {
      merged.set(key, { ...edge, key, from, to, flows: [...edge.flows] });
    } else {
      for (const sum of ["rate", "total", "open", "refused"]) other[sum] += edge[sum];
      if (edge.last >= other.last) other.rule = edge.rule ?? other.rule;
      other.last = Math.max(other.last, edge.last);
      other.flows.push(...edge.flows);
    }
  }
  const drawn = [...merged.values()];
  drawn.sort((one, other) => other.denied - one.denied || other.rate - one.rate || order(one.key, other.key));
  return { edges: new Map(drawn.slice(0, EDGES).map((edge) => [edge.key, edge])), left: Math.max(0, drawn.length - EDGES) };
}

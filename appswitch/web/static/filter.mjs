// What of the map is shown: the filter, in words of the URL's query, and what it leaves of a graph. Pure.
//
//   ?name=web&tag=env=prod&node=a&hide=udp,denied&view=table&app=KEY
//
// `name` is a part of a name, or a pattern when it has a `*`; `tag` a KEY=VALUE or a KEY, several with spaces between,
// all of which have to be there. Cards that fit stay, and those they talk with, faintly.

import { kindOf } from "./graph.mjs";

const LISTS = ["hide"];
const WORDS = ["name", "tag", "node", "view", "app"];

/** @param {string} search  "?name=web..."  @returns {{name, tag, node, view, app: string, hide: string[]}} */
export function parseFilter(search) {
  const query = new URLSearchParams(search);
  const filter = {};
  for (const word of WORDS) filter[word] = query.get(word) ?? "";
  for (const word of LISTS) filter[word] = (query.get(word) ?? "").split(",").filter(Boolean);
  return filter;
}

/** The query for a filter: "" or "?name=web...". */
export function formatFilter(filter) {
  const query = new URLSearchParams();
  for (const word of [...WORDS, ...LISTS]) {
    const value = String(filter[word] ?? "");
    if (value) query.set(word, value);
  }
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%3D", "=").replaceAll("%2F", "/");
  return text && `?${text}`;
}

/** Whether the filter chooses among apps. */
export function chooses(filter) {
  return Boolean(filter.name.trim() || filter.tag.trim() || filter.node);
}

/** @returns {(card) => boolean} whether a card fits by itself */
export function matcher(filter) {
  const name = pattern(filter.name.trim());
  const tags = filter.tag.split(/[\s,]+/).filter(Boolean);
  return (card) =>
    (!name || name.test(card.title)) &&
    (!filter.node || card.host === filter.node) &&
    tags.every((tag) => card.tags.some((has) => has === tag || has.startsWith(`${tag}=`)));
}

function pattern(text) {
  if (!text) return null;
  const words = text.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(words.length === 1 ? words[0] : `^${words.join(".*")}$`, "isu");
}

/** The part of a graph that is shown. Cards that are there for their neighbours only are `faint`. */
export function applyFilter(graph, filter) {
  const hidden = new Set(filter.hide);
  let edges = [...graph.edges.values()].filter((edge) => !hidden.has(kindOf(edge)));
  let cards = [...graph.cards.values()];
  let hosts = graph.hosts;
  if (chooses(filter)) {
    const fits = matcher(filter);
    const meant = new Set(cards.filter(fits).map((card) => card.key));
    edges = edges.filter((edge) => meant.has(edge.from) || meant.has(edge.to));
    const near = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
    cards = cards.filter(({ key }) => meant.has(key) || near.has(key));
    cards = cards.map((card) => (meant.has(card.key) ? card : { ...card, faint: true }));
    const inhabited = new Set(cards.map((card) => card.host));
    hosts = hosts.filter((host) => inhabited.has(host.name));
  }
  const byKey = (items) => new Map(items.map((item) => [item.key, item]));
  return { ...graph, hosts, cards: byKey(cards), edges: byKey(edges) };
}

// The page, put together: server -> graph -> filter -> bundles -> layout -> picture, and back from clicks to the URL.

import { bundle } from "./bundle.mjs";
import { html, refill, set, write } from "./dom.mjs";
import { Picture, sample } from "./draw.mjs";
import { applyFilter, chooses, formatFilter, matcher, parseFilter } from "./filter.mjs";
import { appKey, buildGraph, MEDIA } from "./graph.mjs";
import { layout } from "./layout.mjs";
import { Live } from "./live.mjs";
import { Panel } from "./panel.mjs";
import { Log, showTables } from "./tables.mjs";
import { ago, perSecond, plain, several } from "./text.mjs";

const MEMORY = "appswitch-map"; // in sessionStorage: where cards were, for a reload
const WORDS = { unix: "Unix socket", tcp: "TCP", gateway: "by a gateway", udp: "UDP", denied: "denied" };

const byId = (id) => document.getElementById(id);
const picture = new Picture(byId("map"), choose);
const panel = new Panel(byId("panel"), { choose, close: () => choose("card", "") });
const log = new Log(byId("log"), byId("flows-note"));
const form = byId("filter");

let filter = parseFilter(location.search);
let graph = buildGraph({}); // all there is
let drawn = null; // what of it is drawn
let edge = ""; // the key of the edge that the panel tells of
let memory = remember(filter);
let health = { is: "starting", reason: "", heard: null };

// --- from the server ---

const world = {
  fetch: (...arguments_) => fetch(...arguments_),
  EventSource,
  setTimeout: (call, wait) => setTimeout(call, wait),
  clearTimeout: (timer) => clearTimeout(timer),
  now: () => Date.now(),
  timeout: (ms) => AbortSignal.timeout(ms),
};
const live = new Live(world, {
  state: (state) => {
    graph = buildGraph(state);
    write(byId("node"), plain(state.node));
    document.title = `AppSwitch: ${plain(state.node)}`;
    show();
  },
  event: (event) => log.add(event),
  health: (now) => {
    health = now;
    showHealth();
  },
});

function showHealth() {
  const since = health.heard === null ? "" : `, last heard ${ago((Date.now() - health.heard) / 1000)} ago`;
  const words = { starting: "connecting", live: "live", stale: "stale: no answer", refused: `refused: ${plain(health.reason)}` };
  const element = byId("health");
  set(element, { "data-is": health.is, title: health.reason });
  write(element.children[0], words[health.is]); // read aloud when it changes, which the time isn't
  write(element.children[1], health.is === "stale" ? since : "");
  document.body.classList.toggle("stale", health.is === "stale" || health.is === "refused");
}

// --- what is shown ---

function show() {
  const visible = applyFilter(graph, filter);
  const asTable = filter.view === "table";
  byId("picture").hidden = asTable;
  byId("tables").hidden = !asTable;
  if (asTable) showTables(byId("tables"), visible, choose);
  else draw(visible);
  showSums();
  showForm();
  showPanel();
  const fits = matcher(filter);
  log.filter((event) => !chooses(filter) || appsOf(event).some(fits));
}

function draw(visible) {
  const { graph: bundled, bundled: columns, left } = bundle(visible, new Set(memory?.bundled));
  const placed = layout(bundled, memory);
  memory = { ...placed.memory, bundled: [...columns] };
  keepMemory();
  drawn = bundled;
  picture.show(bundled, placed, cardDrawnFor(filter.app)?.key ?? null);
  const nothing = !bundled.cards.size;
  byId("empty").hidden = !nothing;
  write(byId("empty"), chooses(filter) ? "Nothing fits." : "No apps yet. Start one: appswitch spawn --name web -- PROGRAM");
  const not = [left.hosts && several(left.hosts, "host"), left.edges && several(left.edges, "edge")].filter(Boolean).join(" and ");
  byId("left").hidden = !not;
  write(byId("left"), `${not} are not drawn: choose by name, tag or host`);
}

function showSums() {
  const cards = [...graph.cards.values()];
  const edges = [...graph.edges.values()];
  const sum = (some) => perSecond(some.reduce((total, one) => total + one.rate, 0));
  const denied = edges.filter((one) => one.denied);
  const parts = [
    several(graph.hosts.length, "host"),
    several(cards.reduce((total, card) => total + card.apps.length, 0), "app"),
    several(cards.filter((card) => card.kind === "service").length, "service"),
    `${sum(edges.filter((one) => !one.denied))} connects`,
  ];
  const element = byId("sums");
  const text = html("span", {}, parts.join(" · "));
  refill(element, text, denied.length ? html("span", { class: "denied" }, ` · ${sum(denied)} denied`) : null);
}

function showForm() {
  for (const name of ["name", "tag"]) if (form[name].value !== filter[name] && document.activeElement !== form[name]) form[name].value = filter[name];
  const hosts = ["", ...new Set([...graph.hosts.map((host) => host.name).sort(), filter.node].filter(Boolean))];
  if ([...form.node.options].map((option) => option.value).join("\n") !== hosts.join("\n")) {
    form.node.replaceChildren(...hosts.map((host) => html("option", { value: host }, plain(host) || "all")));
  }
  form.node.value = filter.node;
  byId("clear").hidden = !chooses(filter);
  for (const button of byId("legend").children) set(button, { "aria-pressed": String(!filter.hide.includes(button.dataset.kind)) });
  set(byId("as-map"), { "aria-pressed": String(filter.view !== "table") });
  set(byId("as-table"), { "aria-pressed": String(filter.view === "table") });
  set(byId("skip"), { href: formatFilter({ ...filter, view: "table" }) });
  byId("tidy").hidden = filter.view === "table";
}

function showPanel() {
  const shown = edge ? (graph.edges.get(edge) ?? drawn?.edges.get(edge)) : (graph.cards.get(filter.app) ?? drawn?.cards.get(filter.app));
  if (shown) panel.show(withDrawn(), edge ? "edge" : "card", shown);
  else panel.hide();
}

/** All there is, and the bundles that are drawn: what a key in the panel may mean. */
function withDrawn() {
  return { cards: new Map([...(drawn?.cards ?? []), ...graph.cards]), edges: graph.edges };
}

/** A card that is drawn: the one of this key, or the bundle that it is in. */
function cardDrawnFor(key) {
  if (!key || !drawn) return null;
  return drawn.cards.get(key) ?? [...drawn.cards.values()].find((card) => card.members.some((member) => member.key === key)) ?? null;
}

function appsOf(event) {
  const keys = [appKey(event.app_node ?? event.node, event.app), appKey(event.server_node, event.server_app)];
  return keys.map((key) => graph.cards.get(graph.cardOf.get(key))).filter(Boolean);
}

// --- from people ---

function choose(kind, key) {
  const last = filter.app;
  edge = kind === "edge" ? key : "";
  change({ app: kind === "card" ? key : "" });
  picture.reveal(cardDrawnFor(key)?.key);
  if (!key && last) picture.focus(cardDrawnFor(last)?.key);
}

/** Another filter: the URL says so, too, and back leads to the one before. */
function change(changes, replace = false) {
  const before = filter;
  filter = { ...filter, ...changes };
  const url = `${location.pathname}${formatFilter(filter)}`;
  if (formatFilter(before) !== formatFilter(filter)) history[replace ? "replaceState" : "pushState"](null, "", url);
  if (scope(before) !== scope(filter)) memory = null;
  show();
}

/** What of a filter chooses which cards are there: places are remembered for the same only. */
function scope({ name, tag, node }) {
  return JSON.stringify([name, tag, node]);
}

function keepMemory() {
  try {
    sessionStorage.setItem(MEMORY, JSON.stringify({ for: scope(filter), memory }));
  } catch {
    // not allowed, or full: then a reload puts the cards in order
  }
}

function remember(now) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(MEMORY));
    return kept?.for === scope(now) ? kept.memory : null;
  } catch {
    return null; // not ours, or not allowed to look
  }
}

for (const kind of [...MEDIA, "denied"]) {
  const toggle = () => change({ hide: filter.hide.includes(kind) ? filter.hide.filter((other) => other !== kind) : [...filter.hide, kind] });
  byId("legend").append(html("button", { type: "button", class: `kind ${kind}`, "data-kind": kind, "aria-pressed": "true", onclick: toggle }, sample(kind), WORDS[kind]));
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => change({ name: form.name.value, tag: form.tag.value, node: form.node.value }, true));
form.addEventListener("reset", () => change({ name: "", tag: "", node: "" }));
byId("as-map").addEventListener("click", () => change({ view: "" }));
byId("as-table").addEventListener("click", () => change({ view: "table" }));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  change({ view: "table" });
  byId("tables").querySelector("button")?.focus();
});
byId("tidy").addEventListener("click", () => {
  memory = null;
  show();
});
byId("pause").addEventListener("click", ({ currentTarget }) => {
  log.pause(!log.paused);
  set(currentTarget, { "aria-pressed": String(log.paused) });
  write(currentTarget, log.paused ? "Go on" : "Pause");
});
addEventListener("popstate", () => {
  const before = filter;
  filter = parseFilter(location.search);
  if (scope(before) !== scope(filter)) memory = null;
  edge = "";
  form.name.value = filter.name;
  form.tag.value = filter.tag;
  show();
});
document.addEventListener("visibilitychange", () => (document.hidden ? live.stop() : live.start()));

setInterval(showHealth, 1000);
showForm();
live.start();

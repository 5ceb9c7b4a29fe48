// The filter: what it leaves, and how the URL says it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { applyFilter, chooses, formatFilter, parseFilter } from "../../../appswitch/web/static/filter.mjs";
import { buildGraph } from "../../../appswitch/web/static/graph.mjs";
import { made } from "./made.mjs";

function shop() {
  const { state, app, flow, deny } = made("a", "b");
  const web = app("a", "web", "10.0.0.1", [80], { tags: ["env=prod", "grp=1"] });
  const database = app("b", "db", "10.0.0.2", [5432], { tags: ["env=prod"] });
  const test = app("b", "web-test", "10.0.0.3", [80], { tags: ["env=test"] });
  flow(web, database, 5432);
  deny(test, database, 5432);
  return buildGraph(state);
}

function left(search) {
  const graph = applyFilter(shop(), parseFilter(search));
  return [...graph.cards.values()].map((card) => (card.faint ? `(${card.title})` : card.title)).sort().join(" ");
}

test("an empty filter leaves all", () => {
  assert.equal(left(""), "db web web-test");
  assert.equal(chooses(parseFilter("?view=table&hide=udp")), false);
});

test("by name: a part, or a pattern; neighbours stay faintly", () => {
  assert.equal(left("?name=WEB"), "(db) web web-test");
  assert.equal(left("?name=w*b"), "(db) web");
  assert.equal(left("?name=nothing"), "");
  assert.equal(left("?name=("), "");
});

test("by tag: KEY=VALUE or KEY, all of several", () => {
  assert.equal(left("?tag=env=test"), "(db) web-test");
  assert.equal(left("?tag=grp"), "(db) web");
  assert.equal(left("?tag=env=prod grp=1"), "(db) web");
  assert.equal(left("?tag=en"), "");
});

test("by host: others' hosts stay only with a neighbour in them", () => {
  assert.equal(left("?node=a"), "(db) web");
  assert.deepEqual(applyFilter(shop(), parseFilter("?name=web-test")).hosts.map((host) => host.name), ["b"]);
});

test("kinds of edges are hidden, denied ones on their own", () => {
  const edges = (search) => [...applyFilter(shop(), parseFilter(search)).edges.values()].map((edge) => edge.denied);
  assert.deepEqual(edges("?hide=unix"), [true]);
  assert.deepEqual(edges("?hide=denied"), [false]);
  assert.deepEqual(edges("?hide=unix,denied"), []);
});

test("what is drawn as TCP is hidden with it, whatever its medium", () => {
  const { state, app, flow } = made("a");
  const [web, database] = [app("a", "web", "10.0.0.1", [80]), app("a", "db", "10.0.0.2", [5432])];
  flow(web, database, 5432, { medium: "bypass" });
  const shown = (search) => applyFilter(buildGraph(state), parseFilter(search)).edges.size;
  assert.deepEqual([shown(""), shown("?hide=unix"), shown("?hide=tcp")], [1, 1, 0]);
});

test("what the URL says is what was filtered, whatever it was", () => {
  for (const text of ["web", "a&b=c", "50% #1?", "<script>", "\u202e", "ünï cödé", "a+b", "env=prod,grp/1"]) {
    const filter = { ...parseFilter(""), name: text, tag: text, node: text, app: text, hide: ["udp", "denied"] };
    assert.deepEqual(parseFilter(formatFilter(filter)), filter);
  }
  assert.equal(formatFilter(parseFilter("")), "");
});

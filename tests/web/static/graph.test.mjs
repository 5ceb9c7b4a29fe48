// What /api/state says -> cards and edges.

import assert from "node:assert/strict";
import { test } from "node:test";

import { buildGraph } from "../../../appswitch/web/static/graph.mjs";
import { made } from "./made.mjs";

const titles = (graph, kind) => [...graph.cards.values()].filter((card) => card.kind === kind).map((card) => card.title).sort();

test("nothing known, nothing drawn", () => {
  const graph = buildGraph({});
  assert.deepEqual([graph.hosts.length, graph.cards.size, graph.edges.size], [0, 0, 0]);
});

test("who serves is a service, who doesn't a client, and what is no app is outside", () => {
  const { state, app, flow } = made("a");
  const web = app("a", "web", "10.0.0.1", [80]);
  const job = app("a", "job", "10.0.0.2");
  flow(job, web, 80);
  flow(job, { ip: "203.0.113.9", name: "example.com" }, 443, { medium: "tcp" });
  flow({ ip: "198.51.100.1", node: "a" }, web, 80, { medium: "tcp" });
  const graph = buildGraph(state);
  assert.deepEqual(titles(graph, "service"), ["web"]);
  assert.deepEqual(titles(graph, "client"), ["job"]);
  assert.deepEqual(titles(graph, "outside"), ["198.51.100.1", "example.com"]);
  assert.equal(graph.edges.size, 3);
});

test("an app without a name or an address serves only itself: it is a client", () => {
  const { state, app } = made("a");
  app("a", null, "169.254.3.4", [8080]);
  assert.deepEqual(titles(buildGraph(state), "client"), ["curl"]);
});

test("instances of one name and the same tags on a host are one card", () => {
  const { state, app } = made("a", "b");
  app("a", "web", "10.0.0.1", [80]);
  app("a", "web", "10.0.0.1", [80]);
  app("a", "web", "10.0.0.1", [80], { tags: ["color=green"] });
  app("b", "web", "10.0.0.1", [80]);
  const counts = [...buildGraph(state).cards.values()].map((card) => [card.host, card.tags.join(), card.count]);
  assert.deepEqual(counts, [["a", "", 2], ["a", "color=green", 1], ["b", "", 1]]);
});

test("an app that is started again is the same card, though its number is another", () => {
  const { state, app } = made("a");
  const web = app("a", "web", "10.0.0.1", [80]);
  const [before] = buildGraph(state).cards.keys();
  web.id = state.services[0].app = 99;
  assert.deepEqual([...buildGraph(state).cards.keys()], [before]);
});

test("a client that has gone is still there while its flow is, and is marked", () => {
  const { state, app, flow } = made("a");
  const web = app("a", "web", "10.0.0.1", [80]);
  flow({ id: 77, node: "a", name: "job", ip: "10.0.0.3" }, web, 80);
  flow({ id: 78, node: "a", ip: "169.254.1.1" }, web, 80);
  flow({ id: 79, node: "a", ip: "169.254.1.2" }, web, 80);
  const graph = buildGraph(state);
  assert.deepEqual(titles(graph, "client"), ["job", "unnamed"]);
  assert.ok([...graph.cards.values()].filter((card) => card.kind === "client").every((card) => card.state === "gone"));
  assert.deepEqual([...graph.edges.values()].map((edge) => edge.total), [1, 2]);
});

test("a client that has gone while its name goes on is that card", () => {
  const { state, app, flow } = made("a");
  const web = app("a", "web", "10.0.0.1", [80]);
  app("a", "job", "10.0.0.3", [], { tags: ["env=prod"] });
  flow({ id: 77, node: "a", name: "job", ip: "10.0.0.3" }, web, 80);
  assert.deepEqual(titles(buildGraph(state), "client"), ["job"]);
});

test("denied attempts are an edge of their own, beside what was allowed", () => {
  const { state, app, flow } = made("a");
  const [web, job] = [app("a", "web", "10.0.0.1", [80]), app("a", "job", "10.0.0.2")];
  flow(job, web, 80, { denied: 5, denied_rate: 2.5, rule: "no-jobs" });
  const [allowed, denied] = buildGraph(state).edges.values();
  assert.deepEqual([allowed.denied, allowed.total, allowed.rate], [false, 1, 1]);
  assert.deepEqual([denied.denied, denied.total, denied.rate, denied.rule], [true, 5, 2.5, "no-jobs"]);
});

test("a denied attempt at an address is one at whoever serves there", () => {
  const { state, app, deny } = made("a");
  const web = app("a", "web", "10.0.0.1", [80]);
  deny(app("a", "job", "10.0.0.2"), { ip: web.ip }, 80);
  const graph = buildGraph(state);
  assert.equal(graph.cards.get([...graph.edges.values()][0].to).title, "web");
});

test("an external server is outside, with its backends, whatever node it is registered on", () => {
  const { state, app, flow } = made("a");
  const backend = (host, health) => ({ name: "ora", ip: "10.9.0.1", port: 1521, backend: host, node: "a", tags: ["env=prod"], state: health });
  state.externals = [backend("db1:1521", "up"), backend("db2:1521", "down")];
  flow(app("a", "job", "10.0.0.2"), { name: "ora", ip: "10.9.0.1" }, 1521, { medium: "tcp" });
  const graph = buildGraph(state);
  const card = [...graph.cards.values()].find((each) => each.title === "ora");
  assert.deepEqual([card.kind, card.backends.length, card.state], ["outside", 2, "up"]);
  assert.equal([...graph.edges.values()][0].to, card.key);
});

test("an external server that no gateway reaches shows it", () => {
  const { state } = made("a");
  state.externals = [{ name: "ora", ip: "10.9.0.1", port: 1521, backend: "db1:1521", node: "a", tags: [], state: "down" }];
  assert.equal([...buildGraph(state).cards.values()][0].state, "down");
});

test("connections that no flow tells of are edges; both ends' hosts may list them, and they count once", () => {
  const { state, app } = made("a", "b");
  const [web, job] = [app("b", "web", "10.0.0.1", [80]), app("a", "job", "10.0.0.2")];
  const row = { client_app: job.id, client_node: "a", server_app: web.id, server_node: "b", dest_ip: web.ip, dest_port: 80, medium: "tcp" };
  state.connections = [{ ...row, node: "a" }, { ...row, node: "b" }, { ...row, node: "b" }];
  const [edge] = buildGraph(state).edges.values();
  assert.deepEqual([edge.open, edge.rate, edge.medium], [2, 0, "tcp"]);
});

test("a flow knows its connections: they aren't counted again", () => {
  const { state, app, flow } = made("a");
  const [web, job] = [app("a", "web", "10.0.0.1", [80]), app("a", "job", "10.0.0.2")];
  flow(job, web, 80, { open: 3 });
  state.connections = [{ client_app: job.id, client_node: "a", server_app: web.id, server_node: "a", medium: "unix", node: "a" }];
  assert.deepEqual([...buildGraph(state).edges.values()].map((edge) => edge.open), [3]);
});

test("names that look like others' keys don't become others' cards", () => {
  const { state, app } = made("a");
  app("a", "web/x", "10.0.0.1");
  app("a", "web", "10.0.0.2", [], { tags: ["x"] });
  app("a", "<script>alert(1)</script>", "10.0.0.3");
  app("a", "\u202eevil\ud800", "10.0.0.4");
  assert.equal(buildGraph(state).cards.size, 4);
});

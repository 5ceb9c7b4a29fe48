// Bundles, places and routes: a graph in, positions out.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bundle } from "../../../appswitch/web/static/bundle.mjs";
import { buildGraph } from "../../../appswitch/web/static/graph.mjs";
import { layout } from "../../../appswitch/web/static/layout.mjs";
import { made } from "./made.mjs";

function draw(state, before = null) {
  const { graph, bundled, left } = bundle(buildGraph(state), new Set(before?.bundled));
  const placed = layout(graph, before?.memory);
  return { ...placed, graph, bundled, left };
}

/** Title -> [x, y]. */
function places(drawn) {
  return Object.fromEntries([...drawn.cards].map(([key, { x, y }]) => [drawn.graph.cards.get(key).title, [x, y]]));
}

function tiers() {
  const setup = made("a");
  const web = setup.app("a", "web", "10.0.0.1", [80]);
  const shop = setup.app("a", "shop", "10.0.0.2", [80]);
  const database = setup.app("a", "db", "10.0.0.3", [5432]);
  const job = setup.app("a", "job", "10.0.0.4");
  return { ...setup, web, shop, database, job };
}

const overlap = (one, other) =>
  one.x < other.x + other.width && other.x < one.x + one.width && one.y < other.y + other.height && other.y < one.y + one.height;

test("clients are left of services, and services left of those that they call", () => {
  const { state, flow, web, shop, database, job } = tiers();
  flow(job, web, 80);
  flow(web, shop, 80);
  flow(shop, database, 5432);
  const at = places(draw(state));
  assert.ok(at.job[0] < at.web[0] && at.web[0] < at.shop[0] && at.shop[0] < at.db[0]);
});

test("services that call each other in a circle are drawn all the same", () => {
  const { state, flow, web, shop, database } = tiers();
  flow(web, shop, 80);
  flow(shop, database, 5432);
  flow(database, web, 80);
  flow(web, web, 80);
  const drawn = draw(state);
  assert.equal(drawn.cards.size, 4);
  assert.equal(drawn.edges.size, 4);
});

test("denied attempts and rates move nothing", () => {
  const { state, flow, deny, web, shop, database, job } = tiers();
  flow(web, shop, 80);
  const before = places(draw(state));
  deny(database, shop, 80);
  deny(job, database, 5432);
  state.flows[0].rate = 500;
  assert.deepEqual(places(draw(state)), before);
});

test("the same state has the same picture, in whatever order it is told", () => {
  const { state, flow, web, shop } = tiers();
  flow(web, shop, 80);
  const told = draw(state);
  const shuffled = draw({ ...state, apps: [...state.apps].reverse(), services: [...state.services].reverse() });
  assert.deepEqual(places(shuffled), places(told));
  assert.deepEqual([...shuffled.edges.values()], [...told.edges.values()]);
});

test("cards keep their places while others come and go; a gap is filled by the next to come", () => {
  const { state, app } = made("a", "b");
  for (const name of ["b", "d", "f"]) app("a", name, `10.0.0.${name.charCodeAt(0)}`, [80]);
  app("b", "z", "10.0.1.1", [80]);
  const first = draw(state);
  app("a", "a", "10.0.0.9", [80]); // would be first by its name
  const second = draw(state, first);
  for (const title of ["b", "d", "f"]) assert.deepEqual(places(second)[title], places(first)[title]);
  assert.ok(places(second).a[1] > places(second).f[1]);

  state.apps = state.apps.filter((each) => each.name !== "d");
  const third = draw(state, second);
  for (const title of ["a", "b", "f", "z"]) assert.deepEqual(places(third)[title], places(second)[title]);

  app("a", "new", "10.0.0.8", [80]);
  assert.deepEqual(places(draw(state, third)).new, places(first).d);
});

test("a host that comes is put after those that are there; what is remembered is plain data", () => {
  const { state, app } = made("m", "z");
  app("m", "one", "10.0.0.1", [80]);
  app("z", "two", "10.0.0.2", [80]);
  const first = draw(state);
  state.nodes.unshift({ name: "a", state: "alive" });
  const again = draw(state, { memory: JSON.parse(JSON.stringify(first.memory)), bundled: first.bundled });
  assert.deepEqual(again.hosts.map((host) => host.name), ["m", "z", "a"]);
  assert.deepEqual(places(again), places(first));
});

test("nothing covers anything: cards are within their hosts, apart from each other, and routes pass them", () => {
  const setup = made("a", "b", "c");
  const apps = [];
  for (const node of ["a", "b", "c"]) {
    for (let number = 0; number < 5; number += 1) apps.push(setup.app(node, `${node}${number}`, `10.0.${apps.length}.1`, number < 4 ? [80] : []));
  }
  for (let from = 0; from < apps.length; from += 1) setup.flow(apps[from], apps[(from * 7 + 3) % apps.length], 80);
  for (const app of apps.slice(0, 4)) setup.flow(app, { ip: `203.0.113.${app.id}` }, 443, { medium: "tcp" });
  const drawn = draw(setup.state);
  const boxes = [...drawn.cards.entries()];
  for (const [key, box] of boxes) {
    const card = drawn.graph.cards.get(key);
    const around = card.host === null ? drawn.outside : drawn.hosts.find((host) => host.name === card.host);
    assert.ok(box.x > around.x && box.x + box.width < around.x + around.width, key);
    assert.ok(box.y > around.y && box.y + box.height < around.y + around.height, key);
    for (const [other, otherBox] of boxes) assert.ok(other === key || !overlap(box, otherBox), `${key} ${other}`);
  }
  for (const [key, { path, label }] of drawn.edges) {
    const curves = path.split("C").length - 1;
    const [edge] = [drawn.graph.edges.get(key)];
    const level = pathPoints(path).filter((point, at, all) => at > 0 && point.y === all[at - 1].y && Math.abs(point.x - all[at - 1].x) > 150);
    for (const { x, y } of level) {
      const hit = boxes.find(([, box]) => x > box.x + 20 && x < box.x + box.width + 40 && y > box.y && y < box.y + box.height);
      assert.equal(hit, undefined, `${edge.from} -> ${edge.to} goes through ${hit?.[0]}`);
    }
    assert.ok(curves >= 1);
    if (label) for (const [, box] of boxes) assert.ok(!overlap({ x: label.x - 31, y: label.y - 9, width: 62, height: 18 }, box));
  }
});

/** The ends of a path's curves. */
function pathPoints(path) {
  const numbers = path.match(/-?[\d.]+/g).map(Number);
  const points = [];
  for (let at = 0; at < numbers.length; at += 2) points.push({ x: numbers[at], y: numbers[at + 1] });
  return points.filter((_, at) => at % 3 === 0);
}

function hub(count) {
  const { state, app, flow } = made("a");
  const database = app("a", "db", "10.0.0.1", [5432]);
  for (let number = 0; number < count; number += 1) flow(app("a", `worker-${number}`, `10.1.${number >> 8}.${number & 255}`), database, 5432, { rate: 0.5 });
  return { state, app, flow, database };
}

test("hundreds of clients that are alike are one card and one edge, with their sums", () => {
  const drawn = draw(hub(500).state);
  assert.deepEqual(Object.keys(places(drawn)).sort(), ["db", "worker-*"]);
  const [edge] = drawn.graph.edges.values();
  assert.deepEqual([edge.rate, edge.total, edge.flows.length], [250, 500, 500]);
  assert.equal(drawn.graph.cards.get(edge.from).members.length, 500);
});

test("few clients are drawn one by one, though they are alike", () => {
  assert.equal(draw(hub(6).state).cards.size, 7);
});

test("a bundle doesn't flicker: it stays until there are clearly fewer", () => {
  const big = draw(hub(8).state);
  assert.equal(big.cards.size, 2);
  assert.equal(draw(hub(7).state).cards.size, 8);
  assert.equal(draw(hub(7).state, big).cards.size, 2);
  assert.equal(draw(hub(4).state, big).cards.size, 5);
});

test("who does something else than the rest is drawn beside the bundle", () => {
  const { state, app, flow, database } = hub(50);
  const odd = app("a", "odd", "10.2.0.1");
  flow(odd, database, 5432, { denied: 3, denied_rate: 1 });
  assert.deepEqual(Object.keys(places(draw(state))).sort(), ["db", "odd", "worker-*"]);
});

test("thousands that are all different have a bounded picture, too", () => {
  const setup = made(...Array.from({ length: 100 }, (_, number) => `host-${number}`));
  const services = [];
  for (let number = 0; number < 100; number += 1) services.push(setup.app(`host-${number % 100}`, `service-${number}`, `10.0.0.${number}`, [80]));
  for (let number = 0; number < 2000; number += 1) {
    const client = setup.app(`host-${number % 100}`, `client-${number}`, `10.${1 + (number >> 8)}.0.${number & 255}`);
    for (let target = 0; target < 3; target += 1) setup.flow(client, services[(number * 13 + target * 7) % 100], 80);
  }
  const began = performance.now();
  const drawn = draw(setup.state);
  const took = performance.now() - began;
  assert.ok(drawn.cards.size <= 60 * 4, `${drawn.cards.size} cards`);
  assert.ok(drawn.edges.size <= 400);
  assert.equal(drawn.left.hosts, 40);
  assert.ok(took < 3000, `${took} ms`);
});

test("of very many edges the denied and the busiest are drawn, and how many aren't is known", () => {
  const { state, app, flow, deny } = made("a", "b", "c");
  const services = ["a", "b", "c"].flatMap((node) => Array.from({ length: 15 }, (_, number) => app(node, `${node}${number}`, `10.0.${node.charCodeAt(0)}.${number}`, [80])));
  for (const one of services) for (const other of services) flow(one, other, 80, { rate: 0.1 });
  deny(services[0], services[44], 80);
  flow(services[3], services[40], 81, { rate: 99, medium: "tcp" });
  const drawn = draw(state);
  assert.equal(drawn.edges.size, 400);
  assert.equal(drawn.left.edges, 45 * 45 + 2 - 400);
  const [first, second] = drawn.graph.edges.values();
  assert.deepEqual([first.denied, second.rate], [true, 99]);
});

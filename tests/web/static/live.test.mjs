// Keeping up to date: what is asked when, and what is told when the server goes. The clock and the network are the test's.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Live, reasonOf } from "../../../appswitch/web/static/live.mjs";

class World {
  constructor() {
    this.time = 0;
    this.timers = [];
    this.streams = [];
    this.asked = [];
    this.answer = () => ({ ok: true, json: async () => ({ version: 1 }) });
    const world = this;
    this.EventSource = class {
      constructor(url) {
        Object.assign(this, { url, readyState: 1, heard: {} });
        world.streams.push(this);
      }
      addEventListener(kind, call) {
        this.heard[kind] = call;
      }
      close() {
        this.readyState = 2;
      }
    };
  }
  now = () => this.time;
  timeout = () => undefined;
  fetch = async () => {
    this.asked.push(this.time);
    return this.answer();
  };
  setTimeout = (call, wait) => {
    const timer = { call, at: this.time + wait };
    this.timers.push(timer);
    return timer;
  };
  clearTimeout = (timer) => {
    this.timers = this.timers.filter((other) => other !== timer);
  };
  /** Lets time pass, and what is due happen. */
  async pass(milliseconds) {
    const until = this.time + milliseconds;
    await settle();
    for (;;) {
      const [next] = this.timers.filter((timer) => timer.at <= until).sort((one, other) => one.at - other.at);
      if (!next) break;
      this.clearTimeout(next);
      this.time = next.at;
      next.call();
      await settle();
    }
    this.time = until;
  }
}

const settle = () => new Promise((done) => setImmediate(done));

function started() {
  const world = new World();
  const told = [];
  const live = new Live(world, {
    state: (state) => told.push(["state", state.version]),
    event: (event) => told.push(["event", event.kind]),
    health: ({ is }) => told.push(["health", is]),
  });
  live.start();
  return { world, told, live };
}

const last = (told, kind) => told.filter(([what]) => what === kind).at(-1)?.[1];

test("asks at once, opens the stream, and asks again every 5 s", async () => {
  const { world, told } = started();
  await world.pass(11_000);
  assert.deepEqual(world.asked, [0, 5000, 10_000]);
  assert.equal(world.streams.length, 1);
  assert.equal(last(told, "health"), "live");
  world.streams[0].onmessage({ data: '{"kind": "connect"}' });
  assert.equal(last(told, "event"), "connect");
});

test("asks sooner when the stream says so, but not more often than once a second", async () => {
  const { world } = started();
  await world.pass(100);
  for (let step = 0; step < 30; step += 1) {
    world.streams[0].heard.state();
    await world.pass(100);
  }
  assert.deepEqual(world.asked, [0, 1000, 2000, 3000]);
});

test("a stream that opens may have missed something: asks again", async () => {
  const { world } = started();
  await world.pass(100);
  world.streams[0].onopen();
  await world.pass(2000);
  assert.deepEqual(world.asked, [0, 1000]);
});

test("a change while an answer is on its way is asked for afterwards", async () => {
  const { world, live } = started();
  await world.pass(0);
  let answer;
  world.answer = () => new Promise((done) => (answer = done));
  live.ask();
  world.streams[0].heard.state();
  world.answer = () => ({ ok: true, json: async () => ({ version: 3 }) });
  answer({ ok: true, json: async () => ({ version: 2 }) });
  await world.pass(1000);
  assert.equal(world.asked.length, 3);
});

test("a server that goes is told of as stale at once when the stream breaks; one that returns is live again, with a stream", async () => {
  const { world, told } = started();
  await world.pass(100);
  world.answer = () => Promise.reject(new TypeError("Failed to fetch"));
  world.streams[0].readyState = 2;
  world.streams[0].onerror();
  await world.pass(0);
  assert.equal(last(told, "health"), "stale");
  await world.pass(8000);
  const asked = world.asked.map((at) => at - 100).slice(1);
  assert.deepEqual(asked, [0, 1000, 3000, 7000]);

  world.answer = () => ({ ok: true, json: async () => ({ version: 2 }) });
  await world.pass(5000);
  assert.deepEqual([last(told, "health"), last(told, "state"), world.streams.length], ["live", 2, 2]);
});

test("a server that doesn't want us is told of in its words", async () => {
  const { world, told } = started();
  world.answer = () => ({ ok: false, status: 401, text: async () => "a token is needed\n" });
  await world.pass(6000);
  assert.equal(last(told, "health"), "refused");
});

test("nobody looks: nothing is asked; somebody looks again: at once", async () => {
  const { world, live } = started();
  await world.pass(100);
  live.stop();
  await world.pass(60_000);
  assert.deepEqual([world.asked.length, world.streams[0].readyState], [1, 2]);
  live.start();
  await world.pass(0);
  assert.deepEqual([world.asked.length, world.streams.length], [2, 2]);
});

test("an answer that comes after nobody looks any more starts nothing", async () => {
  const { world, told, live } = started();
  live.stop();
  await world.pass(60_000);
  assert.deepEqual([told, world.streams.length, world.asked.length], [[], 0, 1]);
});

test("the reason of a failure: JSON's message and hint, a text, or the status", async () => {
  const answer = (text) => ({ status: 500, text: async () => text });
  assert.equal(await reasonOf(answer('{"error": {"message": "no such app", "hint": "look"}}')), "no such app; hint: look");
  assert.equal(await reasonOf(answer("a token is needed\n")), "a token is needed");
  assert.equal(await reasonOf(answer("")), "status 500");
});

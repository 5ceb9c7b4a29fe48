// What keeps the page up to date: /api/state again and again, and the stream of events beside it.
//
// Whether the server is there is told by one thing only, the last answer to /api/state. The stream says when to ask
// sooner; a stream that breaks is a reason to ask at once. Everything of the browser's comes in as `world`, so the tests
// have their own clock and network.

const REST = 5000; // ms between two questions when nothing has changed: rates fall by themselves
const SOONEST = 1000; // ms between two questions however much changes
const PATIENCE = 8000; // ms that an answer may take
const RETRY = [1000, 2000, 4000]; // ms, then REST

export class Live {
  /**
   * @param {{fetch, EventSource, setTimeout, clearTimeout, now: () => number, timeout: (ms) => AbortSignal}} world
   * @param {{state: (object) => void, event: (object) => void, health: ({is: string, reason: string, heard: ?number}) => void}} tell
   *   health `is`: "live"; "stale": the server doesn't answer; "refused": it does, but not to us. `heard`: ms, when it
   *   last answered
   */
  constructor(world, tell) {
    this.world = world;
    this.tell = tell;
    this.heard = null;
    this.failures = 0;
    this.stream = null;
    this.timer = null;
    this.asking = false;
    this.again = false;
    this.running = false;
  }

  start() {
    this.running = true;
    this.ask();
  }

  /** Nobody looks: no questions, no stream (a server that nobody observes has less to do). */
  stop() {
    this.running = false;
    this.world.clearTimeout(this.timer);
    this.closeStream();
  }

  async ask() {
    this.world.clearTimeout(this.timer);
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    const { state, error } = await this.fetchState().then((state) => ({ state }), (error) => ({ error }));
    this.asking = false;
    if (!this.running) return;
    this.failures = error ? this.failures + 1 : 0;
    this.later(error ? (RETRY[this.failures - 1] ?? REST) : this.again ? SOONEST : REST);
    this.again = false;
    if (error) {
      this.tell.health({ is: error.refused ? "refused" : "stale", reason: error.message, heard: this.heard });
    } else {
      this.heard = this.world.now();
      this.openStream();
      this.tell.health({ is: "live", reason: "", heard: this.heard });
      this.tell.state(state);
    }
  }

  async fetchState() {
    const answer = await this.world.fetch("api/state", { signal: this.world.timeout(PATIENCE), cache: "no-store" });
    if (answer.ok) return answer.json();
    const error = new Error(await reasonOf(answer));
    error.refused = answer.status === 401 || answer.status === 403;
    throw error;
  }

  later(wait) {
    this.world.clearTimeout(this.timer);
    this.timer = this.world.setTimeout(() => this.ask(), wait);
  }

  openStream() {
    if (this.stream && this.stream.readyState !== 2) return; // 2: closed for good, as after an error status
    this.stream = new this.world.EventSource("api/events");
    this.stream.onopen = () => this.changed(); // something may have, before it was open
    this.stream.onmessage = (message) => this.tell.event(JSON.parse(message.data));
    this.stream.addEventListener("state", () => this.changed());
    this.stream.onerror = () => this.broken();
  }

  closeStream() {
    this.stream?.close();
    this.stream = null;
  }

  changed() {
    if (this.asking) this.again = true;
    else this.later(Math.max(0, this.heard + SOONEST - this.world.now()));
  }

  broken() {
    if (this.running && !this.failures && !this.asking) this.later(0);
  }
}

/** What a failed answer says: the message and the hint of its JSON's `error`, else its text, else its status. */
export async function reasonOf(answer) {
  const text = await answer.text();
  try {
    const { message, hint } = JSON.parse(text).error;
    return hint ? `${message}; hint: ${hint}` : message;
  } catch {
    return text.trim().slice(0, 200) || `status ${answer.status}`;
  }
}

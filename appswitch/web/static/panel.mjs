// What a click shows beside the map: of an app its identity, its instances, its traffic, and who may reach it and why;
// of an edge what went over it and which rule decides.

import { html, refill, table } from "./dom.mjs";
import { wayOf } from "./draw.mjs";
import { kindOf } from "./graph.mjs";
import { reasonOf } from "./live.mjs";
import { ago, endpoint, perSecond, plain, several } from "./text.mjs";

const SHOWN = 100; // rows of a list
const FRESH = 5000; // ms that what was asked is good for

export class Panel {
  /** @param {HTMLElement} root  @param {{choose: (kind, key) => void, close: () => void}} act */
  constructor(root, act) {
    this.root = root;
    this.act = act;
    this.asked = new Map(); // path -> {at, answer: object|null, error: string|null}
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") act.close();
    });
  }

  hide() {
    this.root.hidden = true;
    this.showing = null;
    this.asked.clear();
  }

  /** @param graph  of buildGraph(), unfiltered and without bundles  @param {object} item  a card or an edge */
  show(graph, kind, item) {
    this.graph = graph;
    const isNew = this.showing !== `${kind} ${item.key}`;
    this.showing = `${kind} ${item.key}`;
    const render = () => {
      if (this.showing !== `${kind} ${item.key}`) return;
      const parts = kind === "edge" ? this.edgeParts(item, render) : this.cardParts(item, render);
      refill(this.root, ...parts);
    };
    this.root.hidden = false;
    render();
    if (isNew) {
      this.root.scrollTop = 0;
      this.root.focus({ preventScroll: true });
    }
  }

  // --- an app ---

  cardParts(card, render) {
    const [first] = [...card.apps, ...card.backends];
    const facts = [
      ["Name", plain(card.members.length ? "" : first?.name)],
      ["IP", plain(card.ip)],
      ["Host", plain(card.host)],
      ["Tags", card.tags.map(plain).join(" ")],
      ["State", card.state],
    ];
    const parts = [this.heading(card.title, card.kind), definitions(facts)];
    if (card.members.length) return [...parts, this.membersOf(card), this.traffic(card)];
    if (card.services.length) parts.push(...section("Serves", servedTable(card.services)));
    if (card.backends.length) parts.push(...section("Backends", backendTable(card.backends)));
    if (card.apps.length) parts.push(...section(several(card.apps.length, "instance"), instanceTable(card.apps)));
    parts.push(this.traffic(card));
    if (card.apps.length) parts.push(this.mayReach(card.apps[0], render));
    return parts;
  }

  membersOf(card) {
    const buttons = card.members.slice(0, SHOWN).map((member) => html("li", {}, this.button("card", member.key, label(member))));
    return html("section", {}, html("h3", {}, several(card.members.length, "card"), " drawn as one"), html("ul", { class: "members" }, ...buttons), more(card.members.length));
  }

  traffic(card) {
    const keys = new Set([card.key, ...card.members.map((member) => member.key)]);
    const edges = [...this.graph.edges.values()];
    const rows = [
      ...edges.filter((edge) => keys.has(edge.to)).map((edge) => ["from", edge.from, edge]),
      ...edges.filter((edge) => keys.has(edge.from)).map((edge) => ["to", edge.to, edge]),
    ];
    rows.sort(([, , one], [, , other]) => other.denied - one.denied || other.rate - one.rate || other.total - one.total);
    if (!rows.length) return html("section", {}, html("h3", {}, "Traffic"), html("p", {}, "None seen."));
    const lines = rows.slice(0, SHOWN).map(([way, key, edge]) => [
      way,
      this.button("card", key, label(this.graph.cards.get(key))),
      this.button("edge", edge.key, kindOf(edge), `kind ${kindOf(edge)}`),
      perSecond(edge.rate),
      edge.denied ? edge.total : edge.open,
    ]);
    return html("section", {}, html("h3", {}, "Traffic"), table(["", "App", "By", "Rate", "Open, or denied"], lines), more(rows.length));
  }

  mayReach(app, render) {
    const path = `api/app/${encodeURIComponent(app.node)}/${app.id}`;
    const { answer, error } = this.ask(path, render);
    const parts = [html("h3", {}, "Who may reach it, and why")];
    if (error) parts.push(html("p", { class: "error" }, plain(error)));
    else if (!answer) parts.push(html("p", {}, "asking"));
    else if (!answer.services.length) parts.push(html("p", {}, "Nobody: it serves nothing."));
    else if (!answer.clients.length) parts.push(html("p", {}, "No other app is there."));
    else parts.push(clientTable(answer.clients));
    if (answer?.siblings.length) {
      const shares = answer.siblings.slice(0, SHOWN).map((one) => `${plain(one.name ?? "unnamed")} (${plain(one.node)}/${one.id})`);
      parts.push(html("h3", {}, "Shares its address with"), html("p", {}, html("bdi", {}, shares.join(", "))), more(answer.siblings.length));
    }
    return html("section", { id: "may-reach" }, ...parts.filter(Boolean));
  }

  // --- an edge ---

  edgeParts(edge, render) {
    const { cards } = this.graph;
    const facts = [
      ["From", this.button("card", edge.from, label(cards.get(edge.from)))],
      ["To", this.button("card", edge.to, label(cards.get(edge.to)))],
      ["Medium", edge.denied ? "" : plain(edge.medium)],
      [edge.denied ? "Denied" : "Connects", String(edge.total)],
      ["Rate", perSecond(edge.rate)],
      ["Open", edge.denied ? "" : String(edge.open)],
      ["Refused", edge.refused ? `${edge.refused} times, by no rule` : ""],
      ["Rule", plain(edge.rule)],
      ["Last", edge.last ? `${ago(Date.now() / 1000 - edge.last)} ago` : ""],
    ];
    const parts = [this.heading(wayOf(edge, cards), edge.denied ? "denied" : edge.medium), definitions(facts)];
    const flow = edge.flows[0];
    if (flow?.server) parts.push(this.why(flow, render));
    return parts;
  }

  why({ client, server }, render) {
    const who = client.app == null ? client.ip : `${client.node}/${client.app}`;
    const query = new URLSearchParams({ client: who ?? "", dest: endpoint(server.ip ?? server.name, server.port) });
    const { answer, error } = this.ask(`api/why?${query}`, render);
    const parts = [html("h3", {}, "Why")];
    if (error) parts.push(html("p", { class: "error" }, plain(error)));
    else if (!answer) parts.push(html("p", {}, "asking"));
    else {
      parts.push(html("p", {}, verdict(answer.verdict), ` ${plain(answer.reason)}`, answer.rule ? ` (rule ${plain(answer.rule)})` : ""));
      const rows = answer.candidates.map((one) => [plain(one.name ?? one.ip), plain(one.node), verdict(one.allowed ? "allow" : "deny"), plain(one.rule), plain(one.reason)]);
      if (rows.length) parts.push(table(["Instance", "Host", "", "Rule", "Reason"], rows));
    }
    return html("section", { id: "why" }, ...parts);
  }

  // --- pieces ---

  heading(title, what) {
    const close = html("button", { class: "close", "aria-label": "Close", "data-key": "close", onclick: () => this.act.close() }, "×");
    return html("div", { class: "heading" }, html("h2", {}, html("bdi", {}, plain(title))), html("span", { class: "what" }, what), close);
  }

  button(kind, key, text, classes = "link") {
    return html("button", { type: "button", class: classes, "data-key": `${kind} ${key}`, onclick: () => this.act.choose(kind, key) }, html("bdi", {}, text));
  }

  /** What a path answers; asked again when it isn't fresh any more, and then `render` is called. */
  ask(path, render) {
    const known = this.asked.get(path) ?? { at: 0, answer: null, error: null };
    this.asked.set(path, known);
    if (Date.now() - known.at > FRESH) {
      known.at = Date.now();
      fetchJson(path).then((answer) => Object.assign(known, { answer, error: null }), (error) => Object.assign(known, { error: error.message })).then(render);
    }
    return known;
  }
}

async function fetchJson(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(await reasonOf(answer));
  return answer.json();
}

function label(card) {
  return card ? plain(card.host === null ? card.title : `${card.title} @${card.host}`) : "gone";
}

function section(title, ...children) {
  return [html("section", {}, html("h3", {}, title), ...children)];
}

function more(count) {
  return count > SHOWN ? html("p", {}, `and ${count - SHOWN} more`) : null;
}

function definitions(facts) {
  const rows = facts.filter(([, value]) => value).flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, html("bdi", {}, value))]);
  return html("dl", {}, ...rows);
}

function verdict(word) {
  return html("span", { class: `verdict ${/^[a-z]+$/.test(word) ? word : ""}` }, word);
}

function servedTable(services) {
  const rows = new Map();
  for (const { port, proto, scope, exposed, medium } of services) {
    const cells = [`${port}/${proto}`, scope === "app" ? "its own apps" : "all apps", medium, (exposed ?? []).map(plain).join(" ") || "no"];
    rows.set(cells.join(" "), cells);
  }
  return table(["Port", "To", "By", "Outside at"], [...rows.values()].slice(0, SHOWN));
}

function backendTable(backends) {
  const health = (backend) => (backend.health ?? []).map((one) => `${plain(one.gateway)}: ${plain(one.state)}`).join(" ");
  return table(["Port", "Backend", "State", "Seen by"], backends.slice(0, SHOWN).map((one) => [one.port, plain(one.backend), one.state, health(one)]));
}

function instanceTable(apps) {
  const rows = apps.slice(0, SHOWN).map((app) => [`${plain(app.node)}/${app.id}`, app.pid ?? "", app.state, plain((app.command ?? []).join(" ").slice(0, 300))]);
  return html("div", {}, table(["App", "Pid", "State", "Command"], rows), more(apps.length));
}

/** Who may reach an app and who not; clients of one name and host with the same verdict are one row. */
function clientTable(clients) {
  const groups = new Map();
  for (const { name, ip, node, port, proto, allowed, rule, reason } of clients) {
    const key = JSON.stringify([name ?? ip, node, port, proto, allowed, rule, reason]);
    const group = groups.get(key) ?? { name: plain(name ?? ip), node, port, proto, allowed, rule, reason, count: 0 };
    groups.set(key, { ...group, count: group.count + 1 });
  }
  const sorted = [...groups.values()].sort((one, other) => one.port - other.port || other.allowed - one.allowed || (one.name < other.name ? -1 : 1));
  const rows = sorted.slice(0, SHOWN).map((one) => [
    html("bdi", {}, one.name, one.count > 1 ? ` ×${one.count}` : "", html("small", {}, `@${plain(one.node)}`)),
    `${one.port}${one.proto === "udp" ? "/udp" : ""}`,
    verdict(one.allowed ? "allow" : "deny"),
    html("bdi", {}, plain(one.rule), html("small", {}, plain(one.reason))),
  ]);
  return html("div", {}, table(["Client", "Port", "", "Rule"], rows), more(sorted.length));
}
